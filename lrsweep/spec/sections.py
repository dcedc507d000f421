"""The sections of a spec, from the values as written to resolved ones: defaults filled in, mistakes noted.

Each function takes the value as written, its path and the `Mistakes`, and returns the section, or None if the notes say
what is wrong with it. Without `known` (a spec that lrsweep wrote itself) names and arguments are not checked.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrsweep import grids
from lrsweep.errors import did_you_mean, nearest
from lrsweep.grids import Grid
from lrsweep.objective import default_mode
from lrsweep.registry import DATA_FILES, DATA_FOLDERS, REFUSED, Known, signature
from lrsweep.spec import check
from lrsweep.spec.check import GRID, OBJECTIVE, TRAIN, Mistakes, check_value, with_hint
from lrsweep.spec.import_paths import import_path, missing_data
from lrsweep.spec.model import Count, Named, ObjectiveSpec, OptimizerSpec, Rate, TrainSpec, call_text
from lrsweep.spec.yaml_tree import Keys

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")
METRIC = re.compile(r"(train|val)_[^\W\d]\w*")
AT = re.compile(r"final|best|mean|last_[1-9][0-9]*")
OPTIMIZER_KEYS = ("name", "label", "lr", "schedule", "independent_weight_decay")
MAX_SEEDS = 10_000


@dataclass(frozen=True, kw_only=True)
class SectionContext:
    """What sections are resolved against. `known` is None for a spec that lrsweep wrote itself."""

    known: Known | None
    base_dir: Path


def name(raw: Any, path: Keys, notes: Mistakes) -> str | None:
    """The name of the sweep, which is that of its folder."""
    allowed = "one path component of letters, digits, `.`, `_`, `-`, not starting with a dot"
    if isinstance(raw, str) and NAME.fullmatch(raw):
        return raw
    text = raw if isinstance(raw, str) else notes.quoted(path, raw) if isinstance(raw, bool | int | float) else ""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip(".-")[:200]
    if isinstance(raw, str):
        fix = f"for example {safe}" if safe else ""
    else:
        fix = f"write '{text}' in quotes" if text and text == safe else ""
    notes.add(path, with_hint(f"must be {allowed}, not {notes.quoted(path, raw)}", fix))
    return None


def as_mapping(raw: Any, path: Keys, notes: Mistakes, what: str) -> dict[str, Any] | None:
    """A bare name as `{name: <name>}`; a mapping that has a name unchanged."""
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, dict):
        notes.add(path, f"must be a name or a mapping with `name`, not {notes.quoted(path, raw)}")
        return None
    if "name" not in raw:
        notes.add(path, f"needs name: {what} is a name, or a mapping with `name` and arguments")
        return None
    if not isinstance(raw["name"], str):
        notes.add((*path, "name"), check.type_error_text(str, raw["name"], notes.quoted((*path, "name"), raw["name"])))
        return None
    return raw


def named(ctx: SectionContext, kind: str, raw: Any, path: Keys, notes: Mistakes) -> Named | None:
    """A `task`, `model` or `schedule`."""
    mapping = as_mapping(raw, path, notes, kind)
    if mapping is None:
        return None
    chosen = mapping["name"]
    args = {key: value for key, value in mapping.items() if key != "name"}
    where = (*path, "name") if isinstance(raw, dict) else path
    if ctx.known is None:
        return Named(name=chosen, args=args)
    if ":" in chosen:
        return Named(name=chosen, args=args) if import_path(ctx.base_dir, chosen, where, notes) else None
    tables = {"task": ctx.known.tasks, "model": ctx.known.models, "schedule": ctx.known.schedules}
    table = tables[kind]
    if chosen not in table:
        notes.add(where, unknown_name(chosen, kind, table))
        return None
    before = len(notes.found)
    full = check.arguments(signature(table[chosen]), args, path, notes, chosen)
    if kind == "schedule":
        for argument, wrong in ctx.known.check_schedule(chosen, full):
            notes.add((*path, argument), wrong)
        if chosen == "plateau" and "metric" in full:
            metric(full["metric"], (*path, "metric"), notes)
    key = DATA_FILES.get(chosen, "")
    if kind == "task" and key in full and (wrong := missing_data(ctx.base_dir, full[key], chosen in DATA_FOLDERS)):
        notes.add((*path, key), wrong)
    return Named(name=chosen, args=full) if len(notes.found) == before else None


BY_IMPORT = {"lbfgs": "torch.optim:LBFGS", "sparseadam": "torch.optim:SparseAdam"}
"""Optimizers of torch that want a closure, or gradients of a kind that few models have: they are not proven by our
tests, and so are named as anyone's are."""


