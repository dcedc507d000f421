"""Code of the user's that runs in the command's own process: it cannot end the command without a word.

`os._exit` is an exception there. A crash in native code cannot be held up; another process tells of it.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from lrsweep.errors import printable
from lrsweep.system import child
from lrsweep.system.child import no_exit
from lrsweep.system.signals import ENDING

LOOK_SECONDS = 0.2
"""Between two looks of the other process: what the user's code starts may hold the pipe open."""


@contextmanager
def told_of(doing: str) -> Iterator[None]:
    """Within, as `no_exit`; and if this process ends, another says on stderr that it did, and `doing`: what was being
    done (`task.py:make was being built`). Only the first where no process can be forked, and in a copy, whose parent
    says so."""
    if child.is_copy() or not child.can_fork():
        with no_exit():
            yield
        return
    reading, writing = os.pipe()
    parent = os.getpid()
    other = os.fork()
    if other == 0:
        _watch(reading, writing, parent, doing)
    os.close(reading)

    def done() -> None:
        with suppress(OSError):
            os.write(writing, b"1")

    try:
        with no_exit(done):
            yield
    finally:
        done()
        with suppress(OSError):
            os.close(writing)
        with suppress(ChildProcessError):  # the user's code has waited for it
            os.waitpid(other, 0)


def _watch(reading: int, writing: int, parent: int, doing: str) -> NoReturn:
    """What the other process does, to its end."""
    try:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # they are meant for its parent
        os.close(writing)
        while not select.select([reading], [], [], LOOK_SECONDS)[0]:
            if os.getppid() != parent:
                break
        ready = select.select([reading], [], [], 0)[0]
        if not ready or not os.read(reading, 1):
            text = f"the process ended while {doing} (a crash in native code, or out of memory?)\n"
            os.write(2, printable(text).encode(errors="backslashreplace"))
    finally:
        os._exit(0)
