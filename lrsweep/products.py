"""Rewrites (graphs.py) of products of matrices for processors on which torch's own are slow.

torch multiplies float32 matrices on the CPU by Intel's MKL, which does without AVX-512 on processors of others. oneDNN,
which torch ships as well, uses it: twice as fast on those that have full-width units, the same on those that have not.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from typing import Any

import torch

from lrsweep.machine import cpu_name
from lrsweep.tracing import Graph, Like, Node, Ref

aten = torch.ops.aten
WORTH = 2**22  # operations of a product from which on the call, which costs 10 us more, pays
# The like for a layer of a stack by a convolution, which first brings the weights into an order of its own.
STACK_WORTH, STACK_ROWS = 2**24, 64


@functools.cache
def onednn_is_faster() -> bool:
    """A matter of the processor and of how torch was built, so that equal sweeps on one machine multiply equally."""
    backends: Any = torch.backends
    there = all(hasattr(torch.ops.mkldnn, name) for name in (LINEAR, CONVOLUTION))
    built = there and backends.mkl.is_available() and backends.mkldnn.is_available()
    return bool(built and backends.cpu.get_cpu_capability() == "AVX512" and cpu_name().startswith("AMD"))


LINEAR, CONVOLUTION = "_linear_pointwise", "_convolution_pointwise"


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
            node = Node(linear, (x, turned, bias, *PLAIN), {}, node.outs)
            graph.like[node.out] = Like.dense(graph.like[node.out].shape, graph.like[node.out])
        nodes.append(node)
    graph.nodes = nodes


def _is_worth_it(x: Like, w: Like) -> bool:
    plain = x.dtype == w.dtype == torch.float32 and x.device.type == w.device.type == "cpu"
    return plain and 2 * math.prod(x.shape) * w.shape[1] >= WORTH


def _turned(graph: Graph, nodes: list[Node], maker: dict[Ref, Node], ref: Ref) -> Ref:
    """The transpose of a matrix; where it is a transpose itself, what it was made of.

    Without gaps in memory, with which oneDNN is a thousand times slower for weights.
    """
    made = maker.get(ref)
    turned = made is not None and made.op is aten.t.default
    source = made.args[0] if made is not None and turned else ref
    dense = graph.new(Like.dense(graph.like[source].shape, graph.like[source]))
    nodes.append(Node(aten.contiguous.default, (source,), {}, (dense,)))
    if turned:
        return dense
    out = graph.new(graph.like[dense].transposed())
    nodes.append(Node(aten.t.default, (dense,), {}, (out,)))
    return out


def layers_by_onednn(graph: Graph) -> None:
    """Linear layers of a stack by oneDNN, their outputs as [B, M O]: the outputs of a run among those of all.

    A layer that all runs give the same inputs is one linear layer of M O outputs; one behind another is a convolution
    of one pixel in M groups, for oneDNN's batched product cannot be had.
    """
    if onednn_is_faster():
        _Layers(graph).rewrite()


class _Layers:
    """`flat` holds [B, M N] for each value [M, B, N] that is a view of one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.flat: dict[Ref, Ref] = {}
        self.maker = {ref: node for node in graph.nodes for ref in node.outs if ref is not None}
        self.uses = Counter(ref for node in graph.nodes for ref in node.inputs())
        self.uses.update(ref for ref in graph.outputs if ref is not None)

    def rewrite(self) -> None:
        for node in self.graph.nodes:
            flat = self._layer(node) or self._activation(node)
            if flat is None:
                self.nodes.append(node)
                continue
            self.flat[node.out] = flat
            runs, rows, width = self.graph.like[node.out].shape
            split = self._view(aten.reshape.default, flat, (rows, runs, width), [rows, runs, width])
            self.nodes.append(Node(aten.transpose.int, (split, 0, 1), {}, node.outs))
            like = self.graph.like[node.out]
            self.graph.like[node.out] = Like(like.shape, (width, runs * width, 1), like.dtype, like.device)
        self.graph.nodes = self.nodes

    def _layer(self, node: Node) -> Ref | None:
        """The outputs of a layer, [B, M O], if it is one and worth it."""
        if node.op not in (aten.baddbmm.default, aten.bmm.default) or node.kwargs:
            return None
        *bias, x, turned = node.args
        weights, inputs = self.maker.get(turned), self.maker.get(x)
        if weights is None or weights.op is not aten.transpose.int or {dim % 3 for dim in weights.args[1:]} != {1, 2}:
            return None
        (runs, rows, width), depth = self.graph.like[node.out].shape, self.graph.like[x].shape[2]
        like, size = self.graph.like[x], 2 * runs * rows * width * depth
        if like.dtype != torch.float32 or like.device.type != "cpu":
            return None
        if bias and self.graph.like[bias[0]].shape != (runs, 1, width):
            return None
        shared = inputs.args[0] if inputs is not None and inputs.op is aten.expand.default else None
        if shared is not None and self.graph.like[shared].shape == (rows, depth) and size >= WORTH:
            return self._linear(shared, weights.args[0], bias, (runs, rows, width, depth))
        if x in self.flat and size >= STACK_WORTH and rows >= STACK_ROWS:
            return self._convolution(self.flat[x], weights.args[0], bias, (runs, rows, width, depth))
        return None

    def _linear(self, x: Ref, weights: Ref, bias: list[Ref], sizes: tuple[int, int, int, int]) -> Ref:
        runs, rows, width, depth = sizes
        w = self._view(aten.reshape.default, weights, (runs * width, depth), [runs * width, depth])
        out = self.graph.new(Like.dense((rows, runs * width), self.graph.like[x]))
        op = getattr(torch.ops.mkldnn, LINEAR).default
        self.nodes.append(self._remember(Node(op, (x, w, self._bias(bias, runs * width), *PLAIN), {}, (out,))))
        return out

    def _convolution(self, flat: Ref, weights: Ref, bias: list[Ref], sizes: tuple[int, int, int, int]) -> Ref:
        runs, rows, width, depth = sizes
        image = self._view(aten.reshape.default, flat, (1, rows, 1, runs * depth), [1, rows, 1, runs * depth])
        image = self._view(aten.permute.default, image, (1, runs * depth, rows, 1), [0, 3, 1, 2])
        w = self._view(aten.reshape.default, weights, (runs * width, depth, 1, 1), [runs * width, depth, 1, 1])
        made = self.graph.new(Like.dense((1, runs * width, rows, 1), self.graph.like[flat]))
        op = getattr(torch.ops.mkldnn, CONVOLUTION).default
        where = ([0, 0], [1, 1], [1, 1], runs)
        self.nodes.append(Node(op, (image, w, self._bias(bias, runs * width), *where, *PLAIN), {}, (made,)))
        conv = self.nodes[-1]
        out = self._view(aten.permute.default, made, (1, rows, 1, runs * width), [0, 2, 3, 1])
        out = self._view(aten.reshape.default, out, (rows, runs * width), [rows, runs * width])
        self.maker[out] = conv
        return out

    def _bias(self, bias: list[Ref], size: int) -> Ref | None:
        return self._view(aten.reshape.default, bias[0], (size,), [size]) if bias else None

    def _activation(self, node: Node) -> Ref | None:
        """A function of every number for itself, of the flat outputs instead; a ReLU within the layer where it can."""
        if node.op not in ELEMENTWISE or node.args[0] not in self.flat:
            return None
        flat = self.flat[node.args[0]]
        made = self.maker.get(flat)
        if node.op is aten.relu.default and made is not None and self.uses[node.args[0]] == 1:
            made.args = (*made.args[: -len(PLAIN)], "relu", *PLAIN[1:])
            return flat
        out = self.graph.new(self.graph.like[flat])
        self.nodes.append(Node(node.op, (flat, *node.args[1:]), node.kwargs, (out,)))
        return out

    def _view(self, op: Any, ref: Ref, shape: tuple[int, ...], argument: list[int]) -> Ref:
        out = self.graph.new(Like.dense(shape, self.graph.like[ref]))
        self.nodes.append(Node(op, (ref, argument), {}, (out,)))
        return out

    def _remember(self, node: Node) -> Node:
        self.maker[node.out] = node
        return node


PLAIN: tuple[Any, ...] = ("none", [], "")  # nothing behind the layer
ELEMENTWISE = {
    aten.relu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.gelu.default,
    aten.silu.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.softplus.default,
}
