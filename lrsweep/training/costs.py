"""What a training step of one run costs, estimated from what it does: from sizes and shapes, never by a stopwatch."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lrsweep.compiler.torch_private import TorchDispatchMode, tree_leaves
from lrsweep.compiler.trace import Graph, TensorMeta, is_view

# Seconds and rates of an ordinary core. Their ratios choose the engine; being off by half changes little.
ALONE_STEP = 400e-6  # everything in a step of a run alone that is not an operation of its model
ALONE_OP = 10e-6  # one operation of a run alone, its share of autograd included
STACKED_STEP = 300e-6  # everything in a step of a group that is not an operation of its graph
STACKED_OP = 10e-6  # one operation of a replayed graph
RULE = 30e-6  # one update rule of a group
FLOPS = 160e9  # per second, in products of matrices
CONVOLUTION = 2.0  # what an operation in a convolution costs, in operations of a product
BYTES = 20e9  # per second through an elementwise operation, in and out of the shared cache
WORTH = 0.9  # a stack must promise this share of the time alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """One training step of one run: `ops` that compute, `flops` in products and (weighted) convolutions, `moved` bytes
    elsewhere, and the bytes of `weights` and of all `values` that are alive. `random`: it draws random numbers;
    `convolves`: it has convolutions."""

    ops: int
    flops: float
    moved: float
    weights: float
    values: float
    random: bool
    convolves: bool = False

    @property
    def alone(self) -> float:
        """Seconds of a step of a run by itself."""
        return ALONE_STEP + ALONE_OP * self.ops + self.inside

    def stacked(self, runs: int) -> float:
        """Seconds of a step of `runs` runs together, without their update rules."""
        return self.around + runs * self.inside

    @property
    def too_large(self) -> bool:
        """Would a stack of any number of runs take WORTH of their time alone, or more?"""
        return self.inside >= WORTH * self.alone

    @property
    def around(self) -> float:
        """Seconds of a step of a group of any size."""
        return STACKED_STEP + STACKED_OP * self.ops

    @property
    def inside(self) -> float:
        """Seconds in the kernels of one run."""
        # The optimizer reads and writes weights, gradients and its state: about six passes.
        return self.flops / FLOPS + (self.moved + 6 * self.weights) / BYTES


class Counter(TorchDispatchMode):
    """Counts what a step does while it is made in plain torch, and keeps none of its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self._ops, self._flops, self._moved = 0, 0.0, 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch's answer, True, would import its compiler (a second) where the user has not.
        return "torch._dynamo" in sys.modules

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not is_view(func):
            like = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
            outs = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
            flops = _flops(str(func), like, outs) if outs else 0.0
            self._ops += 1
            self._flops += flops
            self._moved += 0.0 if flops else sum(_bytes(one) for one in (*like, *outs))
        return out

    def sizes(self, weights: float) -> Sizes:
        """Of what was done since. `weights`: bytes."""
        return Sizes(ops=self._ops, flops=self._flops, moved=self._moved, weights=weights, values=0.0, random=False)


def sizes_of(graph: Graph, weights: float) -> Sizes:
    """What a recorded training step of one run does."""
    ops, flops, moved = 0, 0.0, 0.0
    for node in graph.nodes:
        if not node.computes:
            continue
        ops += 1
        like = [graph.meta[ref] for ref in node.inputs()]
        out = [graph.meta[ref] for ref in node.outs if ref is not None]
        product = _flops(str(node.op), like, out)
        flops += product
        if not product:
            moved += sum(_bytes(one) for one in (*like, *out))
    values = sum(_bytes(graph.meta[ref]) for node in graph.nodes if node.computes for ref in node.outs if ref)
    convolves = any("convolution" in str(node.op) for node in graph.nodes)
    return Sizes(
        ops=ops,
        flops=flops,
        moved=moved,
        weights=weights,
        values=float(values),
        random=graph.random,
        convolves=convolves,
    )


def _bytes(like: TensorMeta | Tensor) -> float:
    return math.prod(like.shape) * like.dtype.itemsize


def _flops(op: str, inputs: Sequence[TensorMeta | Tensor], outputs: Sequence[TensorMeta | Tensor]) -> float:
    """Multiplications and additions of a product of matrices or a convolution; 0 for anything else."""
    if any(name in op for name in ("aten.mm", "aten.bmm", "aten.addmm", "aten.baddbmm")):
        return 2.0 * math.prod(outputs[0].shape) * inputs[-2].shape[-1]
    if "convolution_backward" in op:
        return CONVOLUTION * 4.0 * math.prod(inputs[0].shape) * math.prod(inputs[2].shape[1:])
    if "convolution" in op:
        return CONVOLUTION * 2.0 * math.prod(outputs[0].shape) * math.prod(inputs[1].shape[1:])
    return 0.0
