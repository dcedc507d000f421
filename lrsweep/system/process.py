"""The streams of the command: whatever is at their other end, or no longer is, the work is done to its end."""

from __future__ import annotations

import atexit
import errno
import gc
import io
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from lrsweep import user_imports
from lrsweep.system.plain import uses

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class _Outlet(io.FileIO):
    """Leads nowhere once its reader is gone (`lrsweep run ... 2>&1 | head -1`, a closed terminal)."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.fileno())
            return super().write(data)


def prepare() -> None:
    """A stream that was closed leads nowhere, and no file of ours takes its number; one whose reader leaves early leads
    nowhere from then on."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
        elif mode == "w":
            setattr(sys, name, _outlasting(stream))


def _outlasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    outlet = _Outlet(stream.fileno(), "wb", closefd=False)
    buffer: Any = outlet if stream.write_through else io.BufferedWriter(outlet)  # as PYTHONUNBUFFERED has it
    return io.TextIOWrapper(
        buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )  # fmt: skip


@contextmanager
def prints_aside() -> Iterator[None]:
    """Within, what this process prints goes to stderr: that is the user's code, whose words are no part of a command's
    output. By the descriptors, so that a debugger still finds its terminal.
    """
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


OBJECTS = 1_000_000
"""New objects between two searches for garbage, where there is next to none: more than torch and pandas come with."""
_USUAL = gc.get_threshold()


@contextmanager
def few_collections() -> Iterator[None]:
    """For imports and drawing, which make many objects that stay: Python looks them through again and again.

    0.9 of 4.0 s of CPU time for the imports of a sweep (2026-11).
    """
    before = gc.get_threshold()
    if uses("few_collections"):
        gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def collect_own_objects() -> None:
    """For a process that was forked to stay: search as usual for garbage, but not among what it was given.

    The first search would take a tenth of a second, and a copy of every page that it counts references in.
    """
    gc.freeze()
    gc.set_threshold(*_USUAL)


def exit_without_teardown(code: int) -> NoReturn:
    """End this process with `code`, right after exit handlers ran and the streams are flushed.

    Python would go on to free every object of torch, which takes 0.4 of the 1.3 s of `python -c "import torch"`
    (2026-11). Not where user code was loaded, which may count on it for a file it left open, nor beside threads.
    """
    if uses("exit") and not user_imports.LOADED and threading.active_count() == 1:
        atexit._run_exitfuncs()
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (OSError, ValueError):
            sys.exit(code)  # reports the broken stream
        os._exit(code)
    sys.exit(code)
