"""The experiment spec: read, checked as a whole, written back with every default in place."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrsweep import grids
from lrsweep.errors import SpecError, SpecIssue, did_you_mean
from lrsweep.registry import DATA_FILES, Known
from lrsweep.registry import known as everything
from lrsweep.spec import axes as axis_rules
from lrsweep.spec import check
from lrsweep.spec import sections as resolve
from lrsweep.spec.check import Notes
from lrsweep.spec.model import Named, ObjectiveSpec, OptimizerSpec, Spec, TrainSpec, value_text
from lrsweep.spec.resolved import changed_keys, dump_resolved, resolved_dict
from lrsweep.spec.schema import json_schema
from lrsweep.spec.sections import Context
from lrsweep.spec.yaml_tree import MAX_DEPTH, Keys, Mark, Refusal, Tree, dotted, parse, read_text

__all__ = [
    "Named",
    "ObjectiveSpec",
    "OptimizerSpec",
    "Spec",
    "TrainSpec",
    "changed_keys",
    "dump_resolved",
    "json_schema",
    "load_spec",
    "read_resolved",
    "resolved_dict",
]

KEYS = ("name", "task", "model", "lr", "optimizers", "schedule", "seeds", "train", "objective", "axes", "refined")
MEANT = {
    "learning_rate": "lr",
    "learning_rates": "lr",
    "lrs": "lr",
    "optimiser": "optimizers",
    "optimisers": "optimizers",
}
MAX_RUNS = 1_000_000


def load_spec(
    source: str | Path | Mapping[str, Any] | Spec,
    *,
    overrides: Sequence[str] = (),
    known: Known | None = None,
    choose: bool = False,
) -> Spec:
    """The resolved spec of a YAML file, a dict, or a spec that is loaded already.

    `overrides` are texts `key.path=value`, as of `--set`; values are YAML. One that an axis overrules is an error; with
    `choose` one of the key of an axis leaves that axis this value alone. Import paths are looked at but not imported.
    Paths in a dict are relative to the current folder.

    Raises SpecError with everything that is wrong, UsageError if the file cannot be read.
    """
    if isinstance(source, Spec):
        if not overrides:
            return source
        tree, base_dir, stem = from_dict(resolved_dict(source, source.base_dir)), source.base_dir, source.name
    elif isinstance(source, Mapping):
        tree, base_dir, stem = from_dict(source), Path.cwd(), "sweep"
    else:
        path = Path(source)
        tree, base_dir, stem = parse(read_text(path), str(source)), path.absolute().parent, path.stem
    overrides = [overrides] if isinstance(overrides, str) else overrides
    given = [choose_axis_value(tree, text) if choose else text for text in overrides]
    for text in given:
        override(tree, text)
    for text in given:
        refuse_overruled(tree, text)
    return _build(tree, Context(known=known or everything(), base_dir=base_dir), stem)


def read_resolved(source: str | Path, base_dir: Path | None = None) -> Spec:
    """The spec of a `spec.yaml` that lrsweep wrote: a Path, or the text itself (then `base_dir` is its folder).

    Needs neither torch nor the user's code: names and arguments are taken as they stand.

    Raises SpecError if the file was damaged, UsageError if it cannot be read.
    """
    if isinstance(source, Path):
        text, file, base_dir = read_text(source), str(source), base_dir or source.absolute().parent
    else:
        text, file = source, "spec.yaml"
    return _build(parse(text, file), Context(known=None, base_dir=base_dir or Path.cwd()), "sweep")


def _build(tree: Tree, ctx: Context, stem: str) -> Spec:
    notes = Notes()
    spec = _sections(tree.data, ctx, stem, notes)
    if notes.found or tree.refused or spec is None:
        raise SpecError(_issues(tree, notes))
    return replace(spec, tree=tree)


def _issues(tree: Tree, notes: Notes) -> list[SpecIssue]:
    found = [type_error_text.issue for type_error_text in tree.refused]
    for note in notes.found:
        if tree.is_void(note.path):
            continue
        at = tree.mark(note.path, key=note.key)
        found.append(
            SpecIssue(file=at.file, line=at.line, column=at.column, path=dotted(note.path), message=note.message)
        )
    return sorted(found, key=lambda issue: (issue.file != tree.file, issue.file, issue.line, issue.column))


def _sections(data: Any, ctx: Context, stem: str, notes: Notes) -> Spec | None:
    if not isinstance(data, dict):
        what = "the spec is empty" if data is None else f"the spec is {check.repr_value(data)}"
        notes.add((), f"{what}; it must be a mapping with task, optimizers and train (`lrsweep init` writes one)")
        return None
    _unknown_keys(data, notes)
    name = resolve.name(data.get("name", stem), ("name",), notes)
    task = None
    if _required(data, "task", "a built-in task or file.py:function", notes):
        task = resolve.named(ctx, "task", data["task"], ("task",), notes)
    lr = resolve.grid(data["lr"], ("lr",), notes) if "lr" in data else grids.DEFAULT
    entries = _optimizers(data, ctx, notes)
    right_entries = {i: entry for i, entry in enumerate(entries) if entry is not None}
    optimizers = list(right_entries.values()) if entries and len(right_entries) == len(entries) else None
    schedule = resolve.named(ctx, "schedule", data.get("schedule", "constant"), ("schedule",), notes)
    seeds = resolve.seeds(data.get("seeds", 3), ("seeds",), notes)
    axes_given = data.get("axes", {})
    budget = isinstance(axes_given, dict) and bool({"train.epochs", "train.steps"} & set(axes_given))
    train = resolve.train(data.get("train", {}), ("train",), notes, given_by_axes=budget)
    objective = resolve.objective(data.get("objective", {}), ("objective",), notes)
    model_raw = _model(data, task, ctx, notes)
    model = resolve.named(ctx, "model", model_raw, ("model",), notes) if model_raw is not None else None
    sections = {"task": task, "model": model, "schedule": schedule, "train": train, "optimizers": optimizers}
    raw = {"schedule": "constant", "train": {}, **data, "model": model_raw}
    written = {head: raw[head] for head in sections if isinstance(raw.get(head), str | dict)}
    written["optimizers"] = [data["optimizers"][i] for i in right_entries]
    wrong = {head for head in written if sections[head] is None}
    broken = [data["optimizers"][i] for i, entry in enumerate(entries) if entry is None] if entries else [None]
    axes = axis_rules.resolved(ctx, axes_given, written, wrong, list(right_entries.values()), broken, notes)
    refined = _refined(data.get("refined", {}), list(right_entries.values()), broken, ctx, notes)
    # Where a section is wrong, a stand-in lets the others be held against each other all the same.
    made = Spec(
        name=name or stem, task=task or Named(name=_name_of(data.get("task"))), model=model, lr=lr or grids.DEFAULT,
        optimizers=list(right_entries.values()), schedule=schedule or Named(name=_name_of(raw["schedule"])),
        seeds=seeds or [0], train=train or TrainSpec(metrics=True), objective=objective or ObjectiveSpec(),
        axes=axes, refined=refined, base_dir=ctx.base_dir,
    )  # fmt: skip
    axes_named = set(axes_given) if isinstance(axes_given, dict) else set()
    _across(made, ctx, list(right_entries), axes_named, notes, twins=schedule is not None)
    if notes.found:
        return None
    made.warnings.extend(_warnings(made))
    return made


def _name_of(raw: Any) -> str:
    """The name in a section as it is written; empty where there is none."""
    name = raw.get("name") if isinstance(raw, dict) else raw
    return name if isinstance(name, str) else ""


def _unknown_keys(data: Mapping[str, Any], notes: Notes) -> None:
    for key in data:
        if key in KEYS:
            continue
        if key in check.TRAIN:
            message = f"unknown key (write it under train: train.{key})"
        elif key in MEANT:
            message = f"unknown key (did you mean {MEANT[key]}?)"
        else:
            message = check.unknown(key, KEYS, "the spec")
        notes.add((key,), message, key=True)


def _required(data: Mapping[str, Any], key: str, what: str, notes: Notes) -> bool:
    if key not in data:
        notes.add((key,), f"is missing; give {what}")
    return key in data


def _model(data: Mapping[str, Any], task: Named | None, ctx: Context, notes: Notes) -> Any:
    """What stands for the model: as written, or the task's default; None where the task brings its own."""
    if data.get("model") is not None:
        return data["model"]
    if ctx.known is None:
        return None
    axes = data.get("axes")
    whole = next((axis for axis in ("task", "task.name") if isinstance(axes, dict) and axis in axes), None)
    if isinstance(axes, dict) and whole and isinstance(axes[whole], list):
        chosen = [value.get("name") if isinstance(value, dict) else value for value in axes[whole]]
        models = [ctx.known.default_models.get(name) for name in chosen if isinstance(name, str)]
        if any(model != models[0] for model in models) and not {"model", "model.name"} & set(axes):
            notes.add(("axes", whole), "these tasks have different default models; name one with `model:`", key=True)
        return models[0] if models else None
    return ctx.known.default_models.get(task.name) if task else None


