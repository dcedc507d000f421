"""Products by numpy against the same ones in float64, and whole runs with them against runs without."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import recipe, run

from lrsweep import blas, problem, recorded, single, stacked, tracing
from lrsweep.machine import cpu_name
from lrsweep.outcome import NoHooks

aten = torch.ops.aten


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def products(x: torch.Tensor, w: torch.Tensor, g: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """A layer of a stack and both its gradients, then one of a single run; w and g lie as they come."""
    stack = [torch.baddbmm(b, x, w.transpose(1, 2)), torch.bmm(g, w), torch.bmm(g.transpose(1, 2), x)]
    shared = x[0].expand(x.shape)
    x1, w1, g1 = x.flatten(0, 1), w.flatten(0, 1), torch.cat([g.flatten(0, 1)] * 3, 1)
    one = [torch.addmm(b[0, 0, :1], x1, w1.t()), torch.mm(g1.t(), x1), torch.mm(g1, w1)]
    return [*stack, torch.bmm(g.transpose(1, 2), shared), *one]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["dense", "turned", "gaps", "both gaps"])
def test_products_are_those_of_torch(layout: str, dtype: torch.dtype) -> None:
    exact = [randn(3, 64, 80), randn(3, 72, 80), randn(3, 64, 72), randn(3, 1, 72)]

    def laid(value: torch.Tensor) -> torch.Tensor:
        if layout == "turned":
            return value.transpose(1, 2).contiguous().transpose(1, 2)
        if layout == "gaps":
            return torch.cat([value, value], 2)[:, :, : value.shape[2]]
        return value.repeat_interleave(2, 2)[:, :, ::2] if layout == "both gaps" else value

    inputs = [laid(value.to(dtype)) for value in exact]
    graph = tracing.record(products, *inputs)
    assert blas.multiply_by_numpy(graph)
    assert not {node.op for node in graph.nodes} & {*blas.PRODUCTS}
    found = tracing.compiled(graph)(*inputs)
    close = 1e-10 if dtype == torch.float64 else 1e-4
    for one, other in zip(products(*exact), found, strict=True):
        assert other is not None
        assert other.dtype == dtype
        torch.testing.assert_close(other.double(), one, rtol=close, atol=close)


@pytest.mark.parametrize(("rows", "dtype"), [(4, torch.float32), (64, torch.bfloat16)])
def test_small_products_and_other_numbers_are_left(rows: int, dtype: torch.dtype) -> None:
    inputs = [value.to(dtype) for value in (randn(3, rows, 80), randn(3, 72, 80), randn(3, rows, 72), randn(3, 1, 72))]
    graph = tracing.record(products, *inputs)
    before = [node.op for node in graph.nodes]
    assert not blas.multiply_by_numpy(graph)
    assert [node.op for node in graph.nodes] == before


def test_vectors_are_left() -> None:
    x, v = randn(2000, 600), randn(600, 1)
    graph = tracing.record(lambda x, v: [x.mm(v), v.t().mm(x.t()), x.t().mm(x[:, :1])], x, v)
    assert not blas.multiply_by_numpy(graph)


def test_no_operand_reaches_numpy_with_gaps_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy would multiply them without a BLAS."""
    given: list[np.ndarray] = []
    matmul = np.matmul
    monkeypatch.setattr(blas.np, "matmul", lambda a, b, out: given.extend([a, b]) or matmul(a, b, out=out))
    wide = randn(3, 64, 160)
    x, w = wide[:, :, ::2], wide[:, ::2, ::2]
    torch.testing.assert_close(blas.matmul(x, w.transpose(1, 2)), torch.bmm(x, w.transpose(1, 2)))
    assert all(array.itemsize in array.strides[-2:] for array in given)


def test_a_matrix_that_is_not_finite_spoils_no_other_and_warns_of_nothing() -> None:
    x, w = randn(3, 64, 80), randn(3, 80, 72)
    wanted = torch.bmm(x, w)
    x[1, 0, 0], x[1, 1, 0] = np.inf, np.nan
    w[1, 0, :2] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = blas.quiet(blas.matmul)(x, w)
    torch.testing.assert_close(found[[0, 2]], wanted[[0, 2]], rtol=1e-12, atol=1e-12)
    assert found[1, :2, :2].isnan().all()
    assert not found[1, :2].isfinite().any()


@pytest.mark.parametrize("net", ["mlp", "conv", "attention"])
@pytest.mark.parametrize("engine", [stacked, recorded], ids=["stacked", "recorded"])
def test_runs_with_them_are_runs_without(engine, net: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "WORTH", 0)
    task = {"name": f"stack_tasks.py:{'tokens' if net == 'attention' else 'task'}", "net": net}
    shared = recipe(task, steps=30, eval_every={"steps": 10})
    runs = [run(shared, name, lr=lr) for name, lr in (("sgd", 0.1), ("adam", 0.01))]
    for number, one in enumerate(runs):
        one.run_id = str(number)
    plain = {one.run_id: one for one in single.train(runs, problem.build(shared), NoHooks())}
    calls = []
    matmul = np.matmul
    monkeypatch.setattr(blas.np, "matmul", lambda *args, **more: calls.append(1) or matmul(*args, **more))
    monkeypatch.setattr(blas, "chosen", lambda: True)
    for found in engine.train(runs, problem.build(shared), NoHooks()):
        assert found.rows["val_loss"] == pytest.approx(plain[found.run_id].rows["val_loss"], rel=1e-9)
    assert calls


def chosen_with(core: str) -> bool:
    """What a fresh process chooses."""
    code = "from lrsweep import blas; blas.choose(); print(blas.chosen())"
    environment = os.environ | {"OPENBLAS_CORETYPE": core}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return told.stdout.strip() == "True"


def test_a_core_without_avx512_is_no_choice() -> None:
    assert not chosen_with("Haswell")


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512"
    or not cpu_name().startswith("AMD")
    or not (Path(np.__file__).parent.parent / "numpy.libs").is_dir(),
    reason="for AMD processors with AVX-512 and numpy's own OpenBLAS",
)
def test_a_core_with_avx512_is_the_choice() -> None:
    assert chosen_with("SkylakeX")
