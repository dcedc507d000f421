"""What the system refuses is told in one line, and nothing else is taken for it."""

from __future__ import annotations

import errno
import multiprocessing
import os
from collections.abc import Callable
from typing import Any

import pytest

from lrsweep.errors import LimitError
from lrsweep.system import limits, machine

Raiser = Callable[[], Any]


def raised(raiser: Raiser) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 - of any type
        raiser()
    return caught.value


def throw(error: BaseException) -> Raiser:
    def raiser() -> None:
        raise error

    return raiser


def wrapped() -> None:
    try:
        raise MemoryError
    except MemoryError as error:
        raise ImportError("numpy could not be imported") from error


def full_stream() -> None:
    raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


@pytest.mark.parametrize(
    ("raiser", "said"),
    [
        (throw(MemoryError()), "out of memory"),
        (throw(OSError(errno.ENOMEM, "Cannot allocate memory")), "out of memory"),
        (throw(ImportError("libtorch_cpu.so: failed to map segment from shared object")), "out of memory"),
        (throw(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")), "out of memory"),
        (wrapped, "out of memory"),
        (throw(OSError(errno.EMFILE, "Too many open files")), "too many open files (at most "),
        (throw(ImportError("libm.so.6: cannot open shared object file: Too many open files")), "too many open files"),
        (throw(RuntimeError("can't start new thread")), "no new process"),
        (throw(OSError(errno.ENOSYS, "Function not implemented")), "no new process"),
    ],
)
def test_what_was_refused_is_said(raiser: Raiser, said: str) -> None:
    text = limits.refusal(raised(raiser))
    assert text is not None
    assert text.startswith(said)
    assert "\n" not in text
    assert text.endswith("and rerun the command")


def test_a_process_that_cannot_be_forked(monkeypatch: pytest.MonkeyPatch) -> None:
    process = multiprocessing.get_context("fork").Process(target=print)
    monkeypatch.setattr(os, "fork", full_stream)  # has the same number
    assert str(limits.refusal(raised(process.start))).startswith("no new process")


@pytest.mark.parametrize(
    "raiser",
    [
        throw(ValueError("no")),
        throw(ImportError("no module named x")),
        throw(KeyError("a")),
        full_stream,
        throw(OSError(2, "no")),
    ],
)
def test_other_errors_are_not_taken_for_it(raiser: Raiser) -> None:
    assert limits.refusal(raised(raiser)) is None


def test_too_little_memory_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    limits.require_memory(limits.LEAST_FOR_TORCH)
    monkeypatch.setattr(limits, "limit_of_process", lambda _: 200 * machine.MIB)
    monkeypatch.setattr(machine, "limit_of_process", lambda _: 200 * machine.MIB)
    with pytest.raises(LimitError, match="200 MiB can be used"):
        limits.require_memory(limits.LEAST)
