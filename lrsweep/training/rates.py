"""The learning rates of a group of runs, update by update."""

# M runs of the group, K of them asked for

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from lrsweep import schedules
from lrsweep.training.recorder import Recorder
from lrsweep.training.workload import Problem

if TYPE_CHECKING:
    from lrsweep.plan import Run


class Rates:
    """The learning rate of each run at each update: its own rate, times its schedule, times its plateau."""

    def __init__(self, runs: Sequence[Run], problem: Problem) -> None:
        distinct: dict[str, int] = {}
        table: list[schedules.Floats] = []
        for run in runs:
            if repr(run.setting.schedule) not in distinct:
                distinct[repr(run.setting.schedule)] = len(table)
                table.append(schedules.factors(run.setting.schedule, problem.total_steps, problem.recipe.base_dir))
        self._factors = np.stack(table)
        self._which = np.array([distinct[repr(run.setting.schedule)] for run in runs])
        self._lr = np.array([run.lr for run in runs], dtype=np.float64)
        self._plateaus = [schedules.plateau_of(run.setting.schedule, problem.total_steps) for run in runs]
        self._has_plateaus = any(plateau is not None for plateau in self._plateaus)
        self._constant = not self._has_plateaus and bool((self._factors == self._factors[:, :1]).all())
        self._like: dict[str, Any] = {"dtype": problem.dtype, "device": problem.device}
        self._kept: tuple[int, tuple[Tensor, Tensor]] | None = None
        self.last: list[float] = (self._lr * self._factors[self._which, 0]).tolist()

    def at(self, step: int, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Rates and factors [K] of update `step` for the runs at `positions`; `last` then holds the rates of all."""
        if self._constant and self._kept is not None and self._kept[0] == len(positions):
            return self._kept[1]
        factor = self._factors[self._which, step]
        if self._has_plateaus:
            factor = factor * np.array([1.0 if plateau is None else plateau.factor for plateau in self._plateaus])
        lr = self._lr * factor
        self.last = lr.tolist()
        pair = tuple(torch.from_numpy(values[list(positions)]).to(**self._like) for values in (lr, factor))
        self._kept = (len(positions), (pair[0], pair[1]))  # runs only ever leave, so their number tells them apart
        return self._kept[1]

    def observe(self, position: int, recorder: Recorder, step: int) -> None:
        """Show the run's plateau, if it has one, the row that was just written."""
        plateau = self._plateaus[position]
        if plateau is not None:
            plateau.observe(recorder.last(plateau.metric, position), step)

    def state(self) -> dict[str, Any]:
        return {"last": list(self.last), "plateaus": [None if p is None else p.state() for p in self._plateaus]}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.last, self._kept = list(state["last"]), None
        for plateau, saved in zip(self._plateaus, state["plateaus"], strict=True):
            if plateau is not None:
                plateau.restore(saved)
