"""The user's own table: `csv` with a header row, `npz` with inputs `X` and a target."""

from __future__ import annotations

import csv as csv_module
import json
import math
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
from annotated_types import Len

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.system.machine import size_text
from lrsweep.tasks import room
from lrsweep.tasks.columns import CELL, Column, Missing, OneHot, Place, Rules, abridged, suggest, texts, with_kind
from lrsweep.tasks.columns import table as columns_table
from lrsweep.tasks.splits import Array, Kind, Table, table_task

DELIMITERS = ",;\t|"
"""Those that a table is searched for if its header does not fit the one that is given."""
SAMPLE = 2**16
"""Bytes at the start of a text table in which its cells are counted."""


@table_task(scales_target=True)
def csv(
    *,
    path: str,
    target: str,
    kind: Kind | None = None,
    delimiter: Annotated[str, Len(1, 1)] = ",",
    drop: list[str] | None = None,
    one_hot: OneHot | list[str] | None = None,
    missing: Missing | None = None,
) -> Table:
    """A text table with a header row: `target` names one column, all others are inputs (numbers, or true and false).

    `kind` is classification for text, boolean and integer targets and regression for others, unless it is given.
    A target of mostly numbers with decimals must have no text, unless the kind is classification. Classes are
    numbered in sorted order. A real target is standardised unless `target_scale: none`.

    Text and missing cells are refused unless one of these says what becomes of them.
    `drop: [name, ...]` leaves columns out.
    `one_hot: text_columns` or `one_hot: [name, ...]` makes a 0/1 input of each value that a column has in the train
    split; other values are 0 in all of them. A column of text and more numbers is encoded if it is named.
    `missing: drop_rows` leaves out rows with a missing cell. `missing: mean` fills in the mean of the train split and
    adds a 0/1 input that marks missing cells, if the train split has any (a one-hot column has 0 and the mark).
    Under both, rows without a target are left out. Among numbers an empty cell, NA, N/A, NaN, null, none and ? are
    missing, in a column of text only an empty cell. 0/1 inputs are not scaled.
    """
    columns, lines = _read_table(Path(path), delimiter, target)
    rules = Rules(drop=drop or (), one_hot=one_hot or (), missing=missing)
    return columns_table(
        path, columns, target, kind, rules, lambda row: Place(f"{path}:{lines[row]}", f"line {lines[row]}")
    )


@table_task(scales_target=True)
def npz(
    *,
    path: str,
    target: str = "target",
    kind: Kind | None = None,
) -> Table:
    """A numpy archive: inputs under `X` (rows first, any shape), the target under the key that `target` names.

    `kind` and classes are as for csv; a real target may have several columns. Arrays of objects are refused.
    """
    inputs, values = _read_archive(Path(path), target)
    return with_kind(path, inputs, values, kind, {})


def _read_table(path: Path, delimiter: str, target: str) -> tuple[list[Column], list[int]]:
    """Columns, and the line number of each row; cells are stripped, blank lines skipped.

    Raises WrongInSpec with all that is wrong with the header and the lengths of the rows, or with the delimiter alone
    if another one fits the header.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        _check_text_fits(path, delimiter)
        _check_delimiter(path, delimiter, target)
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv_module.reader(file, delimiter=delimiter, strict=True)
            for row in reader:
                if row:
                    rows.append(row)
                    lines.append(reader.line_num)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(_not_utf8(path)) from None
    except csv_module.Error as error:
        raise UsageError(f"{path}:{reader.line_num}: {error}") from None
    if len(rows) < 2:
        raise UsageError(f"{path}: holds no rows below a header")
    header = [name.strip() for name in rows.pop(0)]
    top = lines.pop(0)
    wrong = [f"{path}:{top}: column {i + 1} of the header has no name" for i, name in enumerate(header) if not name]
    for name, count in Counter(filter(None, header)).items():
        if count > 1:
            wrong.append(f"{path}:{top}: {count} columns of the header are named {name!r}")
    if odd := [i for i, row in enumerate(rows) if len(row) != len(header)]:
        cells, first = f"{len(rows[odd[0]])} cells, but the header has {len(header)}", f"{path}:{lines[odd[0]]}"
        wrong.append(f"{first}: the row has {cells}" + (f" ({len(odd)} such rows)" if len(odd) > 1 else ""))
    if wrong:
        raise WrongInSpec(*abridged([(("task",), text) for text in wrong]))
    return [Column(name=name, given=texts(row[i] for row in rows)) for i, name in enumerate(header)], lines


def _check_delimiter(path: Path, delimiter: str, target: str) -> None:
    """Raises WrongInSpec if the header has the target, or more than one column, only by another delimiter."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        top, header = next(((i, line) for i, line in enumerate(file, 1) if line.strip("\r\n")), (0, ""))
    names = _names(header, delimiter)
    if target in names:
        return
    for other in DELIMITERS.replace(delimiter, ""):
        others = _names(header, other)
        if target in others or (len(names) == 1 and len(others) > 1):
            wrong = f"{path}:{top}: the columns of the header are separated by {other!r}, not {delimiter!r}"
            shown = json.dumps(other) if other == "\t" else f"'{other}'"
            raise WrongInSpec((("task", "delimiter"), f"{wrong}; write delimiter: {shown}"))


