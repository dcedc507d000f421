"""Where groups are trained. An executor takes a queue of jobs and gives back what happens to them, in any order.

A place is where the workers of one command are; it makes an executor for each pass over the plan. Each has a file of
its own, which is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Protocol

from lrsweep.errors import WrongOption
from lrsweep.workers.messages import Job, Message, WorkerConfig

STOP_SECONDS = 3.0
"""How long workers may take to save and leave before they are killed."""

Event = tuple[Job, Message]
Take = Callable[[list[Event]], None]


class Executor(Protocol):
    """`run` returns when the queue is empty and every job taken from it has had its last message."""

    def start(self) -> None: ...

    def run(self, queue: deque[Job], take: Take) -> None:
        """Train what is in the queue. `take` is given what happened, as lists; an empty list now and then, so that the
        caller can look around. It may add to the queue, and ask for a stop. What it raises ends this.
        """

    def stop(self) -> None:
        """Ask the workers to save and leave; `run` then returns within STOP_SECONDS or a little more."""

    def close(self) -> None:
        """End all workers now."""


class Place(Protocol):
    """Made with the address that was given, or None. All of it may raise UsageError: what to do is in the text."""

    def begin(self, workers: int | str, device: str, threads: int) -> None:
        """Start what takes time to start, without waiting for it. Number and device as given, `auto` or not."""

    def workers(self, device: str, threads: int) -> int | None:
        """How many can train at once; None if it is this machine whose cores count."""

    def executor(self, config: WorkerConfig, count: int) -> Executor: ...

    def end(self) -> None:
        """Begin to close: nothing more will be trained."""

    def close(self) -> None:
        """Nothing of it is left when this returns."""


EXECUTORS = {
    "local": "lrsweep.workers.local:Here",
    "in-process": "lrsweep.workers.in_process:ThisProcess",
    "ray": "lrsweep.workers.ray_executor:Cluster",
}
"""The places, by the names that a user gives: module and class."""


def place(name: str, address: str | None) -> Place:
    """Raises UsageError for an unknown name, where an extra of lrsweep is missing, and if the address means nothing."""
    if not isinstance(name, str) or name not in EXECUTORS:
        raise WrongOption("executor", name, f"unknown executor (allowed: {', '.join(EXECUTORS)})")
    if not isinstance(address, str | None):
        raise WrongOption("address", address, "give a text such as 'head-node:6379'")
    module, _, cls = EXECUTORS[name].partition(":")
    make: Callable[[str | None], Place] = getattr(importlib.import_module(module), cls)
    return make(address)
