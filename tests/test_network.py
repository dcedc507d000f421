"""The guard of conftest.py against the network."""

from __future__ import annotations

import socket

import pytest


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_connection_is_refused(family: int) -> None:
    with socket.socket(family) as sock, pytest.raises(AssertionError, match="network"):
        sock.connect(("127.0.0.1" if family == socket.AF_INET else "::1", 9))


def test_a_name_lookup_is_refused() -> None:
    with pytest.raises(AssertionError, match="looked up"):
        socket.create_connection(("example.org", 80))


def test_local_sockets_work() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x")
        assert theirs.recv(1) == b"x"
