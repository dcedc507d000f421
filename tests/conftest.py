"""Rules for every test: its tier, and no network (everything but local sockets between processes is refused).

Tiers: `unit` for working, the default run before a change lands, `slow` for long checks. Nobody marks `unit` by hand:
every test has it that is neither end to end, nor in SLOWER, nor marked `slow` or `process`.
"""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from lrsweep.system.plain import VARIABLE

# Before torch is imported: threads that a test starts would keep every later one in this process from forking.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As in a command of lrsweep's own, whose workers are copies of it: see lrsweep/compiler/torch_private.py.
os.environ.setdefault("MKL_CBWR", "AUTO")

SLOWER = (
    "tests/bench/",
    "tests/cli/test_app.py",
    "tests/cli/test_submit.py",
    "tests/end_to_end/",
    "tests/plot/",
    "tests/report/",
    "tests/sweep/",
    "tests/system/",
    "tests/training/test_own_optimizers.py",
    "tests/training/test_param_groups.py",
    "tests/training/test_sequential.py",
    "tests/training/test_stacked.py",
    "tests/training/test_update_rules.py",
    "tests/workers/",
)
"""Folders and modules whose tests train many runs, draw plots or start processes: the default tier."""

_connect, _bind, _sendto = socket.socket.connect, socket.socket.bind, socket.socket.sendto


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.nodeid.split("::")[0]
        marked = any(item.get_closest_marker(name) for name in ("slow", "process"))
        if not marked and not place.startswith(SLOWER):
            item.add_marker(pytest.mark.unit)


class NetworkUsed(AssertionError):
    """A test opened a connection that leaves this machine."""


def _refuse(sock: socket.socket) -> None:
    if sock.family != getattr(socket, "AF_UNIX", None):
        raise NetworkUsed("the network was used; mark the test `network` if it has to")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("network"):
        return

    def guarded(real: Any) -> Any:
        def call(self: socket.socket, *args: Any, **kwargs: Any) -> Any:
            _refuse(self)
            return real(self, *args, **kwargs)

        return call

    def no_lookup(*_: Any, **__: Any) -> Any:
        raise NetworkUsed("a host name was looked up; mark the test `network` if it has to")

    for name, real in (("connect", _connect), ("bind", _bind), ("sendto", _sendto)):
        monkeypatch.setattr(socket.socket, name, guarded(real))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", no_lookup)


@pytest.fixture(params=["", pytest.param("1", marks=pytest.mark.slow)], ids=["tricks", "plain"])
def both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test is run with every trick and, in the slow tier, with none: both train to the same numbers."""
    monkeypatch.setenv(VARIABLE, request.param)


@pytest.fixture(params=["", "1"], ids=["tricks", "plain"])
def both_ways_always(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `both_ways`, for quick tests: both are in the default tier."""
    monkeypatch.setenv(VARIABLE, request.param)
