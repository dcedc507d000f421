"""The process that trains: takes a group, runs its engine, sends back what happens. One group at a time, in one thread
unless more are asked for."""

from __future__ import annotations

import dataclasses
import functools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lrsweep.compiler.torch_private import make_products_ignore_place
from lrsweep.errors import StoppedError, StorageError, WrongOption
from lrsweep.optimizers import without_compiler
from lrsweep.registry import DATA_FILES
from lrsweep.run_result import Hooks, NoHooks, RunResult
from lrsweep.store import checkpoints, lock
from lrsweep.system import child, notebook, warned
from lrsweep.system.machine import keep_freed_memory
from lrsweep.system.signals import die_with, leave_to_parent, unblock
from lrsweep.training import audit, isolation, sequential, stacked, workload
from lrsweep.training.audit import AuditFailedError
from lrsweep.training.workload import Workload
from lrsweep.user_imports import check_unchanged, one_version
from lrsweep.workers.messages import (
    AuditFailed,
    Ended,
    Job,
    Left,
    Message,
    OutOfMemory,
    Raised,
    Retiring,
    Saved,
    Ticked,
    Trained,
    Unwritable,
    Warned,
    WorkerConfig,
)

if TYPE_CHECKING:
    from lrsweep.plan import Run, WorkloadSpec

TICK_SECONDS = 0.1
CHECKPOINT_SHARE = 0.05
"""The part of the time that checkpoints may take."""

KEPT_WORKLOADS = 4


# By the engine of a group, as it is stored. One run after another: eager ("single") or captured ("recorded").
ENGINES: dict[str, Callable[[Job, Workload, Hooks], Iterator[RunResult]]] = {
    "single": lambda job, workload, hooks: sequential.train(job.runs, workload, hooks),
    "recorded": lambda job, workload, hooks: sequential.train(job.runs, workload, hooks, captured=True),
    "stacked": lambda job, workload, hooks: stacked.train(job.runs, workload, hooks, compile=job.group.compile),
}


class WorkerHooks:
    """How the engine of one job talks to the parent; see `run_result.Hooks`."""

    def __init__(self, job: Job, config: WorkerConfig, send: Callable[[Message], None], stop: StopFlag) -> None:
        self._job, self._config, self._send, self._stop = job, config, send, stop
        self._steps = 0
        self._told = self._saved = time.monotonic()
        self._save_seconds = 0.0
        self.audits = 0
        self.resume: dict[str, Any] | None = None
        if job.resume is not None:
            self.resume = checkpoints.read(Path(config.folder), job.resume)

    @property
    def stopping(self) -> bool:
        return self._stop.wanted

    def tick(self, run_steps: int) -> None:
        self._steps += run_steps
        if time.monotonic() - self._told > TICK_SECONDS:
            self.tell()

    def tell(self) -> None:
        if self._config.parent not in (os.getppid(), os.getpid()):
            os._exit(0)  # nobody is left to tell
        self._send(Ticked(self._steps))
        self._steps, self._told = 0, time.monotonic()

    def checkpoint_due(self) -> bool:
        wait = max(self._config.checkpoint_seconds, self._save_seconds / CHECKPOINT_SHARE)
        return time.monotonic() - self._saved >= wait

    def save(self, state: dict[str, Any]) -> None:
        begun = time.monotonic()
        checkpoint = checkpoints.write(Path(self._config.folder), self._job.group.id, state)
        self._saved = time.monotonic()
        self._save_seconds = self._saved - begun
        self._send(Saved(checkpoint))


class WorkloadCache:
    """The last few workloads that were built, by the content of their spec."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], Workload] = {}

    def holds(self, workload_spec: WorkloadSpec, device: str) -> bool:
        return (workload_spec.key, device) in self._kept

    def get(self, workload_spec: WorkloadSpec, device: str) -> Workload:
        """Raises UsageError if the user's task cannot be built."""
        key = (workload_spec.key, device)
        found = self._kept.pop(key, None)
        if found is None:
            child.before_user_code()
            for path in data_files(workload_spec):
                check_unchanged(path)
            found = workload.build(workload_spec, device)
            if torch.get_num_threads() != 1:
                torch.set_num_threads(1)  # the user's function has set others
        self._kept[key] = found
        while len(self._kept) > KEPT_WORKLOADS:
            del self._kept[next(iter(self._kept))]
        return found

    def forget(self, workload_spec: WorkloadSpec, device: str) -> None:
        """The next that asks for it gets another."""
        self._kept.pop((workload_spec.key, device), None)


@functools.cache
def workloads() -> WorkloadCache:
    """One cache a process; a forked worker finds in it what its parent has built."""
    return WorkloadCache()


def one_thread() -> None:
    """One thread: the results of a run must not depend on the number of cores, and a fork must find no threads."""
    torch.set_num_threads(1)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Within, torch computes in so many threads. What they leave behind must not be forked."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def data_files(workload_spec: WorkloadSpec) -> Iterator[Path]:
    """The user's data that a built-in task reads."""
    key = DATA_FILES.get(workload_spec.task["name"])
    if key is not None and key in workload_spec.task:
        yield Path(workload_spec.base_dir, workload_spec.task[key])


