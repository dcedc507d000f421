"""What each worker has trained, and in how much time: for the display of progress and for the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lrsweep.workers.messages import LAST, Job, Message, Taken, Ticked, Trained


@dataclass(frozen=True, kw_only=True, slots=True)
class Throughput:
    """Of one worker: finished `runs`, optimizer steps summed over runs, and the seconds in which it had a job."""

    worker: str
    runs: int = 0
    optimizer_steps: int = 0
    seconds: float = 0.0


class Meter:
    """Told what happens to jobs, it knows what each worker does."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._done: dict[str, Throughput] = {}
        self._busy: dict[str, tuple[str, float]] = {}  # the worker of a group, and since when

    def hear(self, job: Job, message: Message) -> None:
        group = job.group.id
        if isinstance(message, Taken):
            self._busy[group] = message.worker, self._clock()
        elif group in self._busy:
            worker, since = self._busy[group]
            if isinstance(message, Ticked):
                self._add(worker, optimizer_steps=message.run_steps)
            elif isinstance(message, Trained):
                self._add(worker, runs=1)
            elif isinstance(message, LAST):
                del self._busy[group]
                self._add(worker, seconds=self._clock() - since)

    def found(self) -> tuple[Throughput, ...]:
        """Up to now."""
        now = self._clock()
        running = [Throughput(worker=worker, seconds=now - since) for worker, since in self._busy.values()]
        return summed([*self._done.values(), *running])

    def _add(self, worker: str, *, runs: int = 0, optimizer_steps: int = 0, seconds: float = 0.0) -> None:
        more = Throughput(worker=worker, runs=runs, optimizer_steps=optimizer_steps, seconds=seconds)
        (self._done[worker],) = summed([self._done.get(worker, Throughput(worker=worker)), more])


def summed(parts: Iterable[Throughput]) -> tuple[Throughput, ...]:
    """One for each worker that is in `parts`."""
    found: dict[str, Throughput] = {}
    for part in parts:
        so_far = found.get(part.worker, Throughput(worker=part.worker))
        found[part.worker] = Throughput(
            worker=part.worker,
            runs=so_far.runs + part.runs,
            optimizer_steps=so_far.optimizer_steps + part.optimizer_steps,
            seconds=so_far.seconds + part.seconds,
        )
    return tuple(found.values())
