"""The rule that calls a run diverged although its losses stayed finite.

A run with a non-finite loss or weight has diverged at that step: `stacked.py` and `sequential.py` see to that at
every step. This rule is for the others and looks at one run alone. It is made of differences of losses only, so that y
and a*y + c (a > 0) get the same answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.ma  # np.median loads it at its first call: 8 ms in every copy of a worker that trains one run (2026-11)

from lrsweep.analysis.diagnosis import FEW_ROWS, Floats, noise

ROUNDING = 100
"""A validation loss has risen only if it did by more than this many units in the last place of its start."""


def finite_divergence(
    steps: Sequence[int],
    train_loss: Sequence[float],
    val_loss: Sequence[float],
    *,
    eps: float = float(np.finfo(np.float64).eps),
) -> int | None:
    """Step at which a run that stayed finite counts as diverged, or None.

    `steps`, `train_loss` and `val_loss` are the evaluations 0..n of one run, y_0..y_n being the training losses; y_0 is
    that of the untrained model. `eps`: that of the dtype in which the losses were computed.

    - n >= 8: every evaluation of the last quarter lies above y_0, the medians of quarters 2, 3, 4 rise, and the rise
      from quarter 2 to 4 is more than 4 times the noise of the second half or of all, whichever is less. (Growth by a
      constant factor looks like noise where it is largest: at the end.)
    - 3 <= n < 8: the last three lie above y_0 and strictly rise.
    - In both cases the validation loss rises with it: it ends above its start by more than 4 times its own noise and
      more than 100 eps of that start. (A few means of batches in rising order are a coin toss; a validation loss is
      not: of 10,000 runs of 12 evaluations at rates that change nothing, 46 had means in such an order.)

    The step is that of the first evaluation from which y stays above y_0. A series that holds a non-finite value gives
    the step of the first one.
    """
    y, val = np.asarray(train_loss, dtype=np.float64), np.asarray(val_loss, dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(y) & np.isfinite(val)))
    if len(bad):
        return int(steps[int(bad[0])])
    n = len(y) - 1
    if n < 3:
        return None
    y, val = _within_range(y), _within_range(val)
    if not (_rises(y) if n >= FEW_ROWS else _rises_briefly(y)) or not _has_risen(val, eps):
        return None
    below = np.flatnonzero(y <= y[0])
    return int(steps[int(below[-1]) + 1])


def _within_range(z: Floats) -> Floats:
    """The same shape (an exact power of two) at a size where no difference overflows."""
    return z * 2.0**-8 if np.abs(z).max() > 1e300 else z


def _rises(y: Floats) -> bool:
    n = len(y) - 1
    quarters = [y[low:high] for low, high in itertools.pairwise(1 + k * n // 4 for k in range(5))]
    _, q2, q3, q4 = (float(np.median(quarter)) for quarter in quarters)
    jitter = min(noise(np.concatenate(quarters[2:])), noise(y[1:]))
    return bool((quarters[3] > y[0]).all() and q2 < q3 < q4 and q4 - q2 > 4 * jitter)


def _rises_briefly(y: Floats) -> bool:
    last = y[-3:]
    return bool((last > y[0]).all() and (np.diff(last) > 0).all())


def _has_risen(val: Floats, eps: float) -> bool:
    return bool(val[-1] - val[0] > max(4 * noise(val, lower=True), ROUNDING * eps * abs(val[0])))
