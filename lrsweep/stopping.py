"""Ctrl-C and SIGTERM while a sweep runs: save and leave the first time, at once the second time."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from lrsweep.errors import StoppedError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Within `graceful` the first signal is only noted in `exit_code`; any other raises StoppedError where it hits."""

    def __init__(self) -> None:
        self.exit_code: int | None = None
        self._graceful = False
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

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a fork of this process, whose business this is not
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        code = 128 + number
        if self._graceful and self.exit_code is None:
            self.exit_code = code
            return
        raise StoppedError("stopped; what was finished is kept, the same command goes on from there", code)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Take the signals over, where that is possible: only the main thread may."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
