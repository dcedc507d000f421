"""Update rules for stacks of runs: torch's own optimizers, one learning rate per run.

Every elementwise rule of `torch.optim` is linear in the learning rate: a step moves the weights by `lr * u`. So torch's
own optimizer, built at lr = 1 over *zero-valued* tensors and given the stacked gradients, leaves exactly `u` in them;
the weights then move by `u` times the rate of their run, and `u` is zeroed again. Weight decay reads the weights and is
therefore applied outside: coupled decay joins the gradient, the other kinds shrink the weights before the step.

In these tensors every run has whole vectors of the processor, more than it fills: what is left over at the end of a
tensor torch's kernels round in another way, and a run would depend on its place among the others.

# m runs under one rule, P parameters of a run; p_l, g_l, u_l have shape [m, *shapes[l]]
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrsweep import optimizers
from lrsweep.compiler import torch_private
from lrsweep.compiler.torch_private import foreach
from lrsweep.compiler.vectors import padded
from lrsweep.system.plain import uses

# Rules that one factor per run cannot express, and why their runs train alone.
ALONE = {
    "adafactor": "adafactor scales its steps by norms of whole tensors",
    "asgd": "asgd is not linear in lr (lr also enters its decay)",
    "muon": "muon orthogonalizes whole weight matrices",
    "rprop": "rprop is not linear in lr (lr is only its initial step size)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Decay:
    """The weight decay of one run; at most one of the three is not 0.

    `coupled` times the weights is added to the gradient; `decoupled` is w <- w (1 - lr decay) and `independent`
    w <- w (1 - decay factor), with the schedule's factor, both before the update (Loshchilov & Hutter 2019,
    arXiv:1711.05101).
    """

    coupled: float = 0.0
    decoupled: float = 0.0
    independent: float = 0.0


def split(name: str, args: Mapping[str, Any], independent: float | None = None) -> tuple[str, Decay]:
    """The rule of a run, as a text that `StackedRule` takes and equal for runs that can share one, and its decay.

    Arguments not given have torch's defaults, but no weight decay beside an `independent` one. Weight decay is no part
    of a rule, so adam and adamw are one.
    """
    decay = Decay(independent=independent or 0.0)
    args = optimizers.resolved(name, args, independent=independent is not None)
    amount = float(args.pop("weight_decay", 0.0))
    decoupled = bool(args.pop("decoupled_weight_decay", False)) or name == "adamw"
    if amount:
        decay = Decay(decoupled=amount) if decoupled else Decay(coupled=amount)
    name = "adam" if name == "adamw" else name
    return json.dumps([name, args], sort_keys=True), decay


class StackedRule:
    """One update rule over m runs.

    `rule` comes from `split`; `decays` has an entry per run; `base_dir` is where import paths start.
    """

    def __init__(
        self,
        rule: str,
        decays: Sequence[Decay],
        shapes: Sequence[Sequence[int]],
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        name, args = json.loads(rule)
        self._name = name
        self._shapes = [tuple(shape) for shape in shapes]
        self._sizes = [math.prod(shape) for shape in self._shapes]
        self._dtype, self._device = dtype, torch.device(device)
        self._sign = -1.0 if args.get("maximize") else 1.0
        # Plain SGD moves along the gradient itself and needs no tensors of its own.
        self._plain = name == "sgd" and not args.get("momentum") and uses("kernels")
        kinds = torch.tensor([[d.coupled, d.decoupled, d.independent] for d in decays], dtype=torch.float64).T
        if self._plain:
            kinds = torch.stack([torch.zeros_like(kinds[0]), kinds[0] + kinds[1], kinds[2]])
        self._decays = kinds.to(dtype).to(self._device)
        self._allocate()
        args |= optimizers.fused(name, self._device.type)
        self._optimizer: Any = optimizers.build(name, args, self._memory, 1.0, ".")
        self._step = optimizers.step_of(self._optimizer)
        self._kernel: Kernel | None = None

    def _allocate(self) -> None:
        """Whatever has an entry per run and carries nothing from one step to the next."""
        m = self._decays.shape[1]
        self._coupled, self._decoupled, self._independent = self._decays
        self._couples = bool(self._coupled.any())
        self._shrinks = bool(self._decoupled.any()) or bool(self._independent.any())
        self._memory = [self._zeros(0 if self._plain else m, padded(size, self._dtype)) for size in self._sizes]
        self._u = [self._of_runs(memory, i) for i, memory in enumerate(self._memory)]
        self._grads: list[Tensor | None] = [
            torch.zeros_like(memory) if memory.shape[1] > size else None
            for memory, size in zip(self._memory, self._sizes, strict=True)
        ]
        self._lr, self._lr_views = self._per_run(m)
        self._shrink, self._shrink_views = self._per_run(m)
        # torch negates the gradient under `maximize` before it adds the decay.
        coupled, self._coupled_views = self._per_run(m)
        coupled.copy_(self._sign * self._coupled)

    def _of_runs(self, memory: Tensor, number: int) -> Tensor:
        """The parameter of this number in memory that has a row per run."""
        return memory[:, : self._sizes[number]].view(len(memory), *self._shapes[number])

    def _zeros(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=self._dtype, device=self._device)

    def _per_run(self, m: int) -> tuple[Tensor, list[Tensor]]:
        """A vector with an entry per run, and a view of it that broadcasts over each parameter."""
        vector = self._zeros(m)
        return vector, [vector.view(m, *[1] * len(shape)) for shape in self._shapes]

    @torch.no_grad()
    def step(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        lr_m: Tensor,
        factor_m: Tensor | None = None,
        alive_m: Tensor | None = None,
    ) -> None:
        """Update `params` in place; `grads` are left as they are.

        lr_m: rates of this update. factor_m: the schedule's factors, needed where a run has independent decay. alive_m:
        the weights of the others stay as they are.
        """
        self._lr.copy_(lr_m if alive_m is None else lr_m * alive_m)
        moves = self._displacements(params, grads)
        if alive_m is not None:
            moves = [move.masked_fill(~alive_m.view(-1, *[1] * (move.ndim - 1)), 0.0) for move in moves]
            factor_m = None if factor_m is None else factor_m * alive_m
        if self._shrinks:
            torch.mul(self._lr, self._decoupled, out=self._shrink)
            if factor_m is not None:
                self._shrink.addcmul_(self._independent, factor_m.to(self._shrink))
            torch.sub(1, self._shrink, out=self._shrink)
            foreach("mul", params, self._shrink_views)
        if self._plain:
            self._lr.mul_(-self._sign)
        foreach("addcmul", params, moves, self._lr_views)
        if not self._plain:
            foreach("zero", self._memory)

    def _displacements(self, params: list[Tensor], grads: list[Tensor]) -> list[Tensor]:
        """What torch's rule does to weights at lr 1, without weight decay."""
        if self._plain:
            return grads
        if self._couples:
            coupled = zip(grads, params, self._coupled_views, strict=True)
            grads = [torch.addcmul(grad, param, decay) for grad, param, decay in coupled]
        grads = [self._in_memory(number, grad) for number, grad in enumerate(grads)]
        if self._kernel is not None:
            self._kernel(grads)
            return self._u
        for memory, grad in zip(self._memory, grads, strict=True):
            memory.grad = grad
        self._step()
        self._find_kernel()
        return self._u

    def _in_memory(self, number: int, grad: Tensor) -> Tensor:
        """As the optimizer's memory lies: torch's fused CPU kernels read any gradient as if it were contiguous."""
        filled = self._grads[number]
        if filled is None:
            return grad.contiguous().view_as(self._memory[number])
        self._of_runs(filled, number).copy_(grad)
        return filled

    def _find_kernel(self) -> None:
        """What makes the updates after the first, if there is something faster than the optimizer."""
        self._kernel = None
        if uses("kernels") and all(map(self._optimizer.state.get, self._memory)):
            self._kernel = kernel_of(self._name, self._optimizer, self._device.type)

    def keep(self, index: Tensor) -> None:
        """Go on with these runs only (positions in the present order, ascending)."""
        before = self._memory
        self._decays = self._decays[:, index]
        self._allocate()
        replaced = dict(zip(before, self._memory, strict=True))
        state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        for old, new in replaced.items():
            for key, value in self._optimizer.state[old].items():
                per_run = isinstance(value, Tensor) and value.shape == old.shape
                state[new][key] = value[index] if per_run else value
        self._optimizer.state = state
        for group in self._optimizer.param_groups:
            group["params"] = [replaced[old] for old in group["params"]]
        self._find_kernel()

    def state(self) -> dict[str, Any]:
        """Everything the next step depends on: tensors and plain values, copies of both."""
        groups = [{key: v for key, v in group.items() if key != "params"} for group in self._optimizer.param_groups]
        tensors = [dict(self._optimizer.state[memory]) for memory in self._memory]
        return copy.deepcopy({"groups": groups, "tensors": tensors})

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from the `state()` of a rule with the same runs, to the bit."""
        state = copy.deepcopy(dict(state))
        for group, saved in zip(self._optimizer.param_groups, state["groups"], strict=True):
            group.update(saved)
        tensors = [
            {key: self._restored(number, value) for key, value in saved.items()}
            for number, saved in enumerate(state["tensors"])
        ]
        self._optimizer.state = defaultdict(dict, zip(self._memory, tensors, strict=True))
        self._find_kernel()

    def _restored(self, number: int, value: Any) -> Any:
        """What a version of lrsweep has saved that kept no memory beside what the runs fill."""
        memory = self._memory[number]
        if not isinstance(value, Tensor) or value.shape in (memory.shape, ()):
            return value
        filled = value.new_zeros(memory.shape)
        self._of_runs(filled, number).copy_(value.view(len(memory), *self._shapes[number]))
        return filled


class GroupedRule:
    """A `StackedRule` for each parameter group: each moves parameters of its own, by its share of the rate."""

    def __init__(self, groups: Sequence[tuple[Sequence[int], float, StackedRule]]) -> None:
        """The places of the parameters of each group among those that `step` is given, its share, and its rule."""
        self._groups = groups

    def step(
        self,
        params: list[Tensor],
        grads: list[Tensor],
        lr_m: Tensor,
        factor_m: Tensor | None = None,
        alive_m: Tensor | None = None,
    ) -> None:
        """See StackedRule. Parameters in no group stay as they are."""
        for places, share, rule in self._groups:
            rule.step([params[i] for i in places], [grads[i] for i in places], lr_m * share, factor_m, alive_m)

    def keep(self, index: Tensor) -> None:
        for _, _, rule in self._groups:
            rule.keep(index)

    def state(self) -> dict[str, Any]:
        return {"rules": [rule.state() for _, _, rule in self._groups]}

    def restore(self, state: Mapping[str, Any]) -> None:
        for (_, _, rule), saved in zip(self._groups, state["rules"], strict=True):
            rule.restore(saved)


# Up to this many parameters a run lies in one row. A bound on the run, not on the group, so that a group that shrinks
# keeps its layout and its bits.
ROWS_UP_TO = 2048


class Weights:
    """The weights of K stacked runs, copied: `params` [K, ...], and the same memory as the `parts` that rules update.

    Parts are a row of P numbers per run for small runs, else the parameters. With rows, whole vectors are filled once
    for a run and not once for each parameter. Without them training took 2 % longer on workload a of
    `python -m tests.bench.tricks` when nothing had to be filled (2026-11).
    """

    def __init__(self, params: Sequence[Tensor], *, in_rows: bool = True) -> None:
        """`in_rows`: small runs may lie in rows."""
        runs = params[0].shape[0]
        sizes = [math.prod(param.shape[1:]) for param in params]
        self.in_rows = in_rows and sum(sizes) <= ROWS_UP_TO and uses("rows")
        if self.in_rows:
            self._whole = torch.cat([param.reshape(runs, -1) for param in params], 1)
            pieces = self._whole.split(sizes, 1)
        else:
            self._whole = torch.cat([param.reshape(-1) for param in params])
            pieces = self._whole.split([runs * size for size in sizes])
        self.params = [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]
        self.parts = [self._whole] if self.in_rows else self.params
        if self.in_rows:
            self._grads = torch.empty_like(self._whole)
            pieces = self._grads.split(sizes, 1)
            self._grad_views = [piece.view(param.shape) for piece, param in zip(pieces, params, strict=True)]

    def gathered(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        """Gradients of `params` as those of `parts`; those in rows are copied, and hold until the next call.

        Concatenating them anew takes 5 us longer, 1 % of an update of workload a of `python -m tests.bench` (2026-11).
        """
        if not self.in_rows:
            return grads
        foreach("copy", self._grad_views, grads)
        return [self._grads]

    def finite(self) -> bool:
        """A quick look at everything; False may be a false alarm (a sum can overflow), True never is."""
        return math.isfinite(self._whole.sum().item())

    def finite_of_runs(self) -> Tensor:
        """Which runs have finite weights only, [K], without a look at the device."""
        largest = [
            torch.linalg.vector_norm(part.unsqueeze(-1).flatten(1), math.inf, dim=1)
            for part in self.parts
            if part.numel()
        ]
        return torch.stack(largest).amax(0).isfinite()

    def not_finite(self) -> list[int]:
        """The rows of the runs that hold a weight which is not finite."""
        fine = torch.stack([param.unsqueeze(-1).flatten(1).isfinite().all(1) for param in self.params]).all(0)
        return [row for row, ok in enumerate(fine.tolist()) if not ok]

    def clear(self, rows: Tensor) -> None:
        """Set the weights of these runs to 0."""
        for param in self.params:
            param.index_fill_(0, rows, 0.0)


@torch.no_grad()
def clipped(grads: Sequence[Tensor], max_norm: float) -> list[Tensor]:
    """`torch.nn.utils.clip_grad_norm_` for each run over all its parameters.

    Not in place: two parameters that are added have one gradient, and one that is summed has one number for all.
    """
    runs = len(grads[0])  # of at least two rows: one alone is summed in another order
    rows = [grad.unsqueeze(-1).flatten(1).expand(max(runs, 2), -1) for grad in grads]
    norms = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(row, dim=1) for row in rows]), dim=0)[:runs]
    scale = (max_norm / (norms + 1e-6)).clamp(max=1.0)
    return [grad * scale.view(-1, *[1] * (grad.ndim - 1)) for grad in grads]


LATE = 2.0**24  # an update number at which Adam's bias correction is over, and to which float32 adds no 1

Kernel = Callable[[list[Tensor]], None]


def kernel_of(name: str, optimizer: Any, device: str) -> Kernel | None:
    """The next update of all weights of `optimizer` (a built-in by name, already used) as a function of the gradients.

    None where there is nothing faster than its own `step`. It stays right until the state is replaced.

    Without these training takes 11 % longer on workload a of `python -m tests.bench.tricks`, without that of RMSprop
    13 % (2026-11).
    """
    (group,) = optimizer.param_groups
    late = name == "rmsprop" and device == "cpu" and _is_late_adam(group)
    return _kernel(name, optimizer) if (group.get("fused") or late) and _kernel_works(name) else None


def _kernel(name: str, optimizer: Any) -> Kernel:
    """torch's kernel of one update, called without what `step` does before it."""
    (group,) = optimizer.param_groups
    weights = list(group["params"])

    def state(slot: str) -> list[Tensor]:
        return [optimizer.state[weight][slot] for weight in weights]

    def options(*keys: str) -> dict[str, Any]:
        return {"lr": 1.0, "weight_decay": 0.0, "maximize": group["maximize"]} | {key: group[key] for key in keys}

    kernel = torch_private.FUSED["adam" if name == "rmsprop" else name]
    if kernel is None:
        raise NotImplementedError(name)
    if name == "sgd":
        momentum = state("momentum_buffer")
        more = options("momentum", "dampening", "nesterov") | {"is_first_step": False}
        return lambda grads: kernel(weights, grads, momentum, **more)
    if name == "rmsprop":
        # What Adam is late in its training, without its mean of gradients: at beta1 = 0 that is the gradient, so one
        # tensor can be both. torch has no kernel for RMSprop, and its square roots of zeros, which the gradients of
        # idle units give, are twenty times slower than others.
        squares, late = state("square_avg"), [torch.tensor(LATE) for _ in weights]
        more = options("eps") | {"beta1": 0.0, "beta2": group["alpha"], "amsgrad": False}
        return lambda grads: kernel(weights, grads, grads, squares, [], late, **more)
    steps = state("step")
    if name == "adagrad":
        lists = [state("sum"), steps]
        more = options("lr_decay", "eps")
    else:
        largest = state("max_exp_avg_sq") if group["amsgrad"] else []
        beta1, beta2 = group["betas"]
        lists = [state("exp_avg"), state("exp_avg_sq"), largest, steps]
        more = options("eps", "amsgrad") | {"beta1": beta1, "beta2": beta2}

    def update(grads: list[Tensor]) -> None:
        for step in steps:
            step.add_(1)
        kernel(weights, grads, *lists, **more)

    return update


