"""Executors as tests have them: each once for all tests of a module, since Ray takes 10 seconds to start."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lrsweep.workers import executors
from lrsweep.workers.executors import Place

HAS_RAY = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed")
EVERY = ["local", "in-process", pytest.param("ray", marks=[pytest.mark.slow, needs_ray])]


def opened() -> Iterator[dict[str, Place]]:
    """Places by name, opened when first asked for; for a fixture of a module."""
    places = _Places()
    yield places
    for place in places.values():
        place.close()


class _Places(dict[str, Place]):
    def __missing__(self, name: str) -> Place:
        self[name] = executors.place(name, None)
        return self[name]


class Shared:
    """A place that outlives the sweep that closes it."""

    def __init__(self, place: Place) -> None:
        self.begin, self.workers, self.executor = place.begin, place.workers, place.executor

    def end(self) -> None: ...

    def close(self) -> None: ...


def processes_of_session(leader: int) -> list[int]:
    """The processes that live in the session of a process, itself among them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, *fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == leader and state != "Z":
                found.append(int(entry.name))
    return found


def listening(pids: list[int]) -> set[str]:
    """The addresses, in the system's hexadecimal form, at which these processes take connections."""
    sockets = set()
    for pid in pids:
        try:
            names = list(Path(f"/proc/{pid}/fd").iterdir())
        except OSError:
            continue
        for name in names:
            try:
                sockets.add(os.readlink(name))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].partition(":")[0])
    return found
