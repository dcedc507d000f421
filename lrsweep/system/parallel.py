"""The same work on several cores: calls shared out among forked copies of this process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from lrsweep.system.plain import uses
from lrsweep.system.signals import die_with

T = TypeVar("T")

GRACE = 20.0
"""Seconds that a helper may take for the call it is in when there is nothing else left to do; and as long again as all
the rest took. After that the call is made here."""
LOOK_SECONDS = 0.1
"""Between two looks at whether a helper that is waited for still runs."""
_NUMBER = 4
"""Bytes of the number of a call in the pipe. A pipe gives and takes that few bytes whole."""


@dataclass(frozen=True)
class _Helper:
    """`told` says which calls are done, in messages that a pipe takes whole; their pickled results are in the file
    `results`, where a helper never waits for its reader."""

    process: BaseProcess
    told: Connection
    results: int


def in_processes(calls: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """The results of `calls` in their order. Raises what a call raises.

    Each process takes the next call that nobody has taken. Results must be picklable. A call that a helper failed in,
    was killed or stopped in, is made here once more; all of them are where no helper can be forked: on other systems
    than Linux, beside threads, without a file or process left.
    """
    count = min(processes, len(calls))
    if count < 2 or not uses("spread") or not can_fork() or multiprocessing.current_process().daemon:
        return [call() for call in calls]
    begun = time.monotonic()
    helpers: list[_Helper] = []
    try:
        left = _numbers(len(calls))
    except OSError:
        return [call() for call in calls]
    try:
        with suppress(OSError):  # fewer helpers, or none
            while len(helpers) < count - 1:
                helpers.append(_helper(calls, left))
        results = {number: calls[number]() for number in _taken(left)}
        deadline = time.monotonic() + GRACE + (time.monotonic() - begun)
        for helper in helpers:
            results.update(_received(helper, deadline))
    finally:
        os.close(left)
        for helper in helpers:
            helper.process.kill()
            helper.process.join()
            helper.told.close()
            os.close(helper.results)
    return [results[number] if number in results else calls[number]() for number in range(len(calls))]


def can_fork() -> bool:
    """Whether a copy of this process can be trusted to run: on Linux, where no other thread may hold a lock."""
    return sys.platform.startswith("linux") and hasattr(os, "fork") and threading.active_count() == 1


def is_running(process: BaseProcess) -> bool:
    """Whether a child of this process has neither ended nor been stopped (by SIGSTOP, or by a debugger)."""
    if process.pid is None:
        return False
    # Left to be waited for, so that `process` still learns how it ended.
    flags = os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT
    try:
        return os.waitid(os.P_PID, process.pid, flags) is None
    except ChildProcessError:
        return False


def write_pickled(file: int, place: int, value: object) -> int:
    """Write `value` at `place` of a file, given by its descriptor; the bytes it takes there."""
    data = memoryview(pickle.dumps(value))
    done = 0
    while done < len(data):
        done += os.pwrite(file, data[done:], place + done)
    return done


def read_pickled(file: int, place: int, length: int) -> Any:
    """What was written there. Raises EOFError where it was not written whole."""
    parts = []
    while length > 0:
        parts.append(os.pread(file, length, place))
        if not parts[-1]:
            raise EOFError
        place, length = place + len(parts[-1]), length - len(parts[-1])
    return pickle.loads(b"".join(parts))


def _numbers(count: int) -> int:
    """A pipe to take the numbers below `count` from, each once, by whoever reads next. It needs no lock that a process
    could be stopped with, nor shared memory. Raises OSError where there is none."""
    left, ours = os.pipe()
    os.set_blocking(ours, False)
    try:
        os.write(ours, b"".join(number.to_bytes(_NUMBER, "big") for number in range(count)))
    except OSError:
        os.close(left)
        raise
    finally:
        os.close(ours)
    return left


def _taken(left: int) -> Iterator[int]:
    while number := os.read(left, _NUMBER):
        yield int.from_bytes(number, "big")


def _helper(calls: Sequence[Callable[[], Any]], left: int) -> _Helper:
    """Raises OSError where it cannot be forked."""
    context = multiprocessing.get_context("fork")
    results = os.memfd_create("lrsweep")
    try:
        ours, theirs = context.Pipe(duplex=False)
    except OSError:
        os.close(results)
        raise
    process = context.Process(target=_work, args=(theirs, results, calls, left, os.getpid()), daemon=True)
    try:
        process.start()
    except OSError:
        os.close(results)
        ours.close()
        raise
    finally:
        theirs.close()
    return _Helper(process, ours, results)


def _work(told: Connection, results: int, calls: Sequence[Callable[[], Any]], left: int, parent: int) -> None:
    """Make the calls that are left; what raises is left to the parent."""
    die_with(parent)
    place = 0
    with suppress(Exception):
        for number in _taken(left):
            length = write_pickled(results, place, calls[number]())
            told.send((number, place, length))
            place += length


def _received(helper: _Helper, deadline: float) -> dict[int, Any]:
    """What the helper has done until it ended, was stopped, or `deadline` passed."""
    results: dict[int, Any] = {}
    with suppress(EOFError, ConnectionError):
        while _is_ready(helper, deadline):
            number, place, length = helper.told.recv()
            results[number] = read_pickled(helper.results, place, length)
    return results


def _is_ready(helper: _Helper, deadline: float) -> bool:
    """Wait until the helper has told something; False if nothing is to be expected."""
    while not helper.told.poll(LOOK_SECONDS):
        if not is_running(helper.process) or time.monotonic() > deadline:
            return helper.told.poll()
    return True