def unknown_name(text: str, kind: str, table: Mapping[str, Any]) -> str:
    near = did_you_mean(text, table)
    if text.endswith(".py"):
        near = f"did you mean {text}:function?"
    if kind == "optimizer" and (named := BY_IMPORT.get(text.lower().replace("_", ""))):
        near = f"did you mean {named}?"
    allowed = f"one of {', '.join(table)}; or file.py:name, package.module:name"
    return with_hint(f"unknown {kind} {text!r}", allowed, near)


def metric(text: str, path: Keys, notes: Mistakes) -> bool:
    """Whether `text` can be a column of curves.csv."""
    if METRIC.fullmatch(text):
        return True
    if text.startswith("test_"):
        fix = f"the test set is never used for selection; did you mean val_{text.removeprefix('test_')}?"
    elif did_you_mean(text, ["loss"]):
        fix = "did you mean val_loss or train_loss?"
    elif near := nearest(text, ["accuracy", "val_accuracy", "val_loss", "train_loss"]):
        fix = f"did you mean {'val_' * (near == 'accuracy')}{near}?"
    else:
        fix = "a metric is named by its column"
    allowed = "train_loss, val_loss, val_<metric> or train_<metric>"
    notes.add(path, with_hint(f"{text!r} is not a column of curves.csv", allowed, fix))
    return False


def grid(raw: Any, path: Keys, notes: Mistakes) -> Grid | None:
    """Learning rates: a list, or a mapping with `min`, `max` and one of `per_decade` and `points`."""
    if isinstance(raw, list):
        rates = learning_rates(raw, path, notes)
        return None if rates is None else Grid(listed=tuple(rates))
    if not isinstance(raw, dict):
        fix = (
            f"write [{notes.quoted(path, raw)}] for a single learning rate"
            if isinstance(raw, int | float) and not isinstance(raw, bool)
            else ""
        )
        wrong = f"must be a list of learning rates or a mapping, not {notes.quoted(path, raw)}"
        notes.add(path, with_hint(wrong, "{min, max, per_decade} or {min, max, points}", fix))
        return None
    before = len(notes.found)
    full = check.arguments(GRID, raw, path, notes, "lr")
    if "points" in raw and "per_decade" in raw:
        notes.add((*path, "per_decade"), "give points or per_decade, not both", key=True)
    low, high = full.get("min", grids.DEFAULT_MIN), full.get("max", grids.DEFAULT_MAX)
    points = full.get("points")
    per_decade = None if points is not None else full.get("per_decade", grids.DEFAULT_PER_DECADE)
    if low >= high and all(end in full for end in ("min", "max") if end in raw):
        notes.add(
            (*path, "max"), (f"must be above min ({low!r}), not {high!r}; for a single learning rate give a list")
        )
    if len(notes.found) > before:
        return None
    made = Grid(min=low, max=high, per_decade=per_decade, points=points)
    if all(a < b for a, b in itertools.pairwise(made.rates)):
        return made
    notes.add(path, "the grid is so fine that neighbors agree to 6 digits; widen the range or use fewer points")
    return None


def learning_rates(raw: Any, path: Keys, notes: Mistakes) -> list[float] | None:
    """A list of learning rates: finite, above 0, each given once."""
    if not isinstance(raw, list) or not raw:
        notes.add(path, f"must be a list of at least one learning rate, not {notes.quoted(path, raw)}")
        return None
    return _distinct(Rate, raw, path, notes)


