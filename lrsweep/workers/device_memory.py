"""How many runs of a recipe train at once in the memory of a GPU: measured by two groups, then a line.

In a process of its own, for a process that has used CUDA can be copied no more, and what the user's code keeps is to
reach nobody. Whatever goes wrong there leaves the number open: a group that is too large is split in two.
"""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import torch

from lrsweep.optimizers import without_compiler
from lrsweep.system.signals import unblock
from lrsweep.training import stacked, workload
from lrsweep.training.workload import Workload
from lrsweep.user_imports import current_versions, one_version
from lrsweep.workers import local

if TYPE_CHECKING:
    from lrsweep.plan import Run

SIZES = (4, 16)
"""Runs in the two groups."""
STEPS = 3
"""Of each; the first records, the second is the first that replays."""
SHARE = 0.7
"""Of the memory of the device. Its own share is not known exactly, and others may use it, too."""
SECONDS = 300.0
"""How long the trial may take."""


@dataclass(frozen=True, slots=True)
class Line:
    """Bytes at the peak: `base`, and `each` for every run; `room` is what the device has."""

    base: float
    each: float
    room: float

    @classmethod
    def through(cls, peaks: Sequence[float], counts: Sequence[int], room: float) -> Line:
        """The line through two measurements."""
        each = max(1.0, (peaks[1] - peaks[0]) / max(1, counts[1] - counts[0]))
        return cls(base=max(0.0, peaks[0] - counts[0] * each), each=each, room=room)

    @property
    def most(self) -> int:
        """The runs that fit, at least one."""
        return max(1, int((SHARE * self.room - self.base) / self.each))


def most_runs(recipes: Sequence[Sequence[Run]], device: str) -> list[int | None]:
    """For runs of each recipe that can train together: how many fit on the device. None: it could not be found out."""
    found: list[int | None] = [None] * len(recipes)
    if not any(recipes):
        return found
    ours, theirs = Pipe()
    silent = subprocess.DEVNULL
    process = local.helper("lrsweep.workers.device_memory", theirs.fileno(), stdout=silent, stderr=silent)
    theirs.close()
    try:
        with suppress(EOFError, OSError):
            ours.send((device, current_versions(), [_sample(runs) for runs in recipes]))
            while ours.poll(SECONDS):
                number, line = ours.recv()
                found[number] = line.most
    finally:
        ours.close()
        process.kill()
        process.wait()
    return found


def _sample(runs: Sequence[Run]) -> list[Run]:
    """SIZES[-1] runs, spread evenly."""
    return list(runs[:: max(1, len(runs) // SIZES[-1])][: SIZES[-1]])


def measured(runs: Sequence[Run], prepared: Workload) -> Line:
    """Train the first few of `runs` and all of them for STEPS steps on the device of the workload."""
    memory = torch.get_device_module(prepared.device)
    counts = [min(size, len(runs)) for size in SIZES]
    peaks = []
    for count in counts:
        gc.collect()  # the group before holds itself
        memory.empty_cache()
        memory.reset_peak_memory_stats(prepared.device)
        with prepared.user_code():
            trainer = stacked.StackedTrainer(runs[:count], prepared)
            trainer.start()  # evaluates, too
            for _ in range(min(STEPS, prepared.total_steps)):
                trainer.train_step()
            trainer.end()
            del trainer
        peaks.append(float(memory.max_memory_allocated(prepared.device)))
    return Line.through(peaks, counts, float(memory.mem_get_info(prepared.device)[1]))


def main(descriptor: int) -> None:
    """Take a device and runs of recipes, and send a line for each with its number."""
    unblock()
    connection = Connection(descriptor)
    device, versions, recipes = connection.recv()
    torch.set_num_threads(1)
    with without_compiler(), one_version(versions):
        for number, runs in ((number, runs) for number, runs in enumerate(recipes) if runs):
            with suppress(Exception):  # the groups of this recipe are as large as any
                connection.send((number, measured(runs, workload.build(runs[0].workload_spec, device))))
