"""What only a GPU can show. Without one, every test here is skipped by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lrsweep import plan
from lrsweep.plan import Run
from lrsweep.run_result import NoHooks, RunResult
from lrsweep.spec.load import load_spec
from lrsweep.training import sequential, stacked, workload
from lrsweep.workers import device_memory
from tests.support import sweeps

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MODELS: dict[str, Any] = {"mlp": {"name": "mlp"}, "cnn": {"name": "cnn"}}


def planned(model: str, device: str = "cuda", **train: Any) -> tuple[tuple[Run, ...], workload.Workload]:
    spec = load_spec(
        {
            "name": "x",
            "task": "digits",
            "model": MODELS[model],
            "lr": [1e-3, 1e-2, 1e30],
            "optimizers": ["sgd", {"name": "sgd", "momentum": 0.9, "label": "momentum"}, "adam", "rmsprop"],
            "seeds": 1,
            "train": {"steps": 30, "batch_size": 64, "eval_every": {"steps": 10}} | train,
        }
    )
    runs = plan.build(spec, plan.fingerprints(spec)).runs
    return runs, workload.build(runs[0].workload_spec, device)


def close(found: RunResult, wanted: RunResult, relative: float) -> None:
    assert (found.status, found.error) == (wanted.status, None)
    if wanted.status == "ok":
        assert found.history["train_loss"] == pytest.approx(wanted.history["train_loss"], rel=relative)
        assert found.history["val_loss"] == pytest.approx(wanted.history["val_loss"], rel=relative)


@pytest.mark.parametrize(("dtype", "relative"), [("float64", 1e-8), ("float32", 1e-3)])
@pytest.mark.parametrize("model", MODELS)
def test_a_stack_on_a_gpu_equals_its_runs_alone_and_on_the_cpu(model: str, dtype: str, relative: float) -> None:
    runs, there = planned(model, dtype=dtype)
    _, here = planned(model, "cpu", dtype=dtype)
    found = {one.run_id: one for one in stacked.train(runs, there, NoHooks())}
    for run in runs:
        for prepared in (there, here):
            (wanted,) = sequential.train([run], prepared, NoHooks())
            close(found[run.run_id], wanted, relative)


@pytest.mark.parametrize("model", MODELS)
def test_a_gpu_gives_the_same_bytes_twice(model: str) -> None:
    runs, prepared = planned(model)
    first, second = (list(map(repr, stacked.train(runs, prepared, NoHooks()))) for _ in range(2))
    assert first == second


@pytest.fixture
def no_waiting() -> Iterator[None]:
    yield
    torch.cuda.set_sync_debug_mode("default")


def test_no_step_between_two_rows_waits_for_a_gpu(no_waiting: None) -> None:
    runs, prepared = planned("mlp")
    with prepared.user_code():
        trainer = stacked.StackedTrainer(runs, prepared)
        trainer.start()
        while not trainer.done:
            quiet = (
                trainer.step > 2 and not prepared.is_row(trainer.step + 1) and trainer.step % prepared.steps_per_epoch
            )
            torch.cuda.set_sync_debug_mode("error" if quiet else "default")
            trainer.train_step()
        torch.cuda.set_sync_debug_mode("default")
        trainer.end()


def test_the_memory_of_a_gpu_is_measured() -> None:
    runs, prepared = planned("mlp")
    line = device_memory.measured(runs, prepared)
    assert line.room == torch.cuda.mem_get_info()[1]
    assert line.most > 100


def test_a_sweep_on_a_gpu_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    sweeps.run(tmp_path / "whole", device="cuda")
    sweeps.run(tmp_path / "again", device="cuda")
    assert sweeps.tables(tmp_path / "whole" / "small") == sweeps.tables(tmp_path / "again" / "small")
