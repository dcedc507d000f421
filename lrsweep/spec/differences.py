"""In which settings two resolved specs differ, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lrsweep.spec.model import call_text, value_text
from lrsweep.spec.resolved import changed_keys

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
