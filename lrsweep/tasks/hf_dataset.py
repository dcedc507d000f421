"""`hf_dataset`: a dataset that the library `datasets` of Hugging Face has saved to disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from lrsweep.errors import UsageError, WrongInSpec, on_one_line
from lrsweep.tasks import room
from lrsweep.tasks.apart import read_apart
from lrsweep.tasks.columns import (
    CELL,
    Column,
    Missing,
    OneHot,
    Place,
    Rules,
    check_target,
    listed,
    suggest,
    target_values,
    texts,
    with_kind,
)  # fmt: skip
from lrsweep.tasks.columns import table as columns_table
from lrsweep.tasks.images import Size, stacked
from lrsweep.tasks.splits import SPLITS, Array, Kind, Table, table_task


@table_task(scales_target=True)
def hf_dataset(
    *,
    path: str,
    target: str = "label",
    kind: Kind | None = None,
    drop: list[str] | None = None,
    one_hot: OneHot | list[str] | None = None,
    missing: Missing | None = None,
    size: Size | None = None,
    grayscale: bool = False,
) -> Table:
    """A folder that `save_to_disk` of Hugging Face's `datasets` wrote (pip install 'lrsweep[datasets]'); no network.

    `target` names one column, all others are inputs: either numbers and text, as for csv (`drop`, `one_hot`, `missing`,
    `kind`), or one column of images (`size`, `grayscale`, as for image_folder) or of arrays of one shape. A dataset of
    splits has train, and maybe val (or valid, validation) and test; without val a share of train is taken for it.
    """
    rules = Rules(drop=drop or (), one_hot=one_hot or (), missing=missing)

    def read() -> Table:
        saved = _saved(path)
        inputs = _inputs(saved, target, rules.drop)
        if all(map(saved.is_plain, inputs)):
            return _of_columns(saved, inputs, target, kind, rules)
        return _of_arrays(saved, inputs, target, kind, size, grayscale=grayscale)

    table = read_apart(path, read)
    table.notes["prepared"][:0] = [f"left out: {listed(rules.drop)}"] if rules.drop else []
    return table


def _inputs(saved: _Saved, target: str, drop: Sequence[str]) -> list[str]:
    """The columns that are inputs. Raises WrongInSpec for keys that name no column."""
    names = list(saved.features)
    wrong = [
        (("task", key), f"{saved.path}: there is no column {name!r}{suggest(name, names)}")
        for key, given in (("target", [target]), ("drop", drop))
        for name in given
        if name not in names
    ]
    if not wrong and not set(names) - {target, *drop}:
        wrong = [(("task", "drop" if drop else "target"), f"{saved.path}: there are no inputs beside {target!r}")]
    if wrong:
        raise WrongInSpec(*wrong)
    return [name for name in names if name not in (target, *drop)]


def _of_columns(saved: _Saved, inputs: Sequence[str], target: str, kind: Kind | None, rules: Rules) -> Table:
    names = [*inputs, target]
    what = f"the {len(saved.data):,} rows with {len(names):,} columns of {saved.path}"
    room.check("path", len(saved.data) * len(names) * CELL, what, "save a smaller part of them")
    columns = list(map(saved.cells, names))
    rules = replace(rules, drop=())
    table = columns_table(saved.path, columns, target, kind, rules, saved.place, splits=saved.splits)
    table.notes["warnings"] += saved.warnings
    return table


def _of_arrays(
    saved: _Saved, inputs: Sequence[str], target: str, kind: Kind | None, size: Size | None, *, grayscale: bool
) -> Table:
    if len(inputs) > 1:
        wide = listed(name for name in inputs if not saved.is_plain(name))
        wrong = f"{saved.path}: {wide}: a column of images or arrays can only be the one input"
        raise WrongInSpec((("task", "drop"), f"{wrong} (inputs: {listed(inputs)}; leave others out by drop)"))
    (name,) = inputs
    labels = saved.cells(target)
    check_target(labels, kind, saved.place)
    values = saved.images(name, size, grayscale=grayscale) if saved.is_image(name) else saved.arrays(name)
    notes: dict[str, Any] = {"prepared": []}
    classes = target_values(labels, as_text=labels.is_text)
    table = with_kind(saved.path, values, classes, kind, notes, splits=saved.splits)
    table.notes["warnings"] += saved.warnings
    return table


@dataclass(frozen=True, kw_only=True, eq=False)
class _Saved:
    """The rows of all splits, one after another; `splits` are the rows of each, None where there are none."""

    path: str
    data: Any  # datasets.Dataset
    splits: dict[str, Array] | None
    warnings: list[str]

    @property
    def features(self) -> dict[str, Any]:
        return dict(self.data.features)

    def place(self, row: int) -> Place:
        within = self._within(row)
        return Place(f"{self.path}: {within}", within)

    def _within(self, row: int) -> str:
        for name, rows in (self.splits or {}).items():
            if row in range(rows[0], rows[-1] + 1):
                return f"row {row - rows[0] + 1} of {name}"
        return f"row {row + 1}"

    def is_plain(self, name: str) -> bool:
        """Whether each cell is one value."""
        return type(self.features[name]).__name__ in ("Value", "ClassLabel")

    def is_image(self, name: str) -> bool:
        return type(self.features[name]).__name__ == "Image"

    def cells(self, name: str) -> Column:
        """A column of values as texts; labels by their names."""
        if not self.is_plain(name):
            raise WrongInSpec((("task", "target"), f"{self.path}: column {name!r} holds no plain values"))
        values = list(self.data[name])
        if names := getattr(self.features[name], "names", None):  # of a ClassLabel
            values = [None if value is None or value < 0 else names[value] for value in values]
        return Column(name=name, given=texts(values), declared=bool(names))

    def images(self, name: str, size: Size | None, *, grayscale: bool) -> Array:
        data = self.data.select_columns([name])

        def opened(row: int) -> Image.Image:
            image = data[row][name]
            if not isinstance(image, Image.Image):
                raise ValueError("the cell is missing")
            return image

        return stacked([self.place(row).full for row in range(len(data))], opened, size, grayscale=grayscale)

    def arrays(self, name: str) -> Array:
        """(rows, ...) of float64."""
        one = np.asarray(self.data[0][name])
        what = f"the {len(self.data):,} arrays of shape {one.shape} of {self.path}"
        room.check("path", len(self.data) * one.size * room.NUMBER, what, "save a smaller part of them")
        values = self.data.select_columns([name]).with_format("numpy")[:][name]
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiub":
            raise UsageError(f"{self.path}: column {name!r} is no array of numbers of one shape")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            row = int(np.argwhere(~np.isfinite(values))[0][0])
            raise UsageError(f"{self.place(row).full}: column {name!r} holds a missing (nan) or infinite value")
        return values.astype(np.float64)


def _saved(path: str) -> _Saved:
    """Raises UsageError if the library is absent, or the folder holds something else."""
    try:
        import datasets
    except ImportError:
        raise UsageError("the library datasets is not installed (pip install 'lrsweep[datasets]')") from None
    try:
        found = datasets.load_from_disk(path)
    except Exception as error:
        wrong = f"{path}: holds no dataset that save_to_disk wrote"
        raise WrongInSpec((("task", "path"), f"{wrong} ({on_one_line(str(error))})")) from error
    if not isinstance(found, dict):
        if len(found) == 0:
            raise WrongInSpec((("task", "path"), f"{path}: holds no rows"))
        return _Saved(path=path, data=found, splits=None, warnings=[])
    others = [name for name in found if name not in SPLITS]
    names = {SPLITS[name]: name for name in SPLITS if name in found}
    if "train" not in names:
        raise WrongInSpec((("task", "path"), f"{path}: there is no split train (there are: {listed(found)})"))
    if len(names) + len(others) < len(found):
        raise WrongInSpec((("task", "path"), f"{path}: more than one split is val (there are: {listed(found)})"))
    parts = [found[name] for name in names.values()]
    ends = np.cumsum([len(part) for part in parts])
    splits = {name: np.arange(end - len(part), end) for name, part, end in zip(names, parts, ends, strict=True)}
    try:
        data = datasets.concatenate_datasets(parts)
    except ValueError as error:
        raise UsageError(f"{path}: the splits have different columns ({on_one_line(str(error))})") from error
    unused = [f"{path}: not used, as they are none of train, val, test: {listed(others)}"] if others else []
    return _Saved(path=path, data=data, splits=splits, warnings=unused)
