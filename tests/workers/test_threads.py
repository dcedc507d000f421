"""`--threads`: every worker trains with as many, and copies of a worker do, too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from lrsweep.errors import UsageError
from tests.support import sweeps

# A recurrent layer is trained in copies of a worker; the product is large enough to be computed by several threads.
OWN = """
from pathlib import Path

import torch
from torch import nn

from lrsweep import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 8, batch_first=True)
        self.wide = nn.Linear(8, 2048)
        self.head = nn.Linear(2048, 2)

    def forward(self, x):
        hidden = torch.relu(self.wide(self.gru(x)[0]))
        return self.head(hidden).mean(1)

def loss(output, target):
    with Path({seen!r}).open("a") as file:
        file.write(str(torch.get_num_threads()) + " ")
    return nn.functional.cross_entropy(output, target)

def make_task():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(64, 16, 4, generator=generator), torch.randint(2, (64,), generator=generator)
    return Task(train=(x, y), val=(x, y), model=Net, loss=loss)
"""


def own(folder: Path) -> dict[str, Any]:
    (folder / "own.py").write_text(OWN.replace("{seen!r}", repr(str(folder / "threads.txt"))))
    train = {"steps": 3, "batch_size": 32}
    return {
        "task": f"{folder}/own.py:make_task",
        "lr": [0.001, 0.01],
        "optimizers": ["adam"],
        "seeds": 1,
        "train": train,
    }


@pytest.mark.parametrize("threads", [1, 2])
def test_runs_alone_have_so_many_threads(threads: int, tmp_path: Path) -> None:
    """Several runs follow one another in a worker: none of them may be forked from a process with threads."""
    finished = sweeps.run(tmp_path / "results", own(tmp_path) | {"name": "own"}, workers=1, threads=threads)
    runs = pd.read_csv(finished.path / "runs.csv")
    assert list(runs["status"]) == ["ok"] * 2
    seen = (tmp_path / "threads.txt").read_text().split()
    assert set(seen[-6:]) == {str(threads)}  # those before are of its trial
    manifest = json.loads((finished.path / "manifest.json").read_text())
    assert manifest["determinism"]["threads_per_worker"] == manifest["sessions"][0]["threads"] == threads


def test_the_manifest_tells_the_threads_of_what_was_trained(tmp_path: Path) -> None:
    """A command that trains nothing changes nothing about that."""

    def told(**options: Any) -> Any:
        finished = sweeps.run(tmp_path, sweeps.spec(), workers=1, **options)
        return json.loads((finished.path / "manifest.json").read_text())["determinism"]["threads_per_worker"]

    assert told(threads=2) == 2
    assert told() == 2
    assert told(set=["seeds=3"]) == [2, 1]
    assert told(fresh=True) == 1


def test_results_are_the_same_to_rounding(tmp_path: Path) -> None:
    curves = {}
    for threads in (1, 2):
        finished = sweeps.run(tmp_path / str(threads), sweeps.spec(), workers=1, threads=threads)
        curves[threads] = pd.read_csv(finished.path / "curves.csv")
    pd.testing.assert_frame_equal(curves[1], curves[2], rtol=1e-4)


def test_threads_are_a_whole_number(tmp_path: Path) -> None:
    for wrong in (0, "2", True, 1.5):
        with pytest.raises(UsageError, match="threads"):
            sweeps.run(tmp_path, sweeps.spec(), threads=wrong)
