"""What a training curve says: diverged or not, and a word for how it went.

Two rules over the `train_loss` rows y_0..y_n of a run (row 0 is the untrained model). Both are made of differences of
losses only, so that y and a*y + c (a > 0) get the same answer. `finite_divergence` looks at one run alone and decides
its status; `diagnose` compares a run with what its optimizer and seed reached at any rate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

FEW_ROWS = 8
"""Below this many rows after row 0 there are no quarters to compare and no diagnosis."""


def finite_divergence(steps: Sequence[int], train_loss: Sequence[float]) -> int | None:
    """Step at which a run that stayed finite counts as diverged, or None.

    `steps` and `train_loss` are the rows of one run, row 0 first; n is the number of rows after it.

    - n >= 8: every row of the last quarter lies above y_0, the medians of quarters 2, 3, 4 rise, and the rise from
      quarter 2 to 4 is more than 4 times the noise of the second half.
    - 3 <= n < 8: the last three rows lie above y_0 and strictly rise.

    The step is that of the first row from which y stays above y_0. A series that holds a non-finite value gives the
    step of the first one.
    """
    y = np.asarray(train_loss, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        return int(steps[int(bad[0])])
    n = len(y) - 1
    if n < 3:
        return None
    y = _shrunk(y)
    if not (_rises(y) if n >= FEW_ROWS else _rises_briefly(y)):
        return None
    below = np.flatnonzero(y <= y[0])
    return int(steps[int(below[-1]) + 1])


def noise(values: Floats) -> float:
    """Standard deviation of the row-to-row noise: robust, blind to any straight trend; 0 for fewer than 3 values."""
    if len(values) < 3:
        return 0.0
    return float(1.4826 * np.median(np.abs(np.diff(values, n=2))) / math.sqrt(6))


def _shrunk(y: Floats) -> Floats:
    """The same shape at a size where no difference overflows (an exact power of two, and only where it is needed)."""
    return y * 2.0**-8 if len(y) and np.abs(y).max() > 1e300 else y


def _quarters(y: Floats) -> list[Floats]:
    n = len(y) - 1
    cuts = [1 + k * n // 4 for k in range(5)]
    return [y[a:b] for a, b in itertools.pairwise(cuts)]


def _rises(y: Floats) -> bool:
    quarters = _quarters(y)
    _, q2, q3, q4 = (float(np.median(quarter)) for quarter in quarters)
    second_half = np.concatenate(quarters[2:])
    return bool((quarters[3] > y[0]).all() and q2 < q3 < q4 and q4 - q2 > 4 * noise(second_half))


def _rises_briefly(y: Floats) -> bool:
    last = y[-3:]
    return bool((last > y[0]).all() and (np.diff(last) > 0).all())
