"""Products of matrices by oneDNN, for processors on which torch's own are slow.

torch multiplies float32 matrices on the CPU by Intel's MKL, which does without AVX-512 on processors of others. oneDNN,
which torch ships as well, uses it: twice as fast on those that have full-width units, the same on those that have not.

A layer's product, x w^T, can be had from it by name. All others, batches of them above all, torch hands to oneDNN where
float32 may be multiplied as bfloat16. That is a permission, and oneDNN has no use for it without units made for that
(AMX): it multiplies float32. No product is rewritten so before that is proven for it, by numbers that bfloat16 would
round. On a processor of AMD with AVX-512, training takes 59 % longer without it on workload b of
`python -m tests.bench.tricks`, 47 % on d, 82 % on e (2026-11); on processors of Intel it is not used.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lrsweep.compiler.torch_private import LINEAR
from lrsweep.compiler.trace import Graph, TensorMeta
from lrsweep.system.machine import cpu_name

aten = torch.ops.aten
# Operations of all products of a call, which costs 10 us more, and of each in it, from which on oneDNN is faster. Of
# stacked runs, a run's share must be worth it, as if the call were large: their number decides no bit of a run.
WORTH, EACH_WORTH = 2**21, 2**16
COPIED = 2**17  # numbers of an operand that all products of a batch share: oneDNN is given a copy for each


def library() -> str:
    """Whose kernels multiply large matrices in the processes that train on a CPU."""
    like = TensorMeta.dense((128, 128), TensorMeta((), (), torch.float32, torch.device("cpu")))
    return "oneDNN" if onednn_is_faster() and keeps_every_bit(mm, like, like) else "torch"


@functools.cache
def onednn_is_faster() -> bool:
    """Than torch's own products: a matter of the processor and of how torch was built, so that equal sweeps on one
    machine multiply equally."""
    backends: Any = torch.backends
    built = backends.mkl.is_available() and backends.mkldnn.is_available()
    return bool(built and backends.cpu.get_cpu_capability() == "AVX512" and cpu_name().startswith("AMD"))


def multiply_by_onednn(graph: Graph, runs: int | None = None) -> None:
    """Rewrite (passes.py) the products that are worth it, with the addition of a bias if there is one.

    `runs`: how many are stacked in the graph; None for one that is captured alone.
    """
    if not onednn_is_faster():
        return
    for node in graph.nodes:
        if node.op not in PRODUCTS or node.kwargs:
            continue
        product, rewritten = PRODUCTS[node.op]
        *bias, a, b = (graph.meta[argument] for argument in node.args)
        if not _is_worth_it(a, b, runs):
            continue
        if _is_layer(a, b, *bias):
            node.op = layer if bias == [] else layer_with_bias
        elif keeps_every_bit(product, _first_two(a), _first_two(b)):
            node.op = rewritten
        else:
            continue
        graph.meta[node.out] = TensorMeta.dense(graph.meta[node.out].shape, graph.meta[node.out])


def _is_worth_it(a: TensorMeta, b: TensorMeta, runs: int | None) -> bool:
    plain = a.dtype == b.dtype == torch.float32 and a.device.type == b.device.type == "cpu"
    each = 2 * math.prod(a.shape[-2:]) * b.shape[-1]
    copied = max(math.prod(one.shape[-2:]) if 0 in one.stride[:-2] else 0 for one in (a, b))
    if not plain or copied > COPIED:
        return False
    if runs is not None and len(a.shape) == 2:  # the filters of all runs side by side, on what they share
        return each >= EACH_WORTH * runs
    large = runs is not None or each * math.prod(a.shape[:-2]) >= WORTH
    return each >= EACH_WORTH and large and min(a.shape[-2], b.shape[-1]) > 1


def _first_two(like: TensorMeta) -> TensorMeta:
    """Of a batch: what holds for two of its products holds for all."""
    return replace(like, shape=(*(min(2, extent) for extent in like.shape[:-2]), *like.shape[-2:]))


def _is_layer(a: TensorMeta, b: TensorMeta, *bias: TensorMeta) -> bool:
    """Can `a b` be a layer's product, of weights without gaps? With gaps it is a thousand times slower.

    A bias is read as a number per column, one after the other in memory, whatever its strides say.
    """
    there = LINEAR is not None and all(one.same_layout(TensorMeta.dense(b.shape[1:], b)) for one in bias)
    whole = any(one.same_layout(TensorMeta.dense(one.shape, one)) for one in (b, b.transposed()))
    return there and len(a.shape) == 2 and a.stride[1] == 1 and whole


@functools.cache
def keeps_every_bit(product: Callable[[Tensor, Tensor], Tensor], a: TensorMeta, b: TensorMeta) -> bool:
    """Is a product of two matrices like these the one of float32 numbers? Columns of `a` and rows of `b` are picked, by
    ones among zeros, and compared to the bit."""
    try:
        numbers, columns = _numbers(a), min(b.shape[-2:])
        if not torch.equal(product(numbers, _picks(b))[..., :columns], numbers[..., :columns]):
            return False
        numbers, rows = _numbers(b), min(a.shape[-2:])
        return torch.equal(product(_picks(a), numbers)[..., :rows, :], numbers[..., :rows, :])
    except RuntimeError:  # parts of an operand share memory, which nothing can be copied to, or it cannot be multiplied
        return False


def _numbers(like: TensorMeta) -> Tensor:
    """Numbers with all their bits, even if it is only one."""
    held = _held(like)
    return _lying(torch.linspace(1.1, 1.9, math.prod(held), dtype=like.dtype, device=like.device).view(held), like)


def _picks(like: TensorMeta) -> Tensor:
    ones = torch.eye(*like.shape[-2:], dtype=like.dtype, device=like.device)
    return _lying(ones.expand(_held(like)[:-2] + like.shape[-2:]), like)


def _held(like: TensorMeta) -> tuple[int, ...]:
    """The shape of what is in memory: of entries that are one, one."""
    return tuple(1 if stride == 0 else extent for extent, stride in zip(like.shape, like.stride, strict=True))


def _lying(values: Tensor, like: TensorMeta) -> Tensor:
    empty = torch.empty_strided(_held(like), like.stride, dtype=like.dtype, device=like.device)
    return empty.copy_(values).expand(like.shape)


def _by_onednn(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    backends: Any = torch.backends
    precision = backends.mkldnn.matmul

    def call(a: Tensor, b: Tensor) -> Tensor:
        before = precision.fp32_precision
        try:
            precision.fp32_precision = "bf16"
            return product(a, b)
        finally:
            precision.fp32_precision = before

    return call


def _and_add(product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def call(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return product(a, b).add_(bias)

    return call


_NOTHING_BEHIND: tuple[Any, ...] = ("none", [], "")


def layer(a: Tensor, b: Tensor) -> Tensor:
    """a b."""
    return layer_with_bias(None, a, b)


def layer_with_bias(bias: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """a b + bias."""
    assert LINEAR is not None
    return LINEAR(a, b.t(), bias, *_NOTHING_BEHIND)


mm, bmm = _by_onednn(torch.mm), _by_onednn(torch.bmm)
PRODUCTS: dict[Any, tuple[Callable[[Tensor, Tensor], Tensor], Callable[..., Tensor]]] = {
    aten.mm.default: (mm, mm),
    aten.bmm.default: (bmm, bmm),
    aten.addmm.default: (mm, _and_add(mm)),
    aten.baddbmm.default: (bmm, _and_add(bmm)),
}
"""By operation: the product in it, and all of it."""
