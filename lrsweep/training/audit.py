"""Audits: while runs of the user's code train together or from a recording, one of them is computed alone, by plain
torch on the user's own module, from the weights and the batch of that moment, and compared.

Audited are the first two steps, the last, the first batch of every layout, and steps drawn from the workload and the
step with probability 2 / (step + 1): about 2 ln T of T steps, the same ones whenever a sweep is repeated. Evaluations
likewise, counted in rows.
"""

# L parameters

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrsweep.errors import LrsweepError
from lrsweep.run_result import RunResult
from lrsweep.training import isolation, user_state
from lrsweep.training.data import layout_of, map_tensors
from lrsweep.training.loss_module import LossModule
from lrsweep.training.workload import Workload

FREQUENCY = 2.0
# What two ways of the same arithmetic may differ by, relative to the largest number of a tensor.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
BFLOAT16_TOLERANCE = 0.05
FLOOR = 1e-3  # a gradient this much smaller than the largest one of the model is compared with that one's tolerance
TRIES = 6  # perturbations of the weights, each larger than the one before, to see what rounding may do
ROUNDS = 8  # of them before an audit fails: few perturbations turn over the very unit of a ReLU that rounding did
MARGIN = 10.0  # rounding may do this much more than any of them did


class AuditFailedError(LrsweepError):
    """Something trained together is not what it is alone. `label`: the optimizer to blame, None for the workload."""

    def __init__(self, text: str, label: str | None = None) -> None:
        super().__init__(text)
        self.label = label


@dataclass(frozen=True, slots=True)
class Computed:
    """What a step, or an evaluation, of one run gave: scalars by name, and tensors by name (None: no gradient)."""

    scalars: Mapping[str, Tensor]
    tensors: Mapping[str, Tensor | None]


