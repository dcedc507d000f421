"""Schedules: pure functions from the step to a factor on the run's learning rate.

A rule gets t, the steps since the end of the warmup (from 0), as an array, and T, the steps of the run after it. Only
`plateau` has state, because it watches the run: see `Plateau`.

To add a schedule: a rule under `_with_warmup`, a line in `SCHEDULES` at the bottom, a row in tests/test_schedules.py.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, Gt, Interval

from lrsweep.errors import UsageError
from lrsweep.objective import default_mode
from lrsweep.user_imports import defined_at, resolve

Floats: TypeAlias = npt.NDArray[np.float64]
# An integer counts steps; a float in (0, 1) is a share of the run, rounded to whole steps.
Warmup: TypeAlias = Annotated[int, Ge(0)] | Annotated[float, Interval(gt=0, lt=1)]
Steps: TypeAlias = int | npt.NDArray[Any]
NotNegative: TypeAlias = Annotated[float, Ge(0)]


def warmup_steps(warmup: float, total_steps: int) -> int:
    """The length of the warmup in steps."""
    return round(warmup * total_steps) if isinstance(warmup, float) else warmup


def _with_warmup(rule: Callable[..., Floats], arguments: Callable[..., Any] | None = None) -> Callable[..., Floats]:
    """The schedule `f(step, total_steps, *, <arguments of the rule>, warmup=0)` of a rule on t and T.

    The factor is (t + 1) / warmup first, then the rule on t - warmup and T - warmup (Goyal et al. 2017,
    arXiv:1706.02677, section 2.2). `arguments`: whose keyword arguments to take, if not the rule's own.
    """

    def schedule(step: Steps, total_steps: int, *, warmup: Warmup = 0, **arguments: Any) -> Floats:
        t = np.atleast_1d(np.asarray(step, dtype=np.float64))
        length = warmup_steps(warmup, total_steps)
        past = t >= length
        factor = np.empty_like(t)
        factor[~past] = (t[~past] + 1) / max(length, 1)
        with np.errstate(over="ignore"):
            factor[past] = rule(t[past] - length, float(total_steps - length), **arguments)
        return factor.reshape(np.shape(step))

    # What a spec may set is read off the signature (registry.signature).
    own = inspect.signature(arguments or rule, eval_str=True).parameters.values()
    step, total_steps, warmup, _ = inspect.signature(schedule, eval_str=True).parameters.values()
    keywords = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    vars(schedule)["__signature__"] = inspect.Signature([step, total_steps, *keywords, warmup])
    return functools.update_wrapper(schedule, rule)


@_with_warmup
def constant(t: Floats, T: float) -> Floats:
    """1 throughout."""
    return np.ones_like(t)


@_with_warmup
def linear(
    t: Floats, T: float, *, end: NotNegative = 0.0, until: Annotated[float, Interval(gt=0, le=1)] = 1.0
) -> Floats:
    """1 + (end - 1) min(1, t / (until T)): a straight line, then flat.

    Goodfellow et al. 2016, section 8.3.1, with e_tau = end e_0 and tau = until T.
    """
    return 1 + (end - 1) * np.minimum(1.0, t / (until * T))


@_with_warmup
def exponential(t: Floats, T: float, *, gamma: Annotated[float, Gt(0)]) -> Floats:
    """gamma^t, per step."""
    return np.power(gamma, t)


@_with_warmup
def inverse_time(t: Floats, T: float, *, decay: NotNegative) -> Floats:
    """1 / (1 + decay t), per step (the rule of older Keras versions)."""
    return 1 / (1 + decay * t)


@_with_warmup
def stepwise(t: Floats, T: float, *, every: Annotated[int, Ge(1)], gamma: Annotated[float, Gt(0)]) -> Floats:
    """gamma^floor(t / every), `every` in steps."""
    return np.power(gamma, np.floor(t / every))


@_with_warmup
def cosine(t: Floats, T: float, *, end: NotNegative = 0.0) -> Floats:
    """end + (1 - end) (1 + cos(pi t / T)) / 2 (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts)."""
    return end + (1 - end) * (1 + np.cos(np.pi * t / T)) / 2


@_with_warmup
def onecycle(
    t: Floats,
    T: float,
    *,
    pct: Annotated[float, Interval(ge=0, le=1)] = 0.3,
    start: NotNegative = 0.04,
    end: NotNegative = 4e-6,
) -> Floats:
    """Half a cosine from `start` up to 1 at step pct T - 1, half a cosine down to `end` at the last step.

    The learning rate of torch's OneCycleLR (Smith & Topin 2018, arXiv:1708.07120); momentum stays as it is.
    """
    peak, last = pct * T - 1, T - 1
    rising = (t <= peak) & (peak > 0)
    up = np.where(rising, t, 0.0) / max(peak, 1e-9)
    down = np.ones_like(t) if last <= peak else np.where(rising, 0.0, t - peak) / (last - peak)
    return np.where(rising, _half_cosine(start, 1.0, up), _half_cosine(1.0, end, down))


def _half_cosine(first: float, last: float, share: Floats) -> Floats:
    return last + (first - last) / 2 * (1 + np.cos(np.pi * share))


class Plateau:
    """The state of the `plateau` schedule of one run.

    The counting rule, which is Keras' and cuts one evaluation earlier than torch's ReduceLROnPlateau:

    - Row 0 and the rows up to the end of the warmup do not count. The first evaluation after them sets the reference.
    - An evaluation is good if it beats the best one so far by more than `threshold`, an absolute difference; it becomes
      the reference. Anything else is bad, nan and an unchanged value too. Losses and errors should fall (names as in
      `objective.default_mode`), any other metric should rise.
    - On bad evaluation number `patience` since the last good one or the last cut, the factor is multiplied by
      `factor` (never below `min_factor`), seen from the next update on. In the `cooldown` evaluations after a cut no
      bad evaluation is counted.
    - With `raise_factor` and `raise_patience`: on bad evaluation number `raise_patience` since the last good one or
      the last raise, cuts and cooldown in between aside, the factor is multiplied by `raise_factor` instead of being
      cut, but not above `raise_cap` (a factor already above it stays); counting starts again.
    """

    def __init__(
        self,
        *,
        factor: Annotated[float, Interval(gt=0, lt=1)],
        patience: Annotated[int, Ge(1)],
        metric: str = "train_loss",
        threshold: NotNegative = 0.0,
        cooldown: Annotated[int, Ge(0)] = 0,
        min_factor: Annotated[float, Interval(ge=0, le=1)] = 0.0,
        raise_factor: Annotated[float, Gt(1)] | None = None,
        raise_patience: Annotated[int, Ge(1)] | None = None,
        raise_cap: Annotated[float, Gt(0)] = 1.0,
        first_step: int = 0,
    ) -> None:
        """`first_step`: evaluations at this step or before it are not counted (the end of the warmup)."""
        if (raise_factor is None) != (raise_patience is None):
            raise UsageError("plateau: raise_factor and raise_patience must be given together")
        self.metric = metric
        self._sign = 1.0 if default_mode(metric) == "min" else -1.0
        self._cut, self._patience, self._threshold = factor, patience, threshold
        self._cooldown, self._min_factor, self._first_step = cooldown, min_factor, first_step
        self._raise, self._raise_patience, self._raise_cap = raise_factor, raise_patience, raise_cap
        self.factor = 1.0
        self._best = math.inf
        self._bad = self._bad_since_raise = self._cooling = 0

    def observe(self, value: float, step: int) -> None:
        """Take the evaluation of `metric` made after `step` updates. `factor` then holds from the next update on."""
        if step <= self._first_step:
            return
        cost = self._sign * value
        good = cost < self._best - self._threshold
        if good:
            self._best = cost
        self._bad = 0 if good else self._bad + 1
        self._bad_since_raise = 0 if good else self._bad_since_raise + 1
        if self._cooling > 0:
            self._cooling -= 1
            self._bad = 0
        if self._raise is not None and self._bad_since_raise >= (self._raise_patience or 0):
            self.factor = max(self.factor, min(self.factor * self._raise, self._raise_cap))
            self._bad = self._bad_since_raise = 0
        elif self._bad >= self._patience:
            self.factor = max(self.factor * self._cut, self._min_factor)
            self._bad, self._cooling = 0, self._cooldown

    def state(self) -> dict[str, float]:
        """What `restore` needs: numbers only."""
        return {
            "factor": self.factor,
            "best": self._best,
            "bad": self._bad,
            "bad_since_raise": self._bad_since_raise,
            "cooling": self._cooling,
        }

    def restore(self, state: Mapping[str, float]) -> None:
        """Go on from a `state()`."""
        self.factor, self._best = float(state["factor"]), float(state["best"])
        self._bad, self._bad_since_raise = int(state["bad"]), int(state["bad_since_raise"])
        self._cooling = int(state["cooling"])


def _before_cuts(t: Floats, T: float, **arguments: Any) -> Floats:
    """Cut the rate by `factor` on bad evaluation number `patience` of `metric`; may raise it again.

    The schedule itself is the warmup alone; the cuts come from `Plateau`, which states the counting rule.
    """
    return np.ones_like(t)


plateau = _with_warmup(_before_cuts, arguments=Plateau)


def plateau_of(schedule: Mapping[str, Any], total_steps: int) -> Plateau | None:
    """A fresh `Plateau` if `schedule` ({"name": ..., **arguments}) is one, else None."""
    if schedule["name"] != "plateau":
        return None
    arguments = {key: value for key, value in schedule.items() if key not in ("name", "warmup")}
    return Plateau(**arguments, first_step=warmup_steps(schedule.get("warmup", 0), total_steps))


def factors(schedule: Mapping[str, Any], total_steps: int, base_dir: Path | str) -> Floats:
    """The factor of every update, shape [total_steps]; for `plateau` that of its warmup, then ones.

    `schedule` is {"name": ..., **arguments}. A name with a colon is the user's own `f(step, total_steps, **arguments)`,
    looked up relative to `base_dir` and called twice per update with integers.

    Raises UsageError if the function is not found, cannot be called so or keeps something between calls, or if a factor
    is no number, negative or not finite.
    """
    name = schedule["name"]
    arguments = {key: value for key, value in schedule.items() if key != "name"}
    who = f"schedule {name}: "
    if ":" in name:
        function = resolve(name, base_dir)
        if not callable(function):
            raise UsageError(f"{who}is a {type(function).__name__}, not a function")
        who += defined_at(function)
        try:
            inspect.signature(function).bind(0, total_steps, **arguments)
        except ValueError:
            pass  # of a function in C, whose arguments are not known
        except TypeError as error:
            given = ", ".join(["step", "total_steps", *(f"{key}=..." for key in arguments)])
            raise UsageError(f"{who}cannot be called as {name.rpartition(':')[2]}({given}): {error}") from error

        def factor(step: int) -> float:
            value = function(step, total_steps, **arguments)
            try:
                return float(value)
            except (TypeError, ValueError) as error:
                kind = f"a {type(value).__name__}" if value is not None else "None"
                raise UsageError(
                    f"{who}the factor at step {step} of {total_steps} is {kind}; it must be a number"
                ) from error

        result, again = (np.array([factor(step) for step in range(total_steps)]) for _ in range(2))
        same_factors(name, result, again)
    else:
        result = np.asarray(SCHEDULES[name](np.arange(total_steps), total_steps, **arguments), dtype=np.float64)
    wrong = ~np.isfinite(result) | (result < 0)
    if wrong.any():
        step = int(np.argmax(wrong))
        raise UsageError(
            f"{who}the factor at step {step} of {total_steps} is {float(result[step])!r}; it "
            "must be finite and not negative"
        )
    return result


def same_factors(name: str, factors: Floats, again: Floats) -> None:
    """Raises UsageError if a schedule of the user's gave other factors when it was asked `again`."""
    if not np.array_equal(factors, again, equal_nan=True):
        step = int(np.argmax(factors != again))
        raise UsageError(
            f"schedule {name}: the factor at step {step} of {len(factors)} differs when it is computed again; it "
            "must depend on step, total_steps and the arguments alone"
        )


def check(name: str, arguments: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What single annotations cannot say about the arguments of a built-in: (argument, what is wrong)."""
    problems = []
    for given, missing in (("raise_factor", "raise_patience"), ("raise_patience", "raise_factor")):
        if arguments.get(given) is not None and arguments.get(missing) is None and name == "plateau":
            problems.append((given, f"needs {missing} too"))
    return problems


SCHEDULES: dict[str, Callable[..., Floats]] = {
    "constant": constant,
    "linear": linear,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "step": stepwise,
    "cosine": cosine,
    "onecycle": onecycle,
    "plateau": plateau,
}
