"""No test may use the network: everything but local sockets between processes is refused."""

from __future__ import annotations

import socket
from typing import Any

import pytest

_connect, _bind, _sendto = socket.socket.connect, socket.socket.bind, socket.socket.sendto


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
