"""Rows of several runs at once."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from lrsweep.training.recorder import MeanMetrics, Recorder


def recorder(runs: int = 3, train_metrics: bool = True) -> Recorder:
    workload = SimpleNamespace(
        metric_names=("accuracy",), train_metrics=train_metrics, finalize={}, steps_per_epoch=4, device="cpu"
    )
    return Recorder(workload, runs)


def values(*numbers: float) -> dict[str, list[float]]:
    return {"loss": list(numbers), "accuracy": [0.5] * len(numbers)}


def add(record: Recorder, losses: list[float], runs=None) -> None:
    metrics = {"accuracy": torch.ones(len(losses)), "more": torch.zeros(())}
    record.add(torch.tensor(losses, dtype=torch.float32), metrics, runs=runs)


def test_means_of_a_split_weigh_chunks_by_their_size() -> None:
    means = MeanMetrics(["loss", "m"], 2)
    means.add({"loss": torch.tensor([1.0, math.nan]), "m": torch.tensor(2.0)}, weight=3)
    means.add({"loss": torch.tensor([5.0, 1.0]), "m": torch.tensor([6.0, -math.inf])}, weight=1)
    result = means.values({"m": torch.exp})
    assert result["loss"] == [2.0, pytest.approx(math.nan, nan_ok=True)]
    assert result["m"] == [pytest.approx(math.exp(3.0)), 0.0]


def test_sums_are_double() -> None:
    record = recorder(1)
    for _ in range(1000):
        add(record, [0.1])
    assert record.since()["loss"][0] == pytest.approx(float(torch.tensor(0.1)), rel=1e-14)


def test_a_run_that_leaves_takes_its_own_last_row() -> None:
    record = recorder()
    record.row(0, [1.0, 2.0, 3.0], values(9.0, 9.0, 9.0), train=values(8.0, 8.0, 8.0))
    add(record, [1.0, math.inf, 3.0])
    record.row(1, [2.0], values(math.nan), runs=[1])
    rest = torch.tensor([0, 2])
    add(record, [3.0, 5.0], runs=rest)
    record.row(2, [1.0, 3.0], values(0.0, -0.5), runs=[0, 2])
    record.restart()
    add(record, [7.0, 8.0], runs=rest)
    record.row(3, [1.0, 3.0], values(0.0, -0.5), runs=[0, 2])
    assert record.rows(0)["train_loss"] == [8.0, 2.0, 7.0]
    assert record.rows(1)["train_loss"] == [8.0, math.inf]
    assert record.rows(2)["train_loss"] == [8.0, 4.0, 8.0]
    assert record.rows(2)["val_loss"] == [9.0, -0.5, -0.5]
    assert record.rows(1)["step"] == [0, 1]
    assert record.rows(0)["epoch"] == [0.0, 0.5, 0.75]
    assert record.rows(2)["lr_now"] == [3.0, 3.0, 3.0]
    assert record.last("val_loss", 2) == -0.5


def test_columns_are_those_of_the_curves() -> None:
    assert recorder().columns == (
        "step", "epoch", "lr_now", "train_loss", "train_accuracy", "val_loss", "val_accuracy",
    )  # fmt: skip
    assert recorder(train_metrics=False).columns == (
        "step",
        "epoch",
        "lr_now",
        "train_loss",
        "val_loss",
        "val_accuracy",
    )


def test_a_restored_recorder_goes_on() -> None:
    first, second = recorder(), recorder()
    for record in (first, second):
        add(record, [0.1, 0.2, 0.3])
        if record is first:
            kept = record.state()
            add(record, [9.0, 9.0, 9.0])
            record.row(1, [1.0] * 3, values(1.0, 1.0, 1.0))
    second.restore(kept)
    first.restore(kept)
    for record in (first, second):
        add(record, [0.7, 0.7, math.nan])
        record.row(2, [1.0] * 3, values(1.0, 1.0, 1.0))
    assert first.rows(0) == second.rows(0)
    assert first.rows(0)["step"] == [2]
