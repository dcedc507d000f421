"""The tables and sentences that the command line prints, made from facts."""

from __future__ import annotations

import math
import shlex
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lrsweep.analysis.facts import cost_span
from lrsweep.objective import Mode, cost
from lrsweep.results.figures import SUFFIX
from lrsweep.system.machine import size_text
from lrsweep.wording import words
from lrsweep.wording.answer import answer
from lrsweep.wording.grouped import few_warnings
from lrsweep.wording.verdict import verdict
from lrsweep.wording.words import compact, duration, plural

if TYPE_CHECKING:
    import pandas as pd

    from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
    from lrsweep.analysis.lr_finder import RangeTest
    from lrsweep.results.batch_job import BatchJob
    from lrsweep.results.status import SweepStatus
    from lrsweep.sweep.dry_run import CostEstimate
    from lrsweep.sweep.submit import Submitted

MOST_FAILURES = 20


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Aligned columns, two spaces apart; the columns in `right` stand flush right."""
    lines = [[" ".join(cell.split()) for cell in row] for row in (head, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    aligned = (
        "  ".join(
            cell.rjust(w) if i in right else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
    return "\n".join(line.rstrip() for line in aligned)


def can_show_blocks() -> bool:
    """Whether stdout has block characters."""
    return "utf" in (sys.stdout.encoding or "").lower()


def summary(facts: SweepFacts, folder: Path, *, unicode: bool = True) -> str:
    """What a finished sweep says, the same as its report: the choice, a line per optimizer, the U-curves as text, what
    to know before believing it, where the files are. `unicode=False` keeps to ASCII."""
    if facts.all_failed:
        return f"{facts.name}: every run failed; no results\n\n{folder}/: report.html, runs.csv"
    choice, rest = verdict(facts)
    head, rows = answer(facts)
    lines = [
        f"{facts.name}: {choice[:1].lower()}{choice[1:]}" if choice else facts.name,
        *textwrap.wrap(rest, WIDTH, break_on_hyphens=False),
        "",
        words.budget_line(facts),
    ]
    if facts.one_rate:  # no grid of learning rates: nothing that is said of one
        lines += [table(head, rows, right=(1,))]
    else:
        lines += [table(head, rows, right=(1, 4, 5, 6)), "", u_curves(facts, unicode=unicode)]
    if warnings := few_warnings(facts):
        lines += ["", *(f"- {text}" for text in warnings)]
    studies = sorted(path.name for path in folder.glob("by_*.png") if SUFFIX not in path.name)
    files = ["report.html", "u_curve.png", "loss_curves.png", *studies, "runs.csv", "curves.csv", "summary.csv"]
    there = [name for name in files if (folder / name).exists()]
    return "\n".join([*lines, "", f"{folder}/: {', '.join(there)}"])


def failures(runs: pd.DataFrame, place: str = "") -> str:
    """What the failed runs raised, first lines: each text once, with how many it is of and the first of them. `place`:
    where the spec names code of the user's, which is to blame where every run failed."""
    failed = runs[runs["status"] == "failed"]
    by_text = words.failures_by_text(failed)
    rows = []
    for text, of_text in list(by_text.items())[:MOST_FAILURES]:
        first = of_text[0]
        rows.append((str(len(of_text)), str(first.run_id), str(first.optimizer), repr(first.lr), str(first.seed), text))
    cure = "rerun the command to retry them"
    if len(failed) == len(runs) and place:
        cure = f"correct the code that {place} names, then rerun the command"
    lines = [
        f"{len(failed)} of {plural(len(runs), 'run')} failed; {cure}",
        table(("runs", "first run", "optimizer", "lr", "seed", "error"), rows, right=(0, 3, 4)),
    ]
    if len(by_text) > len(rows):
        lines.append(f"... and {len(by_text) - len(rows)} more errors; see the `error` column of runs.csv")
    return "\n".join(lines)


def nothing_to_train(total: int) -> str:
    """Of a sweep whose runs are all done."""
    return f"nothing to train: {_all_done(total)} (--fresh retrains)"


def nothing_to_submit(total: int) -> str:
    """The same, where a job would have nothing to do."""
    return f"nothing to submit: {_all_done(total)}"


def _all_done(total: int) -> str:
    return "the run is done" if total == 1 else f"all {total} runs are done"


