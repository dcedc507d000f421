"""Learning-rate grids: exact decimals, both ends included."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cached_property
from typing import Any

DEFAULT_MIN = 1e-6
DEFAULT_MAX = 1.0
DEFAULT_PER_DECADE = 2

MAX_PER_DECADE = 100
MAX_RATES = 10_000

_DIGITS = 6
_EXACT = Context(prec=40)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The learning rates of an optimizer: a list as it was written, or `min` and `max` with one of two spacings."""

    listed: tuple[float, ...] | None = None
    min: float | None = None
    max: float | None = None
    per_decade: int | None = None
    points: int | None = None

    @cached_property
    def rates(self) -> tuple[float, ...]:
        """Every rate, ascending for a generated grid and in the order of the list for a listed one."""
        if self.listed is not None:
            return self.listed
        assert self.min is not None
        assert self.max is not None
        return generate(self.min, self.max, per_decade=self.per_decade, points=self.points)

    @property
    def written(self) -> list[float] | dict[str, Any]:
        """The grid as written in a spec."""
        if self.listed is not None:
            return list(self.listed)
        spacing = {"per_decade": self.per_decade} if self.points is None else {"points": self.points}
        return {"min": self.min, "max": self.max, **spacing}


DEFAULT = Grid(min=DEFAULT_MIN, max=DEFAULT_MAX, per_decade=DEFAULT_PER_DECADE)


def generate(low: float, high: float, *, per_decade: int | None = None, points: int | None = None) -> tuple[float, ...]:
    """Log-spaced rates from `low` to `high`, both included, the ones between rounded to 6 significant digits.

    `per_decade` counts from `low`, so widening a grid by whole decades keeps its rates; where `high` is not a step away
    from the one before, the last gap is the shorter one. `points` divides the range evenly.
    """
    bottom, top = Decimal(repr(low)), Decimal(repr(high))
    if points is not None:
        ratio = _EXACT.divide(top, bottom)
        inner = [_EXACT.multiply(bottom, _power(ratio, k, points - 1)) for k in range(1, points - 1)]
        return (low, *(_rounded(value) for value in inner), high)
    assert per_decade is not None
    # A step closer to `high` than a fiftieth of a gap is `high` itself, with other digits (3.162e-2 for 3.16228e-2).
    steps = math.ceil(per_decade * (math.log10(high) - math.log10(low)) - 0.02)
    between = [_EXACT.multiply(bottom, _power(Decimal(10), k, per_decade)) for k in range(1, steps)]
    return (low, *(_rounded(value) for value in between), high)


def _power(base: Decimal, k: int, n: int) -> Decimal:
    whole, part = divmod(k, n)
    exact = _EXACT.power(base, whole)
    return exact if part == 0 else _EXACT.multiply(exact, _EXACT.power(base, _EXACT.divide(Decimal(part), Decimal(n))))


def _rounded(value: Decimal) -> float:
    return float(Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN).plus(value))
