"""Rewrites (graphs.py) of the linear layers of a stack, for processors on which oneDNN is faster (products.py).

oneDNN's batched product cannot be had from torch, but a convolution of one pixel in M groups is one. So a layer's
outputs are a convolution, and both gradients are transposed convolutions, whose weights are summed over the other way.
"""

# M runs, B batch, N outputs of a layer, K inputs

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from lrsweep import products
from lrsweep.products import CONVOLUTION, DECONVOLUTION, LINEAR, PLAIN, WORTH
from lrsweep.tracing import Graph, Like, Node, Ref

aten = torch.ops.aten
# Operations of a batched product, of one run of it, and rows from which on a convolution pays: it first brings its
# weights into an order of its own.
STACK_WORTH, RUN_WORTH, STACK_ROWS = 2**24, 2**19, 64
SHARED_WORTH = 2**23  # operations of the gradient of weights whose inputs all runs share
LANES = 16  # numbers in a register: oneDNN has no fast kernel for gradients of weights of other widths


def layers_by_onednn(graph: Graph) -> None:
    """Linear layers of a stack and their gradients by oneDNN.

    Outputs, and gradients of them, lie as [B, M N]: the outputs of a run among those of all. A layer that all runs give
    the same inputs is one linear layer of M N outputs.
    """
    if products.onednn_is_faster():
        _Layers(graph).rewrite()


