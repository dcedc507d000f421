"""Can the runs of a workload be stacked? Found out before training; the answer is a plain sentence or None."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrsweep.compiler import trace
from lrsweep.training import isolation, python_state, update_rules
from lrsweep.training.data import map_tensors
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import LossModule, Workload
from lrsweep.user_imports import user_place

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting

STEPS = 3  # of the trial: the first is recorded, the others replay it
RATE = 0.01  # of the trial's gradient descent
# What two ways of the same arithmetic may differ by, relative to the larger one's size.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
BFLOAT16_TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Reason:
    """Why runs train one at a time; `raised`: the user's code raises when a run is alone, too."""

    text: str
    raised: bool = False

    def __str__(self) -> str:
        return self.text


class _Limit(Exception):
    """Why the runs train alone: the end of the sentence `the model ...`."""


class _Broken(Exception):
    """The model cannot even be trained by itself."""


class _Otherwise(_Limit):
    """The stack came to other numbers."""


def stack_reason(workload: Workload, setting: OptimizerSetting) -> Reason | None:
    """Why runs of this workload and optimizer setting train one at a time; None if they can be stacked.

    Tasks and models of our own are known to stack; the user's are tried out, once per workload: two runs and
    three steps, stacked and apart.
    """
    text = update_rules.stack_reason(setting.name, setting.args, workload.workload_spec.base_dir)
    return workload_reason(workload) if text is None else Reason(text)


def workload_reason(workload: Workload) -> Reason | None:
    """Why runs of this workload train one at a time whatever their optimizer; None if they can be stacked.

    Then their step can also be recorded, and the task's functions keep nothing between calls.
    """
    return None if our_own(workload) else workload.once("stack reason", lambda: model_reason(workload))


def our_own(workload: Workload) -> bool:
    """Are task and model built-ins?"""
    names = [workload.workload_spec.task["name"], (workload.workload_spec.model or {"name": ""})["name"]]
    return not any(":" in name for name in names)


def model_reason(workload: Workload) -> Reason | None:
    """Try the model, the loss and the batches of `workload` on a stack of two."""
    try:
        with workload.user_code():
            _try(workload)
    except _Broken as error:
        return Reason(str(error), raised=True)
    except (_Limit, trace.TraceError) as limit:
        return Reason(f"the model {limit}")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code and vmap may raise anything
        return Reason(_explain(error))
    return None


def _try(workload: Workload) -> None:
    """The user's functions see the dtype of the spec; float64 they see only where that cannot tell rounding apart."""
    with _by_itself():
        modules = [workload.build_model(seed) for seed in (0, 1)]
        batches = [workload.batch(0, step % workload.total_steps) for step in range(STEPS)]
        checks, _ = next(workload.eval_batches("val"))
    _look_at(modules[0])
    bfloat16 = workload.workload_spec.train["dtype"] == "bfloat16"
    tolerance = BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE[workload.dtype]
    try:
        _compare(*_both_ways(modules, batches, checks, workload), tolerance)
    except _Otherwise as limit:
        if workload.dtype == torch.float64:
            raise
        try:
            exact = [copy.deepcopy(module).double() for module in modules]
            batches, checks = map_tensors(_double, (batches, checks))
            torch.set_default_dtype(torch.float64)
            results = _both_ways(exact, batches, checks, workload)
        except Exception:  # noqa: BLE001 - not every model can be cast; then its own precision must do
            raise limit from None
        finally:
            torch.set_default_dtype(workload.dtype)
        _compare(*results, BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE[torch.float64])


def _both_ways(
    modules: Sequence[LossModule], batches: Sequence[Any], checks: Any, workload: Workload
) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
    with _by_itself():
        alone = _alone([copy.deepcopy(module) for module in modules], batches, checks, workload)
    return alone, _stacked([copy.deepcopy(module) for module in modules], batches, checks, workload)


@contextmanager
def _by_itself() -> Iterator[None]:
    """What is raised within is not for want of a stack."""
    try:
        yield
    except _Limit:
        raise
    except (Exception, SystemExit) as error:
        raise _Broken(f"an error in the trial of the model: {isolation.describe(error)}") from error


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _look_at(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, nn.RNNBase | nn.RNNCellBase | nn.EmbeddingBag):
            place = name.removeprefix("model.")
            raise _Limit(f"has a layer that torch cannot batch over runs: {type(part).__name__} ({place})")
    if any(not value.is_floating_point() for value in module.parameters()):
        raise _Limit("has parameters that are not real numbers")
    if any(isinstance(value, nn.UninitializedParameter) for value in module.parameters()):
        raise _Limit("has lazy layers, whose weights are made by the first batch")


