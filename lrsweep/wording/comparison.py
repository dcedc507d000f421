"""What `compare` and `check` print."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lrsweep.errors import printable
from lrsweep.wording.words import interval_name, plural

if TYPE_CHECKING:
    from lrsweep.results.check import Check, Verdict
    from lrsweep.results.compare import Change, Comparison, RowChange

UNITS = {"decades": "decades", "objective": "objective", "gain_share": "fraction of the improvement"}
EDGES = {"low": "the lowest", "high": "the highest", "both": "the only one"}
SUMMARY_NOTE = (
    "A -> B are medians over seeds, as in summary.csv. In parentheses: B minus A seed by seed, with its mean and t "
    "interval. Changed: this interval excludes 0; for best_lr it allows for half a grid step on either side."
)


def comparison_text(found: Comparison) -> str:
    """Two sweeps side by side."""
    lines = [f"A: {found.a}", f"B: {found.b}"]
    if found.differences:
        lines += ["", "The specs differ:", *(f"  {text}" for text in found.differences)]
    if caveats := [f"Caution: {text}" for text in _caveats(found)]:
        lines += ["", *caveats]
    if found.same:
        return printable(
            "\n".join([*lines, "", f"identical: {plural(len(found.rows), 'setting')}, every number of every seed"])
        )
    for row in found.rows:
        lines += ["", f"{row.title} ({_basis(row)}): {_overall(row)}"]
        lines += (f"  {_change(change)}" for change in row.changes if not row.same)
        if row.changes and (caution := "; ".join(_cautions(row))):
            lines.append(f"  Caution: {caution}; a wider grid could change this result")
    alone = {
        "only in A": found.only_a,
        "only in B": found.only_b,
        "no finished run in A": found.unfinished_a,
        "no finished run in B": found.unfinished_b,
    }
    lines += ["", *(f"{where}: {name}" for where, names in alone.items() for name in names)]
    return printable("\n".join([*lines, *_notes(found)])).replace("\n\n\n", "\n\n").rstrip()


def _caveats(found: Comparison) -> Iterator[str]:
    """What the two sweeps do not have in common and no number below makes up for."""
    if found.tasks is not None:
        what = " and ".join(found.tasks) if len(set(found.tasks)) > 1 else "not the same arguments"
        yield f"the tasks differ ({what}): best_objective and sensitivity are not comparable across tasks."
    (metric_a, _), (metric_b, _) = found.objectives
    if metric_a != metric_b:
        good = "a good learning rate for one metric may be poor for the other"
        yield f"the objective is {metric_a} in A and {metric_b} in B: {good}."


def _notes(found: Comparison) -> Iterator[str]:
    if not found.same_objective:
        (metric_a, at_a), (metric_b, at_b) = found.objectives
        yield (
            f"The objectives differ (A: {metric_a}, {at_a}; B: {metric_b}, {at_b}): only unit-free numbers "
            "are compared."
        )
    if found.grids_differ and any(row.shared > 1 for row in found.rows):
        yield (
            "The grids differ: everything is computed over the learning rates that both have, so values may differ "
            "from summary.csv."
        )
    if found.seeds_differ:
        yield (
            "The seeds differ: everything is computed over the seeds that both have, so values may differ "
            "from summary.csv."
        )
    yield SUMMARY_NOTE


def _basis(row: RowChange) -> str:
    """Which seeds the numbers are over."""
    own = f"A has {row.seeds[0]}, B has {row.seeds[1]}"
    if row.paired < 2:
        return f"all seeds of each, unpaired: {own}"
    return f"{row.paired} paired seeds" + (f"; {own}" if {*row.seeds} != {row.paired} else "")


def _cautions(row: RowChange) -> Iterator[str]:
    """Which best rates lie at the end of their grid, and which good ranges may be wider than it shows."""
    for name, edge, bound in zip("AB", row.edges, row.at_least, strict=True):
        if edge:
            yield f"{name}'s best learning rate is {EDGES[edge]} of those compared"
        if bound:
            yield f"{name}'s good range may extend past its grid (>=)"


def _overall(row: RowChange) -> str:
    """The row in one sentence."""
    if row.same:
        return "identical"
    if not row.changes:
        share = "only one learning rate" if row.shared else "no learning rate"
        return f"not comparable: the grids share {share}"
    changed = [change.name for change in row.changes if change.verdict == "changed"]
    if changed:
        return f"changed: {', '.join(changed)}"
    few = all(change.verdict in ("too few seeds to tell", "identical") for change in row.changes)
    return "too few seeds to tell" if few else "no clear change"


def _change(change: Change) -> str:
    before, after = _digits(change.before, change.after)
    if change.same:
        return f"{change.name:<17} {'>= ' * change.at_least[0]}{before} (identical)"
    before, after = (">= " * bound + text for bound, text in zip(change.at_least, (before, after), strict=True))
    one = change.change
    if math.isnan(one.value):
        return f"{change.name:<17} {before} -> {after}  ({change.verdict})"
    spread = "" if math.isnan(one.low) else f" [{one.low:+.3g}, {one.high:+.3g}] {interval_name(one.n)}"
    return f"{change.name:<17} {before} -> {after}  ({one.value:+.3g} {UNITS[change.unit]}{spread}: {change.verdict})"


def _digits(before: float, after: float) -> tuple[str, str]:
    """Two numbers with as many digits, four or more, as it takes to tell them apart."""
    for digits in range(4, 18):
        texts = f"{before:.{digits}g}", f"{after:.{digits}g}"
        if texts[0] != texts[1] or before == after or math.isnan(before) or math.isnan(after):
            break
    return texts


def verdict_text(found: Verdict) -> str:
    """A line per check, and one for the whole."""
    lines = [f"{'ok    ' if one.ok else 'FAIL  '}  {one.optimizer}: {_check(one)}" for one in found.checks]
    broken = sum(not one.ok for one in found.checks)
    last = "all checks passed" if found.ok else f"{broken} of {plural(len(found.checks), 'check')} failed"
    if found.ok and all(one.check == "trained" for one in found.checks):
        last = "no limits given; every optimizer improved on the untrained model"
    lines.append(last if found.checks else "nothing was trained: the sweep has no finished run")
    parts = {"not run yet": found.not_run, "failed": found.failed}
    if listed := " and ".join(f"{n} {what}" for what, n in parts.items() if n):
        lines.append(f"incomplete: of {found.planned} planned runs, {listed}; the verdict is based on the rest")
    return printable("\n".join(lines))


def _check(one: Check) -> str:
    if one.check == "trained":
        why = "every run failed" if one.all_failed else "no run improved on the untrained model"
        why = "learning rates too small" if one.too_small else why
        return "trained" if one.ok else f"nothing was trained: {why}"
    if isinstance(one.limit, tuple):
        which = "recommended" if one.check == "recommended_lr_within" else "best"
        return f"{which} lr {one.value:.3g} (required: {one.limit[0]:.3g} to {one.limit[1]:.3g})"
    if one.check.startswith("max_sensitivity"):
        return f"sensitivity{_end(one)} {one.value:.4g} (limit: {one.limit:g})"
    if one.check == "max_default_regret":
        return f"regret at the default lr {one.value:.4g} (limit: {one.limit:g})"
    if one.check == "min_unusable_from":
        return f"unusable from {'> ' * one.at_least}{one.value:.3g} (required: {one.limit:g} or more)"
    if one.check == "max_diverged":
        return f"fraction of diverged runs {one.value:.3g} (limit: {one.limit:g})"
    where = ", or ends at runs that failed" if one.some_failed else "; widen the grid to know"
    hint = f" (it extends past the grid{where})" if one.at_least and not one.ok else ""
    return f"good range{_end(one)} of {'>= ' * one.at_least}{one.value:.3g} decades (required: {one.limit:g}){hint}"


def _end(one: Check) -> str:
    """Which end of an interval a check is on."""
    name = {"low": " (low end of the interval)", "high": " (high end of the interval)"}
    return name.get(one.check.partition(":")[2], "")
