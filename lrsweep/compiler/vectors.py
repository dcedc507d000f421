"""Functions of single numbers whose kernels round the last numbers of a tensor in another way than the rest.

torch computes whole vectors at a time and what is left over one by one, by another implementation of `exp` or `log1p`.
Of stacked runs, what is left over are numbers of the last run, so that a run would depend on its place in the stack.
Here such an operation is given memory that it goes through in whole vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lrsweep.compiler.trace import Graph

aten = torch.ops.aten
WHOLE_BYTES = 128
"""Of memory that every kernel of torch's goes through without a rest: two vectors of the widest processors."""


def padded(size: int, dtype: torch.dtype) -> int:
    """The next number of elements that is gone through without a rest."""
    whole = WHOLE_BYTES // dtype.itemsize
    return math.ceil(size / whole) * whole


def fill_vectors(graph: Graph) -> None:
    """Rewrite the operations in ROUNDED_APART whose operands leave a rest."""
    for node in graph.nodes:
        if node.op in ROUNDED_APART:
            like = graph.meta[node.out]
            size = math.prod(like.shape)
            if like.device.type == "cpu" and size != padded(size, like.dtype):
                node.op = _filled(node.op, size, padded(size, like.dtype))


def _filled(op: Callable[..., Tensor], size: int, whole: int) -> Callable[..., Tensor]:
    def call(*args: Any, **kwargs: Any) -> Tensor:
        first = args[0]
        operands = [one for one in args if isinstance(one, Tensor)]
        alike = all(one.shape == first.shape and one.stride() == first.stride() for one in operands)
        if not alike or torch.empty_like(first, device="meta").stride() != first.stride():
            return op(*args, **kwargs)  # there are gaps between the rows, and every row has a rest of its own
        return op(*map(filled, args), **kwargs)[:size].as_strided(first.shape, first.stride())

    def filled(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        memory = value.new_zeros(whole)
        memory[:size] = value.as_strided((size,), (1,))
        return memory

    return call


ROUNDED_APART = {
    getattr(aten, name).default
    for name in (
        "sigmoid", "log1p", "exp2", "sinh", "cosh", "atanh", "gelu", "gelu_backward", "silu", "silu_backward", "mish",
        "mish_backward", "softplus", "softplus_backward", "elu", "elu_backward", "rsqrt",
    )
}  # fmt: skip
ROUNDED_APART.add(aten.pow.Tensor_Scalar)
"""All of torch's that were found to, by comparing each number of a tensor with the same number in a longer one."""
