"""What the command line shows: progress on a terminal or in a log, and the tables it prints at the end."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TextIO

from lrsweep.errors import WrongOption, printable
from lrsweep.sweep.throughput import Throughput
from lrsweep.system import notebook
from lrsweep.wording.words import duration, plural

STYLES = ("auto", "rich", "plain", "none")
MOST_TASKS = 4
NOT_YET = 0.99
"""The most that the bar shows before the last run is written down: its updates are made a moment earlier."""
PLAIN_SECONDS = 10.0
"""Between two lines of plain progress: a log stays short, and nobody wonders whether it still lives."""
LEAST_SECONDS = 2.0
"""Of training, before the speed of a worker is told."""
NOTEBOOK_SECONDS = 0.25
"""Between two states of the bar in a notebook, each of which is a message to the browser."""


def _left(update: Update, steps_before: int, seconds: float) -> str:
    """Time left, from the share of the updates that this process has made so far, and the speed of its workers."""
    made = update.run_steps - steps_before
    if made <= 0 or seconds <= 0:
        return "time left unknown"
    left = f"{duration(seconds * (update.run_steps_total - update.run_steps) / made)} left"
    return ", ".join([left, *_speed(update)])


def _speed(update: Update) -> Iterator[str]:
    """Of workers that have trained for long enough to tell: `41,000 steps/s`, `39,000 to 41,000 steps/s per worker`."""
    known = [one.optimizer_steps / one.seconds for one in update.throughput if one.seconds >= LEAST_SECONDS]
    if known:
        low, high = (f"{float(f'{speed:.2g}'):,.0f}" for speed in (min(known), max(known)))
        span = low if low == high else f"{low} to {high}"
        yield f"{span} steps/s{' per worker' if len(known) > 1 else ''}"


def _share(update: Update) -> float:
    """Of the bar that is full."""
    most = 1.0 if update.done == update.total else NOT_YET
    return min(update.run_steps / max(1, update.run_steps_total), most)


def _counts(update: Update) -> str:
    text = f"{update.done}/{plural(update.total, 'run')}, {update.diverged} diverged"
    return text + (f", {update.failed} failed" if update.failed else "")


class PlainReporter:
    """A line now and then; what a log wants."""

    def __init__(self, stream: TextIO, *, every: float = PLAIN_SECONDS) -> None:
        self._stream, self._every = stream, every
        self._started = self._shown = 0.0
        self._last: Update | None = None
        self._steps_before = 0

    def start(self, start: Start) -> None:
        self._started = self._shown = time.monotonic()
        self._steps_before = 0
        self._line(_headline(start))

    def update(self, update: Update) -> None:
        now = time.monotonic()
        self._last = update
        if now - self._shown >= self._every:
            self._shown = now
            self._line(f"{_counts(update)}, {_left(update, self._steps_before, now - self._started)}")

    def note(self, text: str) -> None:
        self._line(text)

    def finish(self) -> None:
        if self._last is not None:
            self._line(f"{_counts(self._last)}, {duration(time.monotonic() - self._started)} of training")
            self._last = None

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class QuietReporter(PlainReporter):
    """Notes only."""

    def start(self, start: Start) -> None:
        pass

    def update(self, update: Update) -> None:
        pass

    def finish(self) -> None:
        pass


class NotebookReporter:
    """All of a sweep in one output of a cell: the lines that the command line shows and, meanwhile, the bar.

    rich would need ipywidgets for that.
    """

    def __init__(self, output: notebook.CellOutput) -> None:
        self._output = output
        self._lines: list[str] = []
        self._started = self._shown = 0.0
        self._last: Update | None = None

    def start(self, start: Start) -> None:
        self._started = time.monotonic()
        self.note(_headline(start))

    def update(self, update: Update) -> None:
        now = time.monotonic()
        self._last = update
        if now - self._shown >= NOTEBOOK_SECONDS:
            self._shown = now
            self._draw()

    def note(self, text: str) -> None:
        self._lines.append(text)
        self._draw()

    def finish(self) -> None:
        if self._last is not None:
            seconds = time.monotonic() - self._started
            self._lines.append(f"{_counts(self._last)}, {duration(seconds)} of training")
            self._last = None
            self._draw()

    def _draw(self) -> None:
        if self._last is None:
            self._output.show(self._lines)
            return
        text = f"{_counts(self._last)}, {_left(self._last, 0, time.monotonic() - self._started)}"
        self._output.show(self._lines, bar=text, share=_share(self._last))


class BarReporter:
    """A bar with counts and time left; drawn from the updates alone, without a thread (workers are forked)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._progress.add_task("", total=None, left="")
        self._started = self._shown = 0.0
        self._last: Update | None = None

    def start(self, start: Start) -> None:
        self._console.print(_headline(start), highlight=False, markup=False, soft_wrap=True)
        self._started = time.monotonic()
        self._progress.start()

    def update(self, update: Update) -> None:
        now = time.monotonic()
        self._last = update
        if now - self._shown < 0.1:
            return
        self._shown = now
        self._progress.update(
            self._task,
            completed=_share(update),
            total=1.0,
            description=_counts(update),
            left=_left(update, 0, now - self._started),
            refresh=True,
        )

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def finish(self) -> None:
        self._progress.stop()
        if self._last is not None:
            line = f"{_counts(self._last)}, {duration(time.monotonic() - self._started)} of training"
            self._console.print(line, highlight=False)
            self._last = None