def _distinct(annotation: Any, raw: list[Any], path: Keys, notes: Mistakes) -> list[Any] | None:
    """The values of a list if each fits the annotation and none is given twice."""
    before = len(notes.found)
    values = [check_value(annotation, item, (*path, i), notes)[0] for i, item in enumerate(raw)]
    seen: set[Any] = {None}
    for i, value in enumerate(values):
        if value is not None and value in seen:
            notes.add((*path, i), f"{value!r} is given twice; remove one of them")
        seen.add(value)
    return values if len(notes.found) == before else None


def seeds(raw: Any, path: Keys, notes: Mistakes) -> list[int] | None:
    """A number n for 0 ... n - 1, or a list."""
    if isinstance(raw, list) and raw:
        return _distinct(check.Seed, raw, path, notes)
    if type(raw) is int and 1 <= raw <= MAX_SEEDS:
        return list(range(raw))
    fix = check.hint(Count, raw) if isinstance(raw, str) else ""
    allowed = f"a number of seeds (an integer from 1 to {MAX_SEEDS}) or a list of seeds"
    wrong = f"must be {allowed}, not {notes.quoted(path, raw)}"
    notes.add(path, with_hint(wrong, fix))
    return None


def train(raw: Any, path: Keys, notes: Mistakes, *, given_by_axes: bool = False) -> TrainSpec | None:
    """The `train` section; exactly one of `epochs` and `steps`, unless an axis gives it."""
    if not isinstance(raw, dict):
        notes.add(path, f"must be a mapping, not {notes.quoted(path, raw)}; for example {{epochs: 20, batch_size: 64}}")
        return None
    before = len(notes.found)
    every = raw.get("eval_every")
    plain = {key: value for key, value in raw.items() if key != "eval_every" or not isinstance(every, dict)}
    full = check.arguments(TRAIN, plain, path, notes, "train")
    if isinstance(every, dict):
        full["eval_every"] = check.arguments(check.EVERY, every, (*path, "eval_every"), notes, "eval_every")
    epochs, steps = raw.get("epochs"), raw.get("steps")
    if epochs is not None and steps is not None:
        notes.add((*path, "steps"), "give epochs or steps, not both; the other may be null", key=True)
    elif epochs is None and steps is None and not given_by_axes:
        notes.add(path, "needs epochs or steps (exactly one of the two), for example epochs: 20")
    return TrainSpec(**full) if len(notes.found) == before else None


def objective(raw: Any, path: Keys, notes: Mistakes) -> ObjectiveSpec | None:
    """The `objective` section; the direction follows the metric unless it is given."""
    if not isinstance(raw, dict):
        example = "{metric: val_loss, at: final}"
        notes.add(path, f"must be a mapping, not {notes.quoted(path, raw)}; for example {example}")
        return None
    before = len(notes.found)
    full = check.arguments(OBJECTIVE, raw, path, notes, "objective")
    if "metric" in full:
        metric(full["metric"], (*path, "metric"), notes)
    at = full.get("at", "final")
    if not AT.fullmatch(at):
        fix = did_you_mean(at, ["final", "best", "mean", "last_10"])
        allowed = f"must be final, best, mean or last_K with an integer K from 1, not {at!r}"
        notes.add((*path, "at"), with_hint(allowed, fix))
    if len(notes.found) > before:
        return None
    return ObjectiveSpec(metric=full["metric"], at=at, mode=full["mode"] or default_mode(full["metric"]))


