"""The executor `local`: worker processes on this machine.

Workers are processes of one thread. On Linux CPUs they are forked, so that they inherit what the parent has loaded;
elsewhere, for CUDA, in a parent with threads, and in place of a worker that died, they are started anew. Code that was
given in Python is in forked ones only.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from lrsweep.errors import WrongOption
from lrsweep.system import child
from lrsweep.system.process import collect_own_objects
from lrsweep.system.signals import undisturbed
from lrsweep.workers.executors import STOP_SECONDS, Event, Take
from lrsweep.workers.messages import LAST, Died, Job, Message, Quiet, Retiring, Taken, WorkerConfig

POLL_SECONDS = 0.2
QUIET_SECONDS = 60.0
"""After this long without a word from a worker the caller is told, and again after twice as long, and so on."""


class Process(Protocol):
    """What is asked of a worker's process, however it was started."""

    @property
    def pid(self) -> int | None: ...

    def kill(self) -> None: ...


@dataclass(eq=False)
class Worker:
    process: Process
    connection: Connection
    exit_code: Callable[[], int | None]
    name: str = ""
    job: Job | None = None
    retiring: bool = False
    used: bool = False
    heard: float = 0.0
    quiet: float = QUIET_SECONDS

    def word(self) -> None:
        """It has said something."""
        self.heard, self.quiet = time.monotonic(), QUIET_SECONDS


Start = Callable[[Connection, Connection], Worker]
"""Starts a worker: our end of the pipe stays with it here, the other is for its process."""


