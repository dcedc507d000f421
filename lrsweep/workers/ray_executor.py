"""The executor `ray`: workers in a Ray cluster, or in one of this machine alone that lasts as long as the command.

This side of the pipe has the queue and the results; ray_driver.py, at the other, is a process of its own. The journal
is the truth: what the cluster loses is trained again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from secrets import token_hex
from typing import IO, TYPE_CHECKING, Any

from lrsweep.errors import LimitError, UsageError, WrongOption
from lrsweep.store import checkpoints, lock
from lrsweep.system.machine import available_cores
from lrsweep.workers import needed
from lrsweep.workers.executors import STOP_SECONDS, Event, Take
from lrsweep.workers.local import POLL_SECONDS, QUIET_SECONDS, helper
from lrsweep.workers.messages import LAST, Job, Lost, Saved, Taken, Warned, WorkerConfig

if TYPE_CHECKING:
    from lrsweep.workers.ray_agent import Batch, Joined

START_SECONDS = 120.0
"""How long Ray may take to start or to be reached."""
CLOSE_SECONDS = 10.0
"""How long it may take to end before it is killed."""
MARGIN_SECONDS = 5.0
"""What a stop may take beyond STOP_SECONDS; workers that are not heard of by then have lost what they did."""
ADDRESS = re.compile(r"auto|[^\s/]+:\d{1,5}")
OURS = ("LRSWEEP_", "OMP_NUM_THREADS", "PYTHONHASHSEED")
"""How variables begin that workers have as the sweep has them, on every machine."""
# Of a cluster of this machine alone. Without the first, Ray would listen on all networks.
ONLY_HERE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
    "RAY_AUTH_MODE": "token",
}


class Cluster:
    """A Ray cluster, as a place for workers."""

    def __init__(self, address: str | None) -> None:
        if importlib.util.find_spec("ray") is None:
            raise WrongOption("executor", "ray", 'needs Ray: pip install "lrsweep[ray]"')
        if address is not None and not ADDRESS.fullmatch(address):
            raise WrongOption(
                "address", address, "give host:port of the head node (ray start --head prints it), or auto"
            )
        self._address = address
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._said: IO[bytes] | None = None
        self._folder = ""
        self._resources: dict[str, float] | None = None

    def begin(self, workers: int | str, device: str, threads: int) -> None:
        if self._process is not None:
            return
        if self._address is None:
            token = {"RAY_AUTH_TOKEN": token_hex(32)}
            cpus = max(available_cores(), 0 if isinstance(workers, str) else workers * threads)
            resources = {"num_cpus": cpus} | ({"num_gpus": 0} if device == "cpu" else {})
            environment = {**os.environ, **ONLY_HERE, **token}
            environment.pop("RAY_ADDRESS", None)
        else:
            resources, environment = {}, {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        self._connection, theirs = Pipe()
        self._said = tempfile.TemporaryFile()
        # Short, because the names of sockets are in it, which have room for 107 characters.
        self._folder = tempfile.mkdtemp(prefix="lrsweep-ray-", dir=None if len(tempfile.gettempdir()) < 20 else "/tmp")
        self._process = helper(
            "lrsweep.workers.ray_driver",
            theirs.fileno(),
            env=environment,
            stdout=self._said,
            stderr=self._said,
            start_new_session=True,  # Ctrl-C reaches the sweep alone
        )
        theirs.close()
        self.send((self._address, resources, self._folder))

    def workers(self, device: str, threads: int) -> int | None:
        if self._address is None:
            return None
        self.begin(0, device, threads)
        found = self._found()
        return int(found.get("GPU", 0.0) if device == "cuda" else found.get("CPU", 0.0) // threads)

    def executor(self, config: WorkerConfig, count: int) -> Ray:
        self.begin(count, config.device, config.threads)
        return Ray(self, config, count)

    def end(self) -> None:
        if self._connection is not None:
            self._connection.close()  # which the driver hears

    def close(self) -> None:
        if self._process is None or self._said is None:
            return
        self.end()
        if self._resources is not None:  # else it is still starting, and nobody waits for that
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(CLOSE_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._said.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._process = None

    def ready(self, needs: dict[str, float]) -> None:
        """Wait until the cluster is there. Raises UsageError if it cannot be, or has no machine with what is needed."""
        found = self._found()
        for resource, least in (("CPU", needs["num_cpus"]), ("GPU", needs["num_gpus"])):
            if found.get(resource, 0.0) < least:
                have = (
                    f"the Ray cluster has too few {resource}s ({found.get(resource, 0.0):g}; a worker takes {least:g})"
                )
                raise UsageError(f"--executor ray: {have}; give another --address, --device or --threads")

    def _found(self) -> dict[str, float]:
        until = time.monotonic() + START_SECONDS
        while self._resources is None:
            for name, *arguments in self.received(POLL_SECONDS):
                if name == "cluster":
                    (self._resources,) = arguments
            if time.monotonic() > until:
                raise UsageError(self._not_started(f"no answer for {START_SECONDS:.0f} s"))
        return self._resources

    def send(self, command: tuple[Any, ...]) -> None:
        assert self._connection is not None
        with suppress(BrokenPipeError):  # `received` tells of it
            self._connection.send(command)

    def received(self, seconds: float) -> list[tuple[Any, ...]]:
        """What has come meanwhile. Raises UsageError if Ray could not start, LimitError if it is lost."""
        assert self._connection is not None
        found: list[tuple[Any, ...]] = []
        try:
            while self._connection.poll(0 if found else seconds):
                found.append(self._connection.recv())
        except (EOFError, OSError):
            if found:
                return found
            if self._resources is None:
                raise UsageError(self._not_started(self._last_words())) from None
            text = "the Ray cluster was lost; finished runs are saved, rerun the command to resume"
            raise LimitError(f"{text} ({self._last_words()})") from None
        for name, *arguments in found:
            if name == "refused":
                raise UsageError(self._not_started(arguments[0]))
        return found

    def _not_started(self, reason: str) -> str:
        if self._address is None:
            return f"--executor ray: Ray could not be started on this machine: {reason}; use --executor local"
        return f"--address {self._address}: the Ray cluster cannot be used: {reason}"

    def _last_words(self) -> str:
        assert self._said is not None
        self._said.seek(0)
        lines = [line.strip() for line in self._said.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "its driver ended without a word"


class Ray:
    """Workers in a cluster, by numbers; each takes one job at a time."""

    def __init__(self, cluster: Cluster, config: WorkerConfig, count: int) -> None:
        self._cluster, self._config, self._count = cluster, config, count
        self._folder = Path(config.folder)
        self._free: list[int] = []
        self._busy: dict[int, Job] = {}
        self._joined: dict[int, Joined] = {}
        self._stopping = self._since = 0.0
        self._processors: set[str] = set()

    def start(self) -> None:
        from lrsweep.workers.ray_agent import Settings

        config = self._config
        needs = {"num_cpus": float(config.threads), "num_gpus": float(config.device == "cuda")}
        self._cluster.ready(needs)
        settings = Settings(
            config=config,
            holder=lock.holder(self._folder),
            path=tuple(sys.path),
            environment={name: value for name, value in os.environ.items() if name.startswith(OURS)},
            cwd=os.getcwd(),
            needed=needed.here(config.versions),
        )
        self._cluster.send(("start", self._count, needs, settings))
        self._since = time.monotonic()

    def run(self, queue: deque[Job], take: Take) -> None:
        for events in self._events(queue):
            take(events)

    def _events(self, queue: deque[Job]) -> Iterator[list[Event]]:
        while True:
            if begun := self._assign(queue):
                yield begun
            if not self._busy and (not queue or self._stopping):
                return
            if self._stopping and time.monotonic() - self._stopping > STOP_SECONDS + MARGIN_SECONDS:
                return
            yield [event for what in self._cluster.received(POLL_SECONDS) for event in self._events_of(*what)]
            if queue and not self._joined and time.monotonic() - self._since > QUIET_SECONDS:
                self._since = time.monotonic()
                text = f"the Ray cluster has given no worker for {QUIET_SECONDS:.0f} s; waiting for it"
                yield [(queue[0], Warned(text, text))]

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = time.monotonic()
            self._cluster.send(("stop",))

    def close(self) -> None:
        self._cluster.send(("close",))
        until = time.monotonic() + CLOSE_SECONDS
        with suppress(UsageError, LimitError):
            while time.monotonic() < until and ("closed",) not in self._cluster.received(POLL_SECONDS):
                pass

    def _assign(self, queue: deque[Job]) -> list[Event]:
        begun: list[Event] = []
        while queue and self._free and not self._stopping:
            number, job = self._free.pop(0), queue.popleft()
            checkpoint = None
            if job.resume is not None and not self._joined[number].shared:
                checkpoint = checkpoints.content(self._folder, job.resume)
            self._busy[number] = job
            self._cluster.send(("job", number, job, checkpoint))
            begun.append((job, Taken(f"{self._joined[number].host}, worker {number}")))
        return begun

    def _events_of(self, name: str, number: int = 0, what: Any = None) -> Iterator[Event]:
        if name == "joined":
            yield from self._join(number, what)
        elif name == "told":
            yield from self._take(number, what)
        elif name == "lost":
            self._joined.pop(number, None)
            if number in self._free:
                self._free.remove(number)
            if number in self._busy:
                yield self._busy.pop(number), Lost(what)

    def _join(self, number: int, joined: Joined) -> Iterator[Event]:
        if joined.missing:
            raise UsageError(
                f"--executor ray: the machine {joined.host} lacks what training takes: {'; '.join(joined.missing)}. "
                "Install it there, and keep files where all machines see them under one path"
            )
        self._joined[number] = joined
        self._free.append(number)
        self._processors.add(joined.cpu)
        if len(self._processors) == 2 and self._busy:
            kinds = ", ".join(sorted(self._processors))
            text = f"warning: the Ray cluster has several kinds of processor ({kinds}); last digits may depend on them"
            yield next(iter(self._busy.values())), Warned(text, text)

    def _take(self, number: int, batch: Batch) -> Iterator[Event]:
        sys.stderr.write(batch.printed)
        for message in batch.messages:
            job = self._busy.get(number)
            if job is None:
                return  # the sweep no longer waits for it
            if isinstance(message, Saved) and message.checkpoint.file in batch.files:
                checkpoints.keep(self._folder, message.checkpoint, batch.files[message.checkpoint.file])
            if isinstance(message, LAST):
                del self._busy[number]
                self._free.append(number)
            yield job, message
