"""Specs that do not come from a file: a dict, and single values set on the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lrsweep.errors import Problem, SpecError
from lrsweep.yamlpos import MAX_DEPTH, Keys, Mark, Tree, dotted, parse

DICT = "<dict>"


def from_dict(data: Mapping[str, Any]) -> Tree:
    """A dict as a tree without lines. Tuples become lists, numpy scalars numbers, paths text."""
    problems: list[Problem] = []
    value = _plain(data, (), problems)
    if problems:
        raise SpecError(problems)
    return Tree(file=DICT, data=value, values={(): Mark(file=DICT)})


def _plain(value: Any, path: Keys, problems: list[Problem]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if len(path) <= MAX_DEPTH:
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str):
                    problems.append(_problem(DICT, 0, 0, path, f"the key {key!r} is not text"))
            return {str(key): _plain(item, (*path, str(key)), problems) for key, item in value.items()}
        if isinstance(value, list | tuple | range):
            return [_plain(item, (*path, i), problems) for i, item in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        for kind in (bool, int, float, str):  # numpy's numbers and text, str enums
            if isinstance(value, kind):
                return kind(value)
        if hasattr(value, "tolist"):
            return _plain(value.tolist(), (*path, 0), problems)
    kind_name = type(value).__name__
    problems.append(
        _problem(DICT, 0, 0, path, f"a {kind_name} cannot stand in a spec; use numbers, text, lists, dicts")
    )
    return None


def _problem(file: str, line: int, column: int, path: Keys, message: str) -> Problem:
    return Problem(file=file, line=line, column=column, path=dotted(path), message=message)


def override(tree: Tree, text: str) -> list[Problem]:
    """Set one value of the tree, `text` being `key.path=value` with a YAML value. Returns what is wrong with it."""
    key, equals, value = text.partition("=")
    file = f"--set {text}"
    keys = key.strip().split(".")
    if not equals or not all(keys):
        fix = "write KEY=VALUE with a dotted key, for example --set train.epochs=5"
        return [_problem(file, 1, 1, (), fix)]
    if keys[0] in ("axes", "refined") and len(keys) > 1:
        keys = [keys[0], ".".join(keys[1:])]
    try:
        branch = parse(value, file, column=len(key) + 1)
    except SpecError as error:
        return list(error.problems)
    branch.values.setdefault((), Mark(file=file, line=1, column=len(key) + 2))
    if tree.data is None:
        tree.data = {}
    path: Keys = ()
    node = tree.data
    for place, part in enumerate(keys):
        last = place == len(keys) - 1
        step = _step(node, part)
        if step is None:
            wanted: Keys = (*path, int(part) if isinstance(node, list) and part.isdigit() else part)
            return [_problem(file, 1, 1, wanted, f"{dotted(path)} has no entry {part!r}{_entries(node)}")]
        path = (*path, step)
        if last:
            node[step] = branch.data
        else:
            node = _enter(node, step)
    tree.graft(path, branch)
    return []


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
