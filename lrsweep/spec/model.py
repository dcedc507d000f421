"""What a resolved spec is made of: plain values, every default in place."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Ge, Gt

from lrsweep.grids import Grid
from lrsweep.registry import DATA_FILES

if TYPE_CHECKING:
    from lrsweep.spec.yaml_tree import Tree

Count = Annotated[int, Ge(1)]
Rate = Annotated[float, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class Named:
    """A task, model or schedule: a built-in name or an import path (it contains a colon), and keyword arguments."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As written in a spec."""
        return {"name": self.name, **self.args}


@dataclass(frozen=True, kw_only=True)
class OptimizerSpec:
    """One optimizer setting. `lr` and `schedule` are None where the ones of the spec hold."""

    name: str
    label: str
    args: dict[str, Any] = field(default_factory=dict)
    lr: Grid | None = None
    schedule: Named | None = None
    independent_weight_decay: float | None = None


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """How a run is trained. One of `epochs` and `steps` is None; both are where an axis gives one of them."""

    epochs: Count | None = None
    steps: Count | None = None
    batch_size: Count | Literal["full"] = 64
    eval_batch_size: Count | None = None  # None leaves it to lrsweep
    shuffle: bool = True
    drop_last: bool = False
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    tf32: bool = False  # float32 products on a GPU with factors of 10 bits
    metrics: bool = False
    clip_norm: Rate | None = None
    eval_every: Count | dict[str, Count] = 1  # epochs, or {"steps": number of steps}


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """Which number of a run counts. `at` is `final`, `best`, `mean` or `last_K`."""

    metric: str = "val_loss"
    at: str = "final"
    mode: Literal["min", "max"] = "min"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A whole sweep. `base_dir` is the folder that import paths and data paths are relative to.

    An axis named `task`, `model` or `schedule` (or their `.name`) holds mappings like those of `Named.as_dict`.
    `warnings` are lines to tell the user: the spec is valid, but probably not what was meant. `tree` knows where each
    value was written.

    >>> spec = lrsweep.load_spec("sweep.yaml")
    >>> for optimizer in spec.optimizers:
    ...     print(optimizer.label, spec.rates(optimizer), spec.seeds)
    sgd [0.001, 0.01, 0.1, 1.0] [0, 1, 2]
    adam [0.001, 0.01, 0.1, 1.0] [0, 1, 2]
    """

    name: str
    task: Named
    model: Named | None
    lr: Grid
    optimizers: list[OptimizerSpec]
    schedule: Named
    seeds: list[int]
    train: TrainSpec
    objective: ObjectiveSpec
    axes: dict[str, list[Any]] = field(default_factory=dict)
    refined: dict[str, list[float]] = field(default_factory=dict)
    base_dir: Path = field(default=Path(), compare=False)
    warnings: list[str] = field(default_factory=list, compare=False)
    tree: Tree | None = field(default=None, compare=False, repr=False)

    def rates(self, optimizer: OptimizerSpec) -> list[float]:
        """The learning rates of one optimizer, ascending, the refined ones among them."""
        grid = optimizer.lr or self.lr
        return sorted({*grid.rates, *self.refined.get(optimizer.label, ())})

    def with_rates(self, added: Mapping[str, Sequence[float]]) -> Spec:
        """The same with these rates of optimizers, by label, beside those that were refined before."""
        merged = {label: sorted({*self.refined.get(label, ()), *rates}) for label, rates in added.items()}
        return replace(self, refined={**self.refined, **merged})


def call_text(name: str, args: Mapping[str, Any]) -> str:
    """`sgd(momentum=0.9)`; an import path is shortened to what it names: `opts.py:Lion` is `Lion`."""
    short = name.rpartition(":")[2].rpartition(".")[2] if ":" in name else name
    inside = ", ".join(f"{key}={value_text(value)}" for key, value in args.items())
    return f"{short}({inside})" if inside else short


def value_text(value: Any) -> str:
    """A plain value on one line: numbers as Python writes them, text as it is."""
    if isinstance(value, list):
        return "[" + ", ".join(value_text(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {value_text(item)}" for key, item in value.items()) + "}"
    return value if isinstance(value, str) else repr(value)


def canonical(value: Any) -> str:
    """One text for equal plain values: keys sorted, an integer and the float equal to it alike."""
    return json.dumps(_same(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _same(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: _same(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_same(item) for item in value]
    return value


def map_paths(section: Mapping[str, Any], move: Callable[[str], str]) -> dict[str, Any]:
    """A section with the files that it names, the `.py` of an import path and a table of data, changed by `move`."""
    moved = dict(section)
    if file := named_file(section["name"]):
        moved["name"] = move(file) + section["name"][len(file) :]
    key = DATA_FILES.get(section["name"])
    if key in moved:
        moved[key] = move(moved[key])
    return moved


def named_file(name: str) -> str | None:
    """The `.py` file of an import path `file.py:what`; None for `package.module:what` and for a built-in name."""
    file = name.rpartition(":")[0]
    return file if file.endswith(".py") else None
