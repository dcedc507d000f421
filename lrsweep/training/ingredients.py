"""The task and the model builder that a recipe names, built-in or the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lrsweep.errors import LrsweepError, UsageError, WrongInSpec
from lrsweep.models import MODELS, misfit
from lrsweep.spec.check import refused
from lrsweep.tasks import TASKS
from lrsweep.tasks.base import Shapes, Task, shapes_of
from lrsweep.training import isolation
from lrsweep.user_imports import resolve

if TYPE_CHECKING:
    from lrsweep.plan import Recipe


def task_of(recipe: Recipe) -> Task:
    """Call the task function. To be called within `usercode.isolated`.

    Raises UsageError, with the place in the user's file, if it raises, refuses an argument or returns something else.
    """
    name = recipe.task["name"]
    function, arguments = _named("task", recipe.task, TASKS, recipe.base_dir)
    _check_arguments("task", name, function, arguments)
    # Data that a task draws without a seed of its own are still the same in every process.
    isolation.seed_all(isolation.stream_seed("task"))
    try:
        task = function(**arguments)
    except (Exception, SystemExit) as error:
        place = isolation.user_place(error)
        if isinstance(error, LrsweepError) and not place:
            raise _placed("task", error) from error
        text = f"{error} ({place})" if isinstance(error, LrsweepError) else isolation.describe(error)
        raise UsageError(f"task {name}: {text}") from error
    if not isinstance(task, Task):
        what = f"{_defined_at(function)}it must return an lrsweep.Task, not a {type(task).__name__}"
        raise UsageError(f"task {name}: {what}")
    return task


def builder_of(recipe: Recipe, task: Task) -> Callable[[], nn.Module]:
    """The model builder without arguments: that of the spec's model where it names one, else the task's own.

    `in_shape` and `num_outputs` are given to a builder that names them. Raises UsageError if there is no model, if the
    builder refuses its arguments, or if a built-in model does not fit the task.
    """
    if recipe.model is None:
        if task.model is None:
            raise UsageError(f"task {recipe.task['name']}: it brings no model; name one with `model:`")
        name, function = "of the task", task.model
        arguments: dict[str, Any] = {}
    else:
        name = recipe.model["name"]
        function, arguments = _named("model", recipe.model, MODELS, recipe.base_dir)
    builtin = function in MODELS.values()
    wanted = {"in_shape", "num_outputs"} & _parameters(function) - arguments.keys()
    if wanted:
        arguments = _shape_arguments(shapes_of(task), wanted, name if builtin else None) | arguments
    _check_arguments("model", name, function, arguments)
    if builtin:
        try:
            # What a built-in refuses is found here; a user's builder is called by runs alone.
            with torch.device("meta"):
                function(**arguments)
        except UsageError as error:
            raise _placed("model", error) from error
    return lambda: function(**arguments)


def _shape_arguments(shapes: Shapes, wanted: set[str], builtin: str | None) -> dict[str, Any]:
    """The shapes that a builder asks for, as far as they are known."""
    if builtin is not None and (wrong := misfit(builtin, shapes)):
        raise WrongInSpec((("model",), f"model {builtin}: {wrong}"))
    given = {key: getattr(shapes, key) for key in sorted(wanted)}
    return {key: value for key, value in given.items() if value is not None}


def _named(
    kind: str, entry: Mapping[str, Any], table: Mapping[str, Callable[..., Any]], base_dir: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that a `{name: ..., **arguments}` entry means, and its arguments."""
    name = entry["name"]
    # What a file draws while it is imported is then the same in every process, too.
    isolation.seed_all(isolation.stream_seed("import"))
    function = resolve(name, base_dir) if ":" in name else table.get(name)
    if function is None:
        raise UsageError(f"{kind}: there is no {name!r} (one of: {', '.join(table)})")
    if not callable(function):
        raise UsageError(f"{kind} {name}: is a {type(function).__name__}, not a function")
    return function, {key: value for key, value in entry.items() if key != "name"}


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return None


def _parameters(function: Callable[..., Any]) -> set[str]:
    signature = _signature(function)
    return set() if signature is None else set(signature.parameters)


def _placed(section: str, error: LrsweepError) -> LrsweepError:
    """What a built-in refuses, as a mistake in this section of the spec unless it names a key itself."""
    plain = type(error) is UsageError
    return WrongInSpec(((section,), str(error))) if plain else error


def _check_arguments(kind: str, name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    if found := refused(function, arguments):
        key, wrong = found
        raise WrongInSpec(((kind, *filter(None, [key])), f"{kind} {name}: {_defined_at(function)}{wrong}"))


def _defined_at(function: Callable[..., Any]) -> str:
    """`file.py:12: `, where the function begins; empty if that is not known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{Path(code.co_filename).name}:{code.co_firstlineno}: "
