"""Ctrl-C and SIGTERM while a sweep runs: save and leave the first time, at once the second time."""

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

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STOPPED = "interrupted; finished runs are saved, rerun the command to resume"


class _Interrupt(BaseException):
    """Raised where a signal hits. No `except Exception` on the way up, be it the user's or matplotlib's, holds it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code


class Stopping:
    """Within `graceful` the first signal is only noted in `exit_code`; any other ends `installed` by StoppedError."""

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
        code = 128 + number
        if self._importing or (self._graceful and self.exit_code is None):
            self.exit_code = code
            return
        raise _Interrupt(code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals over, where that is possible: only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        except _Interrupt as interrupt:
            raise StoppedError(_STOPPED, interrupt.exit_code) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_at_once() -> None:
    """From here on a signal ends this process, wherever it is: whatever it writes, it writes whole or not at all."""
    process = os.getpid()

    def leave(number: int, _: FrameType | None) -> NoReturn:
        _die_if_forked(process, number)
        with suppress(Exception):
            sys.stderr.write(f"{_STOPPED}\n")
            sys.stderr.flush()
        os._exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, leave)


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
