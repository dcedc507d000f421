from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

from lrsweep.compiler import onednn, passes, trace
from lrsweep.run_result import NoHooks
from lrsweep.training import sequential, stacked, workload
from tests.support.oracle import run, workload_spec

aten = torch.ops.aten

pytestmark = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available(),
    reason="torch hands products to oneDNN on processors with AVX-512 alone",
)


@pytest.fixture(autouse=True)
def _on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether its own products are slow or not, if only oneDNN keeps every bit."""
    monkeypatch.setattr(onednn, "onednn_is_faster", lambda: True)
    if onednn.library() != "oneDNN":
        pytest.skip("oneDNN multiplies in bfloat16 here")


def multiplied(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """x w + b and both gradients, of one layer or of a stack of them."""
    added = torch.addmm(b, x, w) if x.ndim == 2 else torch.baddbmm(b, x, w)
    return [added, x.mT.matmul(g), g.matmul(w.mT), x.matmul(w)]


def operands(rows: int, dtype: torch.dtype, *stack: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(*stack, rows, 160), (*stack, 160, 144), (*stack, rows, 144), (*stack, 1, 144)]
    return [torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype) for shape in shapes]


def laid(tensor: torch.Tensor, layout: str) -> torch.Tensor:
    """The same numbers, otherwise in memory."""
    if layout == "by columns":
        return tensor.mT.contiguous().mT
    if layout == "with gaps":
        wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1])
        wide[..., ::2] = tensor
        return wide[..., ::2]
    if layout == "runs inside" and tensor.ndim == 3:
        return tensor.transpose(0, 1).contiguous().transpose(0, 1)
    return tensor


@pytest.mark.parametrize("layout", ["by rows", "by columns", "with gaps", "runs inside"])
@pytest.mark.parametrize("stack", [(), (5,)], ids=["one", "stack"])
def test_products_are_those_of_float32(stack: tuple[int, ...], layout: str) -> None:
    exact = operands(128, torch.float64, *stack)
    inputs = [laid(value.float(), layout) for value in exact]
    graph = trace.record(multiplied, *inputs)
    onednn.multiply_by_onednn(graph)
    assert not {node.op for node in graph.nodes} & {*onednn.PRODUCTS}
    found = trace.compiled(graph)(*inputs)
    for one, other in zip(multiplied(*(value.float().double() for value in exact)), found, strict=True):
        assert other is not None
        # Single products in bfloat16 are off by 1e-2, sums of float32 by some 1e-5.
        torch.testing.assert_close(other.double(), one, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("rows", "dtype", "stack"),
    [(8, torch.float32, ()), (1, torch.float32, (200,)), (128, torch.float64, ()), (128, torch.bfloat16, (3,))],
)
def test_small_products_and_other_numbers_are_left(rows: int, dtype: torch.dtype, stack: tuple[int, ...]) -> None:
    graph = trace.record(multiplied, *operands(rows, dtype, *stack))
    before = [node.op for node in graph.nodes]
    onednn.multiply_by_onednn(graph)
    assert [node.op for node in graph.nodes] == before


@pytest.mark.parametrize("each", [2, 60])
def test_the_number_of_stacked_runs_decides_nothing(each: int) -> None:
    """A layer of all runs on a shared batch is one product, and its readouts are one for each run."""
    rewritten = set()
    for runs in (1, 2, 7, 60):
        batch, weights = torch.randn(32, 20), torch.randn(20, runs * each)
        hidden, readout = torch.randn(runs, 32, 20), torch.randn(runs, 20, each)
        graph = trace.record(lambda b, w, h, r: [b @ w, h @ r], batch, weights, hidden, readout)
        before = [node.op for node in graph.nodes]
        onednn.multiply_by_onednn(graph, runs)
        rewritten.add(tuple(node.op != op for node, op in zip(graph.nodes, before, strict=True)))
    assert len(rewritten) == 1


def rounding(value: torch.Tensor) -> torch.Tensor:
    """As a processor with units for bfloat16 reads float32 where it is allowed to."""
    return value.bfloat16().float() if value.dtype == torch.float32 else value


def rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(rounding(a), rounding(b))


def half_rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(a, rounding(b))


def first_rounded(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.matmul(rounding(a), b)


def no_product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("could not create a primitive")


@pytest.mark.parametrize("default", [torch.float32, torch.float64])
@pytest.mark.parametrize("product", [rounded, half_rounded, first_rounded, no_product])
def test_products_that_lose_bits_are_left_to_torch(product, default, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(onednn.PRODUCTS, aten.bmm.default, (product, product))
    onednn.keeps_every_bit.cache_clear()  # what the other dtype has proven
    single_number = torch.ones(1, 1, 1).expand(30, 1, 1)
    for x, w in (operands(128, torch.float32, 5)[:2], (single_number, torch.ones(30, 1, 40_000))):
        graph = trace.record(lambda x, w: [x.bmm(w)], x, w)
        before = torch.get_default_dtype()
        torch.set_default_dtype(default)  # as a sweep of that dtype does, whose model may multiply others
        try:
            onednn.multiply_by_onednn(graph)
        finally:
            torch.set_default_dtype(before)
        assert aten.bmm.default in {node.op for node in graph.nodes}


def test_weights_with_gaps_are_no_layer() -> None:
    """It would take a thousand times as long."""
    x, w = operands(128, torch.float32)[:2]
    gaps = laid(w, "with gaps")
    for weights, layers in ((w, 1), (laid(w, "by columns"), 1), (gaps, 0), (gaps.t(), 0)):
        graph = trace.record(lambda x, w: [x.mm(w)], x if len(weights) == 160 else x[:, :144].contiguous(), weights)
        onednn.multiply_by_onednn(graph)
        assert [node.op for node in graph.nodes].count(onednn.layer) == layers


@pytest.mark.parametrize("extent", [1, 144])
@pytest.mark.parametrize("stride", [0, 1, 2])
def test_a_bias_may_lie_in_memory_as_it_likes(stride: int, extent: int) -> None:
    x, w = operands(128, torch.float32)[:2]
    held = torch.linspace(-9, 9, 2 * 144)

    def layers(x: torch.Tensor, w: torch.Tensor, held: torch.Tensor) -> list[torch.Tensor]:
        return [torch.addmm(held.as_strided((extent,), (stride,)), x, w)]

    graph = trace.record(layers, x, w, held)
    onednn.multiply_by_onednn(graph)
    assert aten.addmm.default not in {node.op for node in graph.nodes}
    (found,) = trace.compiled(graph)(x, w, held)
    assert found is not None
    torch.testing.assert_close(found.double(), layers(x.double(), w.double(), held.double())[0], rtol=0, atol=1e-4)


def test_operands_that_all_runs_share() -> None:
    x, w, *_ = operands(128, torch.float32, 5)
    shared = x[0].expand(5, -1, -1)
    graph = trace.record(lambda x, w: [x.expand(5, -1, -1).bmm(w)], x[0], w)
    onednn.multiply_by_onednn(graph)
    assert aten.bmm.default not in {node.op for node in graph.nodes}
    (found,) = trace.compiled(graph)(x[0], w)
    assert found is not None
    torch.testing.assert_close(found.double(), shared.double() @ w.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("rows", "used"), [(128, True), (8000, False)])
def test_a_large_operand_is_not_copied_for_each_run(rows: int, used: bool) -> None:
    x, w = operands(rows, torch.float32)[0], operands(1, torch.float32, 5)[1]
    graph = trace.record(lambda x, w: [x.expand(5, -1, -1).bmm(w)], x, w)
    onednn.multiply_by_onednn(graph)
    assert (aten.bmm.default not in {node.op for node in graph.nodes}) == used


def test_vectors_are_left() -> None:
    x, w, g, _ = operands(400, torch.float32, 50)
    graph = trace.record(lambda x, w, g: [x.bmm(w[..., :1]), x.mT[:, :1].bmm(g)], x, w, g)
    onednn.multiply_by_onednn(graph)
    assert [node.op for node in graph.nodes].count(aten.bmm.default) == 2


def test_others_multiply_as_they_did() -> None:
    """What allows oneDNN to multiply is there for its products alone, and also goes where one fails."""
    precision = torch.backends.mkldnn.matmul
    before = precision.fp32_precision
    precision.fp32_precision = "ieee"
    try:
        x, w = operands(128, torch.float32)[:2]
        onednn.mm(x, w)
        assert precision.fp32_precision == "ieee"
        with pytest.raises(RuntimeError):
            onednn.mm(w, w)
        assert precision.fp32_precision == "ieee"
    finally:
        precision.fp32_precision = before


def test_what_is_not_a_number_spoils_its_run_alone() -> None:
    x, w, *_ = operands(128, torch.float32, 5)
    w[1, 0, :2] = 0.0
    x[1, 3, 0] = torch.inf
    x[2, 4, 7] = torch.nan
    wanted, found = torch.bmm(x.double(), w.double()), onednn.bmm(x, w)
    torch.testing.assert_close(found[[0, 3, 4]].double(), wanted[[0, 3, 4]], rtol=0, atol=1e-4)
    assert torch.equal(found.isnan(), wanted.isnan())
    assert torch.equal(found.isinf(), wanted.isinf())


def test_a_stack_of_networks() -> None:
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)).double() for _ in range(9)]
    params, _ = torch.func.stack_module_state(nets)
    inputs = [*(value.detach() for value in params.values()), torch.randn(64, 64).double()]

    def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
        leaves = [value.detach().requires_grad_() for value in inputs[:-1]]

        def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            return torch.func.functional_call(nets[0], weights, (inputs[-1],)).square().mean()

        losses = torch.func.vmap(loss)(dict(zip(params, leaves, strict=True)))
        return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]

    numbers = [value.float() for value in inputs]
    program, _ = passes.program(trace.record(step, *numbers), numbers)
    with torch.no_grad():
        found = program(*numbers)
    for one, other in zip(step(*inputs), found, strict=True):
        assert other is not None
        torch.testing.assert_close(other.double(), one, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("net", ["mlp", "conv", "attention"])
@pytest.mark.parametrize("captured", [False, True], ids=["stacked", "captured"])
def test_runs_with_them_are_runs_without(captured: bool, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "WORTH", 0)
    calls = []
    for op, (product, rewritten) in onednn.PRODUCTS.items():
        counted = lambda *args, rewritten=rewritten: calls.append(1) or rewritten(*args)  # noqa: E731
        monkeypatch.setitem(onednn.PRODUCTS, op, (product, counted))
    monkeypatch.setattr(onednn, "EACH_WORTH", 0)
    monkeypatch.setattr(onednn, "_is_layer", lambda *given: False)
    task = {"name": f"stacked_tasks.py:{'tokens' if net == 'attention' else 'task'}", "net": net}
    shared = workload_spec(task, steps=30, eval_every={"steps": 10}, dtype="float32")
    runs = [run(shared, name, lr=lr) for name, lr in (("sgd", 0.1), ("adam", 0.01))]
    for number, one in enumerate(runs):
        one.run_id = str(number)
    plain = {one.run_id: one for one in sequential.train(runs, workload.build(shared), NoHooks())}
    assert not calls
    train = functools.partial(sequential.train, captured=True) if captured else stacked.train
    for found in train(runs, workload.build(shared), NoHooks()):
        assert found.history["val_loss"] == pytest.approx(plain[found.run_id].history["val_loss"], rel=1e-3)
    assert calls
