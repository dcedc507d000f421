from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from lrsweep.compiler import passes, trace

aten = torch.ops.aten


def replayed(moved: Callable[[torch.Tensor], torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """What is replayed where a rewrite gives `moved` of what was recorded: values 3 times those of the input."""

    def rewrite(graph: trace.Graph) -> None:
        (node,) = graph.nodes
        op = node.op
        node.op = lambda *args: moved(op(*args))

    monkeypatch.setattr(passes, "PASSES", (rewrite,))
    x = torch.linspace(-1, 1, 100_000).view(100, 1000)
    x[7, 7] = torch.inf
    with torch.no_grad():
        (found,) = passes.program(trace.record(lambda x: [x * 3], x), [x])[0](x)
    assert found is not None
    return found / (x * 3)


def one_row(values: torch.Tensor) -> torch.Tensor:
    """As where rounding has decided otherwise whether a unit of a layer is above 0 for one example."""
    values[99] *= 1.04
    return values


def lost(values: torch.Tensor) -> torch.Tensor:
    values[0] = 0
    return values


def not_a_number(values: torch.Tensor) -> torch.Tensor:
    values[0, 0] = torch.nan
    return values


def test_a_rewrite_that_rounds_otherwise_at_a_kink_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replayed(one_row, monkeypatch)[99].isclose(torch.tensor(1.04)).all()


def finite(values: torch.Tensor) -> torch.Tensor:
    return values.nan_to_num(posinf=0)


@pytest.mark.parametrize("wrong", [lambda values: values * 1.02, lost, not_a_number, finite])
def test_a_rewrite_that_differs_by_more_is_not(wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    found = replayed(wrong, monkeypatch)
    assert found[7, 7].isnan()  # inf / inf
    torch.testing.assert_close(found.nan_to_num(1), torch.ones(100, 1000))


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
        passes.predict_by_max(graph)
        assert [node.op for node in graph.nodes] == [aten.max.dim]
        (found,) = trace.compiled(graph)(values)
        assert found is not None
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)


def test_an_argmax_over_everything_is_left() -> None:
    values = torch.randn(4, 5)
    graph = trace.record(lambda x: [x.argmax()], values)
    passes.predict_by_max(graph)
    assert trace.compiled(graph)(values)[0] == values.argmax()
