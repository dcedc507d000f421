"""Rewrites (graphs.py) of products of matrices for processors on which torch's own are slow.

torch multiplies float32 matrices on the CPU by Intel's MKL, which does without AVX-512 on processors of others. oneDNN,
which torch ships as well, uses it: twice as fast on those that have full-width units, the same on those that have not.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch

from lrsweep.machine import cpu_name
from lrsweep.tracing import Graph, Like, Node, Ref

aten = torch.ops.aten
WORTH = 2**22  # operations of a product from which on the call, which costs 10 us more, pays


@functools.cache
def onednn_is_faster() -> bool:
    """A matter of the processor and of how torch was built, so that equal sweeps on one machine multiply equally."""
    backends: Any = torch.backends
    built = backends.mkl.is_available() and backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, LINEAR)
    return bool(built and backends.cpu.get_cpu_capability() == "AVX512" and cpu_name().startswith("AMD"))


LINEAR = "_linear_pointwise"


def multiply_by_onednn(graph: Graph) -> None:
    """Large products, with the addition of a bias if there is one, by oneDNN's linear layer x w^T + b."""
    if not onednn_is_faster():
        return
    linear = getattr(torch.ops.mkldnn, LINEAR).default
    maker = {ref: node for node in graph.nodes for ref in node.outs if ref is not None}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op is aten.mm.default:
            (x, w), bias = node.args, None
        elif node.op is aten.addmm.default and not node.kwargs and len(graph.like[node.args[0]].shape) == 1:
            bias, x, w = node.args
        else:
            nodes.append(node)
            continue
        if _is_worth_it(graph.like[x], graph.like[w]):
            turned = _turned(graph, nodes, maker, w)
            node = Node(linear, (x, turned, bias, "none", [], ""), {}, node.outs)
            graph.like[node.out] = Like.dense(graph.like[node.out].shape, graph.like[node.out])
        nodes.append(node)
    graph.nodes = nodes


def _is_worth_it(x: Like, w: Like) -> bool:
    plain = x.dtype == w.dtype == torch.float32 and x.device.type == w.device.type == "cpu"
    return plain and 2 * math.prod(x.shape) * w.shape[1] >= WORTH


def _turned(graph: Graph, nodes: list[Node], maker: dict[Ref, Node], ref: Ref) -> Ref:
    """The transpose of a matrix; where it is a transpose itself, what it was made of."""
    made = maker.get(ref)
    if made is not None and made.op is aten.t.default:
        source: Ref = made.args[0]
        return source
    out = graph.new(graph.like[ref].transposed())
    nodes.append(Node(aten.t.default, (ref,), {}, (out,)))
    return out
