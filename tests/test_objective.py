"""The objective of a run: the direction of a metric, and what is read off its rows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lrsweep.objective import best_row, cost, default_mode, objective_of, uncost

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "metric",
    ["train_loss", "val_loss", "test_loss", "loss", "val_mse", "mae", "val_rmse", "val_nll", "val_perplexity",
     "val_zero_one_error", "error", "train_hinge_loss"],
)  # fmt: skip
def test_losses_and_errors_are_minimised(metric: str) -> None:
    assert default_mode(metric) == "min"


@pytest.mark.parametrize("metric", ["val_accuracy", "train_f1", "auc", "val_r2", "val_lossless", "val_mse_gain"])
def test_any_other_metric_is_maximised(metric: str) -> None:
    assert default_mode(metric) == "max"


ROWS = {"val_loss": [9.0, 3.0, 1.0, 2.0, 4.0], "val_accuracy": [0.1, 0.5, 0.9, 0.9, 0.2]}


@pytest.mark.parametrize(
    ("metric", "at", "mode", "expected"),
    [
        ("val_loss", "final", "min", 4.0),
        ("val_loss", "best", "min", 1.0),
        ("val_loss", "best", "max", 4.0),
        ("val_loss", "mean", "min", 2.5),
        ("val_loss", "last_1", "min", 4.0),
        ("val_loss", "last_2", "min", 3.0),
        ("val_loss", "last_50", "min", 2.5),
        ("val_accuracy", "best", "max", 0.9),
        ("val_accuracy", "final", "max", 0.2),
    ],
)
def test_objective_reads_the_rows_after_row_0(metric: str, at: str, mode: str, expected: float) -> None:
    assert objective_of(ROWS, metric, at, mode) == expected  # type: ignore[arg-type]


def test_the_untrained_row_never_counts_as_best() -> None:
    assert objective_of({"y": [0.0, 2.0, 1.0]}, "y", "best", "min") == 1.0
    assert best_row([0.0, 2.0, 1.0, 1.0], "min") == 2


def test_non_finite_rows_come_out_as_found() -> None:
    rows = {"y": [1.0, 2.0, NAN], "z": [1.0, 2.0, -INF]}
    assert math.isnan(objective_of(rows, "y", "final", "min"))
    assert math.isnan(objective_of(rows, "y", "mean", "min"))
    assert math.isnan(objective_of(rows, "y", "last_1", "min"))
    assert objective_of(rows, "z", "final", "min") == -INF


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_no_bad_value_is_ever_best(bad: float, mode: str) -> None:
    assert objective_of({"y": [0.0, bad, 5.0, bad]}, "y", "best", mode) == 5.0  # type: ignore[arg-type]
    assert best_row([0.0, bad], mode) is None  # type: ignore[arg-type]
    assert cost(bad, mode) == INF  # type: ignore[arg-type]


@pytest.mark.parametrize("at", ["final", "best", "mean", "last_3"])
def test_a_run_without_rows_has_no_objective(at: str) -> None:
    assert math.isnan(objective_of({"y": []}, "y", at, "min"))


@pytest.mark.parametrize("at", ["best", "mean", "last_3"])
def test_a_run_with_the_untrained_row_alone_has_no_objective_after_it(at: str) -> None:
    assert math.isnan(objective_of({"y": [1.0]}, "y", at, "min"))


def test_huge_values_keep_a_finite_mean() -> None:
    assert objective_of({"y": [0.0, 1.5e308, 1.5e308]}, "y", "mean", "min") == 1.5e308


@pytest.mark.parametrize("at", ["last_0", "last_", "last_x", "last_-1", "median", "last_1.5"])
def test_another_word_is_refused_with_the_choices(at: str) -> None:
    with pytest.raises(ValueError, match="final, best, mean or last_K"):
        objective_of(ROWS, "val_loss", at, "min")


def test_cost_keeps_the_order_of_the_metric() -> None:
    assert cost(0.9, "max") < cost(0.5, "max")
    assert uncost(cost(0.9, "max"), "max") == 0.9
    assert uncost(cost(0.3, "min"), "min") == 0.3
    assert math.copysign(1, uncost(cost(0.0, "max"), "max")) == 1.0


def test_arrays_serve_as_rows() -> None:
    assert objective_of({"y": np.array([5.0, 2.0, 3.0])}, "y", "best", "min") == 2.0
