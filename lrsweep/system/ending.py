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


@contextmanager
def told_of(doing: str) -> Iterator[None]:
    """Within, as `no_exit`; and if this process ends, another says on stderr that it did, and `doing`: what was being
    done (`task.py:make was being built`). Only the first where no process can be forked, and in a copy, whose parent
    says so."""
    if child.is_copy() or not child.can_fork():
        with no_exit():
            yield
        return
    try:
        this = os.pidfd_open(os.getpid())
    except (AttributeError, OSError):  # Python was built, or runs, on a Linux older than 5.3
        with no_exit():
            yield
        return
    reading, writing = os.pipe()
    between = os.fork()
    if between == 0:  # and ends, so that the other is no child of this process, which may wait for all it has
        if os.fork() == 0:
            _watch(reading, writing, this, doing)
        os._exit(0)
    os.waitpid(between, 0)
    os.close(reading)
    os.close(this)

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


def _watch(reading: int, writing: int, watched: int, doing: str) -> NoReturn:
    """What the other process does, to its end. `watched`: a file descriptor of the process that made it."""
    try:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)  # they are meant for the other
        os.close(writing)
        select.select([reading, watched], [], [])  # what the user's code starts may hold the pipe open
        ready = select.select([reading], [], [], 0)[0]
        if not ready or not os.read(reading, 1):
            text = f"the process ended while {doing} (a crash in native code, or out of memory?)\n"
            os.write(2, printable(text).encode(errors="backslashreplace"))
    finally:
        os._exit(0)
