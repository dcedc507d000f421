"""How a run alone makes a step: eagerly, through autograd as it is, or captured, recorded once and replayed."""

from __future__ import annotations

import cmath
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from lrsweep import optimizers
from lrsweep.training import user_state
from lrsweep.training.data import DatasetSplit
from lrsweep.training.loss_module import LossModule
from lrsweep.training.recorder import Evaluation, evaluate, means_over
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting

Check: TypeAlias = Callable[[Any, Tensor, Mapping[str, Tensor]], None]


class Eager:
    """How a step is made: forward and backward through autograd, nothing known of what the user's code does."""

    random = True  # the step may draw random numbers
    stateless = False  # the user's functions may keep something between calls

    def __init__(self, module: LossModule, workload: Workload, seed: int) -> None:
        self._module, self._workload, self._seed = module, workload, seed

    def forward(self, batch: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        return self._module.forward(*batch)  # nobody can have put a hook on it

    def backward(self, loss: Tensor) -> None:
        """Put the gradients of the loss that `forward` gave last into the parameters."""
        loss.backward()

    def grads(self) -> dict[str, Tensor]:
        return {}

    def written(self) -> list[Tensor]:
        return []

    def evaluate(self, split: str, step: int, check: Check | None) -> Evaluation:
        return evaluate(self._module, self._workload, split, self._seed, step)


class Captured:
    """How a step is made: replayed. Runs of a workload share one recording, since weights are its inputs."""

    stateless = True  # what keeps something between calls is not captured (stackable.py)

    def __init__(self, module: LossModule, workload: Workload, seed: int) -> None:
        self._workload, self._seed = workload, seed
        tensors = module.tensors()

        def record() -> Stepper:
            stepper = Stepper(module, workload, stacked=False, shared=True)
            params = [tensors[name].detach() for name in stepper.trainable]
            non_trainable = [tensors[name].detach() for name in stepper.non_trainable]
            workload.seed_step(seed, 0)
            stepper.freeze_unused(params, non_trainable, workload.batch(seed, 0))
            return stepper

        self._stepper = workload.once("captured step", record)
        self._trained = [tensors[name] for name in self._stepper.trainable]
        self._non_trainable = [tensors[name] for name in self._stepper.non_trainable]

    @property
    def random(self) -> bool:
        return self._stepper.random is not False

    def forward(self, batch: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        result = self._stepper.train(*self._values(), batch)
        self._grads, self._own = result.grads, result.own
        return result.losses, result.metrics

    def backward(self, loss: Tensor) -> None:
        # The fused CPU kernels read a gradient as if it lay in memory as its parameter does, and clipping writes into
        # each: two parameters that are added have one gradient.
        for number, (parameter, grad) in enumerate(zip(self._trained, self._grads, strict=True)):
            fine = grad.stride() == parameter.stride() and number in self._own
            own = grad if fine else torch.empty_like(parameter).copy_(grad)
            parameter.grad = own if parameter.grad is None else parameter.grad.add_(own)

    def evaluate(self, split: str, step: int, check: Check | None) -> Evaluation:
        """`check` is shown the first batch and what it gave."""

        def forward(*batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            nonlocal check
            result = self._stepper.evaluate(*self._values(), batch)
            if check is not None:
                check(batch, result.losses, result.metrics)
                check = None
            return result.losses, result.metrics

        return means_over(forward, self._workload, split, self._seed, step)

    def grads(self) -> dict[str, Tensor]:
        """The gradients of the loss that `forward` gave last, by parameter."""
        return dict(zip(self._stepper.trainable, self._grads, strict=True))

    def written(self) -> list[Tensor]:
        """What `forward` may write into."""
        return self._values()[1]

    def _values(self) -> tuple[list[Tensor], list[Tensor]]:
        return [value.detach() for value in self._trained], [value.detach() for value in self._non_trainable]


class OneRun:
    """Weights [1, ...] of the one run that there is."""

    def __init__(self, weights: Sequence[Tensor]) -> None:
        self._weights = weights

    def finite_of_runs(self) -> Tensor:
        """[1]: are they finite?"""
        return torch.stack([weight.isfinite().all() for weight in self._weights]).all().reshape(1)


def fusible(grads: Sequence[Tensor | None]) -> bool:
    """Fused kernels take no sparse gradients, and no weight whose momentum begins later than that of others."""
    return all(grad is not None and not grad.is_sparse for grad in grads)


def lay_out_gradients(weights: Sequence[Tensor]) -> None:
    """Fused kernels read a gradient as if it lay in memory as its weight does, which a hook may have changed."""
    for weight in weights:
        grad = weight.grad
        if grad is not None and grad.layout is torch.strided and grad.stride() != weight.stride():
            weight.grad = torch.empty_like(weight).copy_(grad)


@torch.no_grad()
def all_finite(weights: Sequence[Tensor]) -> bool:
    """A finite sum has only finite terms: one number a weight, one look at a device in all. Only a sum that overflowed
    needs a closer one."""
    sums = [weight.sum() for weight in weights]
    if sums and sums[0].device.type != "cpu":
        sums = [torch.stack(sums).sum()]
    return all(cmath.isfinite(total.item()) for total in sums) or all(
        bool(torch.isfinite(weight).all()) for weight in weights
    )


def copied(state: Any) -> Any:
    """A state dict that later steps do not write into."""
    if isinstance(state, Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    return type(state)(copied(value) for value in state) if type(state) in (list, tuple) else state


def kept_by(module: LossModule, setting: OptimizerSetting, workload: Workload) -> user_state.Snapshot:
    """What the user's code keeps: its model, functions, optimizer class and data."""
    task, base_dir = workload.task, workload.workload_spec.base_dir
    functions = [*module.functions, workload.builder, task.collate_fn, task.param_groups]
    functions += [optimizers.lookup(setting.name, base_dir)] if ":" in setting.name else []
    data = [split.data for split in workload.splits.values() if isinstance(split, DatasetSplit)]
    return user_state.snapshot([module.model, *functions, *data])