def estimate(facts: CostEstimate) -> str:
    """What a dry run found."""
    engines = ", ".join(f"{count} {engine}" for engine, count in facts.engines.items())
    long = "less than 1 s" if facts.seconds < 1 else f"about {duration(facts.seconds)}"
    processes = f"{plural(facts.workers, 'process')} on {facts.device}"
    timed = f"{long} of training with {processes}, plus a few seconds for startup and plots"
    short = f", but only {size_text(facts.free_bytes)} are free" if facts.bytes > facts.free_bytes else ""
    rows = [
        ("runs", f"{facts.runs}: {facts.done} done, {facts.to_do} to do"),
        ("groups", f"{facts.groups}" + (f" ({engines})" if engines else "")),
        ("optimizer steps", f"{facts.run_steps}"),
        ("time", timed if math.isfinite(facts.seconds) else "unknown: no step could be timed"),
        ("disk", f"about {size_text(facts.bytes)}{short}"),
        ("folder", facts.path),
        *(("one at a time", reason) for reason in facts.reasons),
    ]
    if facts.restarting:
        runs = plural(facts.restarting, "run")
        rows.append(("if stopped", f"{runs} may start over: their code may keep what no checkpoint can hold"))
    rows += [("fails", error) for error in facts.errors]
    if not facts.to_do:
        rows = [row for row in rows if row[0] in ("runs", "folder")]
    width = max(len(name) for name, _ in rows)
    return "\n".join(
        [f"{facts.name} (dry run: nothing trained, nothing written)", *(f"  {n.ljust(width)}  {v}" for n, v in rows)]
    )


def submitted(made: Submitted) -> str:
    """What was submitted, how to watch it and how to cancel it."""
    found = made.estimate
    rows = [
        ("folder", f"{found.path}/"),
        ("log", f"{made.folder}/{made.job}_0_log.err"),
        ("watch", f"lrsweep status {shlex.quote(found.path)}"),
        ("cancel", made.cancel),
    ]
    runs, lines = plural(found.to_do, "run"), [f"  {name:<6}  {value}" for name, value in rows]
    return "\n".join([f"{found.name}: submitted as {_of_cluster(made.cluster)} {made.job}, {runs} to train", *lines])


def status(facts: SweepStatus) -> str:
    """Done, to do, failed of one sweep, and its job."""
    if facts.job is not None and not facts.total:
        return f"{facts.name} ({facts.path}): nothing trained yet; {_job(facts.job, unfinished=True)}"
    parts = [
        f"{facts.done} of {plural(facts.total, 'run')} done",
        f"{facts.to_do} to do",
        f"{facts.diverged} diverged",
        f"{facts.failed} failed",
    ]
    if facts.outside:
        parts.append(f"{facts.outside} obsolete (no longer in the spec)")
    if facts.busy:
        parts.append("running now")
    job = f"; {_job(facts.job, unfinished=facts.to_do > 0)}" if facts.job is not None else ""
    return f"{facts.name} ({facts.path}): {', '.join(parts)}{job}"


def _job(job: BatchJob, *, unfinished: bool) -> str:
    name = f"{_of_cluster(job.cluster)} {job.id}"
    if job.state == "unknown":
        return f"cannot ask about {name}: {job.detail}"
    detail = f" ({job.detail})" if job.detail else ""
    log = f", see {job.log}" if job.state == "done" and unfinished else ""
    return f"{name} is {job.state}{detail}{log}"


def _of_cluster(cluster: str) -> str:
    return "SLURM job" if cluster == "slurm" else "local job"


def range_test_axes(found: RangeTest) -> str:
    """Which of its axis values a range test was made at; empty for a spec without axes."""
    if not found.axes:
        return ""
    used = (
        f"{one.axis}={one.value} ({'of' if one.value in one.listed else 'not among'} {', '.join(one.listed)})"
        for one in found.axes
    )
    return f"axes: {', '.join(used)}; --set KEY=VALUE chooses another value"


