"""`check`: does every optimizer of a sweep hold the limits?"""

from __future__ import annotations

import itertools
import math
import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep.errors import UsageError, WrongOption
from lrsweep.results import tables
from lrsweep.results.status import status
from lrsweep.wording.comparison import verdict_text

if TYPE_CHECKING:
    from lrsweep.results.results import Results

ROUNDING = 1e-9
"""A limit is held if it is missed by rounding only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One limit on one row of the summary. `optimizer` carries the axis values too; `limit`: two rates for a range.

    `at_least`: the value is a lower bound, of a good range that runs out of the grid or, where `some_failed`, maybe
    into runs that failed. `all_failed`: no run of the row is left; `too_small`: its rates were. `check` names the limit
    and, after a colon, the end of the interval that it was held against.
    """

    optimizer: str
    check: str
    value: float
    limit: float | tuple[float, float]
    ok: bool
    at_least: bool = False
    some_failed: bool = False
    all_failed: bool = False
    too_small: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`ok` if there is a row and every check of every row holds. Of the `planned` runs `not_run` have no result yet and
    `failed` failed.

    >>> verdict = lrsweep.check("results/sweep", max_diverged=0.1)
    >>> [(one.optimizer, one.check, one.value, one.ok) for one in verdict.checks]
    [('sgd', 'max_diverged', 0.0, True), ('adam', 'max_diverged', 0.0, True)]
    """

    ok: bool
    checks: tuple[Check, ...]
    planned: int = 0
    not_run: int = 0
    failed: int = 0

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`; nan and inf become the texts "nan" and "inf", which JSON has no numbers for."""
        checks = [
            {
                "optimizer": c.optimizer,
                "check": c.check,
                "value": json_value(c.value),
                "limit": json_value(c.limit),
                "ok": c.ok,
            }
            for c in self.checks
        ]
        return {"ok": self.ok, "checks": checks}

    def text(self) -> str:
        """For a terminal."""
        return verdict_text(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What every row must hold; None asks for nothing."""

    min_basin_decades: float | None = None
    max_sensitivity: float | None = None
    max_diverged: float | None = None
    best_lr_within: tuple[float, float] | None = None
    recommended_lr_within: tuple[float, float] | None = None
    max_default_regret: float | None = None
    min_unusable_from: float | None = None
    worst_end: bool = False
    """Hold the width of the good range and S against the worse ends of their intervals over seeds."""


def check(
    results: Results | Path | str, *, optimizer: str | None = None, min_basin_decades: float | None = None,
    max_sensitivity: float | None = None, max_diverged: float | None = None,
    best_lr_within: tuple[float, float] | None = None, recommended_lr_within: tuple[float, float] | None = None,
    max_default_regret: float | None = None, min_unusable_from: float | None = None, worst_end: bool = False,
) -> Verdict:  # fmt: skip
    """Hold a sweep, its folder or its Results, against limits; without any, that every optimizer improved.

    Limits are those of `lrsweep check`. Raises UsageError, StorageError.

    >>> lrsweep.check("results/sweep", min_basin_decades=0.5, recommended_lr_within=(1e-3, 1)).ok
    True
    """
    limits = Limits(
        min_basin_decades=min_basin_decades, max_sensitivity=max_sensitivity, max_diverged=max_diverged,
        best_lr_within=best_lr_within, recommended_lr_within=recommended_lr_within,
        max_default_regret=max_default_regret, min_unusable_from=min_unusable_from, worst_end=worst_end,
    )  # fmt: skip
    _check_limits(limits)
    folder = tables.folder_of(results)
    tables.ensure(folder)
    found = check_summary(tables.read_summary(folder).to_dict("records"), limits, optimizer=optimizer)
    try:
        counts = status(folder)
    except UsageError:  # tables beside a journal that planned nothing: what there is, is all
        return found
    return replace(found, planned=counts.total, not_run=counts.to_do - counts.failed, failed=counts.failed)


def check_summary(summary: Sequence[Mapping[Any, Any]], limits: Limits, *, optimizer: str | None = None) -> Verdict:
    """The verdict on the rows of summary.csv, each with its columns in their order.

    A row that trained nothing (its good range is nan) is broken whatever the limits. nan holds no limit. A censored one
    counts with the width that was seen. The share of diverged runs is among those that did not fail.

    Raises UsageError if no row belongs to `optimizer`.
    """
    rows = [row for row in summary if optimizer in (None, row["optimizer"])]
    if optimizer is not None and not rows:
        known = ", ".join(dict.fromkeys(str(row["optimizer"]) for row in summary))
        raise WrongOption("optimizer", optimizer, f"no such optimizer label (have: {known or 'none'})")
    checks = [one for row in rows for one in _checks(row, limits)]
    return Verdict(ok=bool(checks) and all(one.ok for one in checks), checks=tuple(checks))


def _checks(row: Mapping[Any, Any], limits: Limits) -> list[Check]:
    axes = itertools.takewhile(lambda column: column != "best_lr", itertools.islice(row, 1, None))
    name = ", ".join([str(row["optimizer"]), *(f"{axis}={_axis_text(row[axis])}" for axis in axes)])
    width = float(row["basin_decades"])
    failed = int(row["n_failed"])
    alive = int(row["n_runs"]) - failed
    share = int(row["n_diverged"]) / alive if alive else math.nan
    censored = any(bool(row.get(f"basin_{side}_censored", False)) for side in ("low", "high"))
    # What is checked, its value and limit, and the least and the greatest value that hold it (nan is neither).
    found: list[tuple[str, float, float | tuple[float, float], float, float]] = []
    least, most_s = ("basin_decades_low", "sensitivity_high") if limits.worst_end else ("basin_decades", "sensitivity")
    ends = (":low", ":high") if limits.worst_end else ("", "")
    if (low := limits.min_basin_decades) is not None:
        found.append((f"min_basin_decades{ends[0]}", _number(row, least), low, low - ROUNDING, math.inf))
    if (top := limits.max_sensitivity) is not None:
        found.append((f"max_sensitivity{ends[1]}", _number(row, most_s), top, -math.inf, _above(top)))
    if (most := limits.max_diverged) is not None:
        found.append(("max_diverged", share, most, -math.inf, most + ROUNDING))
    for column in ("best_lr", "recommended_lr"):
        if (within := getattr(limits, f"{column}_within")) is not None:
            low, high = within[0] * (1 - ROUNDING), within[1] * (1 + ROUNDING)
            found.append((f"{column}_within", _number(row, column), within, low, high))
    if (regret := limits.max_default_regret) is not None:
        found.append(("max_default_regret", _number(row, "default_regret"), regret, -math.inf, _above(regret)))
    unusable = _number(row, "unusable_from")
    # No rate of the grid was unusable: what is above its top is not known.
    beyond = math.isnan(unusable) and bool(row.get("margin_censored", False))
    if (lowest := limits.min_unusable_from) is not None:
        value = _number(row, "sensitivity_range_high") if beyond else unusable
        found.append(("min_unusable_from", value, lowest, lowest * (1 - ROUNDING), math.inf))
    if not found or math.isnan(width):
        found.append(("trained", float(not math.isnan(width)), 1.0, 1.0, 1.0))
    return [
        Check(
            optimizer=name, check=check, value=value, limit=limit, ok=least <= value <= greatest,
            at_least=beyond if check == "min_unusable_from" else censored and check.startswith("min_basin_decades"),
            some_failed=failed > 0, all_failed=failed > 0 and not alive,
            too_small=bool(row.get("rates_too_small", False)),
        )
        for check, value, limit, least, greatest in found
    ]  # fmt: skip


def _axis_text(value: object) -> str:
    """As the spec writes it, where a column of numbers made a float of an integer."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _number(row: Mapping[Any, Any], column: str) -> float:
    """nan, which holds no limit, where a table of an older version lacks the column."""
    return float(row.get(column, math.nan))


def _above(limit: float) -> float:
    return limit + ROUNDING * max(1.0, abs(limit))


def _check_limits(limits: Limits) -> None:
    """Limits that no sweep could be judged by are the user's mistake."""
    for option in ("min_basin_decades", "max_sensitivity", "max_default_regret", "min_unusable_from"):
        value = getattr(limits, option)
        if value is not None and not (_is_number(value) and math.isfinite(value) and value >= 0):
            raise WrongOption(option, value, "must be a finite number, 0 or more")
    if (share := limits.max_diverged) is not None and not (_is_number(share) and 0 <= share <= 1):
        raise WrongOption("max_diverged", share, "must be a fraction of the runs, from 0 to 1")
    for option in ("best_lr_within", "recommended_lr_within"):
        if (ends := getattr(limits, option)) is None:
            continue
        pair = isinstance(ends, tuple | list) and len(ends) == 2 and all(map(_is_number, ends))
        if not (pair and 0 < ends[0] <= ends[1] < math.inf):
            raise WrongOption(option, ends, "give two learning rates above 0, the lower one first")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def json_value(value: float | tuple[float, float]) -> Any:
    """A number for `json.dumps`, which has none for nan and inf: these become text."""
    if isinstance(value, tuple):
        return list(value)
    return value if math.isfinite(value) else repr(value)
