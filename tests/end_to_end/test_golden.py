"""The curves of a tiny sweep, number by number: what a change of the engines, tasks or models would move unnoticed."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.support.train_spec import spec_dict, trained

GOLDEN = Path(__file__).parents[1] / "golden" / "tiny.csv"
SPEC = spec_dict(
    {"name": "blobs", "n": 120},
    [
        "sgd",
        {"name": "sgd", "momentum": 0.9, "nesterov": True},
        {"name": "adamw", "schedule": {"name": "cosine", "warmup": 0.2}, "independent_weight_decay": 1e-3},
    ],
    lr=[0.001, 0.03],
    model={"name": "mlp", "hidden": [8], "init": "he_uniform"},
    seeds=2,
    train={"epochs": 3, "batch_size": 16, "metrics": True, "clip_norm": 1.0},
)


def curves() -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for run, outcome in trained(SPEC):
        if text.tell() == 0:
            writer.writerow(["optimizer", "lr", "seed", *outcome.history])
        for row in zip(*outcome.history.values(), strict=True):
            writer.writerow([run.label, run.lr, run.seed, *row])
    return text.getvalue()


def test_the_curves_are_those_of_the_golden_file() -> None:
    seen, kept = (list(csv.DictReader(io.StringIO(text))) for text in (curves(), GOLDEN.read_text()))
    assert [list(row) for row in seen] == [list(row) for row in kept]
    for got, expected in zip(seen, kept, strict=True):
        assert got["optimizer"] == expected["optimizer"]
        for column in list(expected)[1:]:
            assert float(got[column]) == pytest.approx(float(expected[column]), rel=1e-9), (
                f"{column} of {expected} is now {got[column]}; if that is intended, write the file anew with "
                "`python -m tests.end_to_end.test_golden` and say in the commit why the numbers changed"
            )


if __name__ == "__main__":
    GOLDEN.write_text(curves())
