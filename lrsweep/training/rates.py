"""The learning rate of each run of a group at each step, and which runs of it share an update rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrsweep import schedules
from lrsweep.training import param_groups, update_rules
from lrsweep.training.recorder import Recorder
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import Run


def rule_of(run: Run, workload: Workload) -> tuple[str, update_rules.Decay]:
    """What runs share an update rule by, and the decay of this one. An optimizer object of a run keeps its own."""
    setting = run.setting
    if param_groups.one_object_per_run(workload, setting):
        return f"{setting.name} {setting.key}", update_rules.Decay()
    return update_rules.split(setting.name, setting.args, setting.independent_weight_decay)


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
        self._like: dict[str, Any] = {"dtype": workload.dtype, "device": workload.device}
        self._cached: tuple[int, tuple[Tensor, Tensor]] | None = None
        self.factors: list[float] = self._factors[self._row_of_run, 0].tolist()
        self.last: list[float] = (self._lr * self._factors[self._row_of_run, 0]).tolist()

    def at(self, step: int, present: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Learning rates and factors [K] of step `step` for the runs of these indices; `last` then holds all rates."""
        if self._constant and self._cached is not None and self._cached[0] == len(present):
            return self._cached[1]
        factor = self._factors[self._row_of_run, step]
        if self._has_plateaus:
            factor = factor * np.array([1.0 if plateau is None else plateau.factor for plateau in self._plateaus])
        lr = self._lr * factor
        self.last, self.factors = lr.tolist(), factor.tolist()
        pair = tuple(torch.from_numpy(values[list(present)]).to(**self._like) for values in (lr, factor))
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
