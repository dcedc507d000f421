"""Which memory a recorded step (tracing.py) writes its results to."""

from __future__ import annotations

from typing import Any

import torch

from lrsweep.compiler.trace import Graph, Value

aten = torch.ops.aten


def reuse(graph: Graph) -> None:
    """Write a result over its operand where that has just been read for the last time."""
    last = {ref: number for number, node in enumerate(graph.nodes) for ref in node.inputs()}
    owner: dict[Value, Value] = {}  # whose memory a value lies in
    fresh = {ref for node in graph.nodes if not node.views and not node.mutates for ref in node.outs if ref is not None}
    for node in graph.nodes:
        if node.views or node.mutates:
            for out in node.outs:
                if out is not None:
                    owner[out] = owner.get(node.args[0], node.args[0])
    alive: dict[Value, int] = {}
    for ref in graph.like:
        end = len(graph.nodes) if ref in graph.outputs else last.get(ref, -1)
        root = owner.get(ref, ref)
        alive[root] = max(alive.get(root, -1), end)
    for number, node in enumerate(graph.nodes):
        over = OVERWRITING.get(node.op)
        if over is None or not isinstance(node.args[0], Value) or node.kwargs:
            continue
        into, out = node.args[0], node.out
        if into not in fresh or alive[into] != number or into in node.args[1:]:
            continue
        if graph.like[into].dtype != graph.like[out].dtype or graph.like[into].shape != graph.like[out].shape:
            continue
        op, keyword = over
        node.op, node.kwargs = op, ({keyword: into} if keyword else {})
        alive[into] = max(alive[into], alive[out])
        # `out` now lies in `into`; only a value of its own memory may be overwritten in turn.
        fresh.discard(out)


# Operations that can write over their first operand: the operation that does, and the name of its output argument.
OVERWRITING: dict[Any, tuple[Any, str | None]] = {
    aten.relu.default: (aten.relu_.default, None),
    aten.neg.default: (aten.neg_.default, None),
    aten.exp.default: (aten.exp_.default, None),
    aten.add.Tensor: (aten.add_.Tensor, None),
    aten.sub.Tensor: (aten.sub_.Tensor, None),
    aten.mul.Tensor: (aten.mul_.Tensor, None),
    aten.div.Tensor: (aten.div_.Tensor, None),
    aten.threshold_backward.default: (aten.threshold_backward.grad_input, "grad_input"),
}
