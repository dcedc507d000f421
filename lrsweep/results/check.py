"""`check`: does every optimizer of a sweep hold the limits?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lrsweep.errors import UsageError
from lrsweep.results import tables
from lrsweep.results.status import status

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
    """`ok` if there is a row and every check of every row holds. `missing` counts the planned runs without a result."""

    ok: bool
    checks: tuple[Check, ...]
    missing: str = ""

    def as_json(self) -> dict[str, Any]:
        """For `json.dumps`; nan and inf become the texts "nan" and "inf", which JSON has no numbers for."""
        checks = [
            {"optimizer": c.optimizer, "check": c.check, "value": _plain(c.value), "limit": _plain(c.limit), "ok": c.ok}
            for c in self.checks
        ]
        return {"ok": self.ok, "checks": checks}

    def text(self) -> str:
        """A line per check for a terminal, and one for the whole."""
        lines = [f"{'ok    ' if one.ok else 'BROKEN'}  {one.optimizer}: {_sentence(one)}" for one in self.checks]
        broken = sum(not one.ok for one in self.checks)
        last = "all limits hold" if self.ok else f"{broken} of {len(self.checks)} checks broken"
        if self.ok and all(one.check == "trained" for one in self.checks):
            last = "no limit was given; every optimizer trained"
        lines.append(last if self.checks else "nothing was trained: the sweep has no finished run")
        return "\n".join([*lines, *([self.missing] if self.missing else [])])


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What every row must hold; None asks for nothing."""

    min_basin_decades: float | None = None
    max_sensitivity: float | None = None
    max_diverged: float | None = None
    best_lr_within: tuple[float, float] | None = None


def check(
    results: Path | str, *, optimizer: str | None = None, min_basin_decades: float | None = None,
    max_sensitivity: float | None = None, max_diverged: float | None = None,
    best_lr_within: tuple[float, float] | None = None,
) -> Verdict:  # fmt: skip
    """Hold the sweep in folder `results` against limits. Raises UsageError, StorageError."""
    limits = Limits(
        min_basin_decades=min_basin_decades, max_sensitivity=max_sensitivity, max_diverged=max_diverged,
        best_lr_within=best_lr_within,
    )  # fmt: skip
    _check_limits(limits)
    tables.ensure(results)
    found = check_summary(tables.read_summary(results).to_dict("records"), limits, optimizer=optimizer)
    return replace(found, missing=_missing(results))


def _missing(results: Path | str) -> str:
    """What the sweep has not finished, or ""."""
    try:
        counts = status(results)
    except UsageError:  # tables beside a journal that planned nothing: what there is, is all
        return ""
    parts = {"not run yet": counts.to_do - counts.failed, "failed": counts.failed}
    listed = " and ".join(f"{n} {what}" for what, n in parts.items() if n)
    return f"unfinished: of {counts.total} planned runs {listed}; the verdict is on the others" if listed else ""


def check_summary(summary: Sequence[Mapping[Any, Any]], limits: Limits, *, optimizer: str | None = None) -> Verdict:
    """The verdict on the rows of summary.csv, each with its columns in their order.

    A row that trained nothing (its basin is nan) is broken whatever the limits. nan holds no limit. A censored basin
    counts with the width that was seen. The share of diverged runs is among those that did not fail.

    Raises UsageError if no row belongs to `optimizer`.
    """
    rows = [row for row in summary if optimizer in (None, row["optimizer"])]
    if optimizer is not None and not rows:
        known = ", ".join(dict.fromkeys(str(row["optimizer"]) for row in summary))
        raise UsageError(f"--optimizer {optimizer}: the sweep has no such label; it has {known or 'none'}")
    checks = [one for row in rows for one in _checks(row, limits)]
    return Verdict(ok=bool(checks) and all(one.ok for one in checks), checks=tuple(checks))


def _checks(row: Mapping[Any, Any], limits: Limits) -> list[Check]:
    axes = itertools.takewhile(lambda column: column != "best_lr", itertools.islice(row, 1, None))
    name = ", ".join([str(row["optimizer"]), *(f"{axis}={row[axis]}" for axis in axes)])
    basin, s, best = (float(row[column]) for column in ("basin_decades", "sensitivity", "best_lr"))
    alive = int(row["n_runs"]) - int(row["n_failed"])
    share = int(row["n_diverged"]) / alive if alive else math.nan
    trained = not math.isnan(basin)

    censored = any(bool(row.get(f"basin_{side}_censored", False)) for side in ("low", "high"))

    def one(check: str, value: float, limit: float | tuple[float, float], holds: Callable[[float], bool]) -> Check:
        ok, at_least = not math.isnan(value) and holds(value), censored and check == "min_basin_decades"
        some = int(row["n_failed"]) > 0
        return Check(
            optimizer=name, check=check, value=value, limit=limit, ok=ok, at_least=at_least, some_failed=some,
            all_failed=some and not alive,
        )  # fmt: skip

    out = []
    if (low := limits.min_basin_decades) is not None:
        out.append(one("min_basin_decades", basin, low, lambda value: value >= low - ROUNDING))
    if (top := limits.max_sensitivity) is not None:
        out.append(one("max_sensitivity", s, top, lambda value: value <= top + ROUNDING * max(1.0, abs(top))))
    if (most := limits.max_diverged) is not None:
        out.append(one("max_diverged", share, most, lambda value: value <= most + ROUNDING))
    if (ends := limits.best_lr_within) is not None:
        holds = lambda value: ends[0] * (1 - ROUNDING) <= value <= ends[1] * (1 + ROUNDING)  # noqa: E731
        out.append(one("best_lr_within", best, ends, holds))
    if not out or not trained:
        out.append(one("trained", float(trained), 1.0, lambda value: value == 1.0))
    return out


def _check_limits(limits: Limits) -> None:
    """Limits that no sweep could be judged by are the user's mistake."""
    for option in ("min_basin_decades", "max_sensitivity"):
        value = getattr(limits, option)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise UsageError(f"--{option.replace('_', '-')} {value!r}: it must be a finite number from 0")
    if limits.max_diverged is not None and not 0 <= limits.max_diverged <= 1:
        raise UsageError(f"--max-diverged {limits.max_diverged!r}: it is a share of the runs, from 0 to 1")
    if limits.best_lr_within is not None:
        low, high = limits.best_lr_within
        if not (0 < low <= high and math.isfinite(high)):
            raise UsageError(f"--best-lr-within {low!r} {high!r}: two rates above 0, the lower one first")


def _plain(value: float | tuple[float, float]) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value if math.isfinite(value) else repr(value)


def _sentence(one: Check) -> str:
    if one.check == "trained":
        why = "every run failed" if one.all_failed else "no run ended below the untrained model"
        return "trained" if one.ok else f"nothing was trained: {why}"
    if isinstance(one.limit, tuple):
        return f"best lr {one.value:.3g}, wanted within {one.limit[0]:.3g} .. {one.limit[1]:.3g}"
    words = {
        "min_basin_decades": "good range of {}{:.3g} decades, wanted at least {:g}{}",
        "max_sensitivity": "sensitivity {:.4g}, wanted at most {:g}",
        "max_diverged": "share of diverged runs {:.3g}, wanted at most {:g}",
    }
    if one.check == "min_basin_decades":
        where = ", or into runs that failed" if one.some_failed else ": a wider grid would tell"
        hint = f" (it runs out of the grid{where})" if one.at_least and not one.ok else ""
        return words[one.check].format(">= " if one.at_least else "", one.value, one.limit, hint)
    return words[one.check].format(one.value, one.limit)
