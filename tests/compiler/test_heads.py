from __future__ import annotations

import pytest
import torch

from lrsweep.compiler import heads, trace

aten = torch.ops.aten


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_predictions_are_those_of_argmax_with_ties_and_nan(dim: int, keepdim: bool) -> None:
    numbers = torch.randint(0, 3, (5, 40, 7), generator=torch.Generator().manual_seed(0)).float()
    numbers[1, ::3, 2] = torch.nan
    numbers[2, 1::3] = torch.nan
    numbers[3, ::2] = -torch.inf
    turned = numbers.transpose(1, 2).contiguous().transpose(1, 2)
    for values in (numbers, turned, turned.transpose(0, 1)):
        wanted = values.argmax(dim, keepdim)
        graph = trace.record(lambda x: [x.argmax(dim, keepdim)], values)
        heads.predict_by_max(graph)
        assert [node.op for node in graph.nodes] == [aten.max.dim]
        (found,) = trace.compiled(graph)(values)
        assert found is not None
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def test_an_argmax_over_everything_is_left() -> None:
    values = torch.randn(4, 5)
    graph = trace.record(lambda x: [x.argmax()], values)
    heads.predict_by_max(graph)
    assert trace.compiled(graph)(values)[0] == values.argmax()
