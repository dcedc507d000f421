"""Optimizers over stacked runs of which each has a real object of its own, stepped as its author wrote it: the user's
own classes, and torch's where the parameter groups of a task differ from seed to seed.

Its parameters are leaves in memory of their own, as they are alone, with the gradients of the stacked backward pass;
after every update they are copied into that run's slices of the stacked weights (8 % of the time of digits with Lion).
So whatever the class does with the weights it is given, with their order, sizes, attributes, norms and memory, it does
as it would alone.
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
from lrsweep.training import guards, param_groups, user_names, user_state
from lrsweep.training.audit import AuditFailedError
from lrsweep.training.loss_module import PREFIX, LossModule
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting, Run


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
        self._given = [[dict(vars(leaf)) for leaf in leaves.values()] for leaves in self._leaves]
        self._frozen = {name for name, leaf in self._leaves[0].items() if not leaf.requires_grad}
        self.attach(tensors)
        base_dir = workload.workload_spec.base_dir
        self._outside = Outside(setting, base_dir, self._label) if ":" in setting.name else None
        self._optimizers: list[Any] = []
        self._decayed: list[list[nn.Parameter]] = []
        self._rates: list[optimizers.ScheduledRate] = []
        for run, leaves in zip(runs, self._leaves, strict=True):
            workload.seed_step(run.seed, 0)
            own = {name.removeprefix(PREFIX): leaf for name, leaf in leaves.items()}
            groups = models[run.seed].groups
            params = list(own.values()) if groups is None else param_groups.given(groups, own, run.lr)
            optimizer = optimizers.build(setting.name, setting.args, params, run.lr, base_dir)
            self._decayed.append(param_groups.decayed(groups, own))
            odd = guards.needs_closure(optimizer) or optimizers.clears_gradients(optimizer)
            if odd or any(guards.hooked(leaf) for leaf in leaves.values()):
                raise UsageError(f"{type(optimizer).__name__} cannot be trained together")
            self._optimizers.append(optimizer)
            self._switch(len(self._optimizers) - 1, 0, training=True)
            self._rates.append(optimizers.ScheduledRate(optimizer, setting.schedule))
        self._decay = setting.independent_weight_decay
        # Does an update draw random numbers? Found out in the first one. While nothing is drawn the generators are
        # seeded once for all runs: a seeding took 25 of the 470 microseconds of a run.
        self._draws: bool | None = None
        self._index_seeds()

    def _index_seeds(self) -> None:
        self._of_seed: dict[int, list[int]] = {}
        for position, seed in enumerate(self._seeds):
            self._of_seed.setdefault(seed, []).append(position)

    def __len__(self) -> int:
        return len(self._optimizers)

    def attach(self, tensors: Mapping[str, Tensor]) -> None:
        """Write into these stacked tensors [m, ...] from now on, by the names of the parameters."""
        slices = [tensors[name].unbind(0) for name in self._leaves[0]]
        self._slices = [[part[position] for part in slices] for position in range(len(self._leaves))]

    @torch.no_grad()
    def _publish(self, position: int) -> None:
        """Copy the parameters of a run to where the forward pass reads them."""
        torch_private.foreach("copy", self._slices[position], list(self._leaves[position].values()))

    @torch.enable_grad()
    def step(
        self,
        grads: Mapping[str, Tensor],
        factors: Sequence[float],
        step: int,
        skipped: frozenset[int],
        drawn: Tensor | None,
    ) -> None:
        """One update, with autograd switched on, as after `loss.backward()` in a plain loop.

        `grads` [m, ...] by name: contiguous, and written into; a parameter that has none is not in it. `factors`: of
        the schedule. `skipped`: positions of runs that have diverged. `drawn`: the state of torch's generator after
        the backward pass, which is where a run alone would go on; None where that pass draws nothing.
        """
        slices = {name: value.unbind(0) for name, value in grads.items()}
        seeded: _Seeded | None = None
        for seed, positions in self._of_seed.items():
            for position in positions:
                if position in skipped:
                    continue
                self._prepare(position, slices, factors[position])
                if seeded is None or self._draws is not False:
                    seeded = _Seeded(self._workload, seed, step, drawn)
                torch_private.step(self._optimizers[position])
                if self._draws is None:
                    self._draws = seeded.moved() or None
                self._finish(position, step)
        if seeded is not None and self._draws is False and seeded.moved():
            text = f"step {step + 1}: {self._label} draws random numbers, which it did not in its first step"
            raise AuditFailedError(text, self._label)
        self._draws = bool(self._draws)

    def _prepare(self, position: int, slices: Mapping[str, Sequence[Tensor]], factor: float) -> None:
        """What comes before the update of a run: its gradients and its rate are set."""
        for name, leaf in self._leaves[position].items():
            leaf.grad = slices[name][position] if name in slices and leaf.requires_grad else None
        self._rates[position].set(factor)
        if self._decay is not None:
            optimizers.decay_independently(self._decayed[position], self._decay * factor)

    def _finish(self, position: int, step: int) -> None:
        """What comes after the update of a run."""
        self._publish(position)
        for name, leaf in self._leaves[position].items():
            leaf.grad = None
            if leaf.requires_grad and name in self._frozen:
                raise AuditFailedError(f"step {step + 1}: {self._label} thaws a frozen parameter", self._label)

    def set_mode(self, step: int, *, training: bool, skipped: frozenset[int] = frozenset()) -> None:
        """`train()` or `eval()` after `step` steps, where the class has them: some keep two sets of weights."""
        for position in range(len(self._optimizers)):
            if position not in skipped:
                self._switch(position, step, training=training)

    def _switch(self, position: int, step: int, *, training: bool) -> None:
        def seed() -> None:
            self._workload.seed_step(self._seeds[position], step)

        if optimizers.set_mode(self._optimizers[position], training=training, seed=seed):
            self._publish(position)

    def audit(self, step: int) -> None:
        """Raises AuditFailedError if the class keeps something outside its objects, or makes other weights.

        Called where `look_due`, and when the last run has ended: what has changed by then was in no result yet.
        """
        if self._outside is not None:
            self._outside.look(step)
        for leaves, own in zip(self._leaves, self._slices, strict=True):
            for leaf, part in zip(leaves.values(), own, strict=True):
                if leaf.dtype != part.dtype or leaf.shape != part.shape:
                    text = f"step {step + 1}: {self._label} gives a parameter another shape or dtype"
                    raise AuditFailedError(text, self._label)
        for leaves, given in zip(self._leaves, self._given, strict=True):
            if not all(map(_same_attributes, leaves.values(), given)):
                text = f"step {step + 1}: {self._label} keeps attributes of parameters, which the model could read"
                raise AuditFailedError(text, self._label)

    def keep(self, positions: Sequence[int]) -> None:
        """Go on with these runs only; `attach` comes next."""
        self._seeds = [self._seeds[position] for position in positions]
        self._index_seeds()
        self._leaves = [self._leaves[position] for position in positions]
        self._given = [self._given[position] for position in positions]
        self._decayed = [self._decayed[position] for position in positions]
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
            for leaf, value in zip(leaves.values(), values, strict=True):
                leaf.data.copy_(value)


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


def _same_attributes(leaf: Tensor, given: Mapping[str, Any]) -> bool:
    return vars(leaf).keys() == given.keys() and all(vars(leaf)[key] is value for key, value in given.items())


def _draw() -> tuple[int, float]:
    """What Python's and numpy's generators give next; their states take longer to look at."""
    return random.getrandbits(64), np.random.random()


class Outside:
    """What a class of the user's keeps outside its objects, in itself or in its module: it would reach other runs.

    To be made before the first object. Nothing may change from then on: a cache that is filled by the first run would
    be found by the next.
    """

    def __init__(self, setting: OptimizerSetting, base_dir: str, label: str) -> None:
        self._cls, self._label = optimizers.lookup(setting.name, base_dir), label
        self._known = user_state.snapshot([self._cls], libraries=True)

    def look(self, step: int) -> None:
        """Raises AuditFailedError if something has changed."""
        now = user_state.snapshot([self._cls], libraries=True)
        if not self._known.same(now):
            name = user_names.of_change(self._known, now)
            where = f" ({name})" if name else ""
            text = f"step {step + 1}: {self._label} keeps state outside its object, in its class or module{where}"
            raise AuditFailedError(text, self._label)


def look_due(workload: Workload, step: int) -> bool:
    """After step `step` (from 0): the first two, the last, and evaluations 1, 2, 4, 8, ... (to look at every one took
    4 % of the time of digits with Lion)."""
    if step < 2 or step + 1 == workload.total_steps:
        return True
    row, rest = divmod(step + 1, workload.row_interval)
    return not rest and row.bit_count() == 1


def _leaves(module: LossModule) -> dict[str, nn.Parameter]:
    """Parameters as those of the module, in its order, with the attributes the user gave them."""
    leaves = {}
    for name, parameter in module.named_parameters():
        if name.startswith(PREFIX):
            leaf = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
            vars(leaf).update(vars(parameter))
            leaves[name] = leaf
    return leaves


def inside(slots: slice, some: Sequence[int]) -> frozenset[int]:
    """Positions of `some` slots in these."""
    return frozenset(slot - slots.start for slot in some if slots.start <= slot < slots.stop)
