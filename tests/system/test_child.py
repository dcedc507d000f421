"""A copy of the process: what runs in it leaves no trace, and how it ends is known."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from lrsweep.errors import WrongInSpec
from lrsweep.system import child

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


def test_what_runs_in_a_copy_leaves_no_trace() -> None:
    kept: list[int] = []

    def keep() -> tuple[int, list[int]]:
        kept.append(1)
        return os.getpid(), kept

    process, seen = child.call(keep)
    assert (process != os.getpid(), seen, kept) == (True, [1], [])


def test_what_is_raised_in_a_copy_is_raised_here() -> None:
    def refuse() -> None:
        raise WrongInSpec((("train", "batch_size"), "too small"))

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(WrongInSpec) as refused:
        child.call(refuse)
    assert refused.value.found == ((("train", "batch_size"), "too small"),)
    with pytest.raises(KeyError, match="x"):
        child.call(fail)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os._exit(3), "exited with code 3"),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"was killed by SIGKILL \(out of memory\?\)"),
    ],
)
def test_a_copy_that_ends_early_is_told(end, words) -> None:
    with pytest.raises(child.ChildDiedError, match=words):
        child.call(end)


def test_beside_a_thread_there_is_no_copy() -> None:
    """Its locks would be copied, and it would not."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        assert not child.can_fork()
        assert child.call(os.getpid) == os.getpid()
    finally:
        done.set()
        thread.join()


def test_the_thread_of_jemalloc_which_comes_with_pyarrow_prevents_no_fork() -> None:
    pytest.importorskip("pyarrow")
    code = """
import os
from lrsweep.system import child

child.before_user_code()
before = len(os.listdir("/proc/self/task"))
import pyarrow

assert len(os.listdir("/proc/self/task")) > before, "it starts none any more"
assert child.can_fork()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
