"""The process that Ray knows as the driver of a sweep; no other imports Ray.

So nothing of Ray - threads, signal handlers, variables, logs - is in the process of the sweep, which forks and belongs
to its caller. They are at the two ends of a pipe: commands come in, tuples of a name and arguments, and tuples go out.

One agent (ray_agent.py) stands for one worker. Ray places it and tells of its death; a new one takes its place.
"""

from __future__ import annotations

import functools
import inspect
import os
import shutil
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

import ray
from ray.exceptions import ActorDiedError

from lrsweep.errors import on_one_line, printable
from lrsweep.system.signals import unblock
from lrsweep.workers.messages import Job
from lrsweep.workers.ray_agent import Agent, Batch, Joined, Settings

CONNECT_SECONDS = 10.0
LEAVE_SECONDS = 2.0
"""How long agents may take to end their workers before they are killed."""
OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's object store on this machine; all that goes through it are messages."""
FAILED_JOINS = 3
"""So many agents in a row may end before they have joined, as when their machine is lost."""

Command = tuple[Any, ...]


@dataclass(eq=False)
class _Agent:
    number: int
    actor: Any
    host: str = ""
    busy: bool = False


class Driver:
    """Answers to commands in the order in which they come, and to what the agents say."""

    def __init__(self, send: Callable[[Command], None]) -> None:
        self._send = send
        self._inbox: SimpleQueue[Command | None] = SimpleQueue()
        self._agents: dict[int, _Agent] = {}
        self._settings: Settings | None = None
        self._resources: dict[str, float] = {}
        self._stopping = False
        self._numbers = self._failed = 0

    def receive(self, connection: Connection) -> None:
        """Take commands until the sweep hangs up, or is gone."""
        with suppress(EOFError, OSError):
            while True:
                self._inbox.put(connection.recv())
        self._inbox.put(None)

    def serve(self) -> None:
        for name, *arguments in iter(self._inbox.get, None):
            getattr(self, f"_on_{name}")(*arguments)

    # What the sweep asks for.

    def _on_start(self, count: int, resources: dict[str, float], settings: Settings) -> None:
        self._settings, self._resources, self._stopping, self._failed = settings, resources, False, 0
        for _ in range(count):
            self._add()

    def _on_job(self, number: int, job: Job, checkpoint: bytes | None) -> None:
        agent = self._agents.get(number)
        if agent is None:
            self._send(("lost", number, "the Ray worker is gone"))
            return
        agent.busy = True
        self._ask(agent, "told", agent.actor.train.remote(job, checkpoint))

    def _on_stop(self) -> None:
        self._stopping = True
        for agent in self._agents.values():
            if agent.busy:
                agent.actor.stop.remote()

    def _on_close(self) -> None:
        leaving = [agent.actor.leave.remote() for agent in self._agents.values() if agent.host]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=LEAVE_SECONDS)
        for agent in self._agents.values():
            ray.kill(agent.actor)
        self._agents.clear()
        self._send(("closed",))

    # What the agents answer.

    def _on_joined(self, agent: _Agent, joined: Joined) -> None:
        self._failed = 0
        agent.host = joined.host
        self._send(("joined", agent.number, joined))

    def _on_told(self, agent: _Agent, batch: Batch) -> None:
        if batch.messages or batch.printed:
            self._send(("told", agent.number, batch))
        if batch.ended:
            agent.busy = False
        else:
            self._ask(agent, "told", agent.actor.more.remote())

    def _on_lost(self, agent: _Agent, error: BaseException) -> None:
        if self._agents.pop(agent.number, None) is None:
            return  # it was ended on purpose
        ray.kill(agent.actor)  # where it was out of reach only
        if agent.host:
            self._send(("lost", agent.number, f"the Ray worker on {agent.host} was lost ({_reason(error)})"))
        else:
            self._failed += 1
            if self._failed >= FAILED_JOINS or not isinstance(error, ActorDiedError):
                self._send(("refused", f"no worker could be started in the Ray cluster: {_reason(error)}"))
                return
        if not self._stopping:
            self._add()

    def _add(self) -> None:
        self._numbers += 1
        actor = ray.remote(Agent).options(max_restarts=0, max_task_retries=0, **self._resources).remote()
        agent = self._agents[self._numbers] = _Agent(self._numbers, actor)
        self._ask(agent, "joined", actor.join.remote(self._settings))

    def _ask(self, agent: _Agent, name: str, answer: Any) -> None:
        def put(future: Any) -> None:
            error = future.exception()
            self._inbox.put(("lost", agent, error) if error is not None else (name, agent, future.result()))

        answer.future().add_done_callback(put)


def _reason(error: BaseException) -> str:
    """What Ray says of an end, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return on_one_line(f"{type(cause).__name__}: {cause}")
    return printable(lines[0]) if lines else type(error).__name__


def _reachable(address: str) -> None:
    """Raises OSError at once where Ray would try for a minute."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()


def _leave_out() -> None:
    """Start no autoscaler, no server of a dashboard and no reader of logs, of which a cluster of this machine alone
    needs none: 3 s of CPU time at its start, and 1 s of its end (2026-11). `ray.init` has no options for that; where
    Ray has other names for it, it starts them.
    """
    try:
        from ray._private import node, parameter
    except ImportError:
        return
    kept = {"no_monitor": True, "include_log_monitor": False}
    if kept.keys() <= inspect.signature(parameter.RayParams).parameters.keys():
        parameter.RayParams = functools.partial(parameter.RayParams, **kept)
    if hasattr(node.Node, "start_api_server"):
        node.Node.start_api_server = lambda self, **_: None


def _init(address: str | None, resources: Mapping[str, float], folder: str) -> None:
    quiet: dict[str, Any] = {"configure_logging": False, "log_to_driver": False, "logging_level": "error"}
    if address is not None:
        if address != "auto":
            _reachable(address)
        ray.init(address=address, **quiet)
        return
    _leave_out()
    ray.init(
        address="local",
        include_dashboard=False,
        object_store_memory=OBJECT_STORE,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
        **resources,
        **quiet,
    )


def main(descriptor: int) -> None:
    """The pipe first brings the address, or None for a cluster of this machine alone, what that is to have, and where
    its files go. They are deleted here because the sweep may be killed, and by the sweep because this process may be.
    """
    unblock()
    connection = Connection(descriptor)
    address, resources, folder = connection.recv()
    lock = threading.Lock()

    def send(what: Command) -> None:
        with lock, suppress(OSError):  # the sweep is gone: that is told by the other end
            connection.send(what)

    driver = Driver(send)
    threading.Thread(target=driver.receive, args=(connection,), daemon=True).start()
    try:
        try:
            _init(address, resources, folder)
        except Exception as error:  # noqa: BLE001 - whatever it is, the sweep says it
            send(("refused", _reason(error)))
            return
        send(("cluster", ray.cluster_resources()))
        driver.serve()
    except BaseException:  # noqa: BLE001 - the sweep shows the last line
        traceback.print_exc()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        sys.stderr.flush()
        os._exit(0)
