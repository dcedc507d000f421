"""The one-ramp learning-rate finder: one run whose rate grows at every update, and the usual rules for reading it.

The rules disagree, often by decades; none is recommended here. They are facts to be held against a sweep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from torch import nn

from lrsweep import optimizers
from lrsweep.errors import LrsweepError, UsageError
from lrsweep.training import isolation
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting

Floats: TypeAlias = npt.NDArray[np.float64]

SMOOTHING = 0.9  # weight of the past in the running mean
STOP_FROM = 10  # updates before the ramp may stop on a rising loss
SLIDE_WIDTH, SLIDE_THRESHOLD = 15, 0.005


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """What a ramp measured: the rate of each update and the loss of its batch before the update, raw.

    `stopped` says why it ended before its last rate; None if it did not. A last loss that is not finite is kept.
    """

    lrs: Floats
    losses: Floats
    stopped: str | None


@dataclass(frozen=True, kw_only=True)
class Suggestions:
    """The rate each rule suggests; nan where there are too few finite losses for it.

    - `steepest`: steepest descent of the loss per decade, by central differences (fastai's `steep` has forward ones).
    - `minimum_over_10`: a tenth of the rate of the lowest loss (fastai's `minimum`).
    - `valley`: a point in the longest strictly decreasing subsequence, of length M and ending at index e (the first one
      found): index e - M + floor(M / 3) + floor(M / 6), at least 0 (fastai). It depends on where the ramp starts.
    - `slide`: two points 15 apart move left from the end while the loss's slopes per update at them differ by more than
      0.005; the left one at the last place where they did (fastai). The threshold is in units of the loss.
    - `per_unit`: steepest descent per unit of the rate, as Lightning has it. A warning: it runs to the low edge.
    """

    steepest: float
    minimum_over_10: float
    valley: float
    slide: float
    per_unit: float

    @property
    def spread(self) -> float:
        """Decades between the lowest and the highest suggestion, `per_unit` aside; nan if there is none."""
        rates = [rate for rule, rate in asdict(self).items() if rule != "per_unit" and math.isfinite(rate)]
        return math.log10(max(rates) / min(rates)) if rates else math.nan


def smoothed(losses: Sequence[float] | Floats) -> Floats:
    """Running mean with exponential weights, corrected for its start; nan from the first nan on."""
    return np.fromiter(_running_mean(losses), dtype=np.float64, count=len(losses))


def _running_mean(losses: Sequence[float] | Floats) -> Iterator[float]:
    total = weight = 0.0
    for loss in losses:
        total = SMOOTHING * total + (1 - SMOOTHING) * float(loss)
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        yield total / weight


def suggestions(lrs: Sequence[float] | Floats, losses: Sequence[float] | Floats) -> Suggestions:
    """What every rule reads off a ramp (smooth the losses first if they are noisy; see `smoothed`).

    `lrs` must rise. The losses count up to the first that is not finite. Adding a constant to all of them changes
    nothing.
    """
    x, y = np.asarray(lrs, dtype=np.float64), np.asarray(losses, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(y))
    end = int(bad[0]) if len(bad) else len(y)
    x, y = x[:end], y[:end]
    if end < 2:
        return Suggestions(
            steepest=math.nan, minimum_over_10=math.nan, valley=math.nan, slide=math.nan, per_unit=math.nan
        )
    return Suggestions(
        steepest=float(x[np.argmin(np.gradient(y, np.log10(x)))]),
        minimum_over_10=float(x[np.argmin(y)]) / 10,
        valley=_valley(x, y),
        slide=_slide(x, y),
        per_unit=float(x[np.argmin(np.gradient(y, x))]),
    )


def _valley(x: Floats, y: Floats) -> float:
    length = np.ones(len(y), dtype=np.int64)
    for i in range(1, len(y)):
        longer = length[:i][y[i] < y[:i]]
        length[i] = 1 + (longer.max() if len(longer) else 0)
    end = int(np.argmax(length))
    most = int(length[end])
    return float(x[max(0, end - most + most // 3 + most // 6)])


def _slide(x: Floats, y: Floats) -> float:
    if len(y) <= SLIDE_WIDTH:
        return math.nan
    slope = np.gradient(y)
    left = len(y) - 1 - SLIDE_WIDTH
    found = left
    while left >= 0 and abs(slope[left + SLIDE_WIDTH] - slope[left]) > SLIDE_THRESHOLD:
        found = left
        left -= 1
    return float(x[found])


def rates(low: float, high: float, steps: int) -> Floats:
    """`steps` rates from `low` to `high`, evenly spaced in their logarithm.

    Raises UsageError unless 0 < low < high and there are at least 2 steps.
    """
    if not (math.isfinite(high) and 0 < low < high):
        raise UsageError(f"range test: the rates must satisfy 0 < low < high, not low {low!r} and high {high!r}")
    if steps < 2:
        raise UsageError(f"range test: a ramp needs at least 2 updates, not {steps}")
    return np.logspace(math.log10(low), math.log10(high), steps)


def must_stop(losses: Sequence[float]) -> str | None:
    """Why a ramp with these losses so far ends, or None: the last one is not finite, or the loss has risen far.

    Far is, from update 10 on: the running mean lies above its first value by more than 3 max(how far it had fallen,
    4 noise), with noise = 1.4826 median |second differences| / sqrt(6). Differences only, so any sign of loss will do.
    """
    if not math.isfinite(losses[-1]):
        return f"the loss of update {len(losses)} is {losses[-1]!r}"
    if len(losses) <= STOP_FROM:
        return None
    mean = smoothed(losses)
    if mean[-1] > mean[0] + 3 * max(mean[0] - mean.min(), 4 * noise_of(losses)):
        return f"the loss has risen far above its start at update {len(losses)}"
    return None


def noise_of(losses: Sequence[float] | Floats) -> float:
    """1.4826 median |second differences| / sqrt(6) of the finite losses; 0 where there are too few."""
    raw = np.asarray(losses, dtype=np.float64)
    bends = np.abs(np.diff(raw[np.isfinite(raw)], 2))
    return 1.4826 * float(np.median(bends)) / math.sqrt(6) if len(bends) else 0.0


def has_fallen(lrs: Floats, smooth: Floats, noise: float, rate: float) -> bool:
    """Whether the loss had fallen when the ramp came to `rate`.

    That is, the smoothed one has been below its start by more than 5 % of the most that it ever was and 3 noise.
    """
    fallen = smooth[0] - smooth
    upto = fallen[lrs <= rate * (1 + 1e-9)]
    if not np.isfinite(smooth[0]) or not len(upto):
        return False
    return bool(np.nanmax(upto) > max(0.05 * float(np.nanmax(fallen)), 3 * noise))


def ramp(
    workload: Workload, setting: OptimizerSetting, seed: int, *, low: float = 1e-7, high: float = 10.0, steps: int = 100
) -> Ramp:
    """Train one run of `setting` through torch.optim, its rate growing from `low` to `high` at every update.

    Weights and batches are those of a run of this seed in the sweep; the setting's schedule is not used. Raises
    UsageError with the place where the user's code raises.
    """
    wanted = rates(low, high, steps)
    losses: list[float] = []
    stopped = None
    try:
        with workload.user_code():
            for loss in _train(workload, setting, seed, wanted):
                losses.append(loss)
                stopped = must_stop(losses)
                if stopped is not None:
                    break
    except LrsweepError:
        raise
    except Exception as error:
        raise UsageError(f"range test: {isolation.describe(error)}") from error
    finally:
        workload.release()
    return Ramp(lrs=wanted[: len(losses)], losses=np.array(losses), stopped=stopped)


def _train(workload: Workload, setting: OptimizerSetting, seed: int, wanted: Floats) -> Iterator[float]:
    """Yields the loss of each update's batch, before the update is made."""
    workload_spec = workload.workload_spec
    model = workload.build_model(seed)
    params = list(model.model.parameters())
    weights = [param for param in params if param.requires_grad]
    optimizer = optimizers.build(setting.name, setting.args, params, float(wanted[0]), workload_spec.base_dir)
    shares = optimizers.shares(optimizer, float(wanted[0]))
    optimizers.set_mode(optimizer, training=True)
    for step, lr in enumerate(wanted):
        batch = workload.batch(seed, step)
        workload.seed_step(seed, step)
        model.zero_grad()
        loss, _ = model(*batch)
        yield loss.item()
        loss.backward()
        if workload_spec.train["clip_norm"] is not None:
            nn.utils.clip_grad_norm_(params, workload_spec.train["clip_norm"])
        if setting.independent_weight_decay is not None:
            optimizers.decay_independently(weights, setting.independent_weight_decay)
        optimizers.set_lr(optimizer, float(lr), shares)
        optimizer.step()
