"""What the user's code keeps between calls, as a snapshot that stays equal while nothing in it changes.

Weights and buffers are not part of it: they are trained, and recordings and checkpoints know them. Everything else
that can be reached from a model, a loss, a step, a Dataset or an optimizer is: attributes, slots, closures, function
attributes, class attributes, generators of random numbers, containers, arrays, and the globals of the user's modules
that the code which was reached names. Of other globals, such as the DataFrames and the results of a notebook, only
containers, arrays and plain values are looked at.
"""

from __future__ import annotations

import array
import builtins
import collections
import contextlib
import functools
import gc
import inspect
import logging
import operator
import os
import random
import re
import sys
import threading
import types
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lrsweep.compiler import torch_private
from lrsweep.system import notebook
from lrsweep.training.contents import (
    CONTAINERS,
    MOST_BYTES,
    PLAIN,
    digest,
    has_attributes,
    kept_items,
    named,
    names_in,
    of_pandas,
    plain_script,
    reduces,
    shallow,
    unnamed,
)
from lrsweep.training.ownership import (
    belongs_to_user,
    class_of_torch_or_python,
    code_of_torch_or_python,
    of_library,
    of_torch_or_python,
)

MOST_OBJECTS = 200_000

BY_REPR: tuple[type, ...] = (torch.dtype, torch.device, torch.layout, torch.memory_format, torch.Size, np.dtype)
BY_REPR += (PurePath, range, slice, types.UnionType)
# The environment variables that torch sets when its compiler is imported or used.
OF_TORCH = ("TORCHINDUCTOR_", "_TORCHINDUCTOR_", "TRITON_")
# What keeps nothing that a training step could depend on.
INERT: tuple[type, ...] = (types.CodeType,)
INERT += (types.GetSetDescriptorType,)
INERT += (types.MemberDescriptorType, types.WrapperDescriptorType, types.MethodDescriptorType)
INERT += (type(threading.Lock()), type(threading.RLock()))
INERT += (types.MethodWrapperType, types.ClassMethodDescriptorType, types.GenericAlias, types.FrameType)
# The global generators are seeded before all that the user's code does: `random_state` tells what has drawn from them.
SEEDED = (
    getattr(random.random, "__self__", None),
    getattr(np.random.random, "__self__", None),
    torch.default_generator,
)
CONTEXT_MANAGER: Any = type(contextlib.contextmanager(lambda: iter(()))())
GENERATORS = (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)
# What a notebook has among the globals of the user's: its shell, what was typed, what was shown.
OF_NOTEBOOK = re.compile(r"__warningregistry__|__builtins__|get_ipython|exit|quit|open|In|Out|_[iod]h|_i*\d*|__|___")
# By these, code may reach a variable of a module that it does not name.
REACHING = frozenset(
    {"eval", "exec", "globals", "locals", "vars", "modules", "import_module", "_getframe", "currentframe", "__main__"}
    | {"__dict__", "__globals__", "__import__", "getmembers", "getmembers_static"}
)
# And by these, any attribute of a module that it has.
GETTING = frozenset({"getattr", "setattr", "attrgetter", "methodcaller"})
_OF_PYTHON = frozenset({"__doc__", "__dict__", "__weakref__", "_abc_impl", "__slotnames__"})
_OF_LOGGERS = frozenset({"_cache", "handlers", "filters"})  # `_cache` is filled by logging
# Python notes in the globals of a module which warnings it has shown.
_NOT_KEPT = frozenset({"__warningregistry__", "__builtins__"})
_MODULE_OWN = frozenset({"_parameters", "_buffers", "training"})


@dataclass(slots=True)
class Snapshot:
    """`parts` of two snapshots of the same roots are equal if nothing changed. `hidden` names what cannot be looked
    into: an iterator on its way, an object of a library in C."""

    parts: list[Any] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    # Objects stay alive, so that their identity tells them apart.
    alive: list[Any] = field(default_factory=list)
    full: bool = True
    roots: tuple[Any, ...] = ()
    libraries: bool = False

    def same(self, other: Snapshot) -> bool:
        return equal(self.parts, other.parts)