class Local:
    """Worker processes on this machine; `start` starts one, where it is given."""

    def __init__(self, config: WorkerConfig, count: int, start: Start | None = None) -> None:
        self._config, self._count, self._start = config, count, start
        self._workers: list[Worker] = []
        self._stopping = 0.0

    def start(self) -> None:
        """Start all workers; call it before anything starts a thread."""
        fork = self._start is None and (child.must_fork() or (self._config.device == "cpu" and _copies_will_do()))
        while len(self._workers) < self._count:
            try:
                self._add(fork, f"worker {len(self._workers) + 1}")
            except OSError:
                if not self._workers:
                    raise
                return  # fewer workers do, where there are no more files or processes

    def run(self, queue: deque[Job], take: Take) -> None:
        for events in self.events(queue):
            take(events)

    def events(self, queue: deque[Job]) -> Iterator[list[Event]]:
        """What happened, as lists; an empty list now and then. The caller may add to the queue between two lists."""
        while True:
            if begun := self._assign(queue):
                yield begun
            busy = [worker for worker in self._workers if worker.job is not None]
            if not busy:
                return
            if self._stopping and time.monotonic() - self._stopping > STOP_SECONDS:
                for worker in busy:
                    worker.process.kill()
            ready = wait([worker.connection for worker in busy], POLL_SECONDS)
            events: list[Event] = []
            for worker in busy:
                if worker.connection in ready:
                    worker.word()
                    events += self._receive(worker)
                elif worker.job is not None and time.monotonic() - worker.heard > worker.quiet:
                    events.append((worker.job, Quiet(worker.quiet)))
                    worker.quiet *= 2
            yield events

    def stop(self) -> None:
        """Ask the workers to save and leave; `events` then ends within STOP_SECONDS or a little more."""
        self._stopping = self._stopping or time.monotonic()
        for worker in self._workers:
            if worker.job is not None and worker.process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(worker.process.pid, signal.SIGTERM)

    def close(self) -> None:
        """End all workers now."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.connection.close()
            worker.exit_code()
        self._workers.clear()

    def _assign(self, queue: deque[Job]) -> list[Event]:
        begun: list[Event] = []
        for worker in list(self._workers):
            if worker.job is None and queue and not self._stopping:
                job = queue.popleft()
                if job.unused_worker and worker.used:
                    worker = self._replace(worker)
                worker.job, worker.used = job, worker.used or not job.in_a_copy
                worker.word()
                begun.append((job, Taken(worker.name)))
                with suppress(OSError):  # it died while it was idle: its end of the pipe will say so
                    worker.connection.send(worker.job)
        return begun

    def _receive(self, worker: Worker) -> list[Event]:
        events: list[Event] = []
        while worker.job is not None:
            try:
                if events and not worker.connection.poll():
                    break
                message: Message = worker.connection.recv()
            except (EOFError, OSError):
                message = Died(f"the worker {child.how_it_ended(worker.exit_code())}")
                events.append((worker.job, message))
                self._replace(worker)
                break
            if isinstance(message, Retiring):
                worker.retiring = True
                continue
            events.append((worker.job, message))
            if isinstance(message, LAST):
                worker.job = None
                if worker.retiring:
                    self._replace(worker)
        return events

    def _replace(self, worker: Worker) -> Worker:
        """End a worker and, unless all are to stop, start another; returns the last one started."""
        worker.job = None
        worker.connection.close()
        worker.process.kill()
        worker.exit_code()  # leaves no zombie behind
        self._workers.remove(worker)
        if not self._stopping:
            self._add(child.must_fork(), worker.name)
        return self._workers[-1] if self._workers else worker

    def _add(self, fork: bool, name: str) -> None:
        ours, theirs = multiprocessing.Pipe()
        start = self._start or (self._forked if fork else spawned if hasattr(os, "fork") else _spawned_on_windows)
        worker = start(ours, theirs)
        theirs.close()
        worker.name = name
        self._workers.append(worker)
        with suppress(OSError):  # it died at once; its first job will tell
            ours.send(self._config)

    def _forked(self, ours: Connection, theirs: Connection) -> Worker:
        from lrsweep.workers import worker

        others = [other.connection for other in self._workers] + [ours]
        process = multiprocessing.get_context("fork").Process(target=_work, args=(worker.forked, theirs, others))
        with undisturbed():
            process.start()

        def exit_code() -> int | None:
            process.join(timeout=5)
            return process.exitcode

        return Worker(process=process, connection=ours, exit_code=exit_code)


def _copies_will_do() -> bool:
    """Can this process be copied, and do products in its copies round as in a worker that is started anew?"""
    if not child.can_fork() or multiprocessing.current_process().daemon:
        return False
    from lrsweep.compiler.torch_private import make_products_ignore_place, products_ignore_place

    return products_ignore_place() or child.call(make_products_ignore_place)


def _work(serve: Callable[[Connection, list[Connection]], None], theirs: Connection, others: list[Connection]) -> None:
    collect_own_objects()
    serve(theirs, others)


def _spawned_on_windows(ours: Connection, theirs: Connection) -> Worker:
    """Where no process inherits descriptors. As always with multiprocessing there, a script of the user's that calls
    `lrsweep.run` does so below `if __name__ == "__main__":`."""
    from lrsweep.workers import worker

    process = multiprocessing.get_context("spawn").Process(target=worker.started, args=(theirs,), daemon=True)
    process.start()

    def exit_code() -> int | None:
        process.join(timeout=5)
        return process.exitcode

    return Worker(process=process, connection=ours, exit_code=exit_code)


def spawned(ours: Connection, theirs: Connection, path: Sequence[str] | None = None, **options: Any) -> Worker:
    """One that is started anew; `path` is its import path, that of this process if None."""
    process = helper("lrsweep.workers.worker", theirs.fileno(), path, **options)

    def exit_code() -> int | None:
        with suppress(subprocess.TimeoutExpired):
            return process.wait(timeout=5)
        return None

    return Worker(process=process, connection=ours, exit_code=exit_code)


def helper(module: str, descriptor: int, path: Sequence[str] | None = None, **options: Any) -> subprocess.Popen[bytes]:
    """A process that calls `main` of a module with one end of a pipe; `options` are those of Popen."""
    found = list(sys.path if path is None else path)
    command = f"import sys; sys.path[:] = {found!r}; from {module} import main; main({descriptor})"
    with undisturbed():
        return subprocess.Popen(
            [sys.executable, "-c", command], pass_fds=[descriptor], **{"stdin": subprocess.DEVNULL, **options}
        )


class Here:
    """This machine, as a place for workers."""

    def __init__(self, address: str | None = None) -> None:
        if address is not None:
            raise WrongOption("address", address, "only the executor ray has an address")

    def begin(self, workers: int | str, device: str, threads: int) -> None: ...

    def workers(self, device: str, threads: int) -> int | None:
        return None

    def executor(self, config: WorkerConfig, count: int) -> Local:
        return Local(config, count)

    def end(self) -> None: ...

    def close(self) -> None: ...
