"""`train.eval_batch_size`: what evaluations are means over, for every form of task, against plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lrsweep.run_result import NoHooks
from lrsweep.training import sequential, stackable, stacked, workload
from tests.support import contrastive_tasks as contrastive
from tests.support import sweeps
from tests.support.oracle import double, run, workload_spec

SIZE, STEPS, LR = 12, 9, 0.3
FORMS = ("tensors", "step", "dataset", "collate")


def loss_of(form: str, model: Any, batch: Any) -> torch.Tensor:
    one, other = batch
    return contrastive.project(model(one), other) if form == "tensors" else contrastive.step(model, batch)["loss"]


@torch.no_grad()
def evaluated(form: str, model: Any, pair: Any, size: int) -> float:
    parts = list(zip(*(tensor.split(size) for tensor in pair), strict=True))
    return sum(float(loss_of(form, model, part)) * len(part[0]) for part in parts) / len(pair[0])


@double()
def plain(form: str, size: int) -> tuple[list[float], float, float]:
    """val_loss of row 0 and of every epoch of 3 steps, train_loss of row 0, and the loss of the test split."""
    torch.manual_seed(0)
    model = contrastive.net()
    first = evaluated(form, model, contrastive.TRAIN, size)
    losses = [evaluated(form, model, contrastive.VAL, size)]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for epoch in range(STEPS // 3):
        for index in torch.randperm(48, generator=torch.Generator().manual_seed(epoch)).split(16):
            optimizer.zero_grad()
            loss_of(form, model, [tensor[index] for tensor in contrastive.TRAIN]).backward()
            optimizer.step()
        losses.append(evaluated(form, model, contrastive.VAL, size))
    return losses, first, evaluated(form, model, contrastive.TEST, size)


def trained(form: str, train: Any, **section: Any) -> Any:
    given = workload_spec({"name": "contrastive_tasks.py:make", "form": form}, steps=STEPS, batch_size=16, **section)
    prepared = workload.build(given)
    assert stackable.workload_reason(prepared) is None
    (found,) = train([run(given, lr=LR)], prepared, NoHooks())
    return found


@pytest.mark.parametrize("train", [stacked.train, sequential.train], ids=["together", "alone"])
@pytest.mark.parametrize("form", FORMS)
def test_evaluations_are_means_over_batches_of_this_size(form: str, train: Any) -> None:
    found = trained(form, train, eval_batch_size=SIZE)
    val, first, test = plain(form, SIZE)
    assert found.history["val_loss"] == pytest.approx(val, rel=1e-12)
    assert found.history["train_loss"][0] == pytest.approx(first, rel=1e-12)
    assert found.test["test_loss"] == pytest.approx(test, rel=1e-12)


@pytest.mark.parametrize(("form", "size"), [("tensors", 40), ("step", 40), ("dataset", 40), ("collate", 16)])
def test_without_it_they_are_what_they_were(form: str, size: int) -> None:
    """A `collate_fn` gets as many examples as in training; others as many as there are, up to a limit."""
    found = trained(form, stacked.train)
    assert found.history["val_loss"] == pytest.approx(plain(form, size)[0], rel=1e-12)


def test_another_size_trains_anew_and_the_other_runs_stay(tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "name": "sizes",
        "task": f"{Path(contrastive.__file__)}:make",
        "lr": [LR],
        "optimizers": ["sgd"],
        "seeds": 1,
        "train": {"steps": STEPS, "batch_size": 16, "dtype": "float64"},
    }
    first = pd.read_csv(sweeps.run(tmp_path, given).path / "runs.csv")
    given["train"]["eval_batch_size"] = SIZE
    other = pd.read_csv(sweeps.run(tmp_path, given).path / "runs.csv")
    assert first.run_id[0] != other.run_id[0]
    assert other.final_val_loss[0] == pytest.approx(plain("step", SIZE)[0][-1], rel=1e-12)
    given["train"]["eval_batch_size"] = None
    given["axes"] = {"train.eval_batch_size": [None, SIZE, 8]}
    both = pd.read_csv(sweeps.run(tmp_path, given).path / "runs.csv")
    assert list(both.run_id[:2]) == [first.run_id[0], other.run_id[0]]
    assert both.final_val_loss[2] == pytest.approx(plain("step", 8)[0][-1], rel=1e-12)