def optimizer(ctx: SectionContext, raw: Any, path: Keys, notes: Mistakes) -> OptimizerSpec | None:
    """One entry of `optimizers`: a name, or a mapping with a name, the sweep's keys and the optimizer's arguments."""
    mapping = as_mapping(raw, path, notes, "an optimizer")
    if mapping is None:
        return None
    before = len(notes.found)
    where = (*path, "name") if isinstance(raw, dict) else path
    written = {key: value for key, value in mapping.items() if key not in OPTIMIZER_KEYS}
    lr = grid(mapping["lr"], (*path, "lr"), notes) if "lr" in mapping else None
    schedule = None
    if "schedule" in mapping:
        schedule = named(ctx, "schedule", mapping["schedule"], (*path, "schedule"), notes)
    decay = _independent(mapping, path, notes)
    chosen = mapping["name"] if ":" in mapping["name"] else mapping["name"].lower()
    label = _label(mapping.get("label", call_text(chosen, written)), (*path, "label"), notes)
    if ctx.known is None:
        args: dict[str, Any] | None = written
    elif ":" in chosen:
        if "params" in written:
            notes.add((*path, "params"), f"cannot be set: {REFUSED['params']}", key=True)
        args = written if import_path(ctx.base_dir, chosen, where, notes) else None
    elif chosen in ctx.known.optimizers:
        args = _torch_arguments(ctx.known, chosen, written, decay is not None, path, notes)
    else:
        notes.add(where, unknown_name(mapping["name"], "optimizer", ctx.known.optimizers))
        args = None
    if args is None or label is None or len(notes.found) > before:
        return None
    return OptimizerSpec(name=chosen, label=label, args=args, lr=lr, schedule=schedule, independent_weight_decay=decay)


def builtin(ctx: SectionContext, raw: Any) -> str:
    """The built-in optimizer that an entry names, even if the rest is wrong; "" if it names none."""
    name = raw.get("name") if isinstance(raw, dict) else raw
    return name.lower() if isinstance(name, str) and ctx.known and name.lower() in ctx.known.optimizers else ""


def _label(raw: Any, path: Keys, notes: Mistakes) -> str | None:
    if isinstance(raw, str) and raw.strip() == raw and raw.isprintable() and 0 < len(raw) <= 200:
        return raw
    quoted = notes.quoted(path, raw)
    wrong = f"must be text on one line, not empty, without blanks around it, not {quoted}"
    notes.add(path, with_hint(wrong, check.in_quotes(raw, quoted)))
    return None


def _independent(mapping: dict[str, Any], path: Keys, notes: Mistakes) -> float | None:
    if mapping.get("independent_weight_decay") is None:
        return None
    key = "independent_weight_decay"
    value: float | None = check_value(check.NotNegative, mapping[key], (*path, key), notes)[0]
    if mapping.get("weight_decay", 0) != 0:
        notes.add((*path, "weight_decay"), "give weight_decay or independent_weight_decay, not both", key=True)
    return value


def _torch_arguments(
    known: Known, chosen: str, written: dict[str, Any], independent: bool, path: Keys, notes: Mistakes
) -> dict[str, Any] | None:
    defaults = known.optimizers[chosen]
    before = len(notes.found)
    for key in written:
        if key in REFUSED:
            notes.add((*path, key), f"cannot be set: {REFUSED[key]}; remove it", key=True)
        elif key not in defaults:
            notes.add((*path, key), check.unknown_key(key, [*defaults, *OPTIMIZER_KEYS[1:]], chosen), key=True)
    args = {key: value for key, value in written.items() if key in defaults}
    for argument, wrong in known.check_optimizer(chosen, args):
        value = written.get(argument)
        fix = check.hint(float, value) if isinstance(value, str) and "number" in wrong else ""
        below = tuple(argument.split(".")) if argument in args or argument.partition(".")[0] in args else ()
        notes.add((*path, *below), with_hint(wrong, fix))
    if len(notes.found) > before:
        return None
    return known.optimizer_args(chosen, args, independent=independent)


def rates_above_one(made: Grid | None, path: str) -> str | None:
    """A warning about learning rates above 1, or None."""
    high = [rate for rate in made.rates if rate > 1] if made else []
    if not high or not all(map(math.isfinite, high)):
        return None
    are = "learning rate is" if len(high) == 1 else "learning rates are"
    return f"{path}: {len(high)} {are} above 1 (up to {max(high)!r}); trained as written"
