"""A pretended accelerator: a device of its own type, "pretend", that computes on the CPU and notes what would cost time
on a real one.

Its tensors refuse to meet CPU tensors, except single numbers, as those of a GPU do. `log.waits` are the operations for
which the host would wait for the device (numbers and tensors copied to the host), `log.uploads` the copies to it.
Needs torch's experimental Python backends (2.10 or later): `available`.
"""

from __future__ import annotations

import functools
import traceback
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils import backend_registration

aten = torch.ops.aten
_set_up = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
available = _set_up is not None
NAME = "pretend"
HOST = torch.device("cpu")


@dataclass
class Log:
    """What was done since `clear`, each with the places in lrsweep that asked for it."""

    waits: list[str] = field(default_factory=list)
    uploads: list[str] = field(default_factory=list)

    def clear(self) -> None:
        self.waits.clear()
        self.uploads.clear()


log = Log()


class Memory:
    """What torch.cuda has to say of its memory."""

    TOTAL = 2**30

    def __init__(self) -> None:
        self._users: Counter[int] = Counter()
        self._bytes = self._peak = 0

    def hold(self, tensor: Pretended) -> None:
        storage = tensor.raw.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if not self._users[place]:
            self._bytes += size
            self._peak = max(self._peak, self._bytes)
        self._users[place] += 1
        weakref.finalize(tensor, self._free, place, size)

    def _free(self, place: int, size: int) -> None:
        self._users[place] -= 1
        if not self._users[place]:
            del self._users[place]
            self._bytes -= size

    def empty_cache(self) -> None: ...

    def reset_peak_memory_stats(self, of: object) -> None:
        self._peak = self._bytes

    def max_memory_allocated(self, of: object) -> int:
        return self._peak

    def mem_get_info(self, of: object) -> tuple[int, int]:
        return self.TOTAL - self._bytes, self.TOTAL


memory = Memory()


def _place(what: str) -> str:
    frames = [f"{one.name}:{one.lineno}" for one in traceback.extract_stack() if "/lrsweep/" in one.filename]
    return f"{what} in {' < '.join(reversed(frames[-3:]))}"


class Pretended(Tensor):
    """`raw` is where its numbers are."""

    raw: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw: Tensor) -> Pretended:
        made = Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype, device=device()
        )
        made.raw = raw
        memory.hold(made)
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    def tolist(self) -> Any:
        log.waits.append(_place("tolist"))
        return self.raw.tolist()


def _raw(leaf: Any) -> Any:
    """What the operation is to be given on the CPU."""
    if isinstance(leaf, Pretended):
        return leaf.raw
    if isinstance(leaf, Tensor) and leaf.ndim:
        raise RuntimeError(f"a CPU tensor of shape {tuple(leaf.shape)} meets tensors of the device {NAME}")
    return HOST if isinstance(leaf, torch.device) else leaf


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if "mkldnn" in str(func):
        raise NotImplementedError(f"{func} is for the CPU alone")
    if func is aten._local_scalar_dense.default:
        log.waits.append(_place("a number"))
        return func(args[0].raw)
    if func is aten._to_copy.default:
        return _copied(args[0], kwargs)
    if func is aten.copy_.default and isinstance(args[0], Pretended) != isinstance(args[1], Pretended):
        (log.uploads if isinstance(args[0], Pretended) else log.waits).append(_place("a copy"))
        func(*(leaf.raw if isinstance(leaf, Pretended) else leaf for leaf in args[:2]))
        return args[0]
    ours = {id(leaf.raw): leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Pretended)}
    out = func(*pytree.tree_map(_raw, args), **pytree.tree_map(_raw, kwargs))

    def wrapped(one: Any) -> Any:
        if not isinstance(one, Tensor):
            return one
        return ours[id(one)] if id(one) in ours else Pretended(one)

    return pytree.tree_map(wrapped, out)


def _copied(source: Tensor, options: dict[str, Any]) -> Tensor:
    to_host = options.get("device") is not None and torch.device(options["device"]).type == "cpu"
    rest = {key: value for key, value in options.items() if key != "device"}
    if not isinstance(source, Pretended):
        log.uploads.append(_place("a copy"))
        return Pretended(aten._to_copy.default(source, **rest))
    if to_host:
        log.waits.append(_place("a copy"))
    copy = aten._to_copy.default(source.raw, **rest)
    return copy if to_host else Pretended(copy)


@functools.cache
def device() -> torch.device:
    """The device, which exists in this process from the first call on."""
    assert _set_up is not None
    _set_up(NAME)
    for library, names in (("_", ()), ("aten", ("empty.memory_format", "empty_strided", "_to_copy", "copy_"))):
        made = torch.library.Library(library, "IMPL")
        _LIBRARIES.append(made)
        if not names:
            made.fallback(lambda op, *args, **kwargs: _call(op, args, kwargs), "PrivateUse1")
        for name in names:
            made.impl(name, _kernel(name), "PrivateUse1")
    module: Any = getattr(torch, NAME)
    for name in ("empty_cache", "reset_peak_memory_stats", "max_memory_allocated", "mem_get_info"):
        setattr(type(module), name, staticmethod(getattr(memory, name)))
    return torch.device(NAME, 0)


_LIBRARIES: list[torch.library.Library] = []  # which unregister when they are freed


def _kernel(name: str) -> Callable[..., Any]:
    base, _, overload = name.partition(".")
    op = getattr(getattr(aten, base), overload or "default")
    return lambda *args, **kwargs: _call(op, args, kwargs)