def _optimizers(data: Mapping[str, Any], ctx: Context, notes: Notes) -> list[OptimizerSpec | None]:
    """An entry per optimizer that is listed, None for one that is wrong."""
    if not _required(data, "optimizers", "a list, for example [sgd, adam]", notes):
        return []
    raw = data["optimizers"]
    if not isinstance(raw, list) or not raw:
        fix = f"write [{raw}]" if isinstance(raw, str) else ""
        wrong = f"must be a list of at least one optimizer, not {check.repr_value(raw)}"
        notes.add(("optimizers",), check.with_hint(wrong, fix))
        return []
    found = [resolve.optimizer(ctx, entry, ("optimizers", i), notes) for i, entry in enumerate(raw)]
    labels: dict[str, int] = {}
    for i, entry in enumerate(found):
        if entry is not None and labels.setdefault(entry.label, i) != i:
            first = f"optimizers[{labels[entry.label]}]"
            notes.add(("optimizers", i), f"has the same label as {first}, {entry.label!r}; give one of them a `label:`")
    return found


def _refined(
    raw: Any, optimizers: list[OptimizerSpec], broken: Sequence[Any], ctx: Context, notes: Notes
) -> dict[str, list[float]]:
    if not isinstance(raw, dict):
        notes.add(("refined",), f"must be a mapping from labels to lists of rates, not {check.repr_value(raw)}")
        return {}
    theirs = [_called(entry, ctx) for entry in broken]
    labels = [*(entry.label for entry in optimizers), *theirs]
    for label in raw:
        if "" not in theirs and label not in labels and str(label).partition("(")[0] not in theirs:
            notes.add(("refined", label), check.unknown(label, labels, "the list of optimizers"), key=True)
    rates = {label: resolve.listed(values, ("refined", label), notes) for label, values in raw.items()}
    return {label: values for label, values in rates.items() if values is not None}