class _Layers:
    """`flat` holds [B, M N] for each value [M, B, N] that is a view of one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.flat: dict[Ref, Ref] = {}
        self.maker = {ref: node for node in graph.nodes for ref in node.outs if ref is not None}

    def rewrite(self) -> None:
        for node in self.graph.nodes:
            flat = self._layer(node) or self._elementwise(node) or self._input_gradient(node)
            if flat is not None:
                self._unfold(node, flat)
            elif not self._weight_gradient(node):
                self.nodes.append(node)
        self.graph.nodes = self.nodes

    def _unfold(self, node: Node, flat: Ref) -> None:
        """The value of `node`, [M, B, N], as a view of [B, M N]."""
        self.flat[node.out] = flat
        runs, rows, width = self.graph.like[node.out].shape
        split = self._view(aten.reshape.default, flat, (rows, runs, width))
        self.nodes.append(Node(aten.transpose.int, (split, 0, 1), {}, node.outs))
        like = self.graph.like[node.out]
        self.graph.like[node.out] = Like(like.shape, (width, runs * width, 1), like.dtype, like.device)

    def _layer(self, node: Node) -> Ref | None:
        """The outputs of a layer, [B, M N], if it is one and worth it."""
        if node.op not in (aten.baddbmm.default, aten.bmm.default) or node.kwargs:
            return None
        *bias, x, turned = node.args
        weights = self._untransposed(turned)
        if weights is None or not self._is_plain(x):
            return None
        (runs, rows, width), depth = self.graph.like[node.out].shape, self.graph.like[x].shape[2]
        if bias and self.graph.like[bias[0]].shape != (runs, 1, width):
            return None
        size = 2 * runs * rows * width * depth
        added = self._view(aten.reshape.default, bias[0], (runs * width,)) if bias else None
        if (shared := self._shared(x)) is not None and size >= WORTH:
            w = self._view(aten.reshape.default, weights, (runs * width, depth))
            out = self.graph.new(Like.dense((rows, runs * width), self.graph.like[x]))
            self.nodes.append(Node(_mkldnn(LINEAR), (shared, w, added, *PLAIN), {}, (out,)))
            return out
        if x in self.flat and size >= STACK_WORTH and rows >= STACK_ROWS:
            return self._convolution(self.flat[x], weights, added, (runs, rows, width, depth))
        return None

    def _convolution(self, flat: Ref, weights: Ref, bias: Ref | None, sizes: tuple[int, int, int, int]) -> Ref:
        runs, rows, width, depth = sizes
        w = self._view(aten.reshape.default, weights, (runs * width, depth, 1, 1))
        made = self.graph.new(Like.dense((1, runs * width, rows, 1), self.graph.like[flat]))
        where = ([0, 0], [1, 1], [1, 1], runs)
        self.nodes.append(Node(_mkldnn(CONVOLUTION), (self._pixels(flat), w, bias, *where, *PLAIN), {}, (made,)))
        return self._rows_of_pixels(made)

    def _input_gradient(self, node: Node) -> Ref | None:
        """dL/dx [M, B, K] = dL/dy [M, B, N] w [M, N, K], as [B, M K]."""
        if node.op is not aten.bmm.default or not self._is_plain(node.args[0]):
            return None
        y, weights = node.args
        (runs, rows, depth), width = self.graph.like[node.out].shape, self.graph.like[y].shape[2]
        like = self.graph.like[weights]
        if not self._is_worth_it(runs, rows, width, depth) or not like.same_layout(Like.dense(like.shape, like)):
            return None
        flat = self.flat.get(y) or self._flattened(y)
        w = self._view(aten.reshape.default, weights, (runs * width, depth, 1, 1))
        made = self.graph.new(Like.dense((1, runs * depth, rows, 1), self.graph.like[y]))
        operands = (self._pixels(flat), w, None, *_WHERE, runs, *PLAIN)
        self.nodes.append(Node(_mkldnn(DECONVOLUTION), operands, {}, (made,)))
        return self._rows_of_pixels(made)

    def _weight_gradient(self, node: Node) -> bool:
        """dL/dw [M, N, K] = (dL/dy [M, B, N])^T x [M, B, K]; did it write one?"""
        y = self._untransposed(node.args[0]) if node.op is aten.bmm.default else None
        if y is None or not self._is_plain(y):
            return False
        x = node.args[1]
        (runs, width, depth), rows = self.graph.like[node.out].shape, self.graph.like[y].shape[1]
        shared = self._shared(x)
        size = 2 * runs * rows * width * depth
        worth = size >= SHARED_WORTH if shared is not None else self._is_worth_it(runs, rows, width, depth)
        if not worth or width % LANES or depth % LANES:
            return False
        if shared is None:
            image = self._view(aten.reshape.default, x, (1, runs * rows, 1, depth))
            w, groups = self._view(aten.reshape.default, y, (runs * rows, width, 1, 1)), runs
        else:
            image = self._view(aten.reshape.default, shared, (1, rows, 1, depth))
            flat = self.flat.get(y) or self._flattened(y)
            w, groups = self._view(aten.reshape.default, flat, (rows, runs * width, 1, 1)), 1
        made = self.graph.new(Like.dense((1, runs * width, 1, depth), self.graph.like[y]))
        self.nodes.append(Node(_mkldnn(DECONVOLUTION), (image, w, None, *_WHERE, groups, *PLAIN), {}, (made,)))
        self.nodes.append(Node(aten.reshape.default, (made, [runs, width, depth]), {}, node.outs))
        self.graph.like[node.out] = Like.dense((runs, width, depth), self.graph.like[y])
        return True

    def _elementwise(self, node: Node) -> Ref | None:
        """A function of every number for itself, of the flat values instead.

        Not within the layer: oneDNN's ReLU of nan is 0.
        """
        read = [argument for argument in node.args if isinstance(argument, Ref)]
        if node.op not in ELEMENTWISE or not all(ref in self.flat for ref in read):
            return None
        out = self.graph.new(self.graph.like[self.flat[read[0]]])
        args = tuple(self.flat[argument] if isinstance(argument, Ref) else argument for argument in node.args)
        self.nodes.append(Node(node.op, args, node.kwargs, (out,)))
        return out

    def _is_plain(self, ref: Ref) -> bool:
        like = self.graph.like[ref]
        return like.dtype == torch.float32 and like.device.type == "cpu"

    @staticmethod
    def _is_worth_it(runs: int, rows: int, width: int, depth: int) -> bool:
        each = 2 * rows * width * depth
        return rows >= STACK_ROWS and each >= RUN_WORTH and runs * each >= STACK_WORTH

    def _untransposed(self, ref: Ref) -> Ref | None:
        """[M, p, q] whose transpose [M, q, p] is the value, if it is one."""
        made = self.maker.get(ref)
        turns = made is not None and made.op is aten.transpose.int and {dim % 3 for dim in made.args[1:]} == {1, 2}
        return made.args[0] if made is not None and turns else None

    def _shared(self, ref: Ref) -> Ref | None:
        """[B, K] that all runs see as [M, B, K], if they do."""
        made = self.maker.get(ref)
        if made is None or made.op is not aten.expand.default:
            return None
        shared = made.args[0]
        return shared if self.graph.like[shared].shape == self.graph.like[ref].shape[1:] else None

    def _flattened(self, ref: Ref) -> Ref:
        """[M, B, N] copied to [B, M N]."""
        runs, rows, width = self.graph.like[ref].shape
        like = self.graph.like[ref]
        stride = (like.stride[1], like.stride[0], like.stride[2])
        split = self.graph.new(Like((rows, runs, width), stride, like.dtype, like.device))
        self.nodes.append(Node(aten.transpose.int, (ref, 0, 1), {}, (split,)))
        return self._view(aten.reshape.default, split, (rows, runs * width))

    def _pixels(self, flat: Ref) -> Ref:
        """[B, M N] as an image of B pixels in M N channels, [1, M N, B, 1]."""
        rows, width = self.graph.like[flat].shape
        image = self._view(aten.reshape.default, flat, (1, rows, 1, width))
        return self._view(aten.permute.default, image, (1, width, rows, 1), [0, 3, 1, 2])

    def _rows_of_pixels(self, image: Ref) -> Ref:
        _, width, rows, _ = self.graph.like[image].shape
        out = self._view(aten.permute.default, image, (1, rows, 1, width), [0, 2, 3, 1])
        return self._view(aten.reshape.default, out, (rows, width))

    def _view(self, op: Any, ref: Ref, shape: tuple[int, ...], argument: Sequence[int] | None = None) -> Ref:
        out = self.graph.new(Like.dense(shape, self.graph.like[ref]))
        self.nodes.append(Node(op, (ref, list(argument or shape)), {}, (out,)))
        return out


def _mkldnn(name: str) -> Any:
    return getattr(torch.ops.mkldnn, name).default


_WHERE = ([0, 0], [0, 0], [1, 1], [1, 1])  # of a transposed convolution: paddings, stride, dilation
ELEMENTWISE = {
    aten.relu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.gelu.default,
    aten.silu.default,
    aten.elu.default,
    aten.leaky_relu.default,
    aten.softplus.default,
    aten.threshold_backward.default,
    aten.tanh_backward.default,
    aten.sigmoid_backward.default,
    aten.gelu_backward.default,
    aten.silu_backward.default,
    aten.leaky_relu_backward.default,
    aten.softplus_backward.default,
}
