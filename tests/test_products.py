from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lrsweep import graphs, memory, products, tracing

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
        assert other.is_contiguous() or other.t().is_contiguous()
        torch.testing.assert_close(other.double(), one, rtol=1e-5, atol=1e-4)


def test_weights_with_gaps_in_memory_are_copied() -> None:
    x, wide = torch.randn(128, 160), torch.randn(160, 300)
    for w in (wide[:, :144], wide.t().contiguous().t()[:, :144]):
        graph = tracing.record(lambda x, w: [x.mm(w), x.mm(w.t().t())], x, w)
        products.multiply_by_onednn(graph)
        given = {}
        for node in graph.nodes:
            if products.LINEAR in str(node.op):
                given[node.out] = node.args[1]
        graph.outputs = [*graph.outputs, *given.values()]
        one, other, *weights = tracing.compiled(graph)(x, w)
        assert len(weights) == 2
        for found in (one, other):
            assert found is not None
            torch.testing.assert_close(found, x.mm(w), rtol=1e-4, atol=1e-4)
        for weight in weights:
            assert weight is not None
            assert weight.is_contiguous() or weight.t().is_contiguous()


@pytest.mark.parametrize(("rows", "dtype"), [(16, torch.float32), (128, torch.float64), (128, torch.bfloat16)])
def test_small_products_and_other_numbers_are_left(rows: int, dtype: torch.dtype) -> None:
    graph = tracing.record(step, *made(rows, dtype))
    before = [node.op for node in graph.nodes]
    products.multiply_by_onednn(graph)
    assert [node.op for node in graph.nodes] == before


def stacked(
    activation: nn.Module, runs: int, width: int = 144
) -> tuple[Callable[..., list[torch.Tensor]], list[torch.Tensor]]:
    """Losses and gradients of a stack of networks that see one batch, and its inputs in float64."""
    torch.manual_seed(0)
    nets = [
        nn.Sequential(nn.Linear(64, 128), activation, nn.Linear(128, width), activation, nn.Linear(width, 10)).double()
        for _ in range(runs)
    ]
    params, _ = torch.func.stack_module_state(nets)
    inputs = [*(value.detach() for value in params.values()), torch.randn(64, 64).double()]

    def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
        leaves = [value.detach().requires_grad_() for value in inputs[:-1]]

        def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.func.functional_call(nets[0], weights, (inputs[-1],)).square().mean()

        losses = torch.func.vmap(loss)(dict(zip(params, leaves, strict=True)))
        return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]

    return step, inputs


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.Tanh(), nn.GELU()], ids=str)
def test_the_layers_of_a_stack(activation: nn.Module) -> None:
    step, inputs = stacked(activation, 9)
    wanted = step(*inputs)
    numbers = [value.float() for value in inputs]
    graph = tracing.record(step, *numbers)
    for rewrite in (*graphs.PASSES, memory.reuse):
        rewrite(graph)
    with torch.no_grad():
        found = tracing.compiled(graph)(*numbers)
    ops = [str(node.op) for node in graph.nodes]
    # The first layer; the second; the gradients of its inputs and of the weights of both.
    assert sum(products.LINEAR in op for op in ops) == 1
    assert sum(products.CONVOLUTION in op for op in ops) == 1
    assert sum(products.DECONVOLUTION in op for op in ops) == 3
    for one, other in zip(wanted, found, strict=True):
        assert other is not None
        torch.testing.assert_close(other.double(), one, rtol=1e-4, atol=1e-6)


def test_what_is_not_a_number_stays_so() -> None:
    """oneDNN's own ReLU makes a zero of it."""
    step, inputs = stacked(nn.ReLU(), 9)
    numbers = [value.float() for value in inputs]
    numbers[0][2, 5, 7] = torch.nan
    graph = tracing.record(step, *numbers)
    for rewrite in graphs.PASSES:
        rewrite(graph)
    losses = tracing.compiled(graph)(*numbers)[0]
    assert losses is not None
    assert losses.isnan().nonzero().tolist() == [[2]]


def test_gradients_of_weights_of_odd_widths_are_left_to_torch() -> None:
    step, inputs = stacked(nn.ReLU(), 12, width=100)
    graph = tracing.record(step, *(value.float() for value in inputs))
    for rewrite in graphs.PASSES:
        rewrite(graph)
    ops = [str(node.op) for node in graph.nodes]
    assert sum(products.DECONVOLUTION in op for op in ops) == 2
    found = tracing.compiled(graph)(*(value.float() for value in inputs))
    for one, other in zip(step(*inputs), found, strict=True):
        assert other is not None
        torch.testing.assert_close(other.double(), one, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_is_a_transpose_is_computed_as_one() -> None:
    """oneDNN brings a transposed operand into order first, which should be the smaller one."""
    x, w, b, _ = made(128, torch.float32)

    def step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
        w = w.detach().requires_grad_()
        (grad,) = torch.autograd.grad(torch.addmm(b, x, w.t()).square().sum(), [w])
        return [grad]

    wide = torch.cat([w, w, w])
    bias = torch.cat([b, b, b])
    graph = tracing.record(step, x, wide, bias)
    graphs.tidy(graph)
    products.multiply_by_onednn(graph)
    (gradient,) = tracing.compiled(graph)(x, wide, bias)
    assert gradient is not None
    assert gradient.t().is_contiguous()
    wanted = 2 * (x.double() @ wide.double().t() + bias.double()).t() @ x.double()
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-2)
