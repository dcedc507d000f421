"""Signals that end a sweep: save and leave the first time; at once when Ctrl-C or SIGTERM comes again.

SIGHUP is a closed terminal; SIGUSR1, SIGUSR2 and SIGXCPU are what batch systems send before they kill a job. They come
more than once (a hangup from the shell and from the kernel, SIGXCPU every second), which asks for nothing more.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from lrsweep.errors import StoppedError

BATCH = tuple(signal.Signals[name] for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU") if hasattr(signal, name))
ENDING = (signal.SIGINT, signal.SIGTERM, *BATCH)
"""The signals that end a command; its helpers leave them to it."""


class _Interrupt(BaseException):
    """Raised where a signal hits. No `except Exception` on the way up, be it the user's or matplotlib's, holds it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


def cause(exit_code: int) -> str:
    """What ended a command with this exit code, 128 + the number of a signal: `stopped by SIGTERM`."""
    number = signal.Signals(exit_code - 128)
    return "interrupted" if number is signal.SIGINT else f"stopped by {number.name}"


class Stopping:
    """Within `graceful` the first signal is only noted in `exit_code`, elsewhere it ends `installed` by StoppedError.

    Ctrl-C and SIGTERM do so whenever they come again.
    """

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._graceful = self._importing = False
        self._process = os.getpid()

    def requested(self) -> bool:
        return self.exit_code is not None

    @contextmanager
    def graceful(self) -> Iterator[None]:
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False

    @contextmanager
    def importing(self) -> Iterator[None]:
        """A signal waits until this is over: torch aborts the process when an exception is thrown into its import."""
        self._importing = True
        try:
            yield
        finally:
            self._importing = False
        if self.exit_code is not None:
            raise _Interrupt(self.exit_code)

    def _handle(self, number: int, _: FrameType | None) -> None:
        _die_if_forked(self._process, number)
        first = self.exit_code is None
        if number in BATCH and not first:
            return
        code = 128 + number
        self.exit_code = self.exit_code or code
        if self._importing or (self._graceful and first):
            return
        raise _Interrupt(code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals over, where that is possible: only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _taken()}
        try:
            yield
        except _Interrupt as interrupt:
            text = f"{cause(interrupt.exit_code)}; finished runs are saved, rerun the command to resume"
            raise StoppedError(text, interrupt.exit_code) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_at_once() -> None:
    """From here on a signal ends this process, wherever it is: whatever it writes, it writes whole or not at all."""
    process = os.getpid()

    def leave(number: int, _: FrameType | None) -> NoReturn:
        _die_if_forked(process, number)
        with suppress(Exception):
            sys.stderr.write(f"{cause(128 + number)}; rerun the command\n")
            sys.stderr.flush()
        os._exit(128 + number)

    for number in _taken():
        signal.signal(number, leave)


def _taken() -> list[signal.Signals]:
    """The signals to act on: not those of BATCH that are ignored in this process, as nohup has it, nor any that a
    library in C handles, which Python could not put back."""
    found = {number: signal.getsignal(number) for number in ENDING}
    ignored = {number for number in BATCH if found[number] is signal.SIG_IGN}
    return [number for number, handler in found.items() if handler is not None and number not in ignored]


def leave_to_parent() -> None:
    """For a helper process: what reaches the whole group (Ctrl-C, a closed terminal) is its parent's to act on.

    The limit of CPU time is each process's own. A parent that acts on it is told; any other would be killed.
    """
    parent, told = os.getppid(), callable(signal.getsignal(signal.SIGXCPU))

    def tell(number: int, _: FrameType | None) -> None:
        if os.getppid() == parent:
            os.kill(parent, number)

    for number in (signal.SIGINT, *BATCH):
        signal.signal(number, tell if told and number == signal.SIGXCPU else signal.SIG_IGN)


@contextmanager
def undisturbed() -> Iterator[None]:
    """A process started within inherits the blocked signals, and unblocks them once it has its own way with them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """End what `undisturbed` began, in the process that was started."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def _die_if_forked(process: int, number: int) -> None:
    """A fork has inherited the handler, but `process` alone has something to save."""
    if os.getpid() != process:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def die_with(parent: int) -> None:
    """End this process when `parent`, which is expected to be its parent, ends, or now if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(0)


def stop_with_parent() -> None:
    """Ask this process, which a command is about to be started in, to stop as a batch system would when its parent
    ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGUSR2)  # PR_SET_PDEATHSIG
