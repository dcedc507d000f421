"""Functions and classes in the dict of a spec: named for it, and found again in what was written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lrsweep import given_code
from lrsweep.errors import SpecError, SpecIssue, UsageError
from lrsweep.spec.yaml_tree import DICT, Keys, dotted

SECTIONS = ("task", "model", "schedule")
DEEPEST = 4  # optimizers, 0, schedule, name


def named(data: Mapping[str, Any]) -> dict[str, Any]:
    """The same with a name in place of every function and class where a name may stand.

    Raises SpecError for what cannot be known by its source text.
    """
    issues: list[SpecIssue] = []
    found = {key: _named(value, (key,), issues) for key, value in data.items()}
    if issues:
        raise SpecError(issues)
    return found


def _named(value: Any, path: Keys, issues: list[SpecIssue]) -> Any:
    written = isinstance(value, str | int | float | list | tuple | Mapping | None)
    if _may_be_name(path) and not written:
        try:
            return given_code.register(value)
        except UsageError as error:
            issues.append(SpecIssue(file=DICT, line=0, column=0, path=dotted(path), message=str(error)))
            return ""
    if len(path) > DEEPEST:
        return value
    if isinstance(value, Mapping):
        return {key: _named(item, (*path, key), issues) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_named(item, (*path, number), issues) for number, item in enumerate(value)]
    return value


def _may_be_name(path: Keys) -> bool:
    """Is this the place of a name: `task`, `model.name`, `optimizers[0].schedule`, `axes.model[1]`?"""
    if len(path) > 1 and path[-1] == "name":
        path = path[:-1]
    head, *below = path
    if head == "optimizers":
        return len(below) == 1 or (len(below) == 2 and below[1] == "schedule")
    if head == "axes":
        return len(below) == 2 and str(below[0]).removesuffix(".name") in SECTIONS
    return head in SECTIONS and not below


def names(data: Any, path: Keys = ()) -> Iterator[tuple[Keys, str]]:
    """The names of given code in a spec, with their places."""
    if given_code.is_name(data):
        yield path, data
    elif isinstance(data, Mapping):
        for key, item in data.items():
            yield from names(item, (*path, key))
    elif isinstance(data, list):
        for number, item in enumerate(data):
            yield from names(item, (*path, number))


def refuse_missing(data: Any, file: str) -> None:
    """Raises UsageError if a spec names code that was given in Python to another process."""
    missing = {given_code.short(name): None for _, name in names(data) if not given_code.is_known(name)}
    if missing:
        were = f"{', '.join(missing)} {'was' if len(missing) == 1 else 'were'}"
        raise UsageError(
            f"{file}: {were} given in Python, and results do not hold the code; run this sweep where it is defined, "
            "with lrsweep.run (plot, report, check and compare work without it)"
        )
