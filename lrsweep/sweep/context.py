"""Where a sweep is run and how, for all that take part in running it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from lrsweep.errors import WrongOption
from lrsweep.sweep.background import LocalRenderer
from lrsweep.sweep.progress import Notes, Reporter
from lrsweep.system.machine import this_machine
from lrsweep.system.signals import Stopping
from lrsweep.workers import executors


def check_counts(workers: object, threads: object) -> None:
    """Raises WrongOption if these can be no numbers of workers and of their threads."""
    if workers != "auto" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise WrongOption("workers", workers, "give a whole number from 1, or auto")
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise WrongOption("threads", threads, "give a whole number from 1")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run: nothing of this changes what a run is. `fixed_workers`: their number was given.

    `threads`: of each worker. Their number, like the device, can change the last digits of results.
    """

    device: str
    workers: int
    fixed_workers: bool
    executor: str
    compile: str
    threads: int = 1
    verify: bool = False
    address: str | None = None

    @classmethod
    def of(
        cls,
        *,
        device: str,
        workers: int | str,
        executor: str,
        compile: str,
        threads: int = 1,
        verify: bool = False,
        address: str | None = None,
        place: executors.Place,
    ) -> Options:
        """Check the options of the command line and resolve `auto`, at the `place` that `executor` and `address` name.
        Raises UsageError."""
        from lrsweep.workers import worker  # and torch

        check_counts(workers, threads)
        if executor == "in-process" and workers not in (1, "auto"):
            raise WrongOption("workers", workers, "the executor in-process is one worker; give 1 or auto")
        if compile not in ("auto", "on", "off"):
            raise WrongOption("compile", compile, "give auto, on or off")
        found = worker.device_of(device)
        elsewhere = place.workers(found, threads)
        count = max(1, this_machine().cores // threads) if elsewhere is None else max(1, elsewhere)
        return cls(
            device=found,
            workers=count if workers == "auto" else int(workers),
            fixed_workers=workers != "auto",
            executor=executor,
            compile=compile,
            threads=threads,
            verify=verify,
            address=address,
        )

    def processes(self, jobs: int, fitting: int) -> int:
        """How many train so many jobs, if `fitting` at once fit in memory: the GPU of a machine is kept busy by one; a
        number that was given is kept, and so is that of a cluster, of whose memory nothing is known."""
        if self.device == "cuda" and self.executor == "local":
            return 1
        kept = self.fixed_workers or self.address is not None
        return max(1, min(self.workers if kept else min(self.workers, fitting), jobs))


@dataclass(frozen=True, kw_only=True)
class Context:
    """Where a sweep is run, how, who is told, where its workers are, who may stop it and who draws.

    `folder` is absolute, since a user's task may change the current folder; `shown` is what users are told.
    """

    folder: Path
    shown: Path
    options: Options
    notes: Notes
    place: executors.Place
    stopping: Stopping = field(default_factory=Stopping)
    renderer: LocalRenderer = field(default_factory=LocalRenderer)

    @property
    def reporter(self) -> Reporter:
        return self.notes.reporter