def range_test(found: RangeTest) -> str:
    """What every rule of the finder suggests, and what following it would cost by the sweep's U-curve."""
    head = ("optimizer", "rule", "suggested lr", "regret", "")
    early = words.NOT_FALLEN
    rows = [
        (one.label, rule, words.rate_text(lr), words.number_text(one.regret(rule)), early * (rule in one.unmoved))
        for one in found.results
        for rule, lr in one.suggested.items()
    ]
    spread = [
        f"{one.label}: suggestions span {words.number_text(one.spread, 2)} decades"
        + (f"; the sweep's best is {words.rate_text(one.best_lr)}" if math.isfinite(one.best_lr) else "")
        + (f"; {one.ramp.stopped}" if one.ramp.stopped else "")
        for one in found.results
    ]
    known = (
        f"regret: how far {words.objective_text(found.facts)} there is from that of the best learning rate tried, read "
        "off the sweep's U-curve; -: outside its grid"
        if found.facts is not None
        else ""
    )
    unknown = "no finished sweep to compare with; run `lrsweep run` first to get the regret of each rule"
    head_line = f"lr ramped from {found.low:g} to {found.high:g} over {found.steps} steps (seed {found.seed})"
    return "\n".join(
        [
            f"{head_line}; each suggestion is a single noisy estimate",
            "",
            table(head, rows, right=(2, 3)),
            "",
            *spread,
            unknown if found.facts is None else known,
            "per_unit is biased toward the low end and shown only as a warning",
            f"written: {', '.join(str(path) for path in found.files)}",
        ]
    )


BLOCKS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+oO#"
USE, DIVERGED, FAILED = "*", "x", "?"
WIDTH = 110
"""Letters of a line of a paragraph."""
MOST_COLUMNS = 58


def u_curves(facts: SweepFacts, *, unicode: bool = True) -> str:
    """Every curve of the sweep on one rate axis, lower is better: `*` is the rate to use, `x` a rate that diverged.

    The heights run from the best median of the sweep to its untrained model. Where nothing improved on that by more
    than a trace, all are as high as it: no cliff is made of a difference of 4e-6. `unicode=False` keeps to ASCII. Empty
    without a finished run.
    """
    rates = sorted({point.lr for row in facts.rows for point in row.rates})
    if not rates:
        return ""
    columns = _columns(rates)
    low, high = cost_span(facts.rows, facts.mode)
    if not any(row.trained and not row.rates_too_small for row in facts.rows):
        low = high
    width = max(len(row.title) for row in facts.rows)
    marks = BLOCKS if unicode else PLAIN
    lines = [f"{row.title:<{width}}  {_line(row, facts.mode, columns, (low, high), marks)}" for row in facts.rows]
    first, last = compact(rates[0]), compact(rates[-1])
    count = max(columns.values()) + 1
    axis = f"{first}{last:>{max(count - len(first), len(last) + 1)}}"
    legend = f"{USE} use  {DIVERGED} diverged" + (f"  {FAILED} failed" if facts.n_failed else "")
    legend += "  lower is better"
    return "\n".join([*lines, f"{'lr':<{width}}  {axis}   {legend}"])


def _columns(rates: Sequence[float]) -> dict[float, int]:
    """The column of each rate: its place in the grid, or, if there are too many, its place on a log axis."""
    if len(rates) <= MOST_COLUMNS:
        return {rate: column for column, rate in enumerate(rates)}
    start, span = math.log10(rates[0]), math.log10(rates[-1] / rates[0])
    return {rate: round((math.log10(rate) - start) / span * (MOST_COLUMNS - 1)) for rate in rates}


def _line(row: OptimizerFacts, mode: Mode, columns: dict[float, int], limits: tuple[float, float], marks: str) -> str:
    """The worse of two rates that share a column is not shown."""
    low, high = limits
    shown: dict[int, tuple[float, str]] = {}
    for point in row.rates:
        value = cost(point.objective, mode)
        if point.lr == row.recommended_lr and row.trained:
            rank, mark = -math.inf, USE
        elif math.isfinite(value):
            share = (value - low) / (high - low) if high > low else 1.0
            rank, mark = value, marks[min(len(marks) - 1, max(0, int(share * len(marks))))]
        else:
            rank, mark = math.inf, DIVERGED if point.n_diverged else FAILED
        column = columns[point.lr]
        if column not in shown or rank < shown[column][0]:
            shown[column] = (rank, mark)
    return "".join(shown[column][1] if column in shown else " " for column in range(max(columns.values()) + 1))
