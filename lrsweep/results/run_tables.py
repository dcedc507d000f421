"""From the journal to `runs.csv` and `curves.csv`: one pass in the order of the plan, one run in memory at a time.

Cells hold floats as Python's repr, `nan` and `inf` as such, nothing for what does not exist.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from lrsweep.analysis.cells import FLOAT32_EPS, FLOAT64_EPS, axis_text
from lrsweep.analysis.diagnosis import Curve, diagnose
from lrsweep.errors import paragraph
from lrsweep.objective import best_row, default_mode, objective_of
from lrsweep.run_result import RunResult
from lrsweep.store import atomic
from lrsweep.store.journal import Replay
from lrsweep.system.machine import available_cores
from lrsweep.system.parallel import in_processes
from lrsweep.system.process import few_collections

if TYPE_CHECKING:
    from lrsweep.plan import Plan, Run
    from lrsweep.spec.model import ObjectiveSpec

_QUOTED = re.compile('["\r\n]')
LEAST_SHARED = 20_000
"""Finished runs whose rows are written by several processes: fewer are done before another process is of use."""
SLICES = 8
"""Of the plan, for each process."""
FIRST_CURVE_COLUMNS = ("step", "epoch", "lr_now", "train_loss", "val_loss")


class Columns:
    """The columns of both tables, from the columns that any of the runs measured."""

    def __init__(self, axes: Sequence[str], measured: Iterable[str], tests: Iterable[str]) -> None:
        self.head = ["run_id", "optimizer", "lr", "seed", *axes]
        extra = [name for name in dict.fromkeys(measured) if name not in FIRST_CURVE_COLUMNS]
        self.train_metrics = [name for name in extra if name.startswith("train_")]
        self.val_metrics = [name for name in extra if name.startswith("val_")]
        self.tests = sorted(dict.fromkeys(tests), key=lambda name: name != "test_loss")
        self.curve = [*FIRST_CURVE_COLUMNS, *self.train_metrics, *self.val_metrics]

    @property
    def curves(self) -> list[str]:
        return [*self.head, *self.curve]

    @property
    def runs(self) -> list[str]:
        metrics = [f"{kind}_{name}" for name in self.val_metrics for kind in ("final", "best")]
        return [
            *self.head,
            *("status", "diverged_step", "diagnosis", "steps", "epochs"),
            *("initial_train_loss", "initial_val_loss", "final_train_loss", "final_val_loss"),
            *("best_val_loss", "best_epoch"),
            *metrics,
            *(f"final_{name}" for name in self.train_metrics),
            *(f"final_{name}" for name in self.tests),
            *("objective", "error"),
        ]


def columns_of(plan: Plan, replay: Replay) -> Columns:
    """What the finished runs of the plan measured, in the order in which the plan meets it."""
    entries = [replay.entries[run.run_id] for run in plan.runs if run.run_id in replay.entries]
    measured = dict.fromkeys(entry.columns for entry in entries)
    tests = dict.fromkeys(entry.tests for entry in entries)
    return Columns(plan.axis_names, itertools.chain(*measured), itertools.chain(*tests))


def write(folder: Path, plan: Plan, replay: Replay) -> dict[str, Any]:
    """Replace both tables by what the journal holds of the plan's runs.

    Returns the hashes that the runs left, {recipe key: {seed: {"weights": ..., "batches": ...}}}. Raises StorageError.
    """
    columns = columns_of(plan, replay)
    # The plan keeps the runs of one optimizer at one set of axis values together: a diagnosis compares them.
    cells = [list(members) for _, members in itertools.groupby(plan.runs, key=lambda run: (run.label, repr(run.axes)))]
    with _table(folder / "runs.csv", columns.runs) as runs, _table(folder / "curves.csv", columns.curves) as curves:
        if len(replay.entries) < LEAST_SHARED:
            return _write_cells(cells, plan, replay, columns, (runs, curves))
        return _write_shared(cells, plan, replay, columns, (runs, curves), folder)


def _write_cells(
    cells: Iterable[Sequence[Run]], plan: Plan, replay: Replay, columns: Columns, into: tuple[_Table, _Table]
) -> dict[str, Any]:
    """The rows of these runs into both tables; returns the hashes."""
    runs, curves = into
    hashes: dict[str, Any] = {}
    for members in cells:
        finished = [run for run in members if run.run_id in replay.entries]
        cell, axes = _Cell(plan, columns), _axis_cells(members[0].axes)
        for run, outcome in zip(finished, replay.outcomes(run.run_id for run in finished), strict=True):
            head = _head(run, axes)
            cell.add(run, head, outcome)
            curves.lines(_curve_lines(head, outcome, columns))
            _note_hashes(hashes, run, outcome)
        runs.rows(cell.rows())
    return hashes


def _write_shared(
    cells: Sequence[Sequence[Run]], plan: Plan, replay: Replay, columns: Columns, into: tuple[_Table, _Table],
    folder: Path,
) -> dict[str, Any]:  # fmt: skip
    """The same by all cores: each writes slices of the plan into files without a name in `folder`, which are then
    joined."""
    cores = available_cores()
    size = -(-len(cells) // (cores * SLICES))
    slices = [cells[first : first + size] for first in range(0, len(cells), size)]
    with ExitStack() as stack, few_collections():
        files = [[stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in into] for _ in slices]
        calls = [partial(_write_slice, some, plan, replay, columns, to) for some, to in zip(slices, files, strict=True)]
        hashes: dict[str, Any] = {}
        for to, found in zip(files, in_processes(calls, cores), strict=True):
            for table, file in zip(into, to, strict=True):
                table.append(file)
            for recipe, of_seeds in found.items():
                known = hashes.setdefault(recipe, {})
                for seed, of_run in of_seeds.items():
                    known.setdefault(seed, of_run)
    return hashes


def _write_slice(
    cells: Sequence[Sequence[Run]], plan: Plan, replay: Replay, columns: Columns, files: Sequence[IO[bytes]]
) -> dict[str, Any]:
    for file in files:  # a process that ended in the middle of it may have begun
        file.seek(0)
        file.truncate()
    with ExitStack() as stack:
        runs, curves = (stack.enter_context(_text(file)) for file in files)
        return _write_cells(cells, plan, replay, columns, (runs, curves))


class _Cell:
    """The runs of one optimizer at one set of axis values, until their diagnosis is known."""

    def __init__(self, plan: Plan, columns: Columns) -> None:
        self._objective, self._columns, self._names = plan.spec.objective, columns, columns.runs
        self._eps = 0.0
        self._rows: list[dict[str, Any]] = []
        self._curves: list[Curve] = []

    def add(self, run: Run, head: Sequence[str], outcome: RunResult) -> None:
        row: dict[str, Any] = dict(zip(self._columns.head, head, strict=True))
        row.update(_facts(outcome))
        if outcome.status != "failed":
            row.update(_finals(outcome, self._columns))
            row["objective"] = _objective(outcome, self._objective)
        self._rows.append(row)
        self._eps = FLOAT64_EPS if run.workload_spec.train["dtype"] == "float64" else FLOAT32_EPS
        losses = np.asarray(outcome.history.get("train_loss", []), dtype=np.float64)
        self._curves.append(Curve(lr=run.lr, seed=run.seed, status=outcome.status, train_loss=losses))  # type: ignore[arg-type]

    def rows(self) -> Iterator[list[str]]:
        for row, label in zip(self._rows, diagnose(self._curves, eps=self._eps), strict=True):
            row["diagnosis"] = label
            yield [cell(row.get(name)) for name in self._names]


def _head(run: Run, axes: Sequence[str]) -> list[str]:
    """The cells that both tables begin with; `axes` are those of the axes."""
    return [run.run_id, cell(run.label), repr(run.lr), str(run.seed), *axes]


def _axis_cells(axes: tuple[Any, ...]) -> tuple[str, ...]:
    return tuple(cell(axis_text(value)) for value in axes)


def _facts(outcome: RunResult) -> dict[str, Any]:
    rows = outcome.history
    facts: dict[str, Any] = {
        "status": outcome.status,
        "diverged_step": outcome.diverged_step,
        "steps": outcome.steps,
        "epochs": _epochs(outcome),
        "error": None if outcome.error is None else paragraph(outcome.error),
    }
    for name in ("train_loss", "val_loss"):
        if rows.get(name):
            facts[f"initial_{name}"] = float(rows[name][0])
    return facts


def _epochs(outcome: RunResult) -> float | None:
    """Updates applied, in epochs: the last row tells how many updates an epoch has."""
    if outcome.steps == 0:
        return 0.0
    steps, epochs = outcome.history.get("step", [0]), outcome.history.get("epoch", [0.0])
    if not steps or not steps[-1] or not epochs[-1]:
        return None
    return float(outcome.steps / round(steps[-1] / epochs[-1]))


def _finals(outcome: RunResult, columns: Columns) -> dict[str, Any]:
    """`final_*` from the last row, `best_*` as each column's own best after row 0 (nan if nothing there is finite)."""
    rows = outcome.history
    finals: dict[str, Any] = {}
    for name in ("train_loss", "val_loss", *columns.val_metrics, *columns.train_metrics):
        if rows.get(name):
            finals[f"final_{name}"] = float(rows[name][-1])
    for name in ("val_loss", *columns.val_metrics):
        if rows.get(name):
            at = best_row(rows[name], default_mode(name))
            finals[f"best_{name}"] = math.nan if at is None else float(rows[name][at])
            if name == "val_loss":
                finals["best_epoch"] = math.nan if at is None else float(rows["epoch"][at])
    finals.update({f"final_{name}": float(value) for name, value in outcome.test.items()})
    return finals


