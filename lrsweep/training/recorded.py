"""One run after another as in single.py, but with a step that is recorded once and replayed.

For models that keep a core busy by themselves: stacking them gains nothing, dispatch and autograd still cost a tenth.
Runs of a problem share one recording, since weights are its inputs. A run that fails this way may not fail without a
recording.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lrsweep.run_result import Hooks, RunResult
from lrsweep.training import sequential
from lrsweep.training.recorder import means_over, untrained
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import LossModule, Workload

if TYPE_CHECKING:
    from lrsweep.plan import Run

_STEPPERS: weakref.WeakKeyDictionary[Workload, Stepper] = weakref.WeakKeyDictionary()


def train(runs: Sequence[Run], workload: Workload, hooks: Hooks) -> Iterator[RunResult]:
    """Train each of `runs`, which share the recipe of `problem`; yield its outcome when it is done.

    Raises StoppedError, after `hooks.save`, when the sweep is stopping; see single.train.
    """
    return sequential.train(runs, workload, hooks, Recorded)


class Recorded(sequential.Training):
    """One run on its way, its step a recording."""

    def __init__(self, run: Run, workload: Workload) -> None:
        super().__init__(run, workload)
        self._stepper = _stepper_of(workload, self.model, run.seed)
        values = {**dict(self.model.named_parameters()), **dict(self.model.named_buffers())}
        self._trained = [values[name] for name in self._stepper.trainable]
        self._non_trainable = [values[name] for name in self._stepper.non_trainable]

    def start(self) -> None:
        """Row 0: the untrained model on the whole of both splits."""
        found = untrained(self._workload, self._run.seed, self.model)
        train, val = ({name: [value] for name, value in found[split].items()} for split in ("train", "val"))
        self._row(0, train=train, val=val)

    def _forward(self, batch: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        result = self._stepper.train(*self._values(), batch)
        self._grads = result.grads
        return result.losses, result.metrics

    def _means_over(self, split: str) -> dict[str, float]:
        def forward(*batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
            result = self._stepper.evaluate(*self._values(), batch)
            return result.losses, result.metrics

        return means_over(forward, self._workload, split, self._run.seed, self.step)

    def _values(self) -> tuple[list[Tensor], list[Tensor]]:
        return [value.detach() for value in self._trained], [value.detach() for value in self._non_trainable]

    def _seed_step(self) -> None:
        if self._stepper.random is not False:
            super()._seed_step()

    def _backward(self, loss: Tensor) -> None:
        # The fused CPU kernels read a gradient as if it lay in memory as its parameter does, and clipping writes into
        # each: two parameters that are added have one gradient.
        seen: set[int] = set()
        for parameter, grad in zip(self._trained, self._grads, strict=True):
            fine = grad.stride() == parameter.stride() and grad.data_ptr() not in seen
            seen.add(grad.data_ptr())
            parameter.grad = grad if fine else torch.empty_like(parameter).copy_(grad)


def _stepper_of(workload: Workload, module: LossModule, seed: int) -> Stepper:
    if workload not in _STEPPERS:
        stepper = Stepper(module, workload, stacked=False, shared=True)
        values = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        workload.seed_step(seed, 0)
        params, non_trainable = (
            [values[name].detach() for name in names] for names in (stepper.trainable, stepper.non_trainable)
        )
        stepper.freeze_unused(params, non_trainable, workload.batch(seed, 0))
        _STEPPERS[workload] = stepper
    return _STEPPERS[workload]
