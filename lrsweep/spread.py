"""The same work on several cores: calls shared out among forked copies of this process."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")


def spread(calls: Sequence[Callable[[], T]], processes: int) -> list[T]:
    """The results of `calls` in their order. Every exception comes through, with its own type.

    Calls are dealt out in turn, so neighbours should cost about the same. Their results must be picklable. In this
    process alone where it cannot be forked.
    """
    count = min(processes, len(calls))
    if count < 2 or not sys.platform.startswith("linux") or multiprocessing.current_process().daemon:
        return [call() for call in calls]
    context = multiprocessing.get_context("fork")
    helpers = []
    for number in range(1, count):
        ours, theirs = context.Pipe(duplex=False)
        helper = context.Process(target=_work, args=(theirs, calls[number::count]), daemon=True)
        helper.start()
        theirs.close()
        helpers.append((helper, ours))
    results: dict[int, T] = {}
    try:
        results.update(zip(range(0, len(calls), count), [call() for call in calls[::count]], strict=True))
        for number, (_, ours) in enumerate(helpers, start=1):
            results.update(zip(range(number, len(calls), count), _received(ours), strict=True))
    finally:
        for helper, ours in helpers:
            ours.close()
            helper.terminate()
            helper.join()
    return [results[number] for number in range(len(calls))]


def _work(pipe: Connection, calls: Sequence[Callable[[], Any]]) -> None:
    try:
        pipe.send((True, [call() for call in calls]))
    except Exception as error:  # noqa: BLE001 - it is raised where the results are waited for
        pipe.send((False, error))


def _received(pipe: Connection) -> list[Any]:
    try:
        done, result = pipe.recv()
    except EOFError:
        raise RuntimeError("a process that was drawing pictures was killed") from None
    if not done:
        raise result
    found: list[Any] = result
    return found
