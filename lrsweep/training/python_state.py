"""What the user's code keeps in Python values between calls: a recording cannot repeat what changes them."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn

MOST = 1000  # items of one container that are looked at
DEPTH = 4  # containers and objects inside one another
PLAIN = (bool, int, float, str, bytes, type(None))


def state(module: nn.Module, *functions: Callable[..., Any]) -> list[Any]:
    """What `module` keeps besides parameters and buffers, and `functions` in attributes, closures and globals.

    For `differ`; nothing large is copied.
    """
    skipped = set(vars(nn.Module()))
    found: list[Any] = []
    seen: set[int] = set()
    for part in module.modules():
        found.append(_look({key: value for key, value in vars(part).items() if key not in skipped}))
        if not type(part).__module__.startswith("torch."):
            found.append(_look({key: value for key, value in vars(type(part)).items() if type(value) in PLAIN}))
            found += _of_function(type(part).forward, seen)
    for function in functions:
        found += _of_function(function, seen)
    return found


def differ(before: list[Any], after: list[Any]) -> bool:
    """Whether something changed between two states of the same things."""
    try:
        return bool(before != after)
    except Exception:  # noqa: BLE001 - values of the user's that do not compare are not the same object any more
        return True


def _look(value: Any, depth: int = DEPTH) -> Any:
    """A picture of a value that compares equal while nothing in it changes; what cannot be looked into is itself."""
    if isinstance(value, Tensor):
        return id(value)  # writing into it is noticed by the recording
    if type(value) in PLAIN or depth == 0 or isinstance(value, type | types.ModuleType | nn.Module):
        return value
    if isinstance(value, dict):
        return {key: _look(item, depth - 1) for key, item in list(value.items())[:MOST]} | {"": len(value)}
    if isinstance(value, list | tuple):
        return [len(value), *(_look(item, depth - 1) for item in value[:MOST])]
    if isinstance(value, set):
        return set(value)
    if isinstance(value, types.FunctionType | types.MethodType) or not hasattr(value, "__dict__"):
        return value
    return (id(value), _look(vars(value), depth - 1))


def _of_function(function: Any, seen: set[int]) -> Iterator[Any]:
    """Of a function or callable object, and of the functions of the same file that it names; of none of torch's."""
    if isinstance(function, nn.Module) or str(getattr(function, "__module__", None)).startswith("torch."):
        return  # a module is looked at with the rest of them
    if isinstance(function, partial):
        yield _look(function.keywords)
        function = function.func
    if isinstance(function, types.MethodType):
        yield _look(function.__self__)
        function = function.__func__
    elif not isinstance(function, types.FunctionType):
        yield _look(function)
        function = getattr(type(function), "__call__", None)  # noqa: B004 - the method itself is wanted
    if not isinstance(function, types.FunctionType) or id(function) in seen:
        return
    seen.add(id(function))
    for value in _values(function):
        if isinstance(value, types.FunctionType):
            if value.__globals__ is function.__globals__:
                yield from _of_function(value, seen)
        else:
            yield _look(value)


def _values(function: types.FunctionType) -> Iterator[Any]:
    yield vars(function)
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    for name in sorted(_names(function.__code__) & function.__globals__.keys()):
        yield function.__globals__[name]


def _names(code: types.CodeType) -> set[str]:
    """The names that code uses, functions inside it included."""
    inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return set(code.co_names).union(*(_names(one) for one in inner))
