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
        self._placed: tuple[int, Tensor, Tensor] | None = None  # of K runs: their rates and rows of the factors
        self._plateau_factors: Tensor | None = None
        self._factors_there = self._there(self._factors)
        self._marked = (0, (self._lr * self._factors[self._row_of_run, 0]).tolist())

    def at(self, step: int, present: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Learning rates and factors [K] of step `step` for the runs of these indices, in float64.

        Nothing is copied to the device but when runs have left or a plateau has been observed.
        """
        if self._constant and self._cached is not None and self._cached[0] == len(present):
            return self._cached[1]
        if self._placed is None or self._placed[0] != len(present):  # runs only ever leave
            self._placed = (
                len(present),
                self._there(self._lr[list(present)]),
                self._there(self._row_of_run[list(present)]),
            )
            self._plateau_factors = None
        _, rates, rows = self._placed
        factor = self._factors_there[:, step].index_select(0, rows)
        if self._has_plateaus:
            if self._plateau_factors is None:
                self._plateau_factors = self._there(self._of_plateaus()[list(present)])
            factor = factor * self._plateau_factors
        pair = rates * factor, factor
        self._cached = len(present), pair
        return pair

    def _there(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    def factors_at(self, step: int) -> list[float]:
        """The factors of all runs in step `step`."""
        return [float(factor) for factor in self._factor(step)]

    def after(self, steps: int) -> list[float]:
        """The rate that each run has made the last of `steps` steps with, which may be any since `mark`, or the one
        before it; the first one of those to come for `steps` 0."""
        marked, rates = self._marked
        return rates if steps <= marked else [float(rate) for rate in self._lr * self._factor(steps - 1)]

    def mark(self, steps: int) -> None:
        """Keep the rates of the last of `steps` steps; to be called before plateaus observe a row."""
        self._marked = (steps, self.after(steps))

    def _factor(self, step: int) -> np.ndarray[Any, Any]:
        factor = self._factors[self._row_of_run, step]
        return factor * self._of_plateaus() if self._has_plateaus else factor

    def _of_plateaus(self) -> np.ndarray[Any, Any]:
        return np.array([1.0 if plateau is None else plateau.factor for plateau in self._plateaus])

    def observe(self, index: int, recorder: Recorder, step: int) -> None:
        """Show the plateau of a run, if it has one, the row that was just written."""
        plateau = self._plateaus[index]
        if plateau is not None:
            plateau.observe(recorder.last(plateau.metric, index), step)
            self._plateau_factors = None

    def state(self, steps: int) -> dict[str, Any]:
        """What the next step depends on after `steps` steps."""
        return {"last": self.after(steps), "plateaus": [None if p is None else p.state() for p in self._plateaus]}

    def restore(self, state: Mapping[str, Any], steps: int) -> None:
        self._marked = steps, list(state["last"])
        self._cached = self._plateau_factors = None
        for plateau, saved in zip(self._plateaus, state["plateaus"], strict=True):
            if plateau is not None:
                plateau.restore(saved)
