"""The tables of the report: facts in, HTML out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from lrsweep.analysis.facts import Interval, OptimizerFacts, RatePoint, SweepFacts, title
from lrsweep.report.template import TableCell, table
from lrsweep.wording.words import number_text, plural, rate_text

if TYPE_CHECKING:
    import pandas as pd

MOST_FAILURES = 50


def rate(value: float) -> TableCell:
    return TableCell("" if math.isnan(value) else rate_text(value), value)


def number(value: float, *, at_least: bool = False, note: str = "") -> TableCell:
    text = "" if math.isnan(value) else ("≥ " if at_least else "") + number_text(value, 4)
    return TableCell(text, value, note)


def with_interval(one: Interval) -> TableCell:
    """A number with its interval."""
    known = math.isfinite(one.low) and math.isfinite(one.high)
    return number(one.value, note=f"[{number_text(one.low)}, {number_text(one.high)}]" if known else "")


def count(value: int) -> TableCell:
    return TableCell(str(value), float(value))


def numbers(facts: SweepFacts) -> list[str]:
    """Three tables with a line per row of summary.csv."""
    return [
        table("Best rates and the range that is nearly as good", _BEST, map(_best_row, facts.rows)),
        table("Sensitivity to the rate", _SENSITIVE, map(_sensitive_row, facts.rows)),
        table("What the grid costs", _GRID, map(_grid_row, facts.rows)),
    ]


_BEST = (
    "curve", "best rate", "interval", "best objective", "recommended", "good from", "to", "decades",
    "rates not told from the best", "diverges from", "largest that trains",
)  # fmt: skip


def _best_row(row: OptimizerFacts) -> list[TableCell | str]:
    best, edge = (
        row.best_lr,
        {"": "", "low": "lowest of the grid", "high": "highest of the grid"}.get(row.edge_side, "only rate"),
    )
    return [
        row.title,
        TableCell(rate(best.value).text, best.value, edge),
        TableCell(f"{rate_text(best.low)} to {rate_text(best.high)}" if math.isfinite(best.low) else "", best.low),
        number(row.best_objective),
        rate(row.recommended_lr),
        rate(row.good_range.low),
        rate(row.good_range.high),
        number(round(row.good_range.decades, 3), at_least=row.good_range.at_least),
        count(len(row.near_tied_lrs)),
        rate(row.margins.diverges_from),
        rate(row.margins.largest_safe_lr),
    ]


_SENSITIVE = (
    "curve",
    "S",
    "over the grid",
    "S / (l0 - best)",
    "S, three decades",
    "window",
    "1 % basin, decades",
    "margin, decades",
)


def _sensitive_row(row: OptimizerFacts) -> list[TableCell | str]:
    s = row.sensitivity
    window = f"{rate_text(s.window_low)} to {rate_text(s.window_high)}" if math.isfinite(s.window) else "grid too short"
    return [
        row.title,
        with_interval(s.whole),
        f"{rate_text(s.range_low)} to {rate_text(s.range_high)}",
        with_interval(s.norm),
        number(s.window),
        window,
        number(round(row.good_range_1pct.decades, 3), at_least=row.good_range_1pct.at_least),
        number(round(row.margins.margin, 3), at_least=row.margins.censored),
    ]


_GRID = (
    "curve", "untrained", "best", "median rate", "worst rate", "default rate", "at the default", "regret there",
    "1 try", "3 tries", "5 tries", "runs", "diverged", "failed",
)  # fmt: skip


def _grid_row(row: OptimizerFacts) -> list[TableCell | str]:
    tries = [row.expected_best[k - 1] if k <= len(row.expected_best) else math.nan for k in (1, 3, 5)]
    about = "~" if row.default.interpolated else ""
    return [
        row.title,
        number(row.initial_objective),
        number(row.best_objective),
        number(row.median_objective),
        number(row.worst_objective),
        rate(row.default.lr),
        number(row.default.objective, note=about),
        number(row.default.regret, note=about),
        *(number(value) for value in tries),
        count(row.n_runs),
        count(row.n_diverged),
        count(row.n_failed),
    ]


_RATE = (
    "rate",
    "median",
    "best seed",
    "worst seed",
    "ok",
    "diverged",
    "failed",
    "good range",
    "not told from the best",
    "updates to target",
    "arrived",
)


def rates(row: OptimizerFacts) -> str:
    """A line per grid rate."""
    near = row.near_tied_lrs
    return table(f"{row.title}, rate by rate", _RATE, (_rate_row(point, point.lr in near) for point in row.rates))


def _rate_row(point: RatePoint, tied: bool) -> list[TableCell | str]:
    return [
        rate(point.lr),
        number(point.objective),
        number(point.best),
        number(point.worst),
        count(point.n_ok),
        count(point.n_diverged),
        count(point.n_failed),
        "yes" if point.in_good_range else "",
        "yes" if tied else "",
        TableCell("never", point.time) if point.time == math.inf else number(point.time),
        number(point.arrived),
    ]


# --- comparisons --------------------------------------------------------------------------------------------------


def against_adam(facts: SweepFacts) -> str:
    """The best of every other optimizer against Adam at its default rate."""
    names = (
        "curve",
        "its best rate",
        "its objective",
        f"{facts.adam} at",
        "its objective there",
        "gain over it",
        "verdict",
    )
    return table(
        f"Against {facts.adam} at its default rate (gain: how much lower the cost is, paired by seed)",
        names,
        (
            [
                title(one.optimizer, one.axes),
                rate(one.best_lr),
                number(one.best_objective),
                rate(one.adam_lr),
                number(one.adam_objective),
                with_interval(one.gain),
                f"cannot be told apart with {plural(one.gain.n, 'seed')}" if one.verdict == "tied" else one.verdict,
            ]
            for one in facts.against_adam
        ),
    )


def drifts(facts: SweepFacts) -> str:
    return table(
        "How the best rate moves (slope in decades of rate per decade)",
        ("curve", "against", "from", "to", "best rates", "slope"),
        (
            [
                title(one.optimizer, one.fixed),
                "budget in updates" if one.against == "budget" else one.against,
                number(one.values[0]),
                number(one.values[-1]),
                ", ".join(rate_text(value) for value in one.best_lrs),
                with_interval(one.slope),
            ]
            for one in facts.drifts
            if one.values
        ),
    )


def ratios(facts: SweepFacts) -> str:
    return table(
        "Best rates relative to the first optimizer",
        ("curve", "relative to", "best rate over its"),
        ([title(one.optimizer, one.axes), one.reference, with_interval(one.ratio)] for one in facts.ratios),
    )


# --- diagnosis ----------------------------------------------------------------------------------------------------

LABELS = (
    "too_slow", "improving", "converged", "recovered_spike", "oscillating", "stuck", "worse_than_start", "diverged",
    "failed", "",
)  # fmt: skip


def diagnoses(facts: SweepFacts) -> str:
    """How many runs of each row got which label."""
    counts = [dict(row.diagnoses) for row in facts.rows]
    known = [label for label in LABELS if any(label in one for one in counts)]
    known += sorted({label for one in counts for label in one} - set(LABELS))
    rows: Iterable[list[TableCell | str]] = (
        [row.title, *(count(one.get(label, 0)) for label in known)] for row, one in zip(facts.rows, counts, strict=True)
    )
    names = ("curve", *(label or "too few rows" for label in known))
    return table("Runs by diagnosis (of train_loss alone)", names, rows)


def diagnosis_by_rate(row: OptimizerFacts) -> str:
    """What became of each rate: its labels over the seeds."""

    def line(point: RatePoint) -> list[TableCell | str]:
        labels = Counter(run.diagnosis or run.status for run in row.runs if run.lr == point.lr)
        text = ", ".join(name if n == 1 and point.n_runs == 1 else f"{name} x{n}" for name, n in labels.most_common())
        return [rate(point.lr), text]

    names = ("rate", "diagnosis of train_loss over seeds")
    return table(f"{row.title}, diagnosis by rate", names, map(line, row.rates))


def failures(runs: pd.DataFrame) -> str:
    """The failed runs with the first line of what they raised."""
    failed = runs[runs["status"] == "failed"]
    few = failed.head(MOST_FAILURES)
    lines: Iterable[list[TableCell | str]] = (
        [str(label), rate(float(lr)), count(int(seed)), str(error).split("\n", 1)[0]]
        for label, lr, seed, error in zip(few["optimizer"], few["lr"], few["seed"], few["error"], strict=True)
    )
    caption = f"Failed runs ({len(failed)}" + (f", the first {MOST_FAILURES})" if len(failed) > MOST_FAILURES else ")")
    return table(caption, ("curve", "rate", "seed", "error"), lines)