def _alone(
    modules: Sequence[LossModule], batches: Sequence[Any], checks: Any, workload: Workload
) -> list[list[Tensor]]:
    """Losses, weights and buffers of every run after gradient descent, and an evaluation of it."""
    results = []
    for module in modules:
        before, values = python_state.state(module, *module.functions), []
        params = [value for value in module.parameters() if value.requires_grad]
        for step, batch in enumerate(batches):
            workload.seed_step(0, step)
            module.zero_grad()
            loss, metrics = module.train()(*map_tensors(Tensor.clone, batch))
            loss.backward()
            values += [loss.detach(), *metrics.values()]
            with torch.no_grad():
                for param in params:
                    if param.grad is not None:
                        param.sub_(param.grad, alpha=RATE)
        if python_state.differ(before, python_state.state(module, *module.functions)):
            raise _Limit("changes Python state between steps")
        with torch.no_grad():
            workload.seed_step(0, len(batches))
            loss, metrics = module.eval()(*map_tensors(Tensor.clone, checks))
        values += [loss, *metrics.values(), *module.parameters(), *module.buffers()]
        results.append([value.detach().clone() for value in values])
    return results


def _stacked(
    modules: Sequence[LossModule], batches: Sequence[Any], checks: Any, workload: Workload
) -> list[list[Tensor]]:
    stepper = Stepper(modules[0], workload, shared=True)
    each = [module.tensors() for module in modules]

    def stack(names: Sequence[str]) -> list[Tensor]:
        return [torch.stack([values[name].detach() for values in each]) for name in names]

    workload.seed_step(0, 0)
    stepper.freeze_unused(stack(stepper.trainable), stack(stepper.non_trainable), map_tensors(Tensor.clone, batches[0]))
    params, non_trainable, values = stack(stepper.trainable), stack(stepper.non_trainable), []
    for step, batch in enumerate(batches):
        workload.seed_step(0, step)
        result = stepper.train(params, non_trainable, map_tensors(Tensor.clone, batch))
        values += [result.losses, *result.metrics.values()]
        for param, grad in zip(params, result.grads, strict=True):
            param.sub_(grad, alpha=RATE)
    workload.seed_step(0, len(batches))
    result = stepper.evaluate(params, non_trainable, map_tensors(Tensor.clone, checks))
    names = dict(zip((*stepper.trainable, *stepper.non_trainable), (*params, *non_trainable), strict=True))
    values += [result.losses, *result.metrics.values()]
    values += [names[name] for name, _ in (*modules[0].named_parameters(), *modules[0].named_buffers())]
    return [[value[run] for value in values] for run in range(len(modules))]


def _compare(alone: list[list[Tensor]], stacked: list[list[Tensor]], tolerance: float) -> None:
    for mine, theirs in zip(alone, stacked, strict=True):
        for one, other in zip(mine, theirs, strict=True):
            one, other = one.double(), other.double()
            finite = one[one.isfinite()]
            size = max(float(finite.abs().max()) if finite.numel() else 0.0, 1e-6)
            if one.numel() and not torch.allclose(one, other, rtol=0, atol=tolerance * size, equal_nan=True):
                raise _Otherwise("gives different results when runs are trained together")
    if not all(math.isfinite(float(value.double().sum())) for values in alone for value in values[:1]):
        raise _Limit("starts from a loss that is not finite, so training runs together could not be checked")


def _explain(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    for sign, reason in _SIGNS:
        if sign in str(error):
            return f"the model {reason}"
    return f"the model cannot be trained for several runs at once ({type(error).__name__}: {text[:160]}{_place(error)})"


def _place(error: BaseException) -> str:
    place = user_place(error)
    return f", {place}" if place else ""


_SIGNS = (
    (".item()", "turns a tensor into a Python number (.item(), float(), int()), which differs between runs"),
    ("data-dependent control flow", "branches on the values of a tensor (if, while), which differ between runs"),
    ("batching rule", "uses an operation that torch cannot batch over runs"),
    ("randomness", "draws random numbers in a way that torch cannot batch over runs"),
    ("dynamic shape", "has tensors whose shapes depend on their values"),
    ("in-place", "writes in place into a tensor that the runs share"),
    ("inplace", "writes in place into a tensor that the runs share"),
)
