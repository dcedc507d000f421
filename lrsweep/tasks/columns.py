"""Columns of cells as inputs and a target: what is refused, left out, one-hot encoded, filled in, and how that is said.

A cell is a number, text, missing, or infinite. In a column of numbers an empty cell and NA, N/A, NaN, null, none and ?
are missing; in a column of text only an empty cell is, since any word may be a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np

from lrsweep.errors import UsageError, WrongInSpec, did_you_mean
from lrsweep.tasks import room
from lrsweep.tasks.splits import Array, Encoded, Kind, Table

MISSING_CELLS = {"", "na", "n/a", "nan", "null", "none", "?"}
MANY_CLASSES = MANY_VALUES = 50
"""How many classes, or values of a one-hot column, are so many that a warning says so."""
SHOWN = 8
"""How many names a sentence lists."""
NUMBERS = 0.9
"""The share of numbers from which on a column holds numbers, and its text cells are taken for typing errors."""
SHOWN_CELLS = 5
"""How many such cells a message lists."""
COMPLAINTS = 30
"""In how many lines data are refused."""
CELL = 140
"""Bytes a cell of text takes: as text and as a number, in a few copies."""

OneHot = Literal["text_columns"]
Missing = Literal["drop_rows", "mean"]
Complaints = list[tuple[tuple[str, ...], str]]


class Place(NamedTuple):
    """Where a row is: with the name of the data (`table.csv:5`), and without it (`line 5`)."""

    full: str
    short: str


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the user says about columns: those left out, those (or all of text) that are one-hot encoded, and what
    becomes of missing cells. Unset, text and missing cells are refused."""

    drop: Sequence[str] = ()
    one_hot: OneHot | Sequence[str] = ()
    missing: Missing | None = None

    def encodes(self, column: Column) -> bool:
        return column.is_text if self.one_hot == "text_columns" else column.name in self.one_hot


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """The values of a column: texts as they are written, without spaces around them, or numbers (nan is missing).

    `declared`: the data say that the values are text, whatever they look like.
    """

    name: str
    given: Array  # (rows,) of str as objects, or of float64
    declared: bool = False

    @cached_property
    def cells(self) -> Array:
        """(rows,) of str as objects; "" is missing."""
        if self.given.dtype == object:
            return self.given
        return texts("" if math.isnan(value) else repr(value) for value in self.given.tolist())

    @cached_property
    def numbers(self) -> Array:
        """(rows,) float64; nan where a cell is no number. True and false are 1 and 0."""
        if self.given.dtype != object:
            return self.given
        return np.fromiter(map(_number, self.given), np.float64, count=len(self.given))

    @cached_property
    def text(self) -> Array:
        """Which cells are neither a number nor a word for a missing one."""
        found = np.zeros(len(self.given), dtype=bool)
        if self.given.dtype == object:
            none = np.flatnonzero(np.isnan(self.numbers))
            found[none] = [not _is_missing(self.given[row]) for row in none]
        return found

    @cached_property
    def is_text(self) -> bool:
        return bool(self.text.any())

    @cached_property
    def number_share(self) -> float:
        """How many of the cells that are text or numbers are numbers; true and false are neither."""
        found = ~np.isnan(self.numbers)
        if self.given.dtype == object:
            rows = np.flatnonzero(found)
            found[rows] = [not _is_boolean(self.given[row]) for row in rows]
        numbers, words = int(found.sum()), int(self.text.sum())
        return numbers / max(numbers + words, 1)

    @cached_property
    def is_mistyped(self) -> bool:
        """Whether it holds text, but so few that it must be a column of numbers."""
        return self.is_text and self.number_share >= NUMBERS

    @cached_property
    def is_mostly_numbers(self) -> bool:
        """Whether it holds text, but more numbers, so that nobody may have seen the text."""
        return self.is_text and not self.declared and self.number_share > 0.5

    @cached_property
    def has_decimals(self) -> bool:
        """Whether some numbers are written other than as whole ones, so that they are hardly names."""
        rows = np.flatnonzero(~np.isnan(self.numbers))
        return any(not _is_integer(self.cells[row]) and not _is_boolean(self.cells[row]) for row in rows)

    def missing(self, *, as_text: bool) -> Array:
        """Which cells are missing, in a column that is read as text or as numbers."""
        return self.cells == "" if as_text else np.isnan(self.numbers) & ~self.text

    def rows(self, kept: Array) -> Column:
        return self if kept.all() else replace(self, given=self.given[kept])


