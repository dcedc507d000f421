"""Whether data fit in memory, by their size alone: what cannot fit is told before any of it is made or read."""

from __future__ import annotations

from lrsweep.errors import WrongInSpec
from lrsweep.system.machine import memory_limit, size_text

NUMBER = 36
"""Bytes a number takes while it is split and scaled: five copies in float64, of which one is left in the end."""
ROW = 24
"""Bytes a row takes besides its numbers: its class and its place, in a few orders."""


def check(key: str, needed: float, what: str, advice: str) -> None:
    """Raises WrongInSpec at `task.<key>` if `what` needs more bytes than this process may use.

    `what` is the subject of the message, in the plural; `advice` says what to write instead.
    """
    limit = memory_limit()
    if limit is not None and needed > limit:
        wrong = f"{what} need about {size_text(needed)} of memory, but only {size_text(limit)} can be used ({advice})"
        raise WrongInSpec((("task", key), wrong))


def check_table(rows: int, columns: int, wide: str = "n") -> None:
    """As `check`, for `n` generated rows; `wide` is the key that sets how many columns they have."""
    key, advice = (wide, "use fewer of them") if columns > rows else ("n", "use a smaller n")
    check(key, rows * (columns * NUMBER + ROW), f"{rows:,} points with {columns:,} features", advice)
