"""The user's own table: `csv` with a header row, `npz` with inputs `X` and a target."""

from __future__ import annotations

import csv as csv_module
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from lrsweep.errors import UsageError, WrongInSpec, did_you_mean
from lrsweep.system.machine import size_text
from lrsweep.tasks import room
from lrsweep.tasks.splits import Array, Kind, Table, table_task

MISSING_CELLS = {"", "na", "n/a", "nan", "null", "none", "?"}
MANY_CLASSES = 50
CELL = 110
"""Bytes a cell of a text table takes: as text and as a number."""
SAMPLE = 2**16
"""Bytes at the start of a text table in which its cells are counted."""


@table_task(scales_target=True)
def csv(
    *,
    path: str,
    target: str,
    kind: Kind | None = None,
    delimiter: Annotated[str, Len(1, 1)] = ",",
) -> Table:
    """A text table with a header row: `target` names one column, all others are inputs (numbers, or true and false).

    `kind` is classification for text, boolean and integer targets and regression for others, unless it is given.
    Classes are numbered in sorted order. A real target is standardised unless `target_scale: none`.
    """
    header, rows, lines = _read_table(Path(path), delimiter)
    if target not in header:
        raise WrongInSpec((("task", "target"), f"{path}: there is no column {target!r}{_suggest(target, header)}"))
    names = [name for name in header if name != target]
    if not names:
        hint = "" if delimiter in ";\t" else " (is `delimiter` right?)"
        raise UsageError(f"{path}: {target!r} is the only column, so there are no inputs{hint}")
    columns = {name: [row[position] for row in rows] for position, name in enumerate(header)}
    inputs = np.stack([_numbers(path, name, columns[name], lines) for name in names], axis=1)
    values = _target_cells(path, target, columns[target], lines)
    return _table(path, inputs, values, kind, {"inputs": names})


@table_task(scales_target=True)
def npz(
    *,
    path: str,
    target: str = "target",
    kind: Kind | None = None,
) -> Table:
    """A numpy archive: inputs under `X` (rows first, any shape), the target under the key that `target` names.

    Otherwise like csv; a real target may have several columns.
    """
    inputs, values = _read_archive(Path(path), target)
    return _table(path, inputs, values, kind, {})


def _table(path: str, inputs: Array, values: Array, kind: Kind | None, notes: dict[str, Any]) -> Table:
    notes |= {"inferred": kind is None, "warnings": []}
    if kind is None:
        kind = "regression" if values.dtype.kind == "f" else "classification"
    if kind == "regression":
        if values.dtype.kind == "U":
            raise UsageError(f"{path}: the target is text ({str(values[0])!r}), which `kind: regression` cannot use")
        real = values.astype(np.float64).reshape(len(values), -1)
        return Table(inputs=inputs, target=real, kind=kind, notes=notes)
    if values.ndim > 1:
        raise UsageError(f"{path}: the target of a classification must be one column, not shape {values.shape}")
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UsageError(f"{path}: the target has only one class ({classes[0]})")
    notes["classes"] = classes.tolist()
    if notes["inferred"] and len(classes) > MANY_CLASSES:
        notes["warnings"] = [f"the target has {len(classes)} whole values, taken as classes (else: kind: regression)"]
    return Table(inputs=inputs, target=numbers.astype(np.int64), kind=kind, classes=len(classes), notes=notes)


def _suggest(name: str, names: Sequence[str]) -> str:
    near = did_you_mean(name, names)
    listed = ", ".join(list(names)[:12]) + (", ..." if len(names) > 12 else "")
    return f" ({near})" if near else f" (there are: {listed})"


def _read_table(path: Path, delimiter: str) -> tuple[list[str], list[list[str]], list[int]]:
    """Header, rows and the line number of each row; cells are stripped, blank lines skipped."""
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        _check_text_fits(path, delimiter)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_module.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if row:
                    rows.append([cell.strip() for cell in row])
                    lines.append(reader.line_num)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text") from None
    except csv_module.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: {error}") from None
    if len(rows) < 2:
        raise UsageError(f"{path}: holds no rows below a header")
    header = rows[0]
    for name in header:
        if not name or header.count(name) > 1:
            wrong = "named twice" if name else "without a name"
            raise UsageError(f"{path}:{lines[0]}: column {header.index(name) + 1} ({name!r}) of the header is {wrong}")
    for row, line in zip(rows[1:], lines[1:], strict=True):
        if len(row) != len(header):
            raise UsageError(f"{path}:{line}: {len(row)} cells, but the header has {len(header)}")
    return header, rows[1:], lines[1:]


