"""Who analyses and draws a sweep that runs: this process, or one that was forked from it at its very start.

That one imports pandas and matplotlib on a second core while this one imports torch, and then waits to be told. It
draws as soon as it has analysed the tables, while this one goes on writing. It writes nothing, neither files nor
messages: what it cannot do is tried again here.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep.results import tables
from lrsweep.results.figures import Report, save_report
from lrsweep.system.machine import available_cores
from lrsweep.system.parallel import can_fork, is_running, read_pickled, write_pickled
from lrsweep.system.process import few_collections
from lrsweep.system.signals import die_with, leave_to_parent, unblock, undisturbed

if TYPE_CHECKING:
    from lrsweep.spec.model import Spec

FORMATS = ("png",)
"""Of the pictures beside the report."""

PATIENCE = 120.0
"""Seconds to wait for an answer; the tables of two million rows take a tenth of that."""
LOOK_SECONDS = 0.2
"""Between two looks at whether the process that is waited for still runs."""


@dataclass(frozen=True)
class Request:
    """For the Summary of a sweep whose `spec.yaml`, `runs.csv` and `curves.csv` are there, with torch's default `rates`
    by label; without them for its Report."""

    folder: Path
    rates: dict[str, float] | None = None


class LocalRenderer:
    """Analyses and draws in this process."""

    def load(self) -> None:
        """Import what comes after the training; it takes a second or two."""
        with few_collections():
            from lrsweep.analysis import analyse
            from lrsweep.report import page

            del analyse, page

    def summarise(self, folder: Path, spec: Spec, rates: dict[str, float]) -> tables.Summary:
        """As in tables.py."""
        return tables.summarise(folder, spec, rates)

    def report(self, folder: Path, formats: tuple[str, ...] = FORMATS) -> None:
        """Write pictures and report of the sweep in `folder`, from its files. Raises what that raises."""
        from lrsweep.report import page

        page.write(folder, formats=formats)


class BackgroundRenderer(LocalRenderer):
    """Lets the process at the other end of the connection do so, and writes what it sends."""

    def __init__(self, connection: Connection, answers: int, process: BaseProcess) -> None:
        """`answers`: the file that `process` writes to, as `_serve` says."""
        self._connection, self._answers, self._process = connection, answers, process
        self._late = False

    def load(self) -> None:
        with few_collections():
            from lrsweep.analysis import facts  # without which no answer can be read

            del facts

    def summarise(self, folder: Path, spec: Spec, rates: dict[str, float]) -> tables.Summary:
        found: tables.Summary | None = self._answer(Request(folder, rates))
        return super().summarise(folder, spec, rates) if found is None else found

    def report(self, folder: Path, formats: tuple[str, ...] = FORMATS) -> None:
        made: Report | None = self._answer(Request(folder)) if formats == FORMATS else None
        if made is None:
            super().report(folder, formats)
        else:
            save_report(made, folder, FORMATS)

    def _answer(self, request: Request) -> Any:
        """None: it could not, it is gone, or it is stopped."""
        with suppress(EOFError, OSError):
            if not self._late:
                self._connection.send(request)
                self._late = not self._is_ready()
            return None if self._late else read_pickled(self._answers, 0, self._connection.recv())
        return None

    def _is_ready(self) -> bool:
        """Wait for an answer; False where there will be none in time."""
        deadline = time.monotonic() + PATIENCE
        while not self._connection.poll(LOOK_SECONDS):
            if not is_running(self._process) or time.monotonic() > deadline:
                return self._connection.poll()
        return True


@contextmanager
def renderer(*, aside: bool) -> Iterator[LocalRenderer]:
    """`aside`: a process of its own, where it can be forked and a second core can use it. Enter before torch is there.

    It ends with the context, or with this process.
    """
    aside = aside and can_fork() and available_cores() > 1 and not multiprocessing.current_process().daemon
    with _started() if aside else nullcontext(LocalRenderer()) as one:
        yield one


@contextmanager
def _started() -> Iterator[LocalRenderer]:
    """Local where there are no files or processes left for another."""
    with ExitStack() as stack:
        renderer = LocalRenderer()
        with suppress(OSError):
            renderer = _start(stack)
        yield renderer


def _start(stack: ExitStack) -> BackgroundRenderer:
    """Raises OSError where it cannot be."""
    context = multiprocessing.get_context("fork")
    answers = os.memfd_create("lrsweep")
    stack.callback(os.close, answers)
    ours, theirs = context.Pipe()
    stack.enter_context(ours)
    with theirs, undisturbed():
        process = context.Process(target=_serve, args=(theirs, answers, ours, os.getpid()))
        process.start()
    stack.callback(process.join)
    stack.callback(process.kill)
    return BackgroundRenderer(ours, answers, process)


def _serve(connection: Connection, answers: int, parents: Connection, parent: int) -> None:
    """Answer each request, by None where that failed: pickled at the start of the file `answers`, its length by the
    connection. So the other end, `parents`, never waits for the rest of a message.
    """
    leave_to_parent()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    unblock()
    die_with(parent)
    parents.close()
    with suppress(Exception), few_collections():
        from lrsweep import plot
        from lrsweep.report import page

        plot.rehearse()
        draft: page.ReportBuilder | None = None
        while True:
            request: Request = connection.recv()
            answer: tables.Summary | Report | None = None
            with suppress(Exception):
                if request.rates is not None:
                    draft = None
                    draft = page.ReportBuilder(request.folder, request.rates)
                    answer = draft.summary
                elif draft is not None and draft.folder == request.folder:
                    answer = draft.report()
                else:
                    answer = page.make(request.folder, FORMATS)
            connection.send(write_pickled(answers, 0, answer))
            if request.rates is None:
                draft = None  # what comes next may be about other tables
            elif draft is not None:
                with suppress(Exception):
                    draft.draw(FORMATS)
