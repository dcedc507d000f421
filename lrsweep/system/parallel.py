"""The same work on several cores: calls shared out among forked copies of this process."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any, TypeVar

from lrsweep.system.plain import uses
from lrsweep.system.signals import die_with

T = TypeVar("T")


def spread(calls: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """The results of `calls` in their order. Every exception comes through, with its own type.

    Each process takes the next call that nobody has taken. Results must be picklable. In this process alone where it
    cannot be forked.
    """
    count = min(processes, len(calls))
    if (
        not uses("spread")
        or count < 2
        or not sys.platform.startswith("linux")
        or multiprocessing.current_process().daemon
    ):
        return [call() for call in calls]
    context = multiprocessing.get_context("fork")
    taken = context.Value("i", 0)
    helpers = []
    for _ in range(1, count):
        ours, theirs = context.Pipe(duplex=False)
        helper = context.Process(target=_work, args=(theirs, calls, taken, os.getpid()), daemon=True)
        helper.start()
        theirs.close()
        helpers.append((helper, ours))
    try:
        results: dict[int, T] = _take(calls, taken)
        for _, ours in helpers:
            results.update(_received(ours))
    finally:
        for helper, ours in helpers:
            ours.close()
            helper.terminate()
            helper.join()
    return [results[number] for number in range(len(calls))]


def _take(calls: Sequence[Callable[[], T]], taken: Synchronized[int]) -> dict[int, T]:
    """Call what is left, one after another; results by place."""
    results: dict[int, T] = {}
    while True:
        with taken.get_lock():
            number = taken.value
            taken.value += 1
        if number >= len(calls):
            return results
        results[number] = calls[number]()


def _work(pipe: Connection, calls: Sequence[Callable[[], Any]], taken: Synchronized[int], parent: int) -> None:
    die_with(parent)
    try:
        pipe.send((True, _take(calls, taken)))
    except Exception as error:  # noqa: BLE001 - it is raised where the results are waited for
        pipe.send((False, error))


def _received(pipe: Connection) -> dict[int, Any]:
    try:
        done, result = pipe.recv()
    except EOFError:
        raise RuntimeError("a process drawing plots was killed") from None
    if not done:
        raise result
    found: dict[int, Any] = result
    return found