class Auditor:
    """Decides what is audited, computes it alone, and compares. `count` is the number of audits so far."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._layouts: set[Any] = set()
        self._modules: dict[int, LossModule] = {}
        self._steps: frozenset[int] = workload.once("audited steps", self._drawn_steps)
        self._parameters: Sequence[str] = ()  # names
        self.count = 0
        bfloat16 = workload.workload_spec.train["dtype"] == "bfloat16"
        self._tolerance = BFLOAT16_TOLERANCE if bfloat16 else TOLERANCE[workload.dtype]
        self._epsilon = 2.0**-8 if bfloat16 else torch.finfo(workload.dtype).eps

    def due(self, step: int, batch: Any) -> bool:
        """Is step `step` (from 0) to be audited?"""
        layout = layout_of(batch)
        new = layout not in self._layouts
        self._layouts.add(layout)
        return new or step in self._steps

    def _drawn_steps(self) -> frozenset[int]:
        last = self._workload.total_steps - 1
        return frozenset(step for step in range(last + 1) if step == last or self._drawn("step", step))

    def row_due(self, row: int, step: int) -> bool:
        """Is the evaluation of row `row` (from 1), after `step` steps, to be audited?"""
        return step == self._workload.total_steps or self._drawn("row", row - 1)

    def _drawn(self, what: str, number: int) -> bool:
        share = isolation.stream_seed("audit", what, self._workload.workload_spec.key, number) / 2.0**63
        return number < 2 or share < FREQUENCY / (number + 1)

    def choose(self, step: int, candidates: Sequence[int]) -> int:
        """One of the candidates, another at every step."""
        return candidates[isolation.stream_seed("audited", self._workload.workload_spec.key, step) % len(candidates)]

    def module(self, seed: int) -> LossModule:
        """The module of a seed for computing alone."""
        if seed not in self._modules:
            self._modules[seed] = self._workload.build_model(seed)
        return self._modules[seed]

    def check_python_values(self, seed: int, module: LossModule) -> None:
        """Models may differ between seeds in their weights only: one recording, and one module, serve all of them."""
        now = user_state.snapshot([module.model], alike=True)
        first, wanted = self._workload.once("Python values", lambda: (seed, now))
        if not wanted.same(now):
            raise AuditFailedError(f"step 1: the model of seed {seed} holds other Python values than that of {first}")

    def check_step(
        self, module: LossModule, weights: Mapping[str, Tensor], batch: Any, seed: int, step: int, ours: Computed
    ) -> None:
        """Compare a training step from `weights` (parameters and buffers by name) with the same step made alone.

        `ours` has the gradients and buffers by name, and all parameters `after_step`.
        """

        def alone(weights: Mapping[str, Tensor]) -> Computed:
            _load(module, weights)
            for parameter in module.parameters():
                parameter.grad = None
            self._workload.seed_step(seed, step)
            before = {name: value._version for name, value in module.named_parameters()}
            loss, metrics = module.train()(*map_tensors(Tensor.clone, batch))
            loss.backward()
            grads = {name: value.grad for name, value in module.named_parameters()}
            for parameter in module.parameters():
                parameter.grad = None
            written = {name: value for name, value in module.named_parameters() if value._version != before[name]}
            after = {name: value.detach().clone() for name, value in module.named_buffers()}
            return Computed({"loss": loss.detach(), **metrics}, {**grads, **after, **after_step(written)})

        self._parameters = [name for name, _ in module.named_parameters()]
        self._check(alone, weights, ours, f"step {step + 1}")

    def check_evaluation(
        self, module: LossModule, weights: Mapping[str, Tensor], batch: Any, seed: int, step: int, ours: Computed
    ) -> None:
        """Compare the evaluation of one batch after `step` steps with the same made alone."""

        def alone(weights: Mapping[str, Tensor]) -> Computed:
            _load(module, weights)
            self._workload.seed_step(seed, step)
            with torch.no_grad():
                loss, metrics = module.eval()(*map_tensors(Tensor.clone, batch))
            module.train()
            return Computed({"loss": loss, **metrics}, {})

        self._check(alone, weights, ours, f"the evaluation after step {step}")

    def _check(
        self,
        alone: Callable[[Mapping[str, Tensor]], Computed],
        weights: Mapping[str, Tensor],
        ours: Computed,
        where: str,
    ) -> None:
        self.count += 1
        state = torch.default_generator.get_state()
        try:
            right = alone(weights)
            wrong = self._wrong(ours, right, None)
            if wrong is not None:
                # How far rounding alone may carry, from weights that differ in their last digits.
                others: list[Computed] = []
                while wrong is not None and len(others) < ROUNDS * TRIES:
                    others += [alone(self._perturbed(weights, len(others) + number)) for number in range(TRIES)]
                    wrong = self._wrong(ours, right, others)
        except AuditFailedError:
            raise
        except Exception as error:  # noqa: BLE001 - the user's code, alone
            wrong = f"alone it raises {isolation.describe(error)}"
        finally:
            torch.default_generator.set_state(state)
        if wrong is not None:
            raise AuditFailedError(f"{where}: {wrong}")

    def _perturbed(self, weights: Mapping[str, Tensor], number: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(number)
        size = self._epsilon * 4.0 ** (number % TRIES) / 4.0

        def moved(value: Tensor) -> Tensor:
            if not value.is_floating_point():
                return value
            noise = torch.rand(value.shape, generator=generator, dtype=value.dtype).to(value.device)
            return value * (1 + size * (2 * noise - 1))

        return {name: moved(value) for name, value in weights.items()}

    def _wrong(self, ours: Computed, right: Computed, others: Sequence[Computed] | None) -> str | None:
        """What differs, in words, or None."""
        for name, mine in ours.scalars.items():
            reach = None if others is None else [other.scalars[name] for other in others]
            if not self._close(mine, right.scalars[name], reach, 0.0):
                return f"{name} is {float(mine):.6g} together and {float(right.scalars[name]):.6g} alone"
        if not all(bool(value.isfinite().all()) for value in right.scalars.values()):
            return None  # gradients of a loss that is not finite are not applied
        sizes = [float(value.abs().max()) for value in right.tensors.values() if value is not None and value.numel()]
        floor = FLOOR * max((size for size in sizes if size < float("inf")), default=0.0)
        for name, theirs in right.tensors.items():
            found = ours.tensors.get(name)
            short = name.removeprefix("model.")
            if theirs is None:
                if found is not None:
                    return f"{short} has a gradient together and none alone"
                continue
            if found is None:
                return f"{short} has no gradient together and one alone"
            reach = None if others is None else [_given(other.tensors[name], theirs) for other in others]
            if not self._close(
                found, theirs, reach, floor if others is None else max(floor, self._of_layer(name, right))
            ):
                largest = float((found.double() - theirs.double()).abs().max())
                return f"the gradient or value of {short} differs by {largest:.3g}"
        return None

    def _of_layer(self, name: str, right: Computed) -> float:
        """The largest number in a gradient of the layer that this tensor is of.

        Of a bias before BatchNorm, whose gradient is 0, only rounding is left, of sums as large as those for weights.
        """
        layer = name.rpartition(".")[0]
        grads = (right.tensors.get(other) for other in self._parameters if other.rpartition(".")[0] == layer)
        return max((float(grad.abs().max()) for grad in grads if grad is not None and grad.numel()), default=0.0)

    def _close(self, mine: Tensor, theirs: Tensor, reach: Sequence[Tensor] | None, floor: float) -> bool:
        mine, theirs = mine.detach().double(), theirs.detach().double()
        if mine.shape != theirs.shape:
            return False
        if not mine.numel() or torch.equal(mine, theirs):
            return True
        finite = theirs.isfinite()
        if not torch.equal(finite, mine.isfinite()):
            return reach is not None and any(not torch.equal(other.isfinite(), finite) for other in reach)
        difference = torch.where(finite, mine - theirs, 0.0).abs()
        largest = float(torch.where(finite, theirs, 0.0).abs().max())
        allowed = self._tolerance * max(largest, floor)
        if reach is not None:
            moved = [torch.where(finite, other.double() - theirs, 0.0).abs().nan_to_num(0.0).max() for other in reach]
            allowed += MARGIN * float(torch.stack(moved).max())
        return float(difference.max()) <= allowed


def after_step(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Of parameters that a step may write into, beside their gradients in `Computed`."""
    return {f"{name} after the step": value.detach().clone() for name, value in parameters.items()}


