"""The objective: which number of a run counts, and which way is better.

Every statistic works on a *cost*, smaller is better: the objective itself under `min`, its negative under `max`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Mode: TypeAlias = Literal["min", "max"]
Floats: TypeAlias = npt.NDArray[np.float64]

_SPLITS = ("train_", "val_", "test_")
SHORT = 50
"""Rows of a curve that are sooner looked at one by one."""
_MINIMISED = ("mse", "mae", "rmse", "nll", "perplexity")


@functools.cache
def default_mode(metric: str) -> Mode:
    """`min` for losses and errors (named *loss, *error, mse, mae, rmse, nll, perplexity, with or without a split)."""
    bare = next((metric.removeprefix(split) for split in _SPLITS if metric.startswith(split)), metric)
    return "min" if bare.endswith(("loss", "error")) or bare in _MINIMISED else "max"


def is_best_possible(metric: str, value: float) -> bool:
    """Whether no training could better this value of a metric: an accuracy of 1, an error of 0."""
    bare = next((metric.removeprefix(split) for split in _SPLITS if metric.startswith(split)), metric)
    return (bare == "accuracy" and value >= 1) or (bare in ("error", "mse", "mae", "rmse") and value <= 0)


def cost(value: float, mode: Mode) -> float:
    """The objective as a cost; what is not finite costs +inf, so that no nan and no -inf ever looks good."""
    if not math.isfinite(value):
        return math.inf
    return value if mode == "min" else -value


def uncost(value: float, mode: Mode) -> float:
    """A cost in the metric's own sign again."""
    return value if mode == "min" else 0.0 - value


def best_row(values: Sequence[float] | Floats, mode: Mode) -> int | None:
    """Index of the best finite row after row 0, the first of equals; None if there is none."""
    if type(values) is list and len(values) <= SHORT:
        known = list(filter(math.isfinite, values[1:]))
        return values.index(min(known) if mode == "min" else max(known), 1) if known else None
    later = np.asarray(values[1:], dtype=np.float64)
    finite = np.flatnonzero(np.isfinite(later))
    if not len(finite):
        return None
    costs = later[finite] if mode == "min" else -later[finite]
    return int(finite[np.argmin(costs)]) + 1


def objective_of(rows: Mapping[str, Sequence[float] | Floats], metric: str, at: str, mode: Mode) -> float:
    """The objective of one run from the rows of its curve.

    `at` is `final` (the last row), `best`, `mean` or `last_K` (mean of the last K rows); all but `final` run over the
    rows after row 0. Non-finite values come out as found; `best` passes them over unless nothing else is there. A run
    without rows, or without a row after row 0 where one is needed, gives nan.

    Raises KeyError if the curve has no such column, ValueError if `at` is none of the above.
    """
    values = rows[metric]
    if at == "final":
        return float(values[-1]) if len(values) else math.nan
    if at == "best":
        index = best_row(values, mode)
        if index is not None:
            return float(values[index])
        return float(values[-1]) if len(values) > 1 else math.nan
    later = np.asarray(values[1:], dtype=np.float64)
    return mean(later if at == "mean" else later[-last_k(at) :])


def last_k(at: str) -> int:
    """K of `last_K`."""
    head, _, digits = at.partition("_")
    if head != "last" or not (digits.isascii() and digits.isdigit()) or int(digits) < 1:
        raise ValueError(f"objective.at is {at!r}; it must be final, best, mean or last_K with K an integer from 1")
    return int(digits)


def mean(values: Floats) -> float:
    """Plain mean; nan if empty. Sums that would overflow are taken over shares, so finite values keep a finite mean."""
    if not len(values):
        return math.nan
    with np.errstate(over="ignore", invalid="ignore"):
        plain = float(np.mean(values))
        if math.isfinite(plain) or not np.isfinite(values).all():
            return plain
        return float(np.sum(values / len(values)))