def _headline(start: Start) -> str:
    to_do = start.total - start.done_before
    counted = [(to_do, "run", "s"), (start.groups, "group", "s"), (start.workers, "process", "es")]
    runs, groups, workers = (f"{count} {noun}{plural * (count != 1)}" for count, noun, plural in counted)
    before = f"{start.done_before} of {start.total} done before"
    what = f"{start.name}: {runs} in {groups} on {start.device} ({workers}); {before}"
    more = [f"and {len(start.tasks) - MOST_TASKS} more"] if len(start.tasks) > MOST_TASKS else []
    return printable("\n".join([what, *start.tasks[:MOST_TASKS], *more]))


@contextmanager
def reporter(style: str) -> Iterator[Reporter]:
    """The reporter for `--progress` style; `auto` is a bar on a terminal and in a notebook, and plain lines elsewhere.

    Raises WrongOption for any other style than auto, rich, plain and none.
    """
    if style not in STYLES:
        raise WrongOption("progress", style, f"unknown style (allowed: {', '.join(STYLES)})")
    kernel = notebook.shell()
    if style == "auto":
        terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and "CI" not in os.environ
        style = "rich" if terminal or kernel is not None else "plain"
    chosen: Reporter
    if style == "rich" and kernel is not None:
        chosen = NotebookReporter(notebook.CellOutput(kernel))
    elif style == "rich":
        chosen = BarReporter()
    else:
        chosen = PlainReporter(sys.stderr) if style == "plain" else QuietReporter(sys.stderr)
    try:
        yield chosen
    finally:
        chosen.finish()


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is about to be trained; counts are runs, steps are updates summed over runs. `tasks` describe the data."""

    name: str
    folder: str
    tasks: tuple[str, ...]
    total: int
    done_before: int
    groups: int
    workers: int
    device: str
    run_steps: int


@dataclass(frozen=True, kw_only=True)
class Update:
    """Where a sweep stands. `done` counts finished runs, those done before included; `throughput` is of each worker."""

    done: int
    total: int
    diverged: int
    failed: int
    run_steps: int
    run_steps_total: int
    throughput: tuple[Throughput, ...] = ()


class Reporter(Protocol):
    def start(self, start: Start) -> None:
        """Training begins. Not called when there is nothing to train."""

    def update(self, update: Update) -> None:
        """Called often; showing it rarely is the reporter's business."""

    def note(self, text: str) -> None:
        """One sentence for stderr, whatever the progress style: damage healed, why a run trains alone, ..."""

    def finish(self) -> None:
        """Training ended, for whatever reason."""


class Notes:
    """What is said of one sweep, to whom its progress is reported."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        self.reporter.note(printable(text))

    def once(self, text: str, key: str | None = None) -> None:
        """Say it unless it was said before, or anything else with the same `key`."""
        if (key := key or text) not in self._said:
            self._said.add(key)
            self.note(text)


class Silent:
    """The reporter of a sweep run from Python: keeps the notes, shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, start: Start) -> None:
        pass

    def update(self, update: Update) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        pass
