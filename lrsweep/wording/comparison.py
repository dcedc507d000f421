"""What `compare` and `check` print."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lrsweep.errors import printable
from lrsweep.wording.words import plural

if TYPE_CHECKING:
    from lrsweep.results.check import Check, Verdict
    from lrsweep.results.compare import Change, Comparison, RowChange

CHANGED = {True: "changed", False: "no clear change", None: "no interval"}
UNITS = {
    "gain_share": "fraction of the improvement",
    "objective_mean": "objective, mean of {seeds}",
    "objective_median": "objective, median",
}
EDGES = {"low": "the lowest", "high": "the highest", "both": "the only one"}
SUMMARY_NOTE = (
    "Changes are B minus A, with 95 % intervals over seeds (rough with few seeds). best_objective is the "
    "mean over paired seeds at each side's best learning rate, with a t interval (the median if a mean is "
    "undefined; summary.csv has medians). All other numbers use medians over seeds, as in summary.csv."
)


def comparison_text(found: Comparison) -> str:
    """Two sweeps side by side."""
    lines = [f"A: {found.a}", f"B: {found.b}"]
    if found.differences:
        lines += ["", "The specs differ:", *(f"  {text}" for text in found.differences)]
    if caveats := [f"Caution: {text}" for text in _caveats(found)]:
        lines += ["", *caveats]
    for row in found.rows:
        lines += ["", f"{row.title} ({_basis(row)})", *(f"  {_change(change)}" for change in row.changes)]
        if caution := "; ".join(_cautions(row)):
            lines.append(f"  Caution: {caution}; a wider grid could change this result")
        if row.shared < 2:
            share = "only one learning rate" if row.shared else "no learning rate"
            lines.append(f"  {'sensitivity':<17} not comparable: the grids share {share}")
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
        what = " and ".join(found.tasks) if len(set(found.tasks)) > 1 else "not the same data"
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
    if found.grids_differ:
        yield (
            "The grids differ: sensitivity is computed over the learning rates that both have, everything "
            "else over each grid."
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
            yield f"{name}'s best learning rate is {EDGES[edge]} of its grid"
        if bound:
            yield f"{name}'s good range may extend past its grid (>=)"


def _change(change: Change) -> str:
    one = change.change
    same = one.value == one.low == one.high == 0
    if change.name == "best_lr":
        before, after = f"{change.before:.6g}", f"{change.after:.6g}"
        value, low, high = (f"{number:+.3g}" for number in (one.value, one.low, one.high))
    else:
        before, after, value, low, high = _rounded(change)
        before, after = (">= " * bound + text for bound, text in zip(change.at_least, (before, after), strict=True))
    if same:
        value = low = high = "+0"
    spread = "" if math.isnan(one.low) else f" [{low}, {high}]"
    unit = UNITS.get(change.unit, change.unit).format(seeds=plural(one.n, "seed"))
    verdict = "identical" if same else CHANGED[change.moved]
    return f"{change.name:<17} {before} -> {after}  ({value}{spread} {unit}: {verdict})"


def _rounded(change: Change) -> tuple[str, str, str, str, str]:
    """Before, after, change and its interval with as many decimals as the change needs, so that the shown values
    differ by the shown change; with four digits each where that would be too many."""
    one = change.change
    largest = max(abs(change.before), abs(change.after))
    if not math.isfinite(one.value) or not 0 < largest < 1e6:
        numbers = f"{change.before:.4g}", f"{change.after:.4g}"
        return *numbers, f"{one.value:+.4g}", f"{one.low:+.4g}", f"{one.high:+.4g}"
    four = 3 - math.floor(math.log10(largest))
    needed = 2 - math.floor(math.log10(abs(one.value))) if one.value else four
    places = max(0, min(max(four, needed), four + 4))
    before, after = (round(number, places) + 0.0 for number in (change.before, change.after))
    # Rounded bounds reach to the rounded change, which is that of the rounded values.
    value = round(after - before, places) + 0.0
    low, high = min(round(one.low, places), value) + 0.0, max(round(one.high, places), value) + 0.0
    numbers = f"{before:.{places}f}", f"{after:.{places}f}"
    return *numbers, f"{value:+.{places}f}", f"{low:+.{places}f}", f"{high:+.{places}f}"


def verdict_text(found: Verdict) -> str:
    """A line per check, and one for the whole."""
    lines = [f"{'ok    ' if one.ok else 'FAIL  '}  {one.optimizer}: {_check(one)}" for one in found.checks]
    broken = sum(not one.ok for one in found.checks)
    last = "all checks passed" if found.ok else f"{broken} of {len(found.checks)} checks failed"
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
        return "trained" if one.ok else f"nothing was trained: {why}"
    if isinstance(one.limit, tuple):
        return f"best lr {one.value:.3g} (required: {one.limit[0]:.3g} to {one.limit[1]:.3g})"
    if one.check == "max_sensitivity":
        return f"sensitivity {one.value:.4g} (limit: {one.limit:g})"
    if one.check == "max_diverged":
        return f"fraction of diverged runs {one.value:.3g} (limit: {one.limit:g})"
    where = ", or ends at runs that failed" if one.some_failed else "; widen the grid to know"
    hint = f" (it extends past the grid{where})" if one.at_least and not one.ok else ""
    return f"good range of {'>= ' * one.at_least}{one.value:.3g} decades (required: {one.limit:g}){hint}"
