"""The spec of a sweep: read, every section resolved (`sections`), then checked as a whole.

Every mistake found on the way becomes a `SpecIssue` with its file, line and column here (`_issues`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lrsweep import grids
from lrsweep.errors import SET, SpecError, SpecIssue, UsageError, did_you_mean
from lrsweep.registry import DATA_FILES, Known
from lrsweep.registry import known as everything
from lrsweep.spec import axes as axis_rules
from lrsweep.spec import given, sections
from lrsweep.spec.check import TRAIN, Mistakes, repr_value, unknown_key, with_hint
from lrsweep.spec.model import Named, ObjectiveSpec, OptimizerSpec, Spec, TrainSpec, value_text
from lrsweep.spec.overrides import choose_axis_value, override, refuse_overruled
from lrsweep.spec.resolved import resolved_dict
from lrsweep.spec.sections import SectionContext
from lrsweep.spec.yaml_tree import Keys, Tree, dotted, from_dict, parse, read_text, refuse_other_breaks
from lrsweep.system import folders

KEYS = ("name", "task", "model", "lr", "optimizers", "schedule", "seeds", "train", "objective", "axes", "refined")
SYNONYMS = {"learning_rate": "lr", "learning_rates": "lr", "lrs": "lr"}
SYNONYMS |= {"optimiser": "optimizers", "optimisers": "optimizers"}
MAX_RUNS = 1_000_000


def load_spec(
    source: str | Path | Mapping[str, Any] | Spec,
    *,
    overrides: Sequence[str] = (),
    known: Known | None = None,
    choose: bool = False,
) -> Spec:
    """The resolved spec of a YAML file, a dict, or a spec that is loaded already.

    `overrides` are texts `key.path=value`, as of `--set`; values are YAML. Overriding a key that is also an axis is an
    error; with `choose` the axis is reduced to that value. Import paths are checked but not imported. Paths in a dict
    are relative to the current folder. Functions and classes in a dict, where a name may stand, are known by their
    source text.

    Raises SpecError with everything that is wrong, UsageError if the file cannot be read.

    >>> spec = lrsweep.load_spec("sweep.yaml", overrides=["lr=[0.1, 0.2]", "train.batch_size=16"])
    >>> spec.lr.rates, spec.train.batch_size, spec.objective.metric
    ((0.1, 0.2), 16, 'val_loss')
    """
    if isinstance(source, Spec):
        if not overrides:
            return source
        tree, base_dir, stem = from_dict(resolved_dict(source, source.base_dir)), source.base_dir, source.name
    elif isinstance(source, Mapping):
        tree, base_dir, stem = from_dict(given.named(source)), Path.cwd(), "sweep"
    elif not isinstance(source, str | os.PathLike):
        raise UsageError(f"{source!r} is no spec; give the path of one, a dict or a loaded Spec")
    else:
        path = folders.given(source)
        text = read_text(path)
        refuse_other_breaks(text, str(source))
        tree, base_dir, stem = parse(text, str(source)), path.absolute().parent, path.stem
    overrides = [overrides] if isinstance(overrides, str) else overrides
    texts = [choose_axis_value(tree, text) if choose else text for text in overrides]
    for text in texts:
        refuse_other_breaks(text, f"{SET}{text}", lines=False)
        override(tree, text)
    for text in texts:
        refuse_overruled(tree, text)
    given.refuse_missing(tree.data, tree.file)
    return _build(tree, SectionContext(known=known or everything(), base_dir=base_dir), stem)


def read_resolved(source: str | Path, base_dir: Path | None = None) -> Spec:
    """The spec of a `spec.yaml` that lrsweep wrote: a Path, or the text itself (then `base_dir` is its folder).

    Needs neither torch nor the user's code: names and arguments are not checked.

    Raises SpecError if the file was damaged, UsageError if it cannot be read.
    """
    if isinstance(source, Path):
        text, file, base_dir = read_text(source), str(source), base_dir or source.absolute().parent
    else:
        text, file = source, "spec.yaml"
    return _build(parse(text, file), SectionContext(known=None, base_dir=base_dir or Path.cwd()), "sweep")


def _build(tree: Tree, ctx: SectionContext, stem: str) -> Spec:
    notes = Mistakes(texts=tree.texts)
    spec = _resolve(tree.data, ctx, stem, notes)
    if notes.found or tree.refused or spec is None:
        raise SpecError(_issues(tree, notes))
    return replace(spec, tree=tree)


def _issues(tree: Tree, notes: Mistakes) -> list[SpecIssue]:
    issues = [refusal.issue for refusal in tree.refused]
    for note in notes.found:
        if tree.is_void(note.path):
            continue
        at = tree.mark(note.path, key=note.key)
        issues.append(
            SpecIssue(file=at.file, line=at.line, column=at.column, path=dotted(note.path), message=note.message)
        )
    return sorted(issues, key=lambda issue: (issue.file != tree.file, issue.file, issue.line, issue.column))


def _resolve(data: Any, ctx: SectionContext, stem: str, notes: Mistakes) -> Spec | None:
    """The resolved spec; None if the notes say what is wrong. A wrong section does not hide what is wrong in others."""
    if not isinstance(data, dict):
        what = "the spec is empty" if data is None else f"the spec is {notes.quoted((), data)}"
        notes.add(
            (), (f"{what}; it must be a mapping with task, optimizers and train (`lrsweep init` writes an example)")
        )
        return None
    _unknown_keys(data, notes)
    name = sections.name(data.get("name", stem), ("name",), notes)
    task = None
    if _required(data, "task", "a built-in task or file.py:function", notes):
        task = sections.named(ctx, "task", data["task"], ("task",), notes)
    lr = sections.grid(data["lr"], ("lr",), notes) if "lr" in data else grids.DEFAULT
    entries = _optimizers(data, ctx, notes)
    valid = {i: entry for i, entry in enumerate(entries) if entry is not None}
    invalid = [data["optimizers"][i] for i, entry in enumerate(entries) if entry is None] if entries else [None]
    optimizers = list(valid.values())
    schedule = sections.named(ctx, "schedule", data.get("schedule", "constant"), ("schedule",), notes)
    seeds = sections.seeds(data.get("seeds", 5), ("seeds",), notes)
    raw_axes = data.get("axes", {})
    axis_names = set(raw_axes) if isinstance(raw_axes, dict) else set()
    has_budget = bool({"train.epochs", "train.steps"} & axis_names)
    train = sections.train(data.get("train", {}), ("train",), notes, given_by_axes=has_budget)
    objective = sections.objective(data.get("objective", {}), ("objective",), notes)
    raw_model = _model(data, task, ctx, notes)
    model = sections.named(ctx, "model", raw_model, ("model",), notes) if raw_model is not None else None

    raw = {"schedule": "constant", "train": {}, **data, "model": raw_model}
    made = {"task": task, "model": model, "schedule": schedule, "train": train}
    written = {head: raw[head] for head in made if isinstance(raw.get(head), str | dict)}
    wrong = {head for head in written if made[head] is None}
    written["optimizers"] = [data["optimizers"][i] for i in valid]
    axes = axis_rules.resolved_axes(ctx, raw_axes, written, wrong, optimizers, invalid, notes)
    refined = _refined(data.get("refined", {}), optimizers, invalid, ctx, notes)
    # Stand-ins for wrong sections, so that the others can be checked against each other.
    spec = Spec(
        name=name or stem, task=task or Named(name=_name_of(data.get("task"))), model=model, lr=lr or grids.DEFAULT,
        optimizers=optimizers, schedule=schedule or Named(name=_name_of(raw["schedule"])),
        seeds=seeds or [0], train=train or TrainSpec(metrics=True), objective=objective or ObjectiveSpec(),
        axes=axes, refined=refined, base_dir=ctx.base_dir,
    )  # fmt: skip
    _check_run_count(spec, notes)
    if schedule is not None:
        _check_equal_settings(spec, list(valid), notes)
    _check_columns(spec, ctx, list(valid), axis_names, notes)
    if notes.found:
        return None
    spec.warnings.extend(_warnings(spec))
    return spec


def _name_of(raw: Any) -> str:
    """The name in a section as written; empty if it has none."""
    name = raw.get("name") if isinstance(raw, dict) else raw
    return name if isinstance(name, str) else ""


def _unknown_keys(data: Mapping[str, Any], notes: Mistakes) -> None:
    for key in data:
        if key in KEYS:
            continue
        if key in TRAIN:
            message = f"unknown key (write it under train: train.{key})"
        elif key in SYNONYMS:
            message = f"unknown key (did you mean {SYNONYMS[key]}?)"
        else:
            message = unknown_key(key, KEYS, "the spec")
        notes.add((key,), message, key=True)


def _required(data: Mapping[str, Any], key: str, what: str, notes: Mistakes) -> bool:
    if key not in data:
        notes.add((key,), f"is missing; give {what}")
    return key in data


def _model(data: Mapping[str, Any], task: Named | None, ctx: SectionContext, notes: Mistakes) -> Any:
    """The model as written, or the default model of the task; None if the task has its own."""
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
            notes.add(("axes", whole), "these tasks have different default models; set one with `model:`", key=True)
        return models[0] if models else None
    return ctx.known.default_models.get(task.name) if task else None


def _optimizers(data: Mapping[str, Any], ctx: SectionContext, notes: Mistakes) -> list[OptimizerSpec | None]:
    """The listed optimizers, None for each that is wrong."""
    if not _required(data, "optimizers", "a list, for example [sgd, adam]", notes):
        return []
    raw = data["optimizers"]
    if not isinstance(raw, list) or not raw:
        fix = f"write [{raw}]" if isinstance(raw, str) else ""
        shown = notes.quoted(("optimizers",), raw)
        wrong = f"must be a list of at least one optimizer, not {shown}"
        notes.add(("optimizers",), with_hint(wrong, fix))
        return []
    entries = [sections.optimizer(ctx, entry, ("optimizers", i), notes) for i, entry in enumerate(raw)]
    labels: dict[str, int] = {}
    for i, entry in enumerate(entries):
        if entry is not None and labels.setdefault(entry.label, i) != i:
            first = f"optimizers[{labels[entry.label]}]"
            notes.add(("optimizers", i), f"has the same label as {first}, {entry.label!r}; give one of them a `label:`")
    return entries


def _refined(
    raw: Any, optimizers: list[OptimizerSpec], invalid: Sequence[Any], ctx: SectionContext, notes: Mistakes
) -> dict[str, list[float]]:
    if not isinstance(raw, dict):
        notes.add(("refined",), f"must be a mapping from labels to lists of learning rates, not {repr_value(raw)}")
        return {}
    maybe = [_label_start(entry, ctx) for entry in invalid]
    labels = [*(entry.label for entry in optimizers), *maybe]
    for label in raw:
        if "" not in maybe and label not in labels and str(label).partition("(")[0] not in maybe:
            notes.add(("refined", label), unknown_key(label, labels, "the list of optimizers"), key=True)
    rates = {label: sections.learning_rates(values, ("refined", label), notes) for label, values in raw.items()}
    return {label: values for label, values in rates.items() if values is not None}


def _label_start(raw: Any, ctx: SectionContext) -> str:
    """How the label of an invalid optimizer begins, or is, once it is corrected; "" if unknown."""
    return str(raw["label"]).strip() if isinstance(raw, dict) and "label" in raw else sections.builtin(ctx, raw)


def _check_run_count(spec: Spec, notes: Mistakes) -> None:
    count = math.prod(len(values) for values in spec.axes.values()) * len(spec.seeds)
    count *= sum(len(spec.rates(optimizer)) for optimizer in spec.optimizers)
    if count > MAX_RUNS:
        notes.add((), f"{count} runs are too many (limit {MAX_RUNS}); reduce the grid, the axes or the seeds")


def _check_equal_settings(spec: Spec, places: Sequence[int], notes: Mistakes) -> None:
    """No two optimizers may be the same setting at some axis values. `places`: theirs in the list as written."""
    for first, second, chosen in axis_rules.twins(spec):
        if spec.optimizers[first].label != spec.optimizers[second].label:  # else it is noted already
            at = ", ".join(f"{axis}={value_text(value)}" for axis, value in chosen.items())
            same = f"is the same setting as optimizers[{places[first]}]{f' at {at}' if at else ''}; remove one of them"
            notes.add(("optimizers", places[second]), same)


def _check_columns(spec: Spec, ctx: SectionContext, places: Sequence[int], axes: set[str], notes: Mistakes) -> None:
    """The metrics of the objective and of `plateau` schedules must be recorded."""
    schedules: list[tuple[Keys, dict[str, Any]]] = [(("schedule",), spec.schedule.as_dict())]
    for i, entry in zip(places, spec.optimizers, strict=True):
        schedules += [(("optimizers", i, "schedule"), entry.schedule.as_dict())] if entry.schedule else []
    for axis in ("schedule", "schedule.name"):
        schedules += [(("axes", axis, i), value) for i, value in enumerate(spec.axes.get(axis, []))]
    columns: list[tuple[Keys, str]] = [(("objective", "metric"), spec.objective.metric)]
    columns += [
        ((*path, "metric"), schedule["metric"])
        for path, schedule in schedules
        if schedule["name"] == "plateau" and "metric" in schedule
    ]
    one_task = not any(axis_rules.parts(axis)[0] == "task" for axis in axes)
    metrics = ctx.known.metrics.get(spec.task.name) if ctx.known and one_task else None
    recorded = None if metrics is None or spec.task.name in DATA_FILES else ["loss", *metrics]
    for path, column in columns:
        split, _, metric = column.partition("_")
        if split == "train" and metric != "loss" and not spec.train.metrics and "train.metrics" not in axes:
            notes.add(path, f"{column} is recorded only with train.metrics: true")
        if recorded is not None and metric not in recorded:
            allowed = f"val_ or train_ with one of {', '.join(recorded)}"
            near = did_you_mean(column, [f"{split}_{name}" for name in recorded])
            notes.add(path, with_hint(f"{spec.task.name} records no {column!r}", allowed, near))


def _warnings(spec: Spec) -> list[str]:
    warnings = [sections.rates_above_one(spec.lr, "lr")]
    warnings += [sections.rates_above_one(entry.lr, f"optimizers[{i}].lr") for i, entry in enumerate(spec.optimizers)]
    k = spec.objective.at.removeprefix("last_")
    epochs, every = spec.train.epochs, spec.train.eval_every
    if k.isdigit() and epochs is not None and isinstance(every, int) and int(k) > math.ceil(epochs / every):
        rows, at = math.ceil(epochs / every), spec.objective.at
        warnings.append(
            f"objective.at: {at} with {rows} evaluation{'s' * (rows != 1)} after the first is the mean of all of them"
        )
    return [text for text in warnings if text]