def texts(values: Iterable[Any]) -> Array:
    """Values as the cells of a text table; None is a missing one."""
    cells = ["" if value is None else str(value).strip() for value in values]
    held = np.empty(len(cells), dtype=object)
    held[:] = cells
    return held


def _is_boolean(cell: str) -> bool:
    return cell.lower() in ("true", "false")


def _number(cell: str) -> float:
    if _is_boolean(cell):
        return float(cell.lower() == "true")
    try:
        return math.nan if "_" in cell else float(cell)
    except ValueError:
        return math.nan


def _is_missing(cell: str) -> bool:
    return cell.lower().lstrip("+-") == "nan" or cell.lower() in MISSING_CELLS


def table(
    source: str, columns: Sequence[Column], target: str, kind: Kind | None, rules: Rules, place: Callable[[int], Place],
    *, splits: Mapping[str, Array] | None = None,
) -> Table:  # fmt: skip
    """The table that these columns make: `target` names the one to predict, all others that are not left out are
    inputs. `source` names the data in messages, `place(row)` a row of them. `splits` as in `Table`.

    Raises WrongInSpec with all that is wrong with the columns.
    """
    by_name = {column.name: column for column in columns}
    if complaints := _wrong_names(source, by_name, target, rules):
        raise WrongInSpec(*complaints)
    inputs = [column for column in columns if column.name not in (target, *rules.drop)]
    if complaints := _wrong_cells(inputs, by_name[target], kind, rules, place):
        by_keys = any(keys == ("task",) for keys, _ in complaints)
        more = [(("task",), "what drop, one_hot and missing do: lrsweep list tasks")] if by_keys else []
        raise WrongInSpec(*abridged(complaints), *more)
    labels, left_out = by_name[target], []
    no_target = labels.missing(as_text=labels.is_text)
    kept = ~no_target
    if no_target.any():
        left_out.append(f"{_rows(int(no_target.sum()))} without a target left out")
    if rules.missing == "drop_rows":
        for one in inputs:
            kept &= ~one.missing(as_text=rules.encodes(one))
        if gone := int((~kept & ~no_target).sum()):
            left_out.append(f"{gone} of {_rows(len(kept))} with missing cells left out")
    if not kept.any():
        raise WrongInSpec((("task", "missing"), f"{source}: every row has a missing cell, so drop_rows leaves none"))
    encoder = _Encoder(source, [one.rows(kept) for one in inputs], [rules.encodes(one) for one in inputs])
    dropped = [f"left out: {listed(rules.drop)}"] if rules.drop else []
    values = target_values(labels.rows(kept), as_text=labels.is_text)
    if splits is not None:
        new = np.cumsum(kept) - 1
        splits = {name: new[rows[kept[rows]]] for name, rows in splits.items()}
    return with_kind(source, encoder, values, kind, {"prepared": [*dropped, *left_out]}, splits=splits)


# What is wrong with a table


def _wrong_names(source: str, columns: Mapping[str, Column], target: str, rules: Rules) -> Complaints:
    """Keys that name no column, or the target; and a table without inputs."""
    one_hot = () if isinstance(rules.one_hot, str) else rules.one_hot
    found: Complaints = []
    for key, names in (("target", [target]), ("drop", rules.drop), ("one_hot", one_hot)):
        for name in names:
            if name not in columns:
                found.append((("task", key), f"{source}: there is no column {name!r}{suggest(name, list(columns))}"))
            elif key != "target" and name == target:
                found.append((("task", key), f"{source}: {name!r} is the target"))
            elif key == "one_hot" and name in rules.drop:
                found.append((("task", key), f"{source}: {name!r} is left out by drop; name it in one of them"))
    if not found and not set(columns) - {target, *rules.drop}:
        where, what = ("drop", "drop leaves no inputs") if rules.drop else ("target", f"{target!r} is the only column")
        found.append((("task", where), f"{source}: {what}, so there are no inputs"))
    return found