def _called(raw: Any, ctx: Context) -> str:
    """What the label of an optimizer with mistakes is or begins with once they are mended; "" if none can tell."""
    return str(raw["label"]).strip() if isinstance(raw, dict) and "label" in raw else resolve.builtin(ctx, raw)


def _across(spec: Spec, ctx: Context, places: Sequence[int], axes: set[str], notes: Notes, *, twins: bool) -> None:
    """What only the whole shows: equal settings, metrics that nothing records, too many runs.

    `places` are those of the optimizers in the list as it is written, `axes` are all that are named.
    """
    count = math.prod(len(values) for values in spec.axes.values()) * len(spec.seeds)
    count *= sum(len(spec.rates(optimizer)) for optimizer in spec.optimizers)
    if count > MAX_RUNS:
        notes.add((), f"{count} runs are too many (at most {MAX_RUNS}); shorten the grid, the axes or the seeds")
    for first, second, chosen in axis_rules.twins(spec) if twins else ():
        if spec.optimizers[first].label == spec.optimizers[second].label:
            continue  # that is told already
        at = ", ".join(f"{axis}={value_text(value)}" for axis, value in chosen.items())
        same = f"is the same setting as optimizers[{places[first]}]{f' at {at}' if at else ''}; remove one of them"
        notes.add(("optimizers", places[second]), same)
    columns: list[tuple[Keys, str]] = [(("objective", "metric"), spec.objective.metric)]
    schedules: list[tuple[Keys, dict[str, Any]]] = [(("schedule",), spec.schedule.as_dict())]
    schedules += [
        (("optimizers", i, "schedule"), entry.schedule.as_dict())
        for i, entry in zip(places, spec.optimizers, strict=True)
        if entry.schedule
    ]
    for axis in ("schedule", "schedule.name"):
        schedules += [(("axes", axis, i), value) for i, value in enumerate(spec.axes.get(axis, []))]
    for path, schedule in schedules:
        if schedule["name"] == "plateau" and "metric" in schedule:
            columns.append(((*path, "metric"), schedule["metric"]))
    one_task = not any(axis_rules.parts(axis)[0] == "task" for axis in axes)
    metrics = ctx.known.metrics.get(spec.task.name) if ctx.known and one_task else None
    recorded = None if metrics is None or spec.task.name in DATA_FILES else ["loss", *metrics]
    for path, column in columns:
        split, _, bare = column.partition("_")
        if split == "train" and bare != "loss" and not spec.train.metrics and "train.metrics" not in axes:
            notes.add(path, f"{column} is recorded only with train.metrics: true")
        if recorded is not None and bare not in recorded:
            allowed = f"val_ or train_ with one of {', '.join(recorded)}"
            near = did_you_mean(column, [f"{split}_{name}" for name in recorded])
            notes.add(path, check.with_hint(f"{spec.task.name} records no {column!r}", allowed, near))