def device_of(wanted: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu`, `cuda`. Raises UsageError if there is no such device."""
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise WrongOption("device", wanted, "torch finds no CUDA device; use cpu or auto")
    if wanted not in ("cpu", "cuda"):
        raise WrongOption("device", wanted, "unknown device (allowed: auto, cpu, cuda)")
    return wanted


def train(job: Job, config: WorkerConfig, send: Callable[[Message], None], stop: StopFlag) -> None:
    """Train one group; the last message says how it ended."""
    verified = 0
    try:
        hooks = WorkerHooks(job, config, send, stop)
        prepared = workloads().get(job.runs[0].workload_spec, config.device)
        torch.set_num_threads(config.threads)  # only now: a process with several must not be forked
        if job.probed is not None:
            prepared.know(job.probed)
        for trained in ENGINES[job.group.engine](job, prepared, hooks):
            hooks.tell()
            if trained.status == "failed" and job.group.engine == "recorded":
                send(Raised(trained.error or ""))  # without a recording it tells its own failure, if it still fails
                return
            if config.verify and job.group.engine != "single" and trained.run_id == job.runs[0].run_id:
                verify(trained, job.runs[0], prepared)
                verified += 1
            send(Trained(trained))
        send(Ended(hooks.audits + verified, verified))
    except StoppedError:
        send(Left())
    except AuditFailedError as error:
        send(AuditFailed(str(error), error.label))
    except StorageError as error:
        send(Unwritable(str(error)))
    except (MemoryError, torch.OutOfMemoryError) as error:
        send(OutOfMemory(isolation.describe(error)))
    except Exception as error:  # noqa: BLE001 - the sweep goes on; the parent decides what becomes of the runs
        text = isolation.describe(error)
        send(OutOfMemory(text) if "allocate memory" in text else Raised(text))


def verify(trained: RunResult, run: Run, prepared: Workload) -> None:
    """Train `run` alone in full, in plain torch. Raises AuditFailedError if it comes to something else."""
    (alone,) = sequential.train([run], prepared, NoHooks())
    if difference := audit.difference(trained, alone, prepared):
        raise AuditFailedError(f"--verify: {difference}")


def train_in_a_copy(
    job: Job, config: WorkerConfig, send: Callable[[Message], None], stop: StopFlag, leave: Callable[[], None]
) -> None:
    """Train one run in a copy of this process, in which no code of the user's but the task function has run.

    What that code keeps - a counter, a queue, a generator of its own - is then for every run what it is for the first.
    Where there can be no copy, this process trains it and takes no other job.
    """
    try:
        workloads().get(job.runs[0].workload_spec, config.device)
    except Exception as error:  # noqa: BLE001 - as in `train`
        send(Raised(isolation.describe(error)))
        return
    if config.device != "cpu" or not child.can_fork():
        send(Retiring())
        train_alone(job, config, send, stop)
        leave()
        return
    worker = os.getpid()
    reading, writing = os.pipe()
    os.set_blocking(reading, False)  # what the copy has started may live on and hold its end
    pid = os.fork()
    if pid == 0:
        try:
            die_with(worker)
            train_alone(job, dataclasses.replace(config, parent=worker), send, stop)
            os.write(writing, b"1")
        finally:
            with suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(0)
    with stop.passed_on(pid):
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    os.close(writing)
    with os.fdopen(reading, "rb", buffering=0) as ended:
        finished = ended.read(1) == b"1"  # else the user's code has ended it, with any exit code
    if code < 0:  # this process ends as its copy did
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    elif code > 0 or not finished:
        os._exit(code)


def train_alone(job: Job, config: WorkerConfig, send: Callable[[Message], None], stop: StopFlag) -> None:
    """Train the one run that this process will ever train."""
    workloads().get(job.runs[0].workload_spec, config.device).train_alone()
    train(job, config, send, stop)


class StopFlag:
    """Set by SIGTERM, which is how the parent asks to save and leave."""

    def __init__(self) -> None:
        self.wanted = False
        self._copy: int | None = None

    def set(self, *_: object) -> None:
        self.wanted = True
        if self._copy is not None:
            with suppress(ProcessLookupError):
                os.kill(self._copy, signal.SIGTERM)

    @contextmanager
    def passed_on(self, pid: int) -> Iterator[None]:
        """Within, a copy of this process trains and is asked too."""
        self._copy = pid
        if self.wanted:
            self.set()
        try:
            yield
        finally:
            self._copy = None


def serve(connection: Connection) -> None:
    """Take a WorkerConfig, then jobs until the parent hangs up."""
    stop = StopFlag()
    leave_to_parent()
    signal.signal(signal.SIGTERM, stop.set)
    unblock()
    with suppress(EOFError, OSError), without_compiler():  # the parent is gone
        config: WorkerConfig = connection.recv()
        die_with(config.parent)
        lock.drop_inherited(Path(config.folder))
        one_thread()
        make_products_ignore_place()
        keep_freed_memory()
        leaving: list[bool] = []
        waiting = warned.Waiting()

        def send(message: Message) -> None:
            for text, key in waiting.taken():
                connection.send(Warned(text, key))
            connection.send(message)

        with one_version(config.versions), warned.told(waiting.add):
            while not leaving:
                job: Job = connection.recv()
                if job.in_a_copy:
                    train_in_a_copy(job, config, send, stop, lambda: leaving.append(True))
                else:
                    train(job, config, send, stop)


def forked(connection: Connection, others: list[Connection]) -> None:
    """Entry of a forked worker; `others` are the parent's ends of earlier ones, which would keep those alive."""
    for other in others:
        other.close()
    child.as_forked_worker()
    os.dup2(2, 1)  # what the user's code prints is no part of the command's output
    notebook.print_by_descriptors()
    serve(connection)


def main(descriptor: int) -> None:
    """Entry of a worker that is a process of its own."""
    started(Connection(descriptor))


def started(connection: Connection) -> None:
    """The same for one that was given its connection whole."""
    os.dup2(2, 1)
    serve(connection)
