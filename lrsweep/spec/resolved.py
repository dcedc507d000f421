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
from lrsweep.spec import axes as axis_rules
from lrsweep.spec.axes import is_whole, parts
from lrsweep.spec.model import OptimizerSpec, Spec, call_text, canonical, named_file, value_text
from lrsweep.spec.yaml_tree import Keys, dotted, dump

HEADER = "# The resolved spec, written by lrsweep: every default written out, paths relative to this file.\n"


def dump_resolved(spec: Spec, target_dir: Path) -> str:
    """The spec as YAML for a file in `target_dir`. Reading it back gives an equal spec and the same run ids."""
    return HEADER + dump(resolved_dict(spec, target_dir))


def resolved_dict(spec: Spec, target_dir: Path) -> dict[str, Any]:
    """The spec as plain values, its paths relative to `target_dir`."""
    here = _Paths(spec, target_dir)
    data: dict[str, Any] = {
        "name": spec.name,
        "task": here.named(spec.task.as_dict()),
        "model": here.named(spec.model.as_dict()) if spec.model else None,
        "lr": spec.lr.written,
        "optimizers": [here.optimizer(entry) for entry in spec.optimizers],
        "schedule": here.named(spec.schedule.as_dict()),
        "seeds": list(spec.seeds),
        "train": asdict(spec.train),
        "objective": asdict(spec.objective),
    }
    if spec.axes:
        data["axes"] = {axis: [here.axis(axis, value) for value in values] for axis, values in spec.axes.items()}
    if spec.refined:
        data["refined"] = {label: list(rates) for label, rates in spec.refined.items()}
    return data


class _Paths:
    """Rewrites paths from the folder of a spec to another folder."""

    def __init__(self, spec: Spec, new: Path) -> None:
        self.old, self.new = os.path.abspath(spec.base_dir), os.path.abspath(new)
        self.data_axis = f"task.{DATA_FILES.get(spec.task.name)}"

    def path(self, text: str) -> str:
        if os.path.isabs(text):
            return text
        moved = os.path.normpath(os.path.join(self.old, text))
        try:
            return Path(os.path.relpath(moved, self.new)).as_posix()
        except ValueError:  # another drive
            return moved

    def name(self, text: str) -> str:
        file = named_file(text)
        return text if file is None else self.path(file) + text[len(file) :]

    def named(self, section: Mapping[str, Any]) -> dict[str, Any]:
        moved = {**section, "name": self.name(section["name"])}
        key = DATA_FILES.get(section["name"])
        if key in moved:
            moved[key] = self.path(moved[key])
        return moved

    def optimizer(self, entry: OptimizerSpec) -> dict[str, Any]:
        own: dict[str, Any] = {"name": self.name(entry.name), "label": entry.label, **entry.args}
        own["independent_weight_decay"] = entry.independent_weight_decay
        if entry.lr is not None:
            own["lr"] = entry.lr.written
        if entry.schedule is not None:
            own["schedule"] = self.named(entry.schedule.as_dict())
        return own

    def axis(self, axis: str, value: Any) -> Any:
        if axis_rules.is_whole(axis):
            return self.named(value)
        return self.path(value) if isinstance(value, str) and axis == self.data_axis else value


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Dotted paths of the recipe whose values differ between two resolved specs (`resolved_dict`, or the files read).

    Rates, seeds, the objective, and optimizers or axis values that were added or taken away are no change of the
    recipe: the runs that both specs have stay the same runs. An axis that came or went is one.
    """
    changed = [
        path
        for head in ("task", "model", "schedule", "train")
        for path in _differences(old.get(head), new.get(head), head)
    ]
    before = {entry["label"]: entry for entry in old.get("optimizers", [])}
    for entry in new.get("optimizers", []):
        if entry["label"] in before:
            older, newer = (
                {key: value for key, value in e.items() if key != "lr"} for e in (before[entry["label"]], entry)
            )
            changed += _differences(older, newer, f"optimizers.{entry['label']}")
    changed += [
        f"axes.{axis}"
        for axis in {**(old.get("axes") or {}), **(new.get("axes") or {})}
        if (axis in (old.get("axes") or {})) != (axis in (new.get("axes") or {}))
    ]
    return changed


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        if old.get("name") != new.get("name"):
            return [path]
        keys = [*new, *(key for key in old if key not in new)]
        return [found for key in keys for found in _differences(old.get(key), new.get(key), f"{path}.{key}")]
    return [] if canonical(old) == canonical(new) else [path]


LONGEST = 60


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[str, ...]:
    """`train.batch_size: 64 -> 16` for every setting in which two resolved specs differ; none if either is empty.

    Rates and seeds are not among them: the runs that both specs have stay the same runs.
    """
    if not a or not b:
        return ()
    before, after = dict(_values(a)), dict(_values(b))
    paths = dict.fromkeys(changed_keys(a, b))
    return tuple(f"{path}: {_text(before.get(path))} -> {_text(after.get(path))}" for path in paths)


def _values(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every value of a resolved spec, sections included, by the paths that `changed_keys` gives."""
    for head in ("task", "model", "schedule", "train"):
        yield from _below(head, resolved.get(head))
    for entry in resolved.get("optimizers", []):
        yield from _below(f"optimizers.{entry['label']}", entry)
    for axis, values in (resolved.get("axes") or {}).items():
        yield f"axes.{axis}", values


def _below(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _below(f"{path}.{key}", inner)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, dict) and "name" in value:
        text = call_text(str(value["name"]), {key: inner for key, inner in value.items() if key != "name"})
    else:
        text = value_text(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


@contextmanager
def located(spec: Spec) -> Iterator[None]:
    """Within, a mistake with a path in the spec is told with its file, line and column."""
    try:
        yield
    except WrongInSpec as error:
        raise UsageError("\n".join(_told(spec, path, message) for path, message in error.found)) from error


def _told(spec: Spec, path: tuple[str, ...], message: str) -> str:
    if not path or spec.tree is None:
        return message
    keys = _written(spec, path)
    at = spec.tree.mark(keys, key=True)
    return str(SpecIssue(file=at.file, line=at.line, column=at.column, path=dotted(keys), message=message))


def _written(spec: Spec, path: tuple[str, ...]) -> Keys:
    """Where a value was written: at the axis that sets it, else at its own key."""
    head, *below = path
    place: Keys = path
    if head == "optimizers":
        label, *below = below
        place = (head, [optimizer.label for optimizer in spec.optimizers].index(label), *below)
    for axis in spec.axes:
        if (head, *below)[: len(parts(axis))] == parts(axis) or (is_whole(axis) and parts(axis)[0] == head):
            return ("axes", axis)
    return place
