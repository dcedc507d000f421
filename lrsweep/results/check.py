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
    into runs that failed. `all_failed`: no run of the row is left.
    """

    optimizer: str
    check: str
    value: float
    limit: float | tuple[float, float]
    ok: bool
    at_least: bool = False
    some_failed: bool = False
    all_failed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`ok` if there is a row and every check of every row holds. Of the `planned` runs `not_run` have no result yet and
    `failed` failed."""

    ok: bool
    checks: tuple[Check, ...]
    planned: int = 0
    not_run: int = 0
    failed: int = 0

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`; nan and inf become the texts "nan" and "inf", which JSON has no numbers for."""
        checks = [
            {"optimizer": c.optimizer, "check": c.check, "value": _plain(c.value), "limit": _plain(c.limit), "ok": c.ok}
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


def check(
    results: Results | Path | str, *, optimizer: str | None = None, min_basin_decades: float | None = None,
    max_sensitivity: float | None = None, max_diverged: float | None = None,
    best_lr_within: tuple[float, float] | None = None,
) -> Verdict:  # fmt: skip
    """Hold a sweep, its folder or its Results, against limits. Raises UsageError, StorageError."""
    limits = Limits(
        min_basin_decades=min_basin_decades, max_sensitivity=max_sensitivity, max_diverged=max_diverged,
        best_lr_within=best_lr_within,
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
    name = ", ".join([str(row["optimizer"]), *(f"{axis}={row[axis]}" for axis in axes)])
    width, s, best = (float(row[column]) for column in ("basin_decades", "sensitivity", "best_lr"))
    failed = int(row["n_failed"])
    alive = int(row["n_runs"]) - failed
    share = int(row["n_diverged"]) / alive if alive else math.nan
    censored = any(bool(row.get(f"basin_{side}_censored", False)) for side in ("low", "high"))
    # What is checked, its value and limit, and the least and the greatest value that hold it (nan is neither).
    found: list[tuple[str, float, float | tuple[float, float], float, float]] = []
    if (low := limits.min_basin_decades) is not None:
        found.append(("min_basin_decades", width, low, low - ROUNDING, math.inf))
    if (top := limits.max_sensitivity) is not None:
        found.append(("max_sensitivity", s, top, -math.inf, top + ROUNDING * max(1.0, abs(top))))
    if (most := limits.max_diverged) is not None:
        found.append(("max_diverged", share, most, -math.inf, most + ROUNDING))
    if (ends := limits.best_lr_within) is not None:
        found.append(("best_lr_within", best, ends, ends[0] * (1 - ROUNDING), ends[1] * (1 + ROUNDING)))
    if not found or math.isnan(width):
        found.append(("trained", float(not math.isnan(width)), 1.0, 1.0, 1.0))
    return [
        Check(
            optimizer=name, check=check, value=value, limit=limit, ok=least <= value <= greatest,
            at_least=censored and check == "min_basin_decades", some_failed=failed > 0,
            all_failed=failed > 0 and not alive,
        )
        for check, value, limit, least, greatest in found
    ]  # fmt: skip


def _check_limits(limits: Limits) -> None:
    """Limits that no sweep could be judged by are the user's mistake."""
    for option in ("min_basin_decades", "max_sensitivity"):
        value = getattr(limits, option)
        if value is not None and not (_is_number(value) and math.isfinite(value) and value >= 0):
            raise WrongOption(option, value, "must be a finite number, 0 or more")
    if (share := limits.max_diverged) is not None and not (_is_number(share) and 0 <= share <= 1):
        raise WrongOption("max_diverged", share, "must be a fraction of the runs, from 0 to 1")
    if (ends := limits.best_lr_within) is not None:
        pair = isinstance(ends, tuple | list) and len(ends) == 2 and all(map(_is_number, ends))
        if not (pair and 0 < ends[0] <= ends[1] < math.inf):
            raise WrongOption("best_lr_within", ends, "give two learning rates above 0, the lower one first")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _plain(value: float | tuple[float, float]) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if math.isfinite(value) else repr(value)