def _wrong_cells(
    inputs: Iterable[Column], target: Column, kind: Kind | None, rules: Rules, place: Callable[[int], Place]
) -> Complaints:
    """A complaint for each column and kind of cell."""
    found: Complaints = []
    inputs = list(inputs)
    by_name = f"one_hot: {_yaml(one.name for one in inputs if one.is_text)}"
    for one in inputs:
        encoded, drop = rules.encodes(one), f"drop: {_yaml([*rules.drop, one.name])}"
        missing = one.missing(as_text=encoded or (one.is_text and not one.is_mistyped))
        if not encoded:
            wanted = _yaml([*rules.one_hot, one.name]) if rules.one_hot else "text_columns"
            named = one.is_mostly_numbers and not rules.one_hot
            cure = f"write {by_name if named else f'one_hot: {wanted}'}, or {drop}"
            if one.is_mistyped:
                text = _not_numbers(one, f"column {one.name!r}", place)
                found.append((("task",), f"{text} (if that is meant, {cure})"))
            else:
                words = np.isnan(one.numbers) & ~missing & one.is_text
                found += _complaint(one, words, "text", cure, place)
            found += _complaint(one, np.isinf(one.numbers), "infinite", f"correct it, or write {drop}", place)
        elif rules.one_hot == "text_columns" and one.is_mostly_numbers:
            text = _not_numbers(one, f"column {one.name!r}", place)
            found.append(
                (("task", "one_hot"), f"{text} (if it is text, name all columns of text: {by_name}; or {drop})")
            )
        if missing.all():
            found.append((("task",), f"{place(0).full}: column {one.name!r}: every cell is missing (write {drop})"))
        elif rules.missing is None:
            cure = f"write missing: drop_rows or missing: mean, or {drop}"
            found += _complaint(one, missing, "missing", cure, place)
    return found + _wrong_target(target, kind, rules.missing is not None, place)


def _wrong_target(
    target: Column, kind: Kind | None, missing_allowed: bool, place: Callable[[int], Place]
) -> Complaints:
    """As well as cells that are missing or infinite: text in a target that is wanted as numbers, or is so mostly.

    Whole numbers among text are classes as the text is; numbers with decimals are not, if they are the most.
    """
    needs_numbers = target.is_text and kind != "classification"
    if needs_numbers and kind is None:
        needs_numbers = target.number_share > 0.5 and target.has_decimals
    missing = target.missing(as_text=target.is_text and not needs_numbers)
    if missing.all():
        return [(("task", "target"), f"{place(0).full}: column {target.name!r}: every target is missing")]
    cure = "it is the target; missing: drop_rows leaves such rows out"
    found = [] if missing_allowed else _complaint(target, missing, "missing", cure, place)
    if needs_numbers:
        text = _not_numbers(target, f"column {target.name!r} (the target)", place)
        classes = "or write kind: classification if the values are class names"
        return [*found, (("task", "target"), f"{text}, {classes}")]
    infinite = np.isinf(target.numbers) & (not target.is_text)
    return found + _complaint(target, infinite, "infinite", "it is the target; correct it or remove the row", place)


def check_target(target: Column, kind: Kind | None, place: Callable[[int], Place]) -> None:
    """Raises WrongInSpec if a target has cells that are missing, infinite, or text among numbers."""
    if found := _wrong_target(target, kind, False, place):
        raise WrongInSpec(*found)


def _not_numbers(column: Column, what: str, place: Callable[[int], Place]) -> str:
    """Which cells of a column of numbers are text."""
    rows = np.flatnonzero(column.text).tolist()
    if len(rows) == 1:
        cells, them = f"1 of {len(column.text)} cells is not a number: {_short(column.cells[rows[0]])}", "it"
    else:
        each = [f"{_short(column.cells[row])} ({place(row).short})" for row in rows]
        cells, them = f"{len(rows)} of {len(column.text)} cells are not numbers: {listed(each, SHOWN_CELLS)}", "them"
    return f"{place(rows[0]).full}: {what}: {cells}; correct {them}"


