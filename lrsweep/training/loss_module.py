"""A model with its loss and metrics, as both trainers call it."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrsweep.training import isolation, mistakes

if TYPE_CHECKING:
    from lrsweep.training.param_groups import ParamGroup
    from lrsweep.training.workload import Workload

PREFIX = "model."  # of the names of what is the model's
FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type)


class LossModule(nn.Module):
    """A model with its loss: forward(*batch) -> (loss, {metric: value}), all scalars.

    The loss is the mean over the batch. Metrics are computed without gradients, in training only with `train_metrics`
    (otherwise the dict is empty). Nothing here looks at values, so it runs under `torch.func` transforms.
    """

    def __init__(self, model: nn.Module, workload: Workload, metric_names: tuple[str, ...] | None) -> None:
        """`metric_names`: the keys of a `step`'s result that are metrics; None takes all there are."""
        super().__init__()
        self.model = model
        self.groups: tuple[ParamGroup, ...] | None = None  # of its parameters, where the task makes some
        self.task = workload.task
        # A loss with state (class weights, a counter) belongs to this run, and is not trained.
        self._loss, self._step = _own(workload.task.loss, workload), _own(workload.task.step, workload)
        self._names = metric_names
        # In evaluations; None before the first. A function, since a method would be copied with its workload.
        self._differentiates = workload.differentiates
        self._found_out = lambda found: workload.know_evaluations(found)
        self.counts_steps = self._step is not None and "step" in parameters_of(self._step)
        self.steps_made = 0  # told to a `step` that asks for it
        self._train_metrics = bool(workload.workload_spec.train["metrics"])
        self._autocast_device = workload.device.type if workload.workload_spec.train["dtype"] == "bfloat16" else None

    @torch.no_grad()
    def descend(self, rate: float) -> None:
        """A step of gradient descent by the gradients that are there."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=rate)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Parameters and buffers by name."""
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def train(self, mode: bool = True) -> LossModule:
        """Switch the model alone, as a loop of one's own does: a loss that is a module keeps its mode."""
        self.training = mode
        self.model.train(mode)
        return self

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """What the user gave besides the model: the loss or step, and the metrics."""
        return [self._step or self._loss, *self.task.metrics.values()]

    def replace_loss(self, loss: Callable[[Any, Any], torch.Tensor]) -> None:
        """Compute `loss(output, target)` from now on."""
        del self._loss  # it may be a module, which a function cannot take the place of
        self._loss = loss

    def forward(self, *batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if self.training or torch.is_grad_enabled() or self._differentiates is False:
            return self._result(batch)
        if self._differentiates is None:
            drawn = isolation.generator_states()
            try:
                found = self._result(batch)
            except RuntimeError as error:
                if "does not require grad" not in str(error):
                    raise
                isolation.set_generator_states(drawn)
                self._differentiates = True
                self._found_out(True)
            else:
                self._differentiates = False
                self._found_out(False)
                return found
        # The loss takes a derivative itself, as those of physics-informed networks do.
        with torch.enable_grad():
            loss, metrics = self._result(batch)
        return loss.detach(), metrics

    def _result(self, batch: tuple[Any, ...]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        wanted = self._train_metrics or not self.training
        device = self._autocast_device
        # No cache: it would hold the weights of one stacked call for the next.
        cast = torch.autocast(device, dtype=torch.bfloat16, cache_enabled=False) if device else nullcontext()
        with cast:
            if self._step is not None:
                number = {"step": self.steps_made} if self.counts_steps else {}
                loss, values = self._split(self._step_of(batch, number), wanted)
            else:
                loss, values = self._loss_and_metrics(batch, wanted)
        loss = self._scalar("the loss", loss, self._step or self._loss)
        if not values and not device:
            return loss, {}
        functions = self.task.metrics
        return (loss.float() if device else loss), {
            name: self._scalar(f"metric {name}", value, functions.get(name, self._step))
            for name, value in values.items()
        }

    def _loss_and_metrics(self, batch: tuple[Any, ...], wanted: bool) -> tuple[Any, dict[str, Any]]:
        *inputs, target = batch
        output = self._output(inputs)
        loss = self._loss_of(output, target)
        if not wanted:
            return loss, {}
        with torch.no_grad():
            return loss, {name: self._metric_of(metric, output, target) for name, metric in self.task.metrics.items()}

    # Each in a function of its own: what is raised in it is told with the place of what was `given` (mistakes.py).

    def _output(self, inputs: Sequence[Any]) -> Any:
        given = (self.model, self.task.model)
        return given[0](*inputs)

    def _loss_of(self, output: Any, target: Any) -> Any:
        given = (self._loss,)
        return given[0](output, target)

    def _metric_of(self, metric: Callable[..., Any], output: Any, target: Any) -> Any:
        given = (metric,)
        return given[0](output, target)

    def _step_of(self, batch: Sequence[Any], number: Mapping[str, int]) -> Any:
        given = (self._step,)
        return given[0](self.model, *batch, **number)

    def _split(self, result: Any, wanted: bool) -> tuple[Any, dict[str, Any]]:
        """What a `step` returned, as loss and metrics."""
        if not isinstance(result, Mapping):
            return result, {}
        if "loss" not in result:
            told = (
                f"step returned a dict without 'loss' (it has {', '.join(map(str, result))}); add it: {{\"loss\": ...}}"
            )
            raise mistakes.refused(told, self._step, self.task)
        names = self._names
        if names is None:
            names = tuple(name for name in result if name != "loss")
        if missing := [name for name in names if wanted and name not in result]:
            lacking = f"step returned no {', '.join(missing)} in {'training' if self.training else 'an evaluation'}"
            cure = ": return it there, too, or set train.metrics: false" if self.training else ""
            raise mistakes.refused(f"{lacking}, which it returned for the first batch{cure}", self._step, self.task)
        metrics = {name: result[name] for name in names} if wanted else {}
        return result["loss"], {n: v.detach() if isinstance(v, torch.Tensor) else v for n, v in metrics.items()}

    def _scalar(self, name: str, value: Any, function: Any) -> torch.Tensor:
        """Raises WrongInSpec for what is no number."""
        if not isinstance(value, torch.Tensor):
            kind = "None" if value is None else f"a {type(value).__name__}"
            told = f"{name} is {kind}, not a tensor"
            if value is None:
                told += "; does the function return it?"
            elif name == "the loss" and isinstance(value, int | float):
                told += "; return it as it was computed, without .item() or float()"
            elif name == "the loss" and isinstance(value, tuple | list) and self._step is not None:
                told += '; return the loss alone, or {"loss": ..., "a metric": ...}'
            elif name != "the loss" and hasattr(value, "__float__"):  # numbers of numpy, too
                return torch.tensor(float(value))
            raise mistakes.refused(told, function, self.task)
        if value.numel() != 1:
            cure = (
                "leave out reduction='none'" if getattr(function, "reduction", None) == "none" else "take its .mean()"
            )
            told = f"{name} has shape {tuple(value.shape)}; it must be one number, the mean over the batch: {cure}"
            raise mistakes.refused(told, function, self.task)
        return value.reshape(()) if value.ndim else value


def _own(function: Any, workload: Workload) -> Any:
    """A copy of an object that can be called, so that no run sees what another left in it; a function is itself.

    Of a workload that trains one run and no other it is the object itself: the model, the data and the metrics may
    know it.
    """
    if isinstance(function, FUNCTIONS) or not getattr(function, "__dict__", None):
        return function
    if workload.alone:
        return workload.place_module(function) if isinstance(function, nn.Module) else function
    if isinstance(function, nn.Module):
        return workload.place_module(deepcopy(function)).requires_grad_(False)
    try:
        return deepcopy(function)
    except Exception:  # noqa: BLE001 - it holds what has no copy, such as a file
        return function


def parameters_of(function: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return set()