def _objective(outcome: RunResult, objective: ObjectiveSpec) -> float | None:
    if not outcome.history.get(objective.metric):
        return None
    return objective_of(outcome.history, objective.metric, objective.at, objective.mode)


def _curve_lines(head: Sequence[str], outcome: RunResult, columns: Columns) -> Iterator[str]:
    """The rows of one run as text; millions of them are written, so nothing here is done number by number."""
    count = len(outcome.history.get("step", []))
    begin = line(head).removesuffix("\n")
    missing = [""] * count
    texts = [list(map(repr, outcome.history[name])) if name in outcome.history else missing for name in columns.curve]
    for values in zip(*texts, strict=True):
        yield f"{begin},{','.join(values)}\n"


def _note_hashes(hashes: dict[str, Any], run: Run, outcome: RunResult) -> None:
    if outcome.weights_hash:
        of_recipe = hashes.setdefault(run.workload_spec.key, {})
        of_recipe.setdefault(str(run.seed), {"weights": outcome.weights_hash, "batches": outcome.batches_hash})


class _Table:
    """A CSV file being written."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text

    def rows(self, rows: Iterable[Sequence[str]]) -> None:
        self.lines(map(line, rows))

    def lines(self, lines: Iterable[str]) -> None:
        self._text.write("".join(lines))

    def append(self, file: IO[bytes]) -> None:
        """All of another file."""
        self._text.flush()
        file.seek(0)
        shutil.copyfileobj(file, self._text.buffer, 1 << 20)


@contextmanager
def _table(path: Path, header: Sequence[str]) -> Iterator[_Table]:
    with atomic.replacing(path) as stream, _text(stream) as table:
        table.rows([header])
        yield table


@contextmanager
def _text(stream: IO[bytes]) -> Iterator[_Table]:
    """A table in a stream that stays open."""
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
    yield _Table(text)
    text.flush()
    text.detach()


def line(cells: Sequence[str]) -> str:
    """The cells as a line of CSV, quoted where that is needed."""
    joined = ",".join(cells)
    if len(cells) > 1 and joined.count(",") == len(cells) - 1 and not _QUOTED.search(joined):
        return f"{joined}\n"
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # so that a CR in a cell is quoted too
    return text.getvalue().removesuffix("\r\n") + "\n"


def write_frame(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace `path` by a table of `rows`. Raises StorageError."""
    with _table(path, header) as table:
        table.rows(_cells(header, rows))


def frame_lines(header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of such a table."""
    return map(line, itertools.chain([header], _cells(header, rows)))


def _cells(header: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[list[str]]:
    return ([cell(row.get(name)) for name in header] for row in rows)


def cell(value: Any) -> str:
    """The text of a cell."""
    if type(value) is float:  # most cells
        return repr(value)
    if value is None:
        return ""
    if isinstance(value, str):
        if value.isascii() and "\0" not in value:
            return str(value)
        # What UTF-8 or a CSV reader cannot hold is written as an escape; a spec has no such text, an error may.
        return str(value.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8"))
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    if isinstance(value, int | np.integer):
        return str(int(value))
    return repr(float(value))
