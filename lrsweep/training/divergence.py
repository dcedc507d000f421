"""The rule that calls a run diverged although its losses stayed finite.

A run with a non-finite loss or weight has diverged at that step: `stacked.py` and `sequential.py` see to that at
every step. This rule is for the others
and looks at one run alone. It is made of differences of losses only, so that y and a*y + c (a > 0) get the same answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lrsweep.analysis.diagnosis import FEW_ROWS, Floats, noise


def finite_divergence(steps: Sequence[int], train_loss: Sequence[float]) -> int | None:
    """Step at which a run that stayed finite counts as diverged, or None.

    `steps` and `train_loss` are the evaluations y_0..y_n of one run; y_0 is that of the untrained model.

    - n >= 8: every evaluation of the last quarter lies above y_0, the medians of quarters 2, 3, 4 rise, and the rise
      from quarter 2 to 4 is more than 4 times the noise of the second half.
    - 3 <= n < 8: the last three lie above y_0 and strictly rise.

    The step is that of the first evaluation from which y stays above y_0. A series that holds a non-finite value gives
    the step of the first one.
    """
    y = np.asarray(train_loss, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    if len(bad):
        return int(steps[int(bad[0])])
    n = len(y) - 1
    if n < 3:
        return None
    if np.abs(y).max() > 1e300:
        y = y * 2.0**-8  # the same shape (an exact power of two) at a size where no difference overflows
    if not (_rises(y) if n >= FEW_ROWS else _rises_briefly(y)):
        return None
    below = np.flatnonzero(y <= y[0])
    return int(steps[int(below[-1]) + 1])


def _rises(y: Floats) -> bool:
    n = len(y) - 1
    quarters = [y[low:high] for low, high in itertools.pairwise(1 + k * n // 4 for k in range(5))]
    _, q2, q3, q4 = (float(np.median(quarter)) for quarter in quarters)
    second_half = np.concatenate(quarters[2:])
    return bool((quarters[3] > y[0]).all() and q2 < q3 < q4 and q4 - q2 > 4 * noise(second_half))


def _rises_briefly(y: Floats) -> bool:
    last = y[-3:]
    return bool((last > y[0]).all() and (np.diff(last) > 0).all())
