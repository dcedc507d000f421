"""The executor `in-process`: the command trains in its own process, one group after another.

A debugger stops in the code of the user's and a profiler sees it, and nothing is lost where the system allows no other
process. The bits are those of every executor. A run of the user's code that trains alone still has a copy of this
process to itself, whose terminal is that of the command; only where no process can be started it trains here, too.
"""

from __future__ import annotations

import os
import signal
import sys
from bdb import BdbQuit
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NoReturn

from lrsweep.errors import WrongOption
from lrsweep.system import child, ending
from lrsweep.system.signals import undisturbed
from lrsweep.workers.executors import Event, Take
from lrsweep.workers.local import Local, Worker, spawned
from lrsweep.workers.messages import Died, Job, Message, Taken, Trained, Warned, WorkerConfig

if TYPE_CHECKING:
    from lrsweep.plan import WorkloadSpec

SHARED = (
    "warning: no process can be started here, so runs that train one at a time share that of the command: what the "
    "user's code keeps from one run may reach the next"
)


class _RefusedError(BaseException):
    """The sweep cannot go on, for the `reason` that it gave when it was told something. No `except Exception` of an
    engine's is to take it for an error of a run."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason


class InProcess:
    """Trains in this process."""

    def __init__(self, config: WorkerConfig) -> None:
        from lrsweep.workers import worker

        self._config, self._stop = config, worker.StopFlag()
        self._apart: Local | None = None
        self._trained: dict[str, WorkloadSpec] = {}  # by key: code of the user's that has trained here

    def start(self) -> None:
        from lrsweep.compiler.torch_private import make_products_ignore_place

        make_products_ignore_place()  # where it is too late, the preflight has said so

    def run(self, queue: deque[Job], take: Take) -> None:
        from lrsweep.optimizers import without_compiler
        from lrsweep.workers import worker

        heard = partial(_unless_quit, take)
        doing = "the sweep was trained in it"
        with ending.told_of(doing), without_compiler(), worker.threads(self._config.threads):
            while queue and not self._stop.wanted:
                job = queue.popleft()
                if job.in_a_copy:
                    self._train_apart(job, heard)
                else:
                    self._train(job, heard)
                take([])

    def stop(self) -> None:
        self._stop.set()
        if self._apart is not None:
            self._apart.stop()

    def close(self) -> None:
        from lrsweep.workers import worker

        if self._apart is not None:
            self._apart.close()
        for workload_spec in self._trained.values():
            worker.workloads().forget(workload_spec, self._config.device)

    def _train(self, job: Job, take: Take, *, alone: bool = False) -> None:
        from lrsweep.workers import worker

        def send(message: Message) -> None:
            try:
                take([(job, message)])
            except Exception as error:
                raise _RefusedError(error) from error

        take([(job, Taken("this process"))])
        recipe = job.runs[0].workload_spec
        if not job.runs[0].built_in:
            self._trained[recipe.key] = recipe
        try:
            (worker.train_alone if alone else worker.train)(job, self._config, send, self._stop)
        except _RefusedError as refused:
            raise refused.reason from None
        except SystemExit as ended:  # as if it had ended a worker
            take([(job, Died(f"the worker {child.how_it_ended(_exit_code(ended))}"))])

    def _train_apart(self, job: Job, take: Take) -> None:
        """Train a run of the user's code alone in a copy of this process, or in a new one if others have trained here.
        One serves all such runs, and makes a copy of itself for each."""
        from lrsweep.workers import worker

        if self._apart is None and child.can_fork():
            fresh = bool(self._trained) and not child.must_fork()
            self._apart = Local(self._config, 1, partial(spawned, stdin=None) if fresh else _copied)
            self._apart.start()
        if self._apart is not None:
            self._apart.run(deque([job]), take)
            return
        take([(job, Warned(SHARED, SHARED))])
        self._train(job, take, alone=True)
        worker.workloads().forget(job.runs[0].workload_spec, self._config.device)


def _unless_quit(take: Take, events: Sequence[Event]) -> None:
    """`take`, but for a run whose debugger was told to quit, which interrupts the command as Ctrl-C does."""
    heard = [event for event in events if not _was_quit(event[1])]
    take(heard)
    if len(heard) < len(events):
        signal.raise_signal(signal.SIGINT)


def _was_quit(message: Message) -> bool:
    return isinstance(message, Trained) and (message.outcome.error or "").startswith(BdbQuit.__name__)


def _exit_code(ended: SystemExit) -> int:
    if isinstance(ended, child.ProcessExit):
        return ended.status
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


class _Copy:
    """A process that was forked."""

    def __init__(self, pid: int) -> None:
        self.pid: int | None = pid
        self._code: int | None = None

    def kill(self) -> None:
        if self.pid is not None and self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        if self.pid is not None and self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


def _copied(ours: Connection, theirs: Connection) -> Worker:
    """A worker that is a copy of this process and keeps its terminal, which those of multiprocessing do not."""
    with undisturbed():
        pid = os.fork()
        if pid == 0:
            _serve(ours, theirs)
    copy = _Copy(pid)
    return Worker(process=copy, connection=ours, exit_code=copy.exit_code)


def _serve(ours: Connection, theirs: Connection) -> NoReturn:
    from lrsweep.workers import worker

    code = 1
    try:
        worker.forked(theirs, [ours])
        code = 0
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


class ThisProcess:
    """The process of the command, as a place for its only worker."""

    def __init__(self, address: str | None = None) -> None:
        if address is not None:
            raise WrongOption("address", address, "only the executor ray has an address")
        self._meanwhile = ExitStack()
        if not child.may_fork():
            self._meanwhile.enter_context(child.no_forks())

    def begin(self, workers: int | str, device: str, threads: int) -> None: ...

    def workers(self, device: str, threads: int) -> int | None:
        return 1

    def executor(self, config: WorkerConfig, count: int) -> InProcess:
        return InProcess(config)

    def end(self) -> None: ...

    def close(self) -> None:
        self._meanwhile.close()