# How far a whole run may be from the same run alone, relative to its losses: rounding grows at high rates.
WHOLE_RUN = {"float64": 1e-6, "float32": 0.05, "bfloat16": 0.2}


def difference(together: RunResult, alone: RunResult, workload: Workload) -> str | None:
    """What differs between a run and the same run trained alone in full, in words; None if nothing does."""
    run = f"run {together.run_id}"
    if alone.status != together.status:
        return f"{run} is {together.status} together and {alone.status} alone"
    tolerance = WHOLE_RUN[workload.workload_spec.train["dtype"]]
    for column, values in together.history.items():
        others = alone.history.get(column, [])
        if len(others) != len(values):
            return f"{run} has another number of rows together ({len(values)}) than alone ({len(others)})"
        size = max((abs(value) for value in others if math.isfinite(value)), default=0.0)
        for step, mine, theirs in zip(together.history["step"], values, others, strict=True):
            same = mine == theirs or (math.isnan(mine) and math.isnan(theirs))
            if not same and not abs(mine - theirs) <= tolerance * size:
                return f"{run}: {column} at step {step} is {mine:.6g} together and {theirs:.6g} alone"
    return None


def _given(value: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if value is None else value


@torch.no_grad()
def _load(module: LossModule, weights: Mapping[str, Tensor]) -> None:
    for name, value in module.tensors().items():
        value.copy_(weights[name])
