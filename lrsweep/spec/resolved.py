"""The resolved spec as a file, and what differs between two of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrsweep.errors import SpecIssue, UsageError, WrongInSpec
from lrsweep.registry import DATA_FILES
from lrsweep.spec.axes import is_whole, parts
from lrsweep.spec.model import Named, OptimizerSpec, Spec, call_text, canonical, map_paths, value_text
from lrsweep.spec.yaml_tree import Keys, dotted, dump

MAX_LENGTH = 60  # of a value in `differences`
HEADER = "# The resolved spec, written by lrsweep: every default written out, paths relative to this file.\n"


def dump_resolved(spec: Spec, target_dir: Path) -> str:
    """The spec as YAML for a file in `target_dir`. Reading it back gives an equal spec and the same run ids."""
    return HEADER + dump(resolved_dict(spec, target_dir))


def resolved_dict(spec: Spec, target_dir: Path) -> dict[str, Any]:
    """The spec as plain values, its paths relative to `target_dir`."""
    old, new = os.path.abspath(spec.base_dir), os.path.abspath(target_dir)

    def move(path: str) -> str:
        if os.path.isabs(path):
            return path
        moved = os.path.normpath(os.path.join(old, path))
        try:
            return Path(os.path.relpath(moved, new)).as_posix()
        except ValueError:  # another drive
            return moved

    def named(section: Named) -> dict[str, Any]:
        return map_paths(section.as_dict(), move)

    def optimizer(entry: OptimizerSpec) -> dict[str, Any]:
        return {
            **map_paths({"name": entry.name}, move),
            "label": entry.label,
            **entry.args,
            "independent_weight_decay": entry.independent_weight_decay,
            **({"lr": entry.lr.written} if entry.lr is not None else {}),
            **({"schedule": named(entry.schedule)} if entry.schedule is not None else {}),
        }

    def axis_value(axis: str, value: Any) -> Any:
        if is_whole(axis):
            return map_paths(value, move)
        return move(value) if isinstance(value, str) and axis == f"task.{DATA_FILES.get(spec.task.name)}" else value

    data: dict[str, Any] = {
        "name": spec.name,
        "task": named(spec.task),
        "model": named(spec.model) if spec.model else None,
        "lr": spec.lr.written,
        "optimizers": [optimizer(entry) for entry in spec.optimizers],
        "schedule": named(spec.schedule),
        "seeds": list(spec.seeds),
        "train": asdict(spec.train),
        "objective": asdict(spec.objective),
    }
    if spec.axes:
        data["axes"] = {axis: [axis_value(axis, value) for value in values] for axis, values in spec.axes.items()}
    if spec.refined:
        data["refined"] = {label: list(rates) for label, rates in spec.refined.items()}
    return data


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted paths of the settings that differ between two resolved specs (`resolved_dict`, or the files read).

    Learning rates, seeds, the objective, and optimizers or axis values that were added or removed do not count: the
    runs that both specs have stay the same runs. An axis that was added or removed does.
    """
    return [path for path, _, _ in _changes(old, new)]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """`train.batch_size: 64 -> 16` for each of the `changed_keys`; none if either spec is empty."""
    if not old or not new:
        return ()
    return tuple(f"{path}: {_text(before)} -> {_text(after)}" for path, before, after in _changes(old, new))


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(path, old value, new value) of every setting that differs; None where there is no such setting."""
    for head in ("task", "model", "schedule", "train"):
        yield from _changes_below(head, old.get(head), new.get(head))
    before, after = (
        {entry["label"]: {key: value for key, value in entry.items() if key != "lr"} for entry in spec["optimizers"]}
        for spec in (old, new)
    )
    for label in [label for label in after if label in before]:
        yield from _changes_below(f"optimizers.{label}", before[label], after[label])
    old_axes, new_axes = old.get("axes") or {}, new.get("axes") or {}
    for axis in {**old_axes, **new_axes}:
        if (axis in old_axes) != (axis in new_axes):
            yield f"axes.{axis}", old_axes.get(axis), new_axes.get(axis)


def _changes_below(path: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict) and old.get("name") == new.get("name"):
        for key in {**new, **old}:
            yield from _changes_below(f"{path}.{key}", old.get(key), new.get(key))
    elif canonical(old) != canonical(new):
        yield path, old, new


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and "name" in value:
        text = call_text(str(value["name"]), {key: inner for key, inner in value.items() if key != "name"})
    else:
        text = value_text(value)
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


@contextmanager
def located(spec: Spec) -> Iterator[None]:
    """Within, a WrongInSpec is raised as a UsageError with file, line and column."""
    try:
        yield
    except WrongInSpec as error:
        raise UsageError("\n".join(_with_place(spec, path, message) for path, message in error.found)) from error


def _with_place(spec: Spec, path: tuple[str, ...], message: str) -> str:
    return placed(spec, _written_at(spec, path), message) if path else message


def placed(spec: Spec, keys: Keys, message: str) -> str:
    """`file:line:column: path: message` for what is written at `keys` in the spec."""
    if spec.tree is None:
        return message
    at = spec.tree.mark(keys, key=True)
    return str(SpecIssue(file=at.file, line=at.line, column=at.column, path=dotted(keys), message=message))


def _written_at(spec: Spec, path: tuple[str, ...]) -> Keys:
    """The path of the axis that sets a value, else its own; an optimizer by its place in the list."""
    head, *below = path
    keys: Keys = path
    if head == "optimizers":
        label, *below = below
        keys = (head, [optimizer.label for optimizer in spec.optimizers].index(label), *below)
    for axis in spec.axes:
        if (head, *below)[: len(parts(axis))] == parts(axis) or (is_whole(axis) and parts(axis)[0] == head):
            return ("axes", axis)
    return keys
