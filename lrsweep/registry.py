"""The names a spec may use and the arguments they take, read off the tables of lrsweep and off `torch.optim`.

`known()` is what a spec is checked against, `listing()` what `lrsweep list` prints.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from lrsweep.errors import UsageError

Complaints: TypeAlias = list[tuple[str, str]]  # (argument, what is wrong)

REQUIRED = inspect.Parameter.empty

# Given by lrsweep, never by a spec.
GIVEN = ("in_shape", "num_outputs", "step", "total_steps", "first_step")

# Arguments of torch's optimizers that a spec cannot set, and why.
REFUSED = {
    "params": "lrsweep passes the parameters itself",
    **dict.fromkeys(
        ("foreach", "fused", "capturable", "differentiable"),
        "it selects an implementation, which lrsweep does itself",
    ),
}

# Arguments of built-in tasks that name a file, or a folder, relative to the spec.
DATA_FILES = {"csv": "path", "npz": "path", "image_folder": "path", "hf_dataset": "path"}
DATA_FOLDERS = ("image_folder", "hf_dataset")

# Arguments of built-in tasks that are younger than stored results: runs that leave them unset keep their ids.
YOUNGER = {"csv": ("drop", "one_hot", "missing")}


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One key of a spec: its annotation (`Any` if it has none) and its default (`REQUIRED` if it has none)."""

    annotation: Any
    default: Any = REQUIRED


@functools.cache
def signature(function: Callable[..., Any]) -> dict[str, Argument]:
    """The keyword arguments of a built-in that a spec may set."""
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name: Argument(annotation=Any if p.annotation is p.empty else p.annotation, default=p.default)
        for name, p in inspect.signature(function, eval_str=True).parameters.items()
        if name not in GIVEN and p.kind not in variadic
    }


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a spec is checked against.

    Tasks, models and schedules map a name to the function that is called with its arguments; optimizers map a name to
    torch's defaults of its arguments. `check_optimizer(name, args)` and `check_schedule(name, args)` say what is wrong
    beyond types; `optimizer_args(name, args, independent=...)` writes every argument of an optimizer out.
    """

    tasks: Mapping[str, Callable[..., Any]]
    models: Mapping[str, Callable[..., Any]]
    schedules: Mapping[str, Callable[..., Any]]
    optimizers: Mapping[str, Mapping[str, Any]]
    default_models: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Sequence[str]]
    check_optimizer: Callable[[str, Mapping[str, Any]], Complaints]
    check_schedule: Callable[[str, Mapping[str, Any]], Complaints]
    optimizer_args: Callable[..., dict[str, Any]]


@functools.cache
def known() -> Known:
    """Everything that lrsweep knows. Imports torch."""
    from lrsweep import models, optimizers, schedules, tasks

    return Known(
        tasks=tasks.TASKS,
        models=models.MODELS,
        schedules=schedules.SCHEDULES,
        optimizers={name: optimizers.defaults(name) for name in optimizers.OPTIMIZERS},
        default_models=tasks.DEFAULT_MODELS,
        metrics=tasks.METRICS,
        check_optimizer=optimizers.check,
        check_schedule=schedules.check,
        optimizer_args=optimizers.resolved,
    )


def listing(kind: str | None = None) -> str:
    """The names of one kind, or of all four, with their arguments and what to know about them. Imports torch.

    Raises UsageError if there is no such kind.
    """
    names = known()
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "tasks": lambda: _functions(names.tasks, whole=True),
        "models": lambda: _functions(names.models),
        "optimizers": _optimizers,
        "schedules": lambda: _functions(names.schedules),
    }
    if kind is not None and f"{kind}s" in sections:
        kind = f"{kind}s"
    if kind is not None and kind not in sections:
        homes = [section for section in sections if kind.lower() in getattr(names, section)]
        where = f"; {kind} is in `lrsweep list {homes[0]}`" if homes else ""
        raise UsageError(f"list {kind}: unknown kind (allowed: {', '.join(sections)}){where}")
    chosen = [kind] if kind else list(sections)
    return "\n\n".join("\n".join([f"{name}:", *sections[name]()]) for name in chosen)


def _functions(table: Mapping[str, Callable[..., Any]], *, whole: bool = False) -> Iterator[str]:
    """Each name with its arguments, `name=default` (or `name`), then the first line of its docstring, or all of it."""
    for name, function in table.items():
        arguments = (
            key if argument.default is REQUIRED else f"{key}={argument.default!r}"
            for key, argument in signature(function).items()
        )
        yield f"  {name}({', '.join(arguments)})"
        if doc := inspect.getdoc(function):
            lines = doc.splitlines()
            yield from (f"      {line}" for line in (lines if whole else lines[:1]) if line)


def _optimizers() -> Iterator[str]:
    from lrsweep import optimizers

    for name in optimizers.OPTIMIZERS:
        arguments = ", ".join(f"{key}={value!r}" for key, value in optimizers.defaults(name).items())
        yield f"  {name}({arguments})"
        yield f"      default lr {optimizers.default_lr(name)!r}; {optimizers.decay_note(name)}"
        for note in optimizers.NOTES.get(name, ()):
            yield f"      {note}"
    yield "  any other class by import path: my_opts.py:Lion, package.module:Class"