def environment() -> list[tuple[str, str]]:
    return sorted((key, value) for key, value in os.environ.items() if not key.startswith(OF_TORCH))


def snapshot(roots: Iterable[Any], *, alike: bool = False, libraries: bool = False) -> Snapshot:
    """Look at `roots` and all they hold.

    `libraries`: also at containers that are globals of installed modules. A class of optimizers may keep its state
    there; the caches of a library that a model uses are none.
    `alike`: so that the snapshots of two objects that were made in the same way are equal; what they are is left out.
    """
    roots = tuple(roots)
    found = Snapshot(parts=[environment()], roots=() if alike else roots, libraries=libraries)
    Walk(found, alike, libraries).run(list(roots))
    if alike:
        found.alive.clear()
    return found


def random_state() -> tuple[Any, ...]:
    """The global generators of Python and numpy (not torch's: what it draws can be recorded)."""
    name, keys, position, *rest = np.random.get_state()
    return random.getstate(), (name, np.asarray(keys).tobytes(), position, *rest)


class Walk:
    """One walk, in an order that depends on the objects alone."""

    def __init__(self, found: Snapshot, alike: bool, libraries: bool = False) -> None:
        self._found, self._alike, self._libraries = found, alike, libraries
        self._seen: dict[int, int] = {}
        self._queue: collections.deque[Any] = collections.deque()
        self._looks = 0
        self._names: set[str] = set()  # of globals, in the code that was reached
        self._others: set[str] = set()  # that may be attributes of a module
        self._modules: set[int] = set()  # the globals of those that were reached as such
        self._classes: list[tuple[int, type]] = []  # of the user's, with their looks
        # By identity, how often the globals of a module were queued as such, and how often they were looked at: more
        # often where the code keeps them as a dict, of which it may take any item.
        self._queued: collections.Counter[int] = collections.Counter()
        self._arrived: collections.Counter[int] = collections.Counter()
        self._globals: list[tuple[int, int, str, dict[str, Any]]] = []  # look, identity, file, what was not yet named

    def run(self, roots: list[Any]) -> None:
        self._later(roots)
        while self._queue:
            if len(self._seen) > MOST_OBJECTS:
                self._found.full = False
                return
            self._look(self._queue.popleft())
            if not self._queue:
                self._named_globals()
        for _, _, file, left in self._globals:
            self._found.parts += [unnamed(key, file, item) for key, item in left.items()]

    def _named_globals(self) -> None:
        """Queue the globals that the code names which was reached so far."""
        everything = not REACHING.isdisjoint(self._names | self._others)
        any_attribute = not GETTING.isdisjoint(self._names | self._others)
        for look, space, _, left in self._globals:
            as_module, as_dict = space in self._modules, self._arrived[space] > self._queued[space]
            # What a module makes of names that it does not hold, its `__getattr__` says.
            attributes = self._others | {"__getattr__"}
            found = [
                key
                for key in left
                if everything or as_dict or key in self._names or (as_module and (any_attribute or key in attributes))
            ]
            self._later([left.pop(key) for key in found], look)
        if "__subclasses__" in self._others:
            for look, cls in self._classes:
                self._later(cls.__subclasses__(), look)
            self._classes.clear()

    def _look(self, value: Any) -> None:
        self._looks += 1
        parts = self._found.parts
        if type(value) is float:
            parts.append(value.hex())
            return
        if type(value) in PLAIN:
            parts.append((type(value).__name__, value))
            return
        if type(value) is dict and "__builtins__" in value:
            self._arrived[id(value)] += 1
        number = self._seen.get(id(value))
        if number is not None:
            parts.append(("seen", number))
            return
        self._seen[id(value)] = len(self._seen)
        self._found.alive.append(value)
        parts.append(type(value).__qualname__)
        try:
            content = self._content(value)
        except Exception:  # noqa: BLE001 - the user's classes may raise what they like when they are looked at
            content = self._hidden(value)
        parts.append(content)

    def _later(self, values: Iterable[Any], look: int = 0) -> int:
        """Queue what the object of this look holds, the last one if it is 0; how many they are."""
        before = len(self._queue)
        self._queue.extend(values)
        return len(self._queue) - before

    def _space(self, space: dict[str, Any]) -> dict[str, Any]:
        """The globals of a module, about to be queued as such."""
        self._queued[id(space)] += 1
        return space

    def _content(self, value: Any) -> Any:
        """What is compared of `value` itself; what it holds is queued."""
        if isinstance(value, Enum):
            return repr(value), self._later([vars(value)])
        if isinstance(value, type(torch.float32)) or isinstance(value, BY_REPR):
            return repr(value)
        if isinstance(value, Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray | np.generic):
            self._objects(value)
            return digest(np.asarray(value)), self._of_subclass(value)
        if isinstance(value, re.Pattern):
            return value.pattern, value.flags
        if any(value is generator for generator in SEEDED):
            return 0
        if isinstance(value, random.Random):
            known = type(value).random is random.Random.random
            return value.getstate() if known else self._hidden(value), self._of_subclass(value)
        if isinstance(value, np.random.RandomState):
            return repr(value.get_state(legacy=False))
        if isinstance(value, np.random.Generator | np.random.BitGenerator):
            return repr(getattr(getattr(value, "bit_generator", value), "state", None))
        if isinstance(value, torch.Generator):
            return value.get_state().numpy().tobytes()
        if isinstance(value, bytearray | memoryview | array.array):
            return bytes(value)
        if isinstance(value, torch.jit.ScriptFunction) and plain_script(value):
            return id(value), self._later(_attributes(value))
        if isinstance(value, nn.Module):
            return self._module(value)
        if type(value) is CONTEXT_MANAGER and inspect.getgeneratorstate(value.gen) == inspect.GEN_CREATED:
            # As a decorator it keeps a generator that never runs: each call makes its own.
            return self._later([{key: item for key, item in vars(value).items() if key != "gen"}])
        if isinstance(value, functools._lru_cache_wrapper):
            return value.cache_info().misses, self._later(gc.get_referents(value))
        if type(value).__name__ == "_lru_list_elem":
            return self._later(gc.get_referents(value))
        if isinstance(value, property):
            return self._later([value.fget, value.fset, value.fdel]), self._of_subclass(value)
        if isinstance(value, weakref.ReferenceType):
            return self._later([value()])
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            return self._later([value.__self__, value.__func__])
        if isinstance(value, types.BuiltinFunctionType):
            self._called(value.__name__)
            kept = [] if isinstance(value.__self__, types.ModuleType) else [value.__self__]
            return named(value), self._later(kept)
        if isinstance(value, operator.attrgetter | operator.methodcaller):
            texts = [text for text in value.__reduce__()[1] if isinstance(text, str)]
            self._others |= {part for text in texts for part in text.split(".")}
            return self._reduced(value)
        if isinstance(value, staticmethod | classmethod):
            return self._later([value.__func__])
        if isinstance(value, types.CellType):
            try:
                return self._later([value.cell_contents])
            except ValueError:
                return "empty"
        if isinstance(value, types.ModuleType):
            self._modules.add(id(vars(value)))
            own = [] if of_library(value.__name__) else [self._space(vars(value))]
            return value.__name__, self._later(own), self._of_subclass(value)
        if isinstance(value, types.MappingProxyType):
            return self._later([dict(value)])
        if isinstance(value, logging.Logger):
            return kept_items({key: item for key, item in vars(value).items() if key not in _OF_LOGGERS})
        if isinstance(value, INERT) or any(value is stream for stream in (sys.stdout, sys.stderr)):
            return named(value)
        if isinstance(value, GENERATORS) or of_pandas(value):
            return self._hidden(value)
        return self._container(value)

    def _container(self, value: Any) -> Any:
        # To ask for attributes makes a place for them, which pickle would then see: so that comes first.
        attributes = list(_attributes(value))
        content: list[Any] = []
        if isinstance(value, dict):
            left_out = OF_NOTEBOOK.fullmatch if "get_ipython" in value else _NOT_KEPT.__contains__
            kept = {key: item for key, item in value.items() if not (type(key) is str and left_out(key))}
            if "__builtins__" in value and isinstance(value.get("__name__"), str):  # the globals of a module
                file = notebook.name_of(str(value.get("__file__", value["__name__"])))
                self._globals.append(
                    (self._looks, id(value), file, {key: kept[key] for key in kept if type(key) is str})
                )
            else:
                content += [len(kept), self._later([*kept.keys(), *kept.values()])]
        elif isinstance(value, list | tuple | collections.deque):
            content += [len(value), self._later(value)]
        elif isinstance(value, set | frozenset):
            content += [len(value), self._later(sorted(value, key=repr))]
        elif reduces(value) or hasattr(value, "__next__") or not has_attributes(value):
            # Written in C, for most: `functools.partial`, `itertools.count`.
            content += [self._reduced(value)]
        content += [self._later(attributes)]
        return content

    def _reduced(self, value: Any) -> Any:
        """Of what has no attributes: what pickle would keep."""
        if type(value).__module__ == "builtins" and type(value) in (object, super):
            return 0
        try:
            reduced = value.__reduce_ex__(2)
        except Exception:  # noqa: BLE001 - it says in any way it likes that it cannot be copied
            return self._hidden(value)
        return reduced if isinstance(reduced, str) else self._later(reduced)

    def _which(self, value: Any) -> int:
        return 0 if self._alike else id(value)

    def _hidden(self, value: Any) -> int:
        self._found.hidden.append(type(value).__name__)
        return id(value)

    def _of_subclass(self, value: Any) -> int:
        """What an object has beside what its base, of a library, keeps in C."""
        cls = type(value)
        if class_of_torch_or_python(cls):
            return 0
        return self._later([cls] if isinstance(value, types.ModuleType) else _attributes(value))

    def _called(self, name: str) -> None:
        """By a function of Python's that has another name in the user's code, any variable may be reached."""
        if name in REACHING or name in GETTING:
            self._others.add(name)

    def _objects(self, value: Any) -> None:
        if getattr(getattr(value, "dtype", None), "kind", "") == "O":
            self._later(np.asarray(value).ravel().tolist())

    def _tensor(self, value: Tensor) -> Any:
        self._later([vars(value)] if class_of_torch_or_python(type(value)) else [vars(value), type(value)])
        try:
            large = (self._which(value), value._version) if value.nbytes > MOST_BYTES else None
            return large, value.requires_grad, digest(value.detach().cpu().contiguous().view(-1).numpy())
        except (RuntimeError, TypeError):  # bfloat16, sparse, meta, inference
            return id(value), value._version, value.requires_grad

    def _module(self, value: nn.Module) -> Any:
        own = {key: item for key, item in vars(value).items() if key not in _MODULE_OWN}
        if self._alike:  # hooks are numbered as they come
            own |= {key: list(item.values()) for key, item in own.items() if "_hooks" in key and item is not None}
        # Not their values: those are trained, and known. What lies in their attributes is not.
        flags = [(name, self._which(p), p is not None and p.requires_grad) for name, p in value._parameters.items()]
        tensors = (*value._parameters.values(), *value._buffers.values())
        attributes = [vars(tensor) for tensor in tensors if tensor is not None]
        return [flags, list(value._buffers.keys()), list(own), self._later([*own.values(), *attributes, type(value)])]

    def _class(self, value: type) -> Any:
        if class_of_torch_or_python(value):
            self._called(value.__name__)
            held = [item for item in vars(value).values() if belongs_to_user(item)]
            return named(value), kept_items(vars(value)), self._later(held)
        held = [
            item for key, item in vars(value).items() if key not in _OF_PYTHON and not _wrapped_by_torch(value, key)
        ]
        held += [] if class_of_torch_or_python(type(value)) else [type(value)]
        self._module_of(value.__module__)
        self._classes.append((self._looks, value))
        return named(value), self._later([*held, *value.__bases__])

    def _function(self, value: types.FunctionType) -> Any:
        value = torch_private.unwrapped(value)
        held: list[Any] = [value.__defaults__, value.__kwdefaults__, vars(value), *(value.__closure__ or ())]
        if code_of_torch_or_python(value):  # a wrapper may hold the user's
            self._called(value.__name__)
            return self._later(held)
        ours, others = names_in(value.__code__)
        self._names |= ours
        self._others |= others
        if of_library(None, value.__code__.co_filename):
            self._module_of(value.__module__)
        else:
            names = sorted(ours | others)
            imported = (sys.modules.get(name) for name in names)  # inside the function, too
            held += [
                self._space(value.__globals__),
                *(module for module in imported if module and not of_library(module.__name__)),
            ]
            held += self._kept_by_libraries(names, value.__globals__)
        return [id(value.__code__), self._later(held)]

    def _kept_by_libraries(self, names: Sequence[str], space: Mapping[str, Any]) -> list[Any]:
        """What the user's code may keep as attributes of modules of torch, numpy or Python which it names.

        Of containers, which may be the library's own, something is compared; they are not walked through.
        """
        found: list[Any] = []
        modules = {id(builtins): builtins}
        new = [found_in.get(name) for name in names for found_in in (space, sys.modules)]
        while new:
            module = new.pop()
            if not isinstance(module, types.ModuleType) or id(module) in modules or not of_library(module.__name__):
                continue
            modules[id(module)] = module
            new += [vars(module).get(name) for name in names]
        any_attribute = not GETTING.isdisjoint(names)
        for module in modules.values():
            held = vars(module)
            for name in list(held) if any_attribute else names:
                item = held.get(name)
                if type(item) in (*PLAIN, float):
                    found += [item] if name in names and name in held else []
                elif type(item) in CONTAINERS and name in names and item is not sys.modules:
                    self._found.parts.append((name, shallow(item)))
                elif belongs_to_user(item):
                    found.append(item)
        return found

    def _module_of(self, name: str) -> None:
        """All globals of a module of the user's; of an installed one only some: they are many."""
        module = sys.modules.get(str(name))
        if module is None or of_torch_or_python(name):
            return
        if not of_library(name):
            self._later([self._space(vars(module))])
        else:
            kept = kept_items(vars(module))
            plain = [pair for pair in kept if self._libraries or type(pair[1]) in (*PLAIN, float)]
            self._found.parts.append((name, plain))


def equal(one: Any, other: Any) -> bool:
    try:
        return bool(one == other)
    except Exception:  # noqa: BLE001 - values of the user's that do not compare are not the same any more
        return False


def _wrapped_by_torch(cls: type, key: str) -> bool:
    """torch gives a class of optimizers a wrapped `step` of its own when the first one is made."""
    if key != "step" or torch_private.unwrapped(vars(cls)[key]) is vars(cls)[key]:
        return False
    return torch_private.unwrapped(vars(cls)[key]) is getattr(super(cls, cls), key, None)


def _attributes(value: Any) -> Iterator[Any]:
    if hasattr(value, "__dict__"):
        for key, item in list(vars(value).items()):
            yield from (key, item)
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__"):
                name = f"_{kind.__name__.lstrip('_')}{slot}" if slot.startswith("__") else slot
                yield from (slot, getattr(value, name, None))
    if not class_of_torch_or_python(type(value)):
        yield type(value)
