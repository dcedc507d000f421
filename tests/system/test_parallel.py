"""Work shared out among processes: the same results, the same exceptions."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NoReturn

import pytest

from lrsweep.errors import StorageError
from lrsweep.system import parallel
from lrsweep.system.parallel import in_processes


@pytest.mark.parametrize("processes", [1, 2, 3, 20])
def test_results_keep_their_order(processes: int) -> None:
    assert in_processes([partial(pow, base, 2) for base in range(7)], processes) == [0, 1, 4, 9, 16, 25, 36]


def slowly() -> int:
    time.sleep(0.05)
    return os.getpid()


def test_more_than_one_process_works() -> None:
    assert len(set(in_processes([slowly] * 8, 2))) == 2
    assert set(in_processes([slowly] * 4, 1)) == {os.getpid()}


def fail() -> int:
    raise StorageError("the disk is full")


@pytest.mark.parametrize("place", [0, 1])
def test_an_exception_comes_through_with_its_type(place: int) -> None:
    calls = [slowly, slowly]
    calls[place] = fail
    with pytest.raises(StorageError, match="the disk is full"):
        in_processes(calls, 2)


def in_helpers_only(fate: Callable[[], None]) -> Callable[[], int]:
    here = os.getpid()

    def call() -> int:
        if os.getpid() != here:
            fate()
        return slowly()

    return call


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def out_of_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize("fate", [killed, stopped, out_of_memory])
def test_what_a_helper_leaves_undone_is_done_here(fate: Callable[[], None]) -> None:
    call = in_helpers_only(fate)
    assert in_processes([call] * 4, 3) == [os.getpid()] * 4
    assert not multiprocessing.active_children()


def test_a_helper_that_hangs_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "GRACE", 0.2)
    assert in_processes([in_helpers_only(lambda: time.sleep(3600))] * 4, 2) == [os.getpid()] * 4


def test_large_results_hold_nobody_up() -> None:
    sizes = [3_000_000 + number for number in range(6)]
    assert [len(data) for data in in_processes([partial(bytes, size) for size in sizes], 3)] == sizes


def refused(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize("function", ["pipe", "fork", "memfd_create"])
def test_without_files_or_processes_this_process_works_alone(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, function, refused)
    assert in_processes([os.getpid] * 3, 2) == [os.getpid()] * 3
    left_by_multiprocessing = 4 if function == "fork" else 0
    assert len(set(os.listdir("/proc/self/fd")) - before) == left_by_multiprocessing


def test_no_shared_memory_and_no_semaphore_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("_multiprocessing.SemLock", refused)
    assert len(set(in_processes([slowly] * 8, 2))) == 2


def test_beside_a_thread_nothing_is_forked() -> None:
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert set(in_processes([slowly] * 4, 2)) == {os.getpid()}
    finally:
        waiting.set()
        thread.join()
