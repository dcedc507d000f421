"""What runs in a process of Ray's, on whatever machine: it starts a worker, hands it jobs, and tells what it says.

The worker is a process of its own, as `--executor local` starts them in place of one that died: user code, forks,
seeds, threads and bits are those of a local sweep. It ends when this process does. Nothing here imports torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from lrsweep.store import checkpoints, lock
from lrsweep.system.machine import cpu_name
from lrsweep.workers import needed
from lrsweep.workers.executors import Event
from lrsweep.workers.local import Local, spawned
from lrsweep.workers.messages import LAST, Job, Message, Saved, Taken, Ticked, WorkerConfig
from lrsweep.workers.needed import Needed

BATCH_SECONDS = 0.5
"""So long news of progress may wait to be told together. A request to stop waits for it."""
OF_RAY = ("RAY_", "OMP_NUM_THREADS", "PYTHONBREAKPOINT", "SPT_NOENV")
"""Variables that Ray gives its processes; a worker has those of the sweep instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What an agent is told once. `holder` is in the folder of the sweep, and nowhere else; `path` is the import path
    of the sweep, `environment` what workers must have of its variables, `cwd` its current folder."""

    config: WorkerConfig
    holder: bytes
    path: tuple[str, ...]
    environment: dict[str, str]
    cwd: str
    needed: Needed


@dataclass(frozen=True, slots=True)
class Joined:
    """An agent is ready, unless something is `missing`. `shared`: it sees the folder of the sweep."""

    host: str
    cpu: str
    shared: bool
    missing: tuple[str, ...] = ()


@dataclass(slots=True)
class Batch:
    """What a worker has said, and what the user's code has printed there. `files` holds the checkpoints that only this
    machine has, by name."""

    messages: list[Message] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    printed: str = ""

    @property
    def ended(self) -> bool:
        """Is the job done?"""
        return any(isinstance(message, LAST) for message in self.messages)


class Agent:
    """One call at a time: `join`, then `train` and `more` until a batch has `ended`, again and again."""

    def __init__(self) -> None:
        self._local: Local | None = None
        self._events: Iterator[list[Event]] = iter(())
        self._folder = Path()
        self._own: Path | None = None
        self._printed: deque[str] = deque()

    def join(self, settings: Settings) -> Joined:
        """Start the worker."""
        with suppress(OSError):
            os.chdir(settings.cwd)
        path = _import_path(settings.path)
        absent = tuple(needed.missing(settings.needed, path))
        self._folder = Path(settings.config.folder)
        shared = bool(settings.holder) and lock.holder(self._folder) == settings.holder
        if not shared:
            self._folder = self._own = Path(tempfile.mkdtemp(prefix="lrsweep-"))
        if not absent:
            config = replace(settings.config, folder=str(self._folder), parent=os.getpid())
            environment = _environment(settings.environment)
            self._local = Local(config, 1, partial(spawned, path=path, env=environment, stderr=self._listen()))
            self._local.start()
        return Joined(platform.node(), cpu_name(), shared, absent)

    def train(self, job: Job, checkpoint: bytes | None) -> Batch:
        """Begin a job. `checkpoint`: the file that it goes on from, where this machine has none."""
        assert self._local is not None
        if checkpoint is not None and job.resume is not None:
            checkpoints.keep(self._folder, job.resume, checkpoint)
        self._events = self._local.events(deque([job]))
        return self.more()

    def more(self) -> Batch:
        """What has been said since, BATCH_SECONDS of it at most."""
        batch, steps, until = Batch(), 0, time.monotonic() + BATCH_SECONDS
        for events in self._events:
            for _, message in events:
                if isinstance(message, Ticked):
                    steps += message.run_steps
                    continue
                if isinstance(message, Taken):
                    continue  # the sweep has its own name for this worker
                batch.messages.append(message)
                if isinstance(message, Saved) and self._own is not None:
                    self._take(message, batch)
            if batch.messages or time.monotonic() > until:
                break
        batch.printed = "".join(self._printed.popleft() for _ in range(len(self._printed)))
        if steps:
            batch.messages.insert(0, Ticked(steps))
        return batch

    def _listen(self) -> int:
        """Where workers are to print: Ray would keep it in a file of its own."""
        reading, writing = os.pipe()

        def listen() -> None:
            with open(reading, encoding="utf-8", errors="replace") as lines:
                self._printed.extend(lines)

        threading.Thread(target=listen, daemon=True).start()
        return writing

    def _take(self, saved: Saved, batch: Batch) -> None:
        """The sweep is sent the checkpoint; this machine may be gone when it is needed."""
        data = checkpoints.content(self._folder, saved.checkpoint)
        if data is not None:
            batch.files[saved.checkpoint.file] = data
            checkpoints.delete(self._folder, saved.checkpoint)

    def stop(self) -> None:
        """Ask the worker to save and leave; `more` tells how that ends."""
        if self._local is not None:
            self._local.stop()

    def leave(self) -> None:
        """End the worker."""
        if self._local is not None:
            self._local.close()
        if self._own is not None:
            shutil.rmtree(self._own, ignore_errors=True)


def _import_path(of_sweep: tuple[str, ...]) -> list[str]:
    """That of the sweep where its folders are here, then what else this Python has; nothing that Ray has put there."""
    ray = [str(Path(module.__file__).parent) for module in [sys.modules.get("ray")] if module and module.__file__]
    own = (entry for entry in sys.path if not any(entry.startswith(home) for home in ray))
    return list(dict.fromkeys([*(entry for entry in of_sweep if not entry or Path(entry).exists()), *own]))


def _environment(of_sweep: dict[str, str]) -> dict[str, str]:
    return {**{name: value for name, value in os.environ.items() if not name.startswith(OF_RAY)}, **of_sweep}
