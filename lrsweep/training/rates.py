"""The learning rate of each run of a group at each step, and which runs of it share an update rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrsweep import schedules
from lrsweep.training import update_rules
from lrsweep.training.loss_module import PREFIX
from lrsweep.training.recorder import Recorder
from lrsweep.training.update_rules import GroupedRule, StackedRule, Weights
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import OptimizerSetting, Run
    from lrsweep.training.param_groups import ParamGroup


def rule_of(setting: OptimizerSetting) -> str:
    """What runs share an update rule by."""
    if ":" in setting.name:
        return by_setting(setting)
    return update_rules.split(setting.name, setting.args, setting.independent_weight_decay)[0]


def by_setting(setting: OptimizerSetting) -> str:
    """What runs share by which each have a real optimizer object, of one class with the same arguments."""
    return f"{setting.name} {setting.key}"


def build_rule(
    settings: Sequence[OptimizerSetting],
    weights: Weights,
    trainable: Sequence[str],
    groups: Sequence[ParamGroup] | None,
    workload: Workload,
) -> StackedRule | GroupedRule:
    """The rule of runs that share one, as stacked `weights` take it. `settings`: of each run.

    trainable: the names of the weights. groups: of every model, None where the task makes none.
    """

    def rule(parts: Sequence[Tensor], options: Mapping[str, Any], *, decays_itself: bool = False) -> StackedRule:
        rules, decays = [], []
        for setting in settings:
            independent = None if decays_itself else setting.independent_weight_decay
            text, decay = update_rules.split(setting.name, {**setting.args, **options}, independent)
            rules.append(text)
            decays.append(decay)
        shapes = [part.shape[1:] for part in parts]
        return StackedRule(rules[0], decays, shapes, dtype=workload.dtype, device=workload.device)

    if groups is None:
        return rule(weights.parts, {})
    numbers = {name: number for number, name in enumerate(trainable)}
    rules = []
    for group in groups:
        places = [numbers[name] for name in map(PREFIX.__add__, group.names) if name in numbers]
        parts = [weights.parts[place] for place in places]
        if parts:
            rules.append((places, group.lr_scale, rule(parts, group.options, decays_itself=group.decays_itself)))
    return GroupedRule(rules)


class Rates:
    """The learning rate of each run at each step: its own, times its schedule's factor, times its plateau's."""

    def __init__(self, runs: Sequence[Run], workload: Workload) -> None:
        schedule_of = {repr(run.setting.schedule): run.setting.schedule for run in runs}
        total_steps, base_dir = workload.total_steps, workload.workload_spec.base_dir
        self._factors = np.stack([schedules.factors(one, total_steps, base_dir) for one in schedule_of.values()])
        rows = {text: row for row, text in enumerate(schedule_of)}
        self._row_of_run = np.array([rows[repr(run.setting.schedule)] for run in runs])
        self._lr = np.array([run.lr for run in runs], dtype=np.float64)
        self._plateaus = [schedules.plateau_of(run.setting.schedule, total_steps) for run in runs]
        self._has_plateaus = any(plateau is not None for plateau in self._plateaus)
        self._constant = not self._has_plateaus and bool((self._factors == self._factors[:, :1]).all())
        self._device = workload.device
        self._cached: tuple[int, tuple[Tensor, Tensor]] | None = None
        self.factors: list[float] = self._factors[self._row_of_run, 0].tolist()
        self.last: list[float] = (self._lr * self._factors[self._row_of_run, 0]).tolist()

    def at(self, step: int, present: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Learning rates and factors [K] of step `step` for the runs of these indices, in float64.

        `last` then holds the rates of all runs.
        """
        if self._constant and self._cached is not None and self._cached[0] == len(present):
            return self._cached[1]
        factor = self._factors[self._row_of_run, step]
        if self._has_plateaus:
            factor = factor * np.array([1.0 if plateau is None else plateau.factor for plateau in self._plateaus])
        lr = self._lr * factor
        self.last, self.factors = lr.tolist(), factor.tolist()
        pair = tuple(torch.from_numpy(values[list(present)]).to(self._device) for values in (lr, factor))
        self._cached = (len(present), (pair[0], pair[1]))  # runs only ever leave, so their number tells them apart
        return self._cached[1]

    def observe(self, index: int, recorder: Recorder, step: int) -> None:
        """Show the plateau of a run, if it has one, the row that was just written."""
        plateau = self._plateaus[index]
        if plateau is not None:
            plateau.observe(recorder.last(plateau.metric, index), step)

    def state(self) -> dict[str, Any]:
        return {"last": list(self.last), "plateaus": [None if p is None else p.state() for p in self._plateaus]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.last, self._cached = list(state["last"]), None
        for plateau, saved in zip(self._plateaus, state["plateaus"], strict=True):
            if plateau is not None:
                plateau.restore(saved)
