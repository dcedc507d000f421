"""Products of matrices by numpy's OpenBLAS, for processors on which torch's own are slow.

The first choice where products.py tells why torch is slow: OpenBLAS has kernels for AVX-512 too, reads operands as they
lie, where oneDNN brings them into an order of its own in every step, and costs less a matrix in a batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lrsweep.machine import cpu_name
from lrsweep.tracing import Graph, Like, Node

aten = torch.ops.aten
WORTH = 2**20  # operations of a product, or of a batch of them, from which on the detour by numpy, some 5 us, pays
WIDE_CORES = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # names of OpenBLAS for kernels that use AVX-512


class _Process:
    """What this process has decided."""

    multiplies = False


def faster() -> Any | None:
    """threadpoolctl's handle on numpy's OpenBLAS, where that multiplies faster than torch.

    A matter of the processor, of what is installed, and of OPENBLAS_CORETYPE, so that equal sweeps on one machine
    multiply equally.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not cpu_name().startswith("AMD"):
        return None
    from threadpoolctl import ThreadpoolController

    of_numpy = Path(np.__file__).parent.parent / "numpy.libs"
    for library in ThreadpoolController().select(internal_api="openblas").lib_controllers:
        if Path(library.filepath).parent == of_numpy and library.architecture in WIDE_CORES:
            return library
    return None


def choose() -> None:
    """Let this process multiply by OpenBLAS from now on, where that is faster; with one thread, so it must train."""
    if (library := faster()) is not None:
        library.set_num_threads(1)
        _Process.multiplies = True


def chosen() -> bool:
    """Does this process multiply by OpenBLAS?"""
    return _Process.multiplies


def multiply_by_numpy(graph: Graph) -> bool:
    """Rewrite the products that are worth it, with the addition of a bias if there is one; were there any?"""
    found = False
    for node in graph.nodes:
        if node.op in PRODUCTS and not node.kwargs and _is_worth_it(graph, node):
            node.op = PRODUCTS[node.op]
            graph.like[node.out] = Like.dense(graph.like[node.out].shape, graph.like[node.out])
            found = True
    return found


def _is_worth_it(graph: Graph, node: Node) -> bool:
    a, b = (graph.like[argument] for argument in node.args[-2:])
    plain = a.dtype == b.dtype and a.dtype in (torch.float32, torch.float64) and a.device.type == b.device.type == "cpu"
    # A vector is no matrix to a BLAS, which may then leave out what it multiplies by 0, were it nan.
    return plain and min(*a.shape[-2:], b.shape[-1]) > 1 and 2 * math.prod(a.shape) * b.shape[-1] >= WORTH


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """a b, [..., m, k] by [..., k, n]."""
    out = torch.empty((*a.shape[:-1], b.shape[-1]), dtype=a.dtype)
    np.matmul(_matrices(a), _matrices(b), out=out.numpy())
    return out


def _matrices(tensor: Tensor) -> Any:
    """The same memory; copied where rows and columns both have gaps, which a BLAS cannot read."""
    return (tensor if 1 in tensor.stride()[-2:] else tensor.contiguous()).numpy()


def matmul_and_add(bias: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """bias + a b."""
    return matmul(a, b).add_(bias)


def quiet(replay: Callable[..., Any]) -> Callable[..., Any]:
    """Without numpy's warnings about numbers that are not finite: a run that diverges tells it by itself."""

    def call(*inputs: Tensor) -> Any:
        with np.errstate(all="ignore"):
            return replay(*inputs)

    return call


PRODUCTS: dict[Any, Callable[..., Tensor]] = {
    aten.mm.default: matmul,
    aten.bmm.default: matmul,
    aten.addmm.default: matmul_and_add,
    aten.baddbmm.default: matmul_and_add,
}