def _warnings(spec: Spec) -> list[str]:
    found = [resolve.rates_above_one(spec.lr, "lr")]
    found += [resolve.rates_above_one(entry.lr, f"optimizers[{i}].lr") for i, entry in enumerate(spec.optimizers)]
    k = spec.objective.at.removeprefix("last_")
    epochs, every = spec.train.epochs, spec.train.eval_every
    if k.isdigit() and epochs is not None and isinstance(every, int) and int(k) > math.ceil(epochs / every):
        rows = math.ceil(epochs / every)
        found.append(f"objective.at: {spec.objective.at} of a run with {rows} rows after the first is the mean of all")
    return [text for text in found if text]


DICT = "<dict>"


def from_dict(data: Mapping[str, Any]) -> Tree:
    """A dict as a tree without lines. Tuples become lists, numpy scalars numbers, paths text."""
    tree = Tree(file=DICT, values={(): Mark(file=DICT)})
    tree.data = _plain(data, (), tree)
    return tree


def _plain(value: Any, path: Keys, tree: Tree) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if len(path) <= MAX_DEPTH:
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    tree.refuse(path, Mark(file=DICT), f"the key {key!r} is not text")
            return {key: _plain(item, (*path, key), tree) for key, item in value.items() if isinstance(key, str)}
        if isinstance(value, list | tuple | range):
            return [_plain(item, (*path, i), tree) for i, item in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        for kind in (bool, int, float, str):  # numpy's numbers and text, str enums
            if isinstance(value, kind):
                return kind(value)
        if hasattr(value, "tolist"):
            return _plain(value.tolist(), (*path, 0), tree)
    kind_name = type(value).__name__
    message = f"a {kind_name} cannot stand in a spec; use numbers, text, lists, dicts"
    tree.refuse(path, Mark(file=DICT), message, void=True)
    return None


def override(tree: Tree, text: str) -> None:
    """Set one value of the tree, `text` being `key.path=value` with a YAML value; what is wrong with it is refused."""
    key, equals, value = text.partition("=")
    file = f"--set {text}"
    at = Mark(file=file, line=1, column=1)
    keys = key.strip().split(".")
    if not equals or not all(keys):
        tree.refuse((), at, "write KEY=VALUE with a dotted key, for example --set train.epochs=5")
        return
    if keys[0] in ("axes", "refined") and len(keys) > 1:
        keys = [keys[0], ".".join(keys[1:])]
    try:
        branch = parse(value, file, column=len(key) + 1)
    except SpecError as error:
        lost = tuple(keys)
        tree.refused += [Refusal(path=lost, issue=issue, void=True) for issue in error.issues]
        return
    if tree.data is None:
        tree.data = {}
    path: Keys = ()
    node = tree.data
    for place, part in enumerate(keys):
        last = place == len(keys) - 1
        step = _step(node, part)
        if step is None:
            wanted: Keys = (*path, int(part) if isinstance(node, list) and part.isdigit() else part)
            tree.refuse(wanted, at, f"{dotted(path)} has no entry {part!r}{_entries(node)}", void=True)
            return
        path = (*path, step)
        if last:
            node[step] = branch.data
        else:
            if not isinstance(node, list) and node.get(step) is None:  # it is not in the file: this text makes it
                tree.values[path] = at
            node = _enter(node, step)
    tree.graft(path, branch)


def choose_axis_value(tree: Tree, text: str) -> str:
    """The override that `text` stands for where it may choose the one value of an axis."""
    key, equals, value = text.partition("=")
    return f"axes.{key.strip()}=[{value}]" if equals and key.strip() in _axes(tree) else text


def refuse_overruled(tree: Tree, text: str) -> None:
    """Refuse an override that changes nothing, because an axis decides the value all the same.

    A file may hold both, a value and an axis over it; who types a value means it.
    """
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    if not equals or keys[0] == "axes":
        return
    try:
        given = parse(value, text).data
    except SpecError:
        return  # refused already
    for axis in _axes(tree):
        if _decides(axis.split("."), keys, given):
            mark = tree.mark(("axes", axis), key=True)
            place = f"{mark.file}:{mark.line}:{mark.column}" if mark.line else mark.file
            instead = value.strip() if key.strip() == axis else "..."
            tree.refuse(
                tuple(keys),
                Mark(file=f"--set {text}", line=1, column=1),
                f"would change nothing: the axis {axis} ({place}) decides this value "
                f"(write --set axes.{axis}=[{instead}], or take one of the two out)",
            )


def _axes(tree: Tree) -> list[str]:
    axes = tree.data.get("axes") if isinstance(tree.data, dict) else None
    return [axis for axis in axes if isinstance(axis, str)] if isinstance(axes, dict) else []


def _decides(axis: list[str], keys: list[str], given: Any) -> bool:
    """Whether the axis overrules the value at `keys`, or something in what is `given` there."""
    if axis[0] == "optimizers" == keys[0] and len(keys) > 1 and keys[1].isdigit():
        keys = ["optimizers", *keys[2:]]
    if keys[: len(axis)] == axis:
        return True
    entries = given if isinstance(given, list) else [given]
    return axis[: len(keys)] == keys and any(_holds(one, axis[len(keys) :]) for one in entries)


def _holds(node: Any, below: list[str]) -> bool:
    for place, part in enumerate(below):
        if isinstance(node, str):
            return below[place:] == ["name"]
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _step(node: Any, part: str) -> str | int | None:
    """The key or index that `part` names in a mapping or list; None where there is none."""
    if isinstance(node, dict):
        return part
    if isinstance(node, list) and part.isdigit() and int(part) < len(node):
        return int(part)
    return None


def _entries(node: Any) -> str:
    if isinstance(node, list):
        return f"; it is a list, entries 0 to {len(node) - 1}" if node else "; it is an empty list"
    return "; it is a single value"


def _enter(node: Any, step: str | int) -> Any:
    """What stands at `step`, made a mapping where it is missing or a bare name."""
    inner = node[step] if isinstance(step, int) else node.get(step)
    if inner is None:
        inner = {}
    elif isinstance(inner, str):
        inner = {"name": inner}
    node[step] = inner
    return inner
