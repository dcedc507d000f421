"""A copy of this process for what must leave no trace in it: the user's code is tried out, or one run is trained."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn, TypeVar

from lrsweep.errors import LrsweepError
from lrsweep.system import notebook, warned
from lrsweep.system.signals import die_with

T = TypeVar("T")

_baseline: list[int] = []
_forks_only: list[bool] = []
_no_forks: list[bool] = []
_copy: list[bool] = []


CRASHES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT")


class ChildDiedError(LrsweepError):
    """The copy ended before it gave its result: killed, or ended by the code it ran."""


FORKS_WELL = "jemalloc_bg_thd"
"""The thread of jemalloc, which pandas brings with pyarrow: jemalloc takes its locks before a fork, and frees them
after."""


def _threads() -> int:
    """Threads of this process, those of libraries in C included."""
    try:
        tasks = os.listdir("/proc/self/task")
    except OSError:
        return threading.active_count()
    return sum(_name(task) != FORKS_WELL for task in tasks)


def _name(task: str) -> str:
    """Of a thread; "" if it has ended meanwhile."""
    try:
        return Path(f"/proc/self/task/{task}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def before_user_code() -> None:
    """Call before the user's code first runs here: what it starts besides makes forks unsafe."""
    if not _baseline:
        _baseline.append(_threads())


@contextmanager
def forks_only() -> Iterator[None]:
    """Within: what is trained exists in this process only, so copies are made beside threads that are there already.

    The kernel of a notebook always has some. A DataLoader with workers does the same.
    """
    _forks_only.append(True)
    _baseline[:] = [_threads()]
    try:
        yield
    finally:
        _forks_only.pop()


def must_fork() -> bool:
    """Is a process that is started anew of no use?"""
    return bool(_forks_only)


def may_fork() -> bool:
    """Does the system let this process start another? One is started and ends at once."""
    if not hasattr(os, "fork"):
        return False
    try:
        pid = os.fork()
    except OSError:
        return False
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return True


@contextmanager
def no_forks() -> Iterator[None]:
    """Within, `can_fork` is False: what copies of this process would do is done in it."""
    _no_forks.append(True)
    try:
        yield
    finally:
        _no_forks.pop()


def as_forked_worker() -> None:
    """Call in a copy that stays: it has none of the threads of its parent."""
    if _forks_only:
        _baseline[:] = [_threads()]


def is_copy() -> bool:
    """Is this process a copy made by `call`, whose end is told by the process that made it?"""
    return bool(_copy)


def can_fork() -> bool:
    """Is a fork of this process safe? Threads are not copied, but the locks that they hold are."""
    started = bool(_baseline) and _threads() > _baseline[0]
    return sys.platform == "linux" and not _no_forks and (must_fork() or threading.active_count() == 1) and not started


class ProcessExit(SystemExit):
    """`os._exit` was called where it would have ended the command, with this `status`."""

    def __init__(self, status: int) -> None:
        super().__init__(f"os._exit({status}) was called, which ends the whole command; raise an exception instead")
        self.status = status


@contextmanager
def no_exit(before_ours: Callable[[], None] | None = None) -> Iterator[None]:
    """Within, `os._exit` raises ProcessExit in the main thread of this process. Copies of it end as they would.

    `before_ours` is called before an exit of lrsweep's own, which is not held up.
    """
    process, leave = os.getpid(), os._exit

    def refused(status: int) -> NoReturn:
        ours = str(sys._getframe(1).f_globals.get("__name__")).startswith("lrsweep.")
        if ours and os.getpid() == process and before_ours is not None:
            before_ours()
        if ours or os.getpid() != process or threading.current_thread() is not threading.main_thread():
            leave(status)
        raise ProcessExit(status)

    os._exit = refused
    try:
        yield
    finally:
        os._exit = leave


def call(function: Callable[[], T]) -> T:
    """`function()` in a copy of this process; here where there can be none. The result must be picklable.

    Raises what `function` raises, and ChildDiedError.
    """
    if not can_fork():
        try:
            with no_exit():
                return function()
        except ProcessExit as ended:
            raise ChildDiedError(f"called os._exit({ended.status})") from ended
    reading, writing = os.pipe()
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _serve(function, writing, parent)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            data = stream.read()
        _, status = os.waitpid(pid, 0)
    except BaseException:
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
    if not data:
        raise ChildDiedError(how_it_ended(os.waitstatus_to_exitcode(status)))
    result, error, warnings = pickle.loads(data)
    warned.tell_of(warnings)
    if error is not None:
        raise error
    value: T = result
    return value


def _serve(function: Callable[[], object], writing: int, parent: int) -> None:
    """What the copy does, to its end."""
    code = 1
    _copy.append(True)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        die_with(parent)
        os.dup2(2, 1)  # what the user's code prints is no part of the command's output
        notebook.print_by_descriptors()
        waiting = warned.Waiting()
        with warned.told(waiting.add):
            data = _pickled(function, waiting)
        with os.fdopen(writing, "wb") as stream:
            stream.write(data)
        for printed in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                printed.flush()
        code = 0
    finally:
        os._exit(code)


def _pickled(function: Callable[[], object], waiting: warned.Waiting) -> bytes:
    try:
        return pickle.dumps((function(), None, waiting.taken()))
    except LrsweepError as error:
        return pickle.dumps((None, error, waiting.taken()))
    except MemoryError:
        return pickle.dumps((None, MemoryError(), waiting.taken()))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told by the process that asked
        try:
            return pickle.dumps((None, error, waiting.taken()))
        except Exception:  # noqa: BLE001 - an exception that holds what cannot be sent
            error = RuntimeError(f"{type(error).__name__}: {error}")
            return pickle.dumps((None, error, waiting.taken()))


def how_it_ended(code: int | None) -> str:
    """The exit code of a process as words: `exited with code 3 (os._exit, or a crash in native code?)`, `was killed by
    SIGKILL (out of memory?)`."""
    if code is None:
        return "closed its connection"
    if code >= 0:
        return f"exited with code {code} (os._exit, or a crash in native code?)"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else " (a crash in native code?)" if name in CRASHES else ""
    return f"was killed by {name}{hint}"
