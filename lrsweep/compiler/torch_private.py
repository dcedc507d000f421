"""What lrsweep uses of torch's private interface, all of it, with what to do where a release of torch lacks it.

Missing names are replaced here, by None or by slower public ones, so that importing never fails. Whether what is there
still does what it did is found out by tests of the tricks that need it (tricks.py).
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
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


def schema(op: Any) -> Any:
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
_HOOKS = [getattr(_MODULE, f"_global_optimizer_{when}_hooks", None) for when in ("pre", "post")]


def step_of(optimizer: Any) -> Callable[[], Any]:
    """`optimizer.step`, without torch's wrapper where that does nothing but tell its profiler a name.

    Which takes 18 of the 170 microseconds of a Lion on the weights of digits (2026-11).
    """
    step, cls = optimizer.step, type(optimizer)
    function: Any = getattr(step, "__func__", None)
    if _WRAPPER is None or getattr(function, "__code__", None) is not _WRAPPER or step.__self__ is not optimizer:
        return step
    hooks = [getattr(optimizer, f"_optimizer_step_{when}_hooks", None) for when in ("pre", "post")]
    if any(kept is None or len(kept) for kept in (*_HOOKS, *hooks)):
        return step
    code = getattr(torch.optim.Optimizer, "_optimizer_step_code", None)
    if (
        code is None
        or getattr(cls, "_optimizer_step_code", None) is not code
        or "_optimizer_step_code" in vars(optimizer)
    ):
        return step
    return functools.partial(function.__wrapped__, optimizer)