def _complaint(column: Column, wrong: Array, what: str, cure: str, place: Callable[[int], Place]) -> Complaints:
    """How many cells of a column are wrong, where the first is, and what to write; nothing if none is."""
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return []
    cells = f"1 cell is {what}:" if len(rows) == 1 else f"{len(rows)} of {len(wrong)} cells are {what}, first"
    first = int(rows[0])
    return [(("task",), f"{place(first).full}: column {column.name!r}: {cells} {_short(column.cells[first])} ({cure})")]


def abridged(complaints: Complaints) -> Complaints:
    """The first of them, and how many more there are."""
    more = len(complaints) - COMPLAINTS
    return complaints if more <= 0 else [*complaints[:COMPLAINTS], (("task",), f"and {more} more problems like these")]


def suggest(name: str, names: Sequence[str]) -> str:
    """`(did you mean ...?)`, or what there is."""
    near = did_you_mean(name, names)
    return f" ({near})" if near else f" (there are: {listed(names, most=12)})"


def listed(names: Iterable[str], most: int = SHOWN) -> str:
    """The first of them, `a, b, ...`."""
    shown = list(names)
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")


def _rows(count: int) -> str:
    return f"{count} row" if count == 1 else f"{count} rows"


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")


def _yaml(names: Iterable[str]) -> str:
    """Names as a list of a spec has them."""
    plain = re.compile(r"(?!(true|false|null)$)[A-Za-z_][\w -]*", re.IGNORECASE)
    quoted = (name if plain.fullmatch(name) else json.dumps(name, ensure_ascii=False) for name in names)
    return f"[{', '.join(quoted)}]"


# Inputs


@dataclass(frozen=True, eq=False)
class _Encoder:
    """Numbers from columns, by what the train split holds: called with its row numbers.

    As scikit-learn's OneHotEncoder (handle_unknown="ignore") and SimpleImputer (mean, add_indicator) would fit them:
    a column of its own for each value of the train split, in sorted order, and one for missing cells if there are any.
    """

    source: str
    columns: list[Column]
    encoded: list[bool]

    def __call__(self, train: Array) -> Encoded:
        known = [np.unique(column.cells[train]) if encoded else None for column, encoded in self._pairs]
        self._check_fits(known)
        names: list[str] = []
        blocks: list[Array] = []
        indicators: list[bool] = []
        one_hot, filled, cells, warnings = [], [], 0, []
        for (column, encoded), seen in zip(self._pairs, known, strict=True):
            missing = column.missing(as_text=encoded)
            if seen is None:
                blocks.append(self._filled(column, missing, train)[:, None])
                names.append(column.name)
                indicators.append(False)
            else:
                seen = seen[seen != ""]
                blocks.append(_one_hot(column.cells, seen))
                names += [f"{column.name}={value}" for value in seen]
                indicators += [True] * len(seen)
                one_hot.append(f"{column.name} ({len(seen)} {'value' if len(seen) == 1 else 'values'})")
                warnings += self._warnings(column, len(seen))
            if missing.any():
                cells += int(missing.sum())
                filled.append(column.name)
            if missing[train].any():
                blocks.append(missing[:, None])
                names.append(f"{column.name} is missing")
                indicators.append(True)
        prepared = [f"one-hot: {listed(one_hot)}"] if one_hot else []
        if filled:
            prepared.append(f"{cells} missing {'cell' if cells == 1 else 'cells'} filled in: {listed(filled)}")
        return Encoded(
            values=np.concatenate(blocks, axis=1, dtype=np.float64),
            indicators=np.array(indicators),
            names=names,
            prepared=prepared,
            warnings=warnings,
        )

    @property
    def _pairs(self) -> list[tuple[Column, bool]]:
        return list(zip(self.columns, self.encoded, strict=True))

    def _check_fits(self, known: Iterable[Array | None]) -> None:
        width, rows = sum(1 if seen is None else len(seen) for seen in known), len(self.columns[0].cells)
        what = f"{rows:,} rows with the {width:,} inputs that one_hot makes of {self.source}"
        room.check("one_hot", rows * width * room.NUMBER, what, "leave columns of many values out: drop: [...]")

    def _filled(self, column: Column, missing: Array, train: Array) -> Array:
        if not missing.any():
            return column.numbers
        seen = column.numbers[train][~missing[train]]
        if not len(seen):
            wrong = f"{self.source}: column {column.name!r} has no number in the train split, so there is no mean"
            raise WrongInSpec((("task", "missing"), f"{wrong} (drop: {_yaml([column.name])} leaves it out)"))
        return np.where(missing, seen.mean(), column.numbers)

    def _warnings(self, column: Column, values: int) -> list[str]:
        numbers = int((~np.isnan(column.numbers)).sum())
        found = []
        if column.is_text and numbers:
            odd = _short(column.cells[np.flatnonzero(column.text)[0]])
            many = f"{numbers} of its {len(column.cells)} cells are numbers"
            found.append(f"column {column.name!r} is one-hot encoded as text, but {many}; {odd} is not one of them")
        if values > MANY_VALUES:
            drop = f"drop: {_yaml([column.name])} leaves it out"
            found.append(f"column {column.name!r} has {values} values, a 0/1 input each ({drop})")
        return found


