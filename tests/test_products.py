from __future__ import annotations

import pytest
import torch

from lrsweep import products, tracing

aten = torch.ops.aten

pytestmark = pytest.mark.skipif(
    not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, products.LINEAR)),
    reason="torch was built without oneDNN",
)


@pytest.fixture(autouse=True)
def _on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)


def step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor, g: torch.Tensor) -> list[torch.Tensor]:
    """A linear layer and both its gradients."""
    return [torch.addmm(b, x, w.t()), g.t().mm(x), g.mm(w)]


def made(rows: int, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(rows, 160), (144, 160), (144,), (rows, 144)]
    return [torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def test_a_linear_layer_and_its_gradients_are_the_same_products() -> None:
    inputs = made(128, torch.float32)
    graph = tracing.record(step, *inputs)
    products.multiply_by_onednn(graph)
    found = tracing.compiled(graph)(*inputs)
    assert not {aten.mm.default, aten.addmm.default} & {node.op for node in graph.nodes}
    for one, other in zip(step(*(value.double() for value in inputs)), found, strict=True):
        assert other is not None
        assert other.is_contiguous()
        torch.testing.assert_close(other.double(), one, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("rows", "dtype"), [(16, torch.float32), (128, torch.float64), (128, torch.bfloat16)])
def test_small_products_and_other_numbers_are_left(rows: int, dtype: torch.dtype) -> None:
    graph = tracing.record(step, *made(rows, dtype))
    before = [node.op for node in graph.nodes]
    products.multiply_by_onednn(graph)
    assert [node.op for node in graph.nodes] == before
