"""What lrsweep uses of torch's private interface, all of it, with what to do where a release of torch lacks it.

Missing names are replaced here, by None or by slower public ones, so that importing never fails. Whether what is there
still does what it did is found out by tests of the tricks that need it (tricks.py).
"""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_map_only, tree_unflatten

__all__ = [
    "TorchDispatchMode",
    "functorch",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_map_only",
    "tree_unflatten",
]

try:
    from torch._C import _functorch as functorch
except ImportError:
    functorch = None  # type: ignore[assignment]

aten = torch.ops.aten
UNSAFE_VIEW = getattr(aten, "_unsafe_view", aten.view).default
# oneDNN's product of a layer: (input, weight, bias, "none", [], "") -> input weight^T + bias.
LINEAR: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
# Whole updates of torch.optim in one kernel, as its optimizers call them under `fused=True`.
FUSED = {name: getattr(torch, f"_fused_{name}_", None) for name in ("sgd", "adam", "adagrad")}


def schema_of(op: Any) -> Any:
    """What an operation writes to and what its results share memory with; None for what is no operation of torch."""
    return getattr(op, "_schema", None)


def bare(op: Any) -> Any:
    """The function behind torch's operator object, which is called faster."""
    return getattr(op, "_op", op)


def foreach(name: str, tensors: Sequence[Tensor], *others: Any) -> None:
    """`tensor.<name>_(*other)` for each tensor and its other of each list, in one call where torch has it."""
    together = getattr(torch, f"_foreach_{name}_", None)
    if together is not None:
        together(tensors, *others)
        return
    for tensor, *arguments in zip(tensors, *others, strict=True):
        getattr(tensor, f"{name}_")(*arguments)


# What torch puts around the `step` of every optimizer class when the first of it is made.
_WRAPPER = getattr(
    getattr(torch.optim.Optimizer, "profile_hook_step", lambda step: None)(lambda: None), "__code__", None
)
_MODULE = sys.modules[torch.optim.Optimizer.__module__]
_HOOKS: list[Any] = [getattr(_MODULE, f"_global_optimizer_{when}_hooks", None) for when in ("pre", "post")]


def unwrapped(function: Any) -> Any:
    """A `step` that torch has put its wrapper around, without that wrapper; any other function as it is."""
    wrapped = _WRAPPER is not None and getattr(function, "__code__", None) is _WRAPPER
    return function.__wrapped__ if wrapped else function


def step(optimizer: Any) -> None:
    """`optimizer.step()`, without torch's wrapper where that does nothing but tell its profiler a name.

    Which takes 18 of the 170 microseconds of a Lion on the weights of digits (2026-11).
    """
    if not _needs_wrapper(optimizer):
        unwrapped(optimizer.step.__func__)(optimizer)
        for hooks in (optimizer._optimizer_step_post_hooks, _HOOKS[1]):
            for hook in tuple(hooks.values()):  # that this step has registered
                hook(optimizer, (optimizer,), {})
    else:
        optimizer.step()


def optimizer_hooks() -> bool:
    """Are there hooks on the steps of all optimizers?"""
    return any(_HOOKS)


def _needs_wrapper(optimizer: Any) -> bool:
    method, cls = optimizer.step, type(optimizer)
    function: Any = getattr(method, "__func__", None)
    if unwrapped(function) is function or method.__self__ is not optimizer:
        return True
    before = getattr(optimizer, "_optimizer_step_pre_hooks", None)
    after = getattr(optimizer, "_optimizer_step_post_hooks", None)
    for hooks in (before, after, *_HOOKS):
        if hooks is None or hooks:
            return True
    code = getattr(torch.optim.Optimizer, "_optimizer_step_code", None)
    own = "_optimizer_step_code" in vars(optimizer)
    return code is None or own or getattr(cls, "_optimizer_step_code", None) is not code


# MKL_CBWR_AUTO of Intel's "conditional numerical reproducibility": kernels for this processor, the same wherever
# numbers lie in memory. Without it, kernels of narrow matrices are chosen by the alignment of their operands, and each
# run of a stack has another one.
_AUTO = 2


def products_ignore_place() -> bool:
    """Do products of matrices round alike in this process wherever the matrices lie in memory?"""
    if not torch.backends.mkl.is_available():
        return True
    mkl = _mkl()
    return mkl is not None and mkl.mkl_serv_cbwr_get(-1) == _AUTO


def make_products_ignore_place() -> bool:
    """See to it, for the rest of this process; False where it is too late, since it has multiplied matrices."""
    if not torch.backends.mkl.is_available():
        return True
    mkl = _mkl()
    return mkl is not None and mkl.mkl_serv_cbwr_set(_AUTO) == 0


@functools.cache
def _mkl() -> Any:
    """Intel's library within torch; None where nothing can be asked of it."""
    folder = Path(torch.__file__).parent / "lib"
    for name in ("libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.dll"):
        with suppress(OSError, AttributeError):
            library = ctypes.CDLL(str(folder / name))
            if library.mkl_serv_cbwr_get and library.mkl_serv_cbwr_set:
                return library
    return None