def _is_late_adam(group: Mapping[str, Any]) -> bool:
    plain = not (group["momentum"] or group["centered"] or group["maximize"])
    return plain and 1 - group["alpha"] ** LATE == 1


@functools.cache
def _kernel_works(name: str) -> bool:
    """Does this torch have the kernel, and does it make the updates that the optimizer makes?"""
    own, by_kernel = (torch.linspace(-1.0, 1.0, 5, dtype=torch.float32) for _ in range(2))
    grads = [torch.linspace(2.0, k, 5, dtype=torch.float32) for k in range(3)]
    args = {"momentum": 0.9} if name == "sgd" else {}
    one, other = (optimizers.build(name, args | optimizers.fused(name, "cpu"), [w], 1.0, ".") for w in (own, by_kernel))
    try:
        for weight, optimizer, count in ((own, one, 3), (by_kernel, other, 1)):
            for grad in grads[:count]:
                weight.grad = grad.clone()
                optimizers.step_of(optimizer)()
        update = _kernel(name, other)
        for grad in grads[1:]:
            update([grad.clone()])
    except Exception:  # noqa: BLE001 - whatever a release of torch has changed, the optimizer makes the updates then
        return False
    return torch.allclose(own, by_kernel, rtol=1e-5, atol=1e-6)