def _names(header: str, delimiter: str) -> list[str]:
    """The columns of a header; none if it is not well-formed with this delimiter."""
    try:
        return [name.strip() for name in next(csv_module.reader([header], delimiter=delimiter, strict=True))]
    except csv_module.Error:
        return []


def _not_utf8(path: Path) -> str:
    """Where the first byte is that is not UTF-8, and what to do."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                byte = f"byte {error.start + 1} of the line is 0x{line[error.start]:02x}"
                return f"{path}:{number}: is not UTF-8 text ({byte}); save the file as UTF-8"
    return f"{path}: is not UTF-8 text; save the file as UTF-8"


def _check_text_fits(path: Path, delimiter: str) -> None:
    """Raises WrongInSpec if all cells, were the whole table as its start, would not fit in memory."""
    whole = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(SAMPLE)
    cells = start.count(delimiter.encode()) + start.count(b"\n")
    needed = CELL * cells * whole / max(len(start), 1)
    room.check("path", needed, f"the cells of {path} ({size_text(whole)})", "use a part of the table, or an npz file")


def _read_archive(path: Path, target: str) -> tuple[Array, Array]:
    """Inputs as finite float64 (rows, ...) and the target, one row each.

    Raises WrongInSpec with all that is wrong: first by the headers of the arrays, then by what they hold.
    """
    keys = ("X", target)
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise UsageError(f"{path}: is a single array; save one with numpy.savez(path, X=..., {target}=...)")
            absent = [f"there is no array {key!r}{suggest(key, archive.files)}" for key in keys if key not in archive]
            _refuse(path, absent)
            _check_headers(path, keys)
            inputs, values = archive["X"].astype(np.float64), archive[target]
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise UsageError(f"{path}: is not an archive of plain arrays ({error})") from None
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    _refuse(
        path, [wrong for key, array in zip(keys, (inputs, values), strict=True) for wrong in _not_finite(key, array)]
    )
    return (inputs[:, None] if inputs.ndim == 1 else inputs), values


def _refuse(path: Path, wrong: Sequence[str]) -> None:
    if wrong:
        raise WrongInSpec(*((("task",), f"{path}: {text}") for text in wrong))


def _not_finite(key: str, array: Array) -> list[str]:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return []
    rows = np.argwhere(~np.isfinite(array))[:, 0]
    values = "1 value is" if len(rows) == 1 else f"{len(rows)} values are"
    return [f"{key}: {values} missing (nan) or infinite, first in row {rows[0]}"]


def _check_headers(path: Path, keys: Sequence[str]) -> None:
    """Raises WrongInSpec if by their headers the arrays would not fit in memory once unpacked, are no numbers, or do
    not fit each other. Raises what numpy raises for a header that is none.
    """
    headers = {}
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
        for key in keys:
            with archive.open(f"{key}.npy" if f"{key}.npy" in members else key) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                headers[key] = (shape, dtype)
    needed = sum(math.prod(shape) * (dtype.itemsize + room.NUMBER) for shape, dtype in headers.values())
    shapes = ", ".join(f"{key} {shape}" for key, (shape, _) in headers.items())
    room.check("path", needed, f"the arrays of {path} ({shapes})", "save a smaller part of them")
    wrong = []
    for key, (_, dtype) in headers.items():
        if dtype.hasobject:
            wrong.append(f"{key} holds Python objects, which are never loaded; save it as an array of numbers")
        elif dtype.kind not in ("fiub" if key == "X" else "fiubU"):
            wrong.append(f"{key} is {dtype}, but must be numbers{'' if key == 'X' else ' or text'}")
    (inputs, _), (values, _) = (headers[key] for key in keys)
    if not inputs or not values or inputs[0] != values[0] or inputs[0] == 0:
        wrong.append(f"X has shape {inputs} and {keys[1]} {values}; both need the same rows")
    _refuse(path, wrong)
