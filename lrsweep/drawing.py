"""Who draws the report of a sweep that runs: this process, or one that was forked from it at its very start.

That one imports pandas and matplotlib on a second core while this one imports torch, and then waits to be told. It
writes nothing, neither files nor messages: what it cannot do is tried again here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from lrsweep.machine import available_cores
from lrsweep.orphans import die_with
from lrsweep.pictures import Report, save_report
from lrsweep.startup import few_collections

FORMATS = ("png",)
"""Of the pictures beside the report."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Here:
    """Draws in this process."""

    def load(self) -> None:
        """Import what comes after the training; it takes a second or two."""
        with few_collections():
            from lrsweep import analysis, report

            del analysis, report

    def report(self, folder: Path) -> None:
        """Write pictures and report of the sweep in `folder`, from its files. Raises what that raises."""
        from lrsweep import report

        report.write(folder, formats=FORMATS)


class Aside(Here):
    """Lets the process at the other end of the connection draw, and writes what it sends."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def load(self) -> None:
        with few_collections():
            from lrsweep import analysis

            del analysis

    def report(self, folder: Path) -> None:
        made = self._made(folder)
        if made is None:
            super().report(folder)
        else:
            save_report(made, folder, FORMATS)

    def _made(self, folder: Path) -> Report | None:
        with suppress(EOFError, OSError):  # it is gone
            self._connection.send(folder)
            made: Report | None = self._connection.recv()
            return made
        return None


@contextmanager
def drawer(*, aside: bool) -> Iterator[Here]:
    """`aside`: a process of its own, where it can be forked and a second core can use it. Enter before torch is there.

    It ends with the context, or with this process.
    """
    alone = sys.platform != "linux" or threading.active_count() > 1 or available_cores() < 2
    if not aside or alone or multiprocessing.current_process().daemon:
        yield Here()
        return
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, ours, os.getpid()))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until it has its own way with them
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
    try:
        yield Aside(ours)
    finally:
        ours.close()
        process.kill()
        process.join()


def _serve(connection: Connection, parents: Connection, parent: int) -> None:
    """Make the report of each folder that comes; None for one that failed. `parents` is the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    die_with(parent)
    parents.close()
    with suppress(Exception), few_collections():
        from lrsweep import plot, report

        plot.rehearse()
        while True:
            folder: Path = connection.recv()
            made: Report | None = None
            with suppress(Exception):
                made = report.make(folder, FORMATS)
            connection.send(made)
