"""What is compared of one value of the user's, without a walk through all that it holds."""

from __future__ import annotations

import collections
import dis
import functools
import hashlib
from collections.abc import Mapping
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

MOST_BYTES = 2**24  # of one tensor or array; of larger ones the ends are looked at, and how often torch wrote into them
PLAIN = (bool, int, str, bytes, complex, type(None), type(...), type(NotImplemented))
CONTAINERS = (list, dict, set, tuple, collections.deque)
MOST_ITEMS = 1000  # of one container that is not the user's
OF_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL")


def named(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', '')}"


def kept_items(items: Mapping[str, Any]) -> list[Any]:
    """The plain values, containers and arrays among attributes of an object that is not the user's."""
    kinds = (*PLAIN, float, *CONTAINERS, Tensor, np.ndarray)
    own = ((key, item) for key, item in list(items.items()) if not key.startswith("__") and type(item) in kinds)
    return sorted(((key, shallow(item)) for key, item in own), key=lambda pair: pair[0])


def shallow(value: Any, depth: int = 4) -> Any:
    """A container to some depth; what is in it and no plain value is told apart by its identity."""
    if type(value) in PLAIN:
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return digest(value)
    if type(value) not in CONTAINERS or not depth or len(value) > MOST_ITEMS:
        return id(value), len(value) if type(value) in CONTAINERS else 0
    if isinstance(value, dict):
        return [(shallow(key, depth - 1), shallow(item, depth - 1)) for key, item in value.items()]
    items = sorted(value, key=repr) if isinstance(value, set) else value
    return [type(value).__name__, *(shallow(item, depth - 1) for item in items)]


def of_pandas(value: Any) -> bool:
    """A table or a column of pandas, which keeps its values in objects written in C."""
    kind = type(value)
    return str(kind.__module__).partition(".")[0] == "pandas" and kind.__name__ in ("DataFrame", "Series", "Index")


def reduces(value: Any) -> bool:
    """Does its class say how it is pickled?"""
    own = {"__reduce__", "__reduce_ex__", "__getstate__"}
    return any(own & vars(kind).keys() for kind in type(value).__mro__ if kind is not object)


def has_attributes(value: Any) -> bool:
    return hasattr(value, "__dict__") or any("__slots__" in vars(kind) for kind in type(value).__mro__)


def digest(values: np.ndarray[Any, Any]) -> Any:
    if values.dtype.kind == "O":
        return values.shape
    if values.nbytes > MOST_BYTES:
        flat = values.reshape(-1)
        values = np.concatenate([flat[:1000], flat[:: max(1, len(flat) // 1000)], flat[-1000:]])
    return values.shape, hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()


_IN_SCRIPTS = frozenset(
    f"prim::{kind}" for kind in "Constant ListConstruct ListUnpack TupleConstruct TupleUnpack".split()
)
# What makes Python values of tensors, and calls that the trial does not see in compiled code.
_ESCAPES_OF_SCRIPTS = frozenset("item Int Float Bool Complex IntImplicit FloatImplicit ComplexImplicit ScalarImplicit "
                                "is_nonzero equal allclose tensor as_tensor manual_seed seed".split())  # fmt: skip


def plain_script(function: Any) -> bool:
    """Does a function that TorchScript has compiled nothing but call operations of torch on its arguments?

    It can then keep nothing, and what it does next depends on no value of a tensor.
    """
    kinds = [node.kind() for node in function.inlined_graph.nodes()]
    return all(
        kind in _IN_SCRIPTS or (kind.startswith("aten::") and kind.removeprefix("aten::") not in _ESCAPES_OF_SCRIPTS)
        for kind in kinds
    )


class Unnamed(NamedTuple):
    """A global variable that no code names which was reached."""

    key: str
    file: str
    content: Any


def unnamed(key: str, file: str, value: Any) -> Unnamed:
    """Of a file, or a notebook."""
    try:
        return Unnamed(key, file, shallow(value))
    except Exception:  # noqa: BLE001 - objects of the user's in a set may have no text to sort them by
        return Unnamed(key, file, id(value))


@functools.lru_cache(maxsize=10_000)
def names_in(code: CodeType) -> tuple[frozenset[str], frozenset[str]]:
    """The global variables that code reads or writes, functions within included; and all other names and texts in it,
    which may be attributes of a module."""
    ours = {step.argval for step in dis.get_instructions(code) if step.opname in OF_GLOBALS}
    others = {*code.co_names, *(constant for constant in code.co_consts if isinstance(constant, str))} - ours
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            more = names_in(constant)
            ours, others = ours | more[0], others | more[1]
    return frozenset(ours), frozenset(others)
