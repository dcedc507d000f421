"""Overrides of a spec: `--set key.path=value`."""

from __future__ import annotations

import re
from typing import Any

from lrsweep.errors import SET, SpecError
from lrsweep.spec.yaml_tree import Keys, Mark, Refusal, Tree, dotted, parse

_INDEXED = re.compile(r"(.*?)((?:\[\d+\])*)", re.DOTALL)


def override(tree: Tree, text: str) -> None:
    """Set one value of the tree, `text` being `key.path=value` with a YAML value; what is wrong with it is refused."""
    key, equals, value = text.partition("=")
    at = Mark(file=f"{SET}{text}")
    keys = _keys(key)
    if not equals or not all(keys):
        tree.refuse((), at, "write KEY=VALUE with a dotted key, for example --set train.epochs=5")
        return
    try:
        branch = parse(value, at.file, lines=False)
    except SpecError as error:
        tree.refused += [Refusal(path=tuple(keys), issue=issue, void=True) for issue in error.issues]
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


def _keys(key: str) -> list[str]:
    """The parts of a dotted key: `optimizers[0].momentum` is `optimizers.0.momentum`. Axes and labels keep theirs."""
    head, *below = key.strip().split(".")
    found: list[str] = []
    for part in (head, ".".join(below)) if head in ("axes", "refined") and below else (head, *below):
        name, places = _INDEXED.fullmatch(part).groups()  # type: ignore[union-attr]  # it matches any text
        found += [name, *re.findall(r"\d+", places)]
    return found


def choose_axis_value(tree: Tree, text: str) -> str:
    """An override of the key of an axis as one of the axis itself, to this value alone; others as they are."""
    key, equals, value = text.partition("=")
    return f"axes.{key.strip()}=[{value}]" if equals and key.strip() in _axes(tree) else text


def refuse_overruled(tree: Tree, text: str) -> None:
    """Refuse an override that would change nothing because an axis sets the same value.

    A file may hold both, a value and an axis over it; an override is meant to have an effect.
    """
    key, equals, value = text.partition("=")
    keys = _keys(key)
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
                Mark(file=f"{SET}{text}"),
                f"has no effect: the axis {axis} ({place}) overrides it (use --set axes.{axis}=[{instead}], "
                "or remove one of the two)",
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
    return axis[: len(keys)] == keys and any(_holds(entry, axis[len(keys) :]) for entry in entries)


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
    """The value at `step`, made a mapping if it is missing or a bare name."""
    inner = node[step] if isinstance(step, int) else node.get(step)
    if inner is None:
        inner = {}
    elif isinstance(inner, str):
        inner = {"name": inner}
    node[step] = inner
    return inner