def _one_hot(cells: Array, values: Array) -> Array:
    """(rows, values) of bool: which value each cell is; none where it is another."""
    number = {value: i for i, value in enumerate(values)}
    codes = np.fromiter((number.get(cell, -1) for cell in cells), np.int64, count=len(cells))
    return np.asarray(codes[:, None] == np.arange(len(values)))


# The target


def target_values(column: Column, *, as_text: bool) -> Array:
    """A target without missing cells as text if it is read so, else as booleans, integers or reals, the first of these
    that all cells are."""
    if as_text:
        return column.cells.astype(np.str_)
    if column.given.dtype != object:
        return column.numbers
    if all(map(_is_boolean, column.cells)):
        return np.array([cell.lower() == "true" for cell in column.cells])
    return np.array([int(cell) for cell in column.cells]) if all(map(_is_integer, column.cells)) else column.numbers


def _is_integer(cell: str) -> bool:
    digits = cell[1:] if cell[:1] in ("+", "-") else cell
    return digits.isascii() and digits.isdigit()


def with_kind(
    source: str,
    inputs: Array | Callable[[Array], Encoded],
    values: Array,
    kind: Kind | None,
    notes: Mapping[str, Any],
    *,
    splits: Mapping[str, Array] | None = None,
) -> Table:
    """A table whose target is classes, numbered in sorted order, or reals; which of them is inferred unless given."""
    notes = {**notes, "inferred": kind is None, "warnings": []}
    if kind is None:
        kind = "regression" if values.dtype.kind == "f" else "classification"
    if kind == "regression":
        if values.dtype.kind == "U":
            raise UsageError(f"{source}: the target is text ({str(values[0])!r}), which `kind: regression` cannot use")
        real = values.astype(np.float64).reshape(len(values), -1)
        return Table(inputs=inputs, target=real, kind=kind, splits=splits, notes=notes)
    if values.ndim > 1:
        raise UsageError(f"{source}: the target of a classification must be one column, not shape {values.shape}")
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UsageError(f"{source}: the target has only one class ({classes[0]})")
    notes["classes"] = classes.tolist()
    if len(classes) > MANY_CLASSES:
        notes["warnings"] = _many_classes(classes, len(values), inferred=notes["inferred"])
    target = numbers.astype(np.int64)
    return Table(inputs=inputs, target=target, kind=kind, classes=len(classes), splits=splits, notes=notes)


def _many_classes(classes: Array, rows: int, *, inferred: bool) -> list[str]:
    """What is odd about so many classes: that nobody asked for them, or that there are hardly more rows."""
    found = f"the target has {len(classes)} classes"
    if inferred:
        whole = "whole values, taken as classes (else: kind: regression)"
        what = "different texts, a class each" if classes.dtype.kind == "U" else whole
        found = f"the target has {len(classes)} {what}"
    if few := len(classes) > rows / 2:
        found += f"; {rows} rows are too few examples to learn them from"
    return [found] if inferred or few else []
