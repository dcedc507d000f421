"""Whose is it: the user's, or of torch, numpy, lrsweep or Python's library?

`__module__` alone does not tell: `functools.wraps` copies it from another function, and a class that `exec` or
`types.new_class` makes may have that of Python.
"""

from __future__ import annotations

import functools
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import lrsweep

HEAP_TYPE = 1 << 9  # of `__flags__`: a class that was made while Python ran, and can be given attributes
_PYTHON = tuple({sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib")} | {str(Path(os.__file__).parent)})
_FOLDERS = (*(str(Path(str(package.__file__)).parent) for package in (torch, np, lrsweep)), *_PYTHON)
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def _file(module: object) -> object:
    """Without the `__getattr__` that a module of the user's may have."""
    return getattr(sys.modules.get(str(module)), "__dict__", {}).get("__file__")


def of_library(module: object, file: str | None = None) -> bool:
    """Is this the name of a module of torch, lrsweep, Python's library, or an installed package?

    Some classes in C keep something else than a name in `__module__`.
    """
    if of_torch_or_python(module):
        return True
    place = _file(module) if file is None else file
    return isinstance(place, str) and bool(_INSTALLED & set(Path(place).parts))


def of_torch_or_python(module: object) -> bool:
    """Is this the name of a module of torch, numpy, lrsweep or Python's library?

    No if a file of the user's is in its place: `profile.py`, `queue.py`.
    """
    top = module.partition(".")[0] if isinstance(module, str) else ""
    if top == "__main__" or not (top in sys.stdlib_module_names or top in ("torch", "lrsweep", "numpy")):
        return False
    file = _file(module)
    return not isinstance(file, str) or not os.path.isabs(file) or _file_of_torch_or_python(file)


@functools.lru_cache(maxsize=10_000)
def _file_of_torch_or_python(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    folder = next((folder for folder in _FOLDERS if file.startswith(folder + os.sep)), None)
    return folder is not None and (folder not in _PYTHON or not _INSTALLED & set(Path(file).parts))


def code_of_torch_or_python(function: types.FunctionType) -> bool:
    """Was its code written in a file of theirs, or made from text by one of their modules?"""
    file = function.__code__.co_filename
    if _INSTALLED & set(Path(file).parts) and not _file_of_torch_or_python(file):
        return of_torch_or_python(function.__module__)  # torch decorates some functions with those of typing_extensions
    if not file.startswith("<"):
        return _file_of_torch_or_python(file)
    name = function.__globals__.get("__name__")
    own = function.__globals__ is getattr(sys.modules.get(str(name)), "__dict__", None)
    return file.startswith("<frozen ") or (own and of_torch_or_python(name))


def class_of_torch_or_python(cls: type) -> bool:
    """Does one of their modules hold it under its name, or their code lie in its methods?"""
    if not of_torch_or_python(cls.__module__):
        return False
    if not cls.__flags__ & HEAP_TYPE or _held(cls):
        return True
    methods = list(_functions(cls))
    if methods:
        return any(code_of_torch_or_python(method) for method in methods)
    return cls.__module__.partition(".")[0] in ("torch", "numpy")  # written in C


def _held(cls: type) -> bool:
    found: object = sys.modules.get(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found is cls


def _functions(cls: type) -> Iterator[types.FunctionType]:
    for item in vars(cls).values():
        function = getattr(item, "__func__", item) if isinstance(item, staticmethod | classmethod) else item
        if isinstance(function, types.FunctionType):
            yield function


def belongs_to_user(value: object) -> bool:
    """Of an attribute of a module or a class of theirs: a function or a class of the user's, or an object of one."""
    if isinstance(value, types.FunctionType):
        return not of_library(None, value.__code__.co_filename) and not code_of_torch_or_python(value)
    if isinstance(value, types.MethodType):
        return belongs_to_user(value.__func__) or belongs_to_user(value.__self__)
    cls = value if isinstance(value, type) else type(value)
    return not class_of_torch_or_python(cls) and not of_library(cls.__module__)
