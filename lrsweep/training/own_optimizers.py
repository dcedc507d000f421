"""Optimizers of the user's own classes over stacked runs: one real object per run, stepped as its author wrote it.

Its parameters are leaves that share the memory of that run's slices of the stacked weights, with the gradients of the
stacked backward pass. So whatever the class does with the weights it is given, with their order, sizes, attributes and
norms, it does as it would alone.
"""

# m runs under one class

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lrsweep import optimizers
from lrsweep.compiler import torch_private
from lrsweep.errors import UsageError
from lrsweep.training import guards, user_state
from lrsweep.training.audit import AuditFailedError
from lrsweep.training.loss_module import LossModule
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import Run

PREFIX = "model."  # of the names that a LossModule gives to what is the model's


class OwnOptimizers:
    """The optimizers of m runs of one setting.

    `step` makes one update of every run.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        workload: Workload,
        models: Mapping[int, LossModule],
        tensors: Mapping[str, Tensor],
    ) -> None:
        """`models`: a module per seed, whose parameters lend their order, names and attributes.

        `tensors`: see `attach`. Raises what the class raises.
        """
        setting = runs[0].setting
        self._workload, self._label = workload, runs[0].label
        self._seeds = [run.seed for run in runs]
        self._leaves = [_leaves(models[run.seed]) for run in runs]
        self._frozen = {name for name, leaf in self._leaves[0].items() if not leaf.requires_grad}
        self._slices: list[dict[str, Tensor]] = []
        self.attach(tensors)
        base_dir = workload.workload_spec.base_dir
        self._optimizers: list[Any] = []
        self._rates: list[optimizers.ScheduledRate] = []
        for run, leaves in zip(runs, self._leaves, strict=True):
            workload.seed_step(run.seed, 0)
            optimizer = optimizers.build(setting.name, setting.args, leaves.values(), run.lr, base_dir)
            if guards.needs_closure(optimizer) or any(guards.hooked(leaf) for leaf in leaves.values()):
                raise UsageError(f"{type(optimizer).__name__} cannot be trained together")
            optimizers.set_mode(optimizer, training=True)
            self._optimizers.append(optimizer)
            self._rates.append(optimizers.ScheduledRate(optimizer, setting.schedule))
        self._decay = setting.independent_weight_decay
        # Clearing gradients is torch's to do, unless the class does it in a way of its own.
        self._clears = optimizers.clears_gradients(self._optimizers[0])
        self._outside = Outside(type(self._optimizers[0]), self._label)
        # Does an update draw random numbers? Found out in the first one. Runs of a seed draw the same ones, so while
        # nothing is drawn the generators are seeded once for all of them: 5 % of the time of digits with Lion.
        self._draws: bool | None = None
        self._index_seeds()

    def _index_seeds(self) -> None:
        self._of_seed: dict[int, list[int]] = {}
        for position, seed in enumerate(self._seeds):
            self._of_seed.setdefault(seed, []).append(position)

    def __len__(self) -> int:
        return len(self._optimizers)

    def attach(self, tensors: Mapping[str, Tensor]) -> None:
        """Work on these stacked tensors [m, ...] from now on, by the names of the parameters."""
        before = self._slices
        slices = {name: tensors[name].unbind(0) for name in self._leaves[0]}
        runs = range(len(self._leaves))
        self._slices = [{name: part[position] for name, part in slices.items()} for position in runs]
        for position, (leaves, own) in enumerate(zip(self._leaves, self._slices, strict=True)):
            for name, leaf in leaves.items():
                if not before or leaf.data_ptr() == before[position][name].data_ptr():
                    leaf.data = own[name]

    def _sync(self, position: int) -> None:
        """Where the class has given a parameter other memory, copy what is there."""
        own = self._slices[position]
        for name, leaf in self._leaves[position].items():
            if leaf.data_ptr() != own[name].data_ptr():
                own[name].copy_(leaf.data)

    def step(
        self,
        grads: Mapping[str, Tensor],
        factors: Sequence[float],
        step: int,
        skipped: frozenset[int],
        drawn: Tensor | None,
    ) -> None:
        """One update.

        `grads` [m, ...] by name: contiguous, and written into; a parameter that has none is not in it. `factors`: of
        the schedule. `skipped`: positions of runs that have diverged. `drawn`: the state of torch's generator after
        the backward pass, which is where a run alone would go on; None where that pass draws nothing.
        """
        slices = {name: value.unbind(0) for name, value in grads.items()}
        for seed, positions in self._of_seed.items():
            seeded: _Seeded | None = None
            for position in positions:
                if position in skipped:
                    continue
                self._prepare(position, slices, factors[position])
                if seeded is None or self._draws is not False:
                    seeded = _Seeded(self._workload, seed, step, drawn)
                torch_private.step_of(self._optimizers[position])()
                if self._draws is None:
                    self._draws = seeded.moved() or None
                self._finish(position, step)
            if seeded is not None and self._draws is False and seeded.moved():
                text = f"step {step + 1}: {self._label} draws random numbers, which it did not in its first step"
                raise AuditFailedError(text, self._label)
        self._draws = bool(self._draws)

    def _prepare(self, position: int, slices: Mapping[str, Sequence[Tensor]], factor: float) -> None:
        """What comes before the update of a run: its gradients and its rate are set."""
        leaves = self._leaves[position]
        if self._clears:
            self._optimizers[position].zero_grad()
        for name, leaf in leaves.items():
            grad = slices[name][position] if name in slices and leaf.requires_grad else None
            if leaf.grad is None or grad is None:
                leaf.grad = leaf.grad if grad is None else grad
            else:  # its own `zero_grad` keeps gradients
                leaf.grad.add_(grad)
        self._rates[position].set(factor)
        if self._decay is not None:
            weights = [leaf for leaf in leaves.values() if leaf.requires_grad]
            optimizers.decay_independently(weights, self._decay * factor)

    def _finish(self, position: int, step: int) -> None:
        """What comes after the update of a run."""
        self._sync(position)
        for name, leaf in self._leaves[position].items():
            if not self._clears:
                leaf.grad = None
            if leaf.requires_grad and name in self._frozen:
                raise AuditFailedError(f"step {step + 1}: {self._label} thaws a frozen parameter", self._label)

    def set_mode(self, *, training: bool, skipped: frozenset[int] = frozenset()) -> None:
        """`train()` or `eval()` where the class has them: some keep two sets of weights."""
        for position, optimizer in enumerate(self._optimizers):
            if position not in skipped:
                optimizers.set_mode(optimizer, training=training)
                self._sync(position)

    def audit(self, step: int) -> None:
        """Raises AuditFailedError if the class keeps something outside its objects."""
        self._outside.look(step)

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with these runs only; `attach` comes next."""
        self._seeds = [self._seeds[position] for position in positions]
        self._index_seeds()
        self._leaves = [self._leaves[position] for position in positions]
        self._optimizers = [self._optimizers[position] for position in positions]
        self._slices = [self._slices[position] for position in positions]
        self._rates = [self._rates[position] for position in positions]

    def state(self) -> dict[str, Any] | None:
        """Everything the next step depends on, None if a checkpoint cannot hold it."""
        states = [
            optimizers.own_state(optimizer, list(leaves.values()))
            for optimizer, leaves in zip(self._optimizers, self._leaves, strict=True)
        ]
        return None if any(state is None for state in states) else {"draws": self._draws, "optimizers": states}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()` of the same runs, to the bit."""
        self._draws = state["draws"]
        for optimizer, leaves, own in zip(self._optimizers, self._leaves, state["optimizers"], strict=True):
            optimizers.restore_own(optimizer, list(leaves.values()), own)
        for leaves, values in zip(self._leaves, self._slices, strict=True):
            for name, leaf in leaves.items():
                if leaf.data_ptr() != values[name].data_ptr():
                    leaf.data.copy_(values[name])


class _Seeded:
    """The global generators, seeded as for a run alone. `drawn`: see OwnOptimizers.step."""

    def __init__(self, workload: Workload, seed: int, step: int, drawn: Tensor | None) -> None:
        workload.seed_step(seed, step)
        self._next = _draw()
        workload.seed_step(seed, step)
        if drawn is not None:
            torch.default_generator.set_state(drawn)
        self._torch = torch.default_generator.get_state()

    def moved(self) -> bool:
        """Has anything been drawn since? Asking draws, too."""
        return not torch.equal(self._torch, torch.default_generator.get_state()) or _draw() != self._next


def _draw() -> tuple[int, bytes]:
    """What Python's and numpy's generators give next; their states take longer to look at."""
    return random.getrandbits(64), np.random.bytes(8)


class Outside:
    """What a class of the user's keeps outside its objects, in itself or in its module: it would reach other runs."""

    def __init__(self, cls: type, label: str) -> None:
        self._cls, self._label = cls, label
        self._looks = 0
        self._known = user_state.Picture()

    def look(self, step: int) -> None:
        """Call after the first updates and now and then; what settles in the first two calls may: caches are filled,
        modules imported. Raises AuditFailedError."""
        now = user_state.picture([self._cls])
        self._looks += 1
        if self._looks <= 2:
            self._known = now
        elif self._known.full and not self._known.same(now):
            text = f"step {step + 1}: {self._label} keeps state outside its object, in its class or module"
            raise AuditFailedError(text, self._label)


def _leaves(module: LossModule) -> dict[str, nn.Parameter]:
    """Parameters as those of the module, in its order, with the attributes the user gave them."""
    leaves = {}
    for name, parameter in module.named_parameters():
        if name.startswith(PREFIX):
            leaf = nn.Parameter(parameter.detach(), requires_grad=parameter.requires_grad)
            vars(leaf).update(vars(parameter))
            leaves[name] = leaf
    return leaves
