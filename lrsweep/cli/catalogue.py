"""What `lrsweep list` says: the names a spec may use, their arguments, and what to know about them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

from lrsweep import optimizers
from lrsweep.errors import UsageError
from lrsweep.registry import known
from lrsweep.spec.check import signature


def _signature(function: Callable[..., Any]) -> str:
    """The arguments a spec may give, as `name=default` or, where there is no default, `name`."""
    return ", ".join(
        name if argument.default is inspect.Parameter.empty else f"{name}={argument.default!r}"
        for name, argument in signature(function).items()
    )


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").split("\n", 1)[0]


def _functions(table: dict[str, Callable[..., Any]]) -> Iterable[str]:
    for name, function in table.items():
        yield f"  {name}({_signature(function)})"
        if line := _first_line(function):
            yield f"      {line}"


def _optimizers() -> Iterable[str]:
    for name in optimizers.OPTIMIZERS:
        arguments = ", ".join(f"{key}={value!r}" for key, value in optimizers.defaults(name).items())
        yield f"  {name}({arguments})"
        yield f"      default lr {optimizers.default_lr(name)!r}; {optimizers.decay_note(name)}"
        for note in optimizers.notes(name):
            yield f"      {note}"
    yield "  any other class by import path: my_opts.py:Lion, package.module:Class"


def text(kind: str | None = None) -> str:
    """One section per kind of name. Raises UsageError for a kind that there is none of."""
    names = known()
    sections: dict[str, Callable[[], Iterable[str]]] = {
        "tasks": lambda: _functions(dict(names.tasks)),
        "models": lambda: _functions(dict(names.models)),
        "optimizers": _optimizers,
        "schedules": lambda: _functions(dict(names.schedules)),
    }
    if kind is not None and f"{kind}s" in sections:
        kind = f"{kind}s"
    if kind is not None and kind not in sections:
        found = [section for section in sections if kind.lower() in getattr(names, section)]
        where = f"; {kind} is in `lrsweep list {found[0]}`" if found else ""
        raise UsageError(f"list {kind}: there is no such kind (one of: {', '.join(sections)}){where}")
    chosen = [kind] if kind else list(sections)
    return "\n\n".join("\n".join([f"{name}:", *sections[name]()]) for name in chosen)
