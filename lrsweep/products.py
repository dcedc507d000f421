"""Rewrites (graphs.py) of products of matrices for processors on which torch's own are slow.

torch multiplies float32 matrices on the CPU by Intel's MKL, which does without AVX-512 on processors of others. oneDNN,
which torch ships as well, uses it: twice as fast on those that have full-width units, the same on those that have not.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from lrsweep import blas
from lrsweep.machine import cpu_name
from lrsweep.tracing import Graph, Like, Node, Ref

aten = torch.ops.aten
WORTH = 2**22  # operations of a product from which on the call, which costs 10 us more, pays
PLAIN: tuple[Any, ...] = ("none", [], "")  # nothing behind the layer


def library() -> str:
    """Whose kernels multiply large matrices in the processes that train on a CPU."""
    openblas = blas.faster()
    return f"OpenBLAS ({openblas.architecture})" if openblas else "oneDNN" if _onednn_is_wider() else "torch"


def onednn_is_faster() -> bool:
    """Than torch's own products, where numpy's (blas.py) are not the choice."""
    return not blas.chosen() and _onednn_is_wider()


def _onednn_is_wider() -> bool:
    """A matter of the processor and of how torch was built, so that equal sweeps on one machine multiply equally."""
    backends: Any = torch.backends
    there = all(hasattr(torch.ops.mkldnn, name) for name in (LINEAR, CONVOLUTION, DECONVOLUTION))
    built = there and backends.mkl.is_available() and backends.mkldnn.is_available()
    return bool(built and backends.cpu.get_cpu_capability() == "AVX512" and cpu_name().startswith("AMD"))


LINEAR, CONVOLUTION = "_linear_pointwise", "_convolution_pointwise"
DECONVOLUTION = "_convolution_transpose_pointwise"


def multiply_by_onednn(graph: Graph) -> None:
    """Large products, with the addition of a bias if there is one, by oneDNN's linear layer x w^T + b."""
    if not onednn_is_faster():
        return
    linear = getattr(torch.ops.mkldnn, LINEAR).default
    maker = {ref: node for node in graph.nodes for ref in node.outs if ref is not None}
    read = {ref for node in graph.nodes for ref in node.inputs()}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op is aten.mm.default:
            (x, w), bias = node.args, None
        elif node.op is aten.addmm.default and not node.kwargs and len(graph.like[node.args[0]].shape) == 1:
            bias, x, w = node.args
        else:
            nodes.append(node)
            continue
        if not _is_worth_it(graph.like[x], graph.like[w]):
            nodes.append(node)
            continue
        dense = Like.dense(graph.like[node.out].shape, graph.like[node.out])
        if bias is None and node.out not in read and _turned_is_faster(graph, maker, x, w):
            # w^T x^T, whose transpose nobody but the optimizer reads.
            made = graph.new(Like.dense(dense.shape[::-1], dense))
            wt = _turned(graph, nodes, maker, w)
            nodes.append(Node(linear, (wt, _without_gaps(graph, nodes, x), None, *PLAIN), {}, (made,)))
            nodes.append(Node(aten.t.default, (made,), {}, node.outs))
            graph.like[node.out] = graph.like[made].transposed()
            continue
        turned = _without_gaps(graph, nodes, _turned(graph, nodes, maker, w))
        nodes.append(Node(linear, (x, turned, bias, *PLAIN), {}, node.outs))
        graph.like[node.out] = dense
    graph.nodes = nodes


def _is_worth_it(x: Like, w: Like) -> bool:
    plain = x.dtype == w.dtype == torch.float32 and x.device.type == w.device.type == "cpu"
    return plain and 2 * math.prod(x.shape) * w.shape[1] >= WORTH


def _turned_is_faster(graph: Graph, maker: dict[Ref, Node], x: Ref, w: Ref) -> bool:
    """Is the transpose cheaper? oneDNN first brings a transposed `x` into order, so that should be the smaller one."""
    return graph.like[x].stride[0] == 1 and graph.like[w].shape[1] < graph.like[x].shape[0]


def _turned(graph: Graph, nodes: list[Node], maker: dict[Ref, Node], ref: Ref) -> Ref:
    """The transpose of a matrix; where it is a transpose itself, what it was made of."""
    made = maker.get(ref)
    if made is not None and made.op is aten.t.default:
        source: Ref = made.args[0]
        return source
    out = graph.new(graph.like[ref].transposed())
    nodes.append(Node(aten.t.default, (ref,), {}, (out,)))
    return out


def _without_gaps(graph: Graph, nodes: list[Node], ref: Ref) -> Ref:
    """A matrix in one piece, by rows or by columns: with gaps, oneDNN is a thousand times slower for weights."""
    like = graph.like[ref]
    if any(one.same_layout(Like.dense(one.shape, one)) for one in (like, like.transposed())):
        return ref
    dense = graph.new(Like.dense(like.shape, like))
    nodes.append(Node(aten.contiguous.default, (ref,), {}, (dense,)))
    return dense
