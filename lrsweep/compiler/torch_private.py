"""What lrsweep uses of torch's private interface, all of it, with what to do where a release of torch lacks it.

Missing names are replaced here, by None or by slower public ones, so that importing never fails. Whether what is there
still does what it did is found out by tests of the tricks that need it (tricks.py).
"""

from __future__ import annotations

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