def _check_text_fits(path: Path, delimiter: str) -> None:
    """Raises WrongInSpec if all cells, were the whole table as its start, would not fit in memory."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(SAMPLE)
    cells = start.count(delimiter.encode()) + start.count(b"\n")
    needed = CELL * cells * whole / max(len(start), 1)
    room.check("path", needed, f"the cells of {path} ({size_text(whole)})", "use a part of the table, or an npz file")


def _numbers(path: str, name: str, cells: list[str], lines: list[int]) -> Array:
    """A column as float64; true and false are 1 and 0."""
    values = np.empty(len(cells))
    for position, cell in enumerate(cells):
        value = _number(cell)
        if value is None or not math.isfinite(value):
            place = f"{path}:{lines[position]}: column {name!r}"
            if cell.lower() in MISSING_CELLS:
                raise UsageError(f"{place}: the value is missing ({cell!r}); fill it in or leave the row out")
            raise UsageError(f"{place}: {cell!r} is not a finite number; inputs must be numbers (encode text yourself)")
        values[position] = value
    return values


def _number(cell: str) -> float | None:
    if cell.lower() in ("true", "false"):
        return float(cell.lower() == "true")
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _is_integer(cell: str) -> bool:
    digits = cell[1:] if cell[:1] in ("+", "-") else cell
    return digits.isascii() and digits.isdigit()


def _target_cells(path: str, name: str, cells: list[str], lines: list[int]) -> Array:
    """The target as booleans, integers, reals or text, whichever of these is the first that all cells are."""
    numeric = [cell.lower() in MISSING_CELLS or _number(cell) is not None for cell in cells]
    missing = MISSING_CELLS if all(numeric) else {""}
    for cell, line in zip(cells, lines, strict=True):
        if cell.lower() in missing:
            place = f"{path}:{line}: column {name!r}"
            raise UsageError(f"{place}: the target is missing ({cell!r}); fill it in or leave the row out")
    if all(cell.lower() in ("true", "false") for cell in cells):
        return np.array([cell.lower() == "true" for cell in cells])
    if all(map(_is_integer, cells)):
        return np.array([int(cell) for cell in cells])
    return _numbers(path, name, cells, lines) if all(numeric) else np.array(cells, dtype=np.str_)


def _read_archive(path: Path, target: str) -> tuple[Array, Array]:
    """Inputs as finite float64 (rows, ...) and the target, one row each."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path}: is a single array; save one with numpy.savez(path, X=..., {target}=...)")
            for key in ("X", target):
                if key not in archive.files:
                    raise UsageError(f"{path}: there is no array {key!r}{_suggest(key, archive.files)}")
            _check_archive_fits(path, ("X", target))
            inputs, values = archive["X"], archive[target]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path}: is not an archive of plain arrays ({error})") from None
    if inputs.ndim == 0 or values.ndim == 0 or len(inputs) != len(values) or len(inputs) == 0:
        raise UsageError(f"{path}: X has shape {inputs.shape} and {target} {values.shape}; both need the same rows")
    if inputs.dtype.kind not in "fiub" or values.dtype.kind not in "fiubU":
        raise UsageError(f"{path}: X is {inputs.dtype}, {target} {values.dtype}; numbers (or a text target) are needed")
    inputs = inputs.astype(np.float64)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    for key, array in (("X", inputs), (target, values)):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise UsageError(f"{path}: {key}[{row}] holds a missing (nan) or infinite value")
    return (inputs[:, None] if inputs.ndim == 1 else inputs), values


def _check_archive_fits(path: Path, keys: Sequence[str]) -> None:
    """Raises WrongInSpec if the arrays, by the shapes that their headers tell, would not fit in memory once unpacked.

    Raises what numpy raises for a header that is none.
    """
    needed, shapes = 0, []
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        for key in keys:
            with archive.open(f"{key}.npy" if f"{key}.npy" in members else key) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            needed += math.prod(shape) * (dtype.itemsize + room.NUMBER)
            shapes.append(f"{key} {shape}")
    room.check("path", needed, f"the arrays of {path} ({', '.join(shapes)})", "save a smaller part of them")
