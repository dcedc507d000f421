"""Rows into train, val and test, and inputs onto unit scale: shared by all tasks that hold tables of numbers."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import numpy as np
import torch
from annotated_types import Ge, Interval
from numpy.typing import NDArray

from lrsweep.errors import WrongInSpec
from lrsweep.tasks.base import Task, accuracy, cross_entropy, mse

Array = NDArray[Any]
Part = Annotated[int | float, Ge(0)]  # below 1 a share of the rows, from 1 on a number of rows
Seed = Annotated[int, Interval(ge=0, lt=2**32)]
Order = Literal["shuffled", "stored"]
Scale = Literal["standard", "none"]
Kind = Literal["classification", "regression"]

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""What data that are split already may call their splits, in the order they are read."""


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How rows are divided. `val` and `test` are shares (rounded up) or numbers of rows; train gets the rest.

    `stored` keeps the order of the rows: train first, then val, then test. `shuffled` permutes them with `split_seed`
    first (numpy's RandomState, whose stream is frozen).
    """

    split: Order
    split_seed: int
    val: float
    test: float

    def of(self, table: Table) -> dict[str, Array]:
        """Row numbers per split of a table, which may have splits of its own. Raises WrongInSpec as `indices`."""
        own = table.splits
        if own is None:
            return self.indices(len(table.target))
        if empty := [name for name, rows in own.items() if not len(rows)]:
            raise WrongInSpec((("task",), f"no rows are left in {' and '.join(empty)}"))
        if "val" in own:
            return {"test": np.arange(0), **own}
        rows = replace(self, test=0).indices(len(own["train"]))
        return {"test": np.arange(0), **own, **{name: own["train"][rows[name]] for name in ("train", "val")}}

    def indices(self, count: int) -> dict[str, Array]:
        """Row numbers per split. Raises WrongInSpec when a share leaves train or val without rows."""
        val, test = _size("val", self.val, count), _size("test", self.test, count)
        train = count - val - test
        if val == 0:
            wrong = "the validation split has no rows (give a share such as 0.2, or a number of rows)"
            raise WrongInSpec((("task", "val"), wrong))
        if train <= 0:
            wrong = f"val and test use {val} + {test} of {count} row{'s' * (count != 1)}, leaving none for train"
            raise WrongInSpec((("task", "val"), wrong))
        order = np.arange(count)
        if self.split == "shuffled":
            order = np.random.RandomState(self.split_seed).permutation(count)
        return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}


def _size(name: str, part: float, count: int) -> int:
    if part < 1:
        return math.ceil(round(part * count, 9))
    if part != int(part):
        raise WrongInSpec((("task", name), f"{part} is neither a share below 1 nor a whole number of rows"))
    return int(part)


def standardise(values: Array, train: Array) -> Array:
    """(values - mean) / sd per feature, by the statistics of the rows `train` alone (population sd).

    A feature that is constant there becomes exactly 0 in those rows, and keeps its unit elsewhere.
    """
    known = values[train]
    constant = known.max(axis=0) == known.min(axis=0)
    mean = np.where(constant, known[0], known.mean(axis=0))
    sd = np.where(constant, 1.0, known.std(axis=0))
    return np.asarray((values - mean) / sd)


def scale_warnings(values: Array) -> list[str]:
    """One line when unscaled inputs lie far from unit scale: the largest stable rate falls with its square."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    size = np.sqrt((flat[:, flat.max(axis=0) > flat.min(axis=0)] ** 2).mean(axis=0))
    if size.size == 0 or (size.max() <= 10 and size.min() >= 0.1):
        return []
    return [
        f"scale: none, but the inputs have root mean squares from {size.min():.2g} to {size.max():.2g}; the "
        "usual learning rates assume inputs near 1 (scale: standard)"
    ]


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Inputs as float64 (rows, ...). In a table (rows, features) some features may be indicators: 0 or 1, never scaled.

    `names` are those of the features; `prepared` and `warnings` are added to the notes of the task.
    """

    values: Array
    indicators: Array | None = None
    names: list[str] | None = None
    prepared: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Table:
    """Data before it is split and scaled: inputs (rows, ...), target (rows,) class numbers or (rows, outputs) reals.

    `inputs` may be a function of the row numbers of the train split, for inputs that are fitted to it. Those of bytes
    are pixels (rows, channels, height, width). `classes`: how many there are, if the target need not hold them all.
    `splits`: the rows of train, maybe val and test, where the data are split already. `notes` are added to those of the
    task.
    """

    inputs: Array | Callable[[Array], Encoded]
    target: Array
    kind: Kind
    classes: int | None = None
    splits: Mapping[str, Array] | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def table_task(*, scales_target: bool = False) -> Callable[[Callable[..., Table]], Callable[..., Task]]:
    """Makes a task function of one that returns a `Table`: it takes that one's arguments, then those of the split.

    With `scales_target` it takes `target_scale` too: a real target is standardised unless that is `none`.
    """
    default: Scale = "standard" if scales_target else "none"

    def decorate(table: Callable[..., Table]) -> Callable[..., Task]:
        def task(
            *,
            split: Order = "shuffled",
            split_seed: Seed = 0,
            val: Part = 0.2,
            test: Part = 0.2,
            scale: Scale = "standard",
            target_scale: Scale = default,
            **own: Any,
        ) -> Task:
            cut = Cut(split=split, split_seed=split_seed, val=val, test=test)
            return _split_and_scaled(table(**own), cut, scale, target_scale)

        # What a spec may set is read off the signature (registry.signature).
        *shared, last, _ = inspect.signature(task, eval_str=True).parameters.values()
        shared += [last] if scales_target else []
        parameters = [*inspect.signature(table, eval_str=True).parameters.values(), *shared]
        vars(task)["__signature__"] = inspect.Signature(parameters)
        return functools.update_wrapper(task, table)

    return decorate


def _split_and_scaled(table: Table, cut: Cut, scale: Scale, target_scale: Scale) -> Task:
    """Inputs, and a real target where `target_scale` says so, are standardised by train statistics in float64, then
    stored in torch's default dtype."""
    regression, target = table.kind == "regression", table.target
    parts = cut.of(table)
    inputs = _inputs(table, parts["train"], scale)
    if regression and target_scale == "standard":
        target = standardise(target.astype(np.float64), parts["train"])
    x = torch.from_numpy(inputs.values).to(torch.get_default_dtype())
    y = torch.from_numpy(target)
    y = y.to(torch.get_default_dtype()) if regression else y.long()
    splits = {name: (x[torch.from_numpy(rows)], y[torch.from_numpy(rows)]) for name, rows in parts.items()}
    notes: dict[str, Any] = {
        "kind": table.kind,
        "in_shape": tuple(x.shape[1:]),
        "num_outputs": y.shape[1] if regression else table.classes or int(y.max()) + 1,
        "scale": scale,
        "split": cut.split,
        **({"target_scale": target_scale} if regression else {}),
        **({"inputs": inputs.names} if inputs.names else {}),
        **({"pixels": True} if isinstance(table.inputs, np.ndarray) and table.inputs.dtype == np.uint8 else {}),
        **table.notes,
    }
    notes["warnings"] = notes.get("warnings", []) + inputs.warnings
    notes["prepared"] = notes.get("prepared", []) + inputs.prepared + _given_splits(table)
    return Task(
        train=splits["train"],
        val=splits["val"],
        test=splits["test"] if len(parts["test"]) else None,
        loss=mse if regression else cross_entropy,
        metrics={"mse": mse} if regression else {"accuracy": accuracy},
        notes=notes,
    )


def _given_splits(table: Table) -> list[str]:
    if table.splits is None:
        return []
    cut = "" if "val" in table.splits else "; val is a share of train"
    return [f"splits of the data: {', '.join(table.splits)}{cut}"]


def _inputs(table: Table, train: Array, scale: Scale) -> Encoded:
    """The inputs of all rows as numbers, scaled by the train split."""
    given = table.inputs
    if isinstance(given, np.ndarray) and given.dtype == np.uint8:
        _, channels, height, width = given.shape
        what = f"{'gray' if channels == 1 else 'RGB'} images of {height}x{width} pixels"
        return Encoded(values=pixels(given, train, scale), prepared=[what])
    inputs = Encoded(values=given.astype(np.float64)) if isinstance(given, np.ndarray) else given(train)
    values, scaled = inputs.values, slice(None) if inputs.indicators is None else ~inputs.indicators
    if scale == "standard":
        values[:, scaled] = standardise(values[:, scaled], train)
        return inputs
    return replace(inputs, warnings=scale_warnings(values[train][:, scaled]) + inputs.warnings)


def pixels(images: Array, train: Array, scale: Scale) -> Array:
    """Bytes (images, channels, height, width) as numbers from 0 to 1 in torch's default dtype; `standard`: each channel
    has mean 0 and (population) sd 1 over the pixels of the images `train`, unless it is constant there."""
    values = np.empty(images.shape, dtype=torch.empty(0).numpy().dtype)
    for channel in range(images.shape[1]):
        levels = np.arange(256) / 255
        if scale == "standard":
            counts = sum(np.bincount(images[row, channel].ravel(), minlength=256) for row in train)
            mean = np.average(levels, weights=counts)
            sd = np.sqrt(np.average((levels - mean) ** 2, weights=counts))
            levels = (levels - mean) / (sd if np.count_nonzero(counts) > 1 else 1.0)
        values[:, channel] = levels.astype(values.dtype)[images[:, channel]]
    return values
