"""`lrsweep init --task`: a spec for a task of the user's, with what one look at it found."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrsweep.errors import UsageError
from lrsweep.spec.load import load_spec
from lrsweep.sweep import starter

pytestmark = pytest.mark.process
TASK = """
import torch
from torch import nn
from torch.utils.data import Dataset
from lrsweep import Task
from lrsweep.tasks.base import accuracy

X = torch.linspace(-2, 2, 240).reshape(60, 4).sin()
Y = (X.sum(1) > 0).long()

def make(n=40):
    metrics = {"accuracy": accuracy}
    return Task(train=(X[:n], Y[:n]), val=(X[40:], Y[40:]), model=lambda: nn.Linear(4, 2),
                loss=nn.functional.cross_entropy, metrics=metrics)

class Words(Dataset):
    def __len__(self):
        return 200
    def __getitem__(self, index):
        return {"ids": torch.tensor([index % 7, index % 5]), "label": torch.tensor(index % 2)}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 3), nn.Linear(6, 2)
    def forward(self, ids):
        return self.head(self.embed(ids).flatten(1))

def words():
    def step(model, batch):
        return nn.functional.cross_entropy(model(batch["ids"]), batch["label"])
    return Task(train=Words(), val=Words(), model=Net, step=step)

def broken():
    return Task(train=(X, Y.float()), val=(X, Y), model=lambda: nn.Linear(4, 2), loss=nn.functional.cross_entropy)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_spec_loads_and_says_what_was_found(folder: Path) -> None:
    text = starter.for_task("mine.py:make", folder / "sweep.yaml")
    (folder / "sweep.yaml").write_text(text)
    spec = load_spec(folder / "sweep.yaml")
    assert spec.name == "sweep"
    assert len(spec.optimizers) == 3
    assert "batch_size: 32}" in text, "40 examples are no batch of 64"
    for line in (
        "data     40 train, 20 val, no test", "a batch  [32, 4] float32, [32] int64",
        "model    Linear, 10 parameters to train", "metrics  accuracy", "trained  many at a time",
        "runs below with", "# or val_accuracy",
    ):  # fmt: skip
        assert line in text
    assert sorted(path.name for path in folder.iterdir() if path.suffix) == ["mine.py", "sweep.yaml"]


def test_a_name_that_yaml_reads_as_a_number_is_quoted(folder: Path) -> None:
    (folder / "1e3.yaml").write_text(starter.for_task("mine.py:make", folder / "1e3.yaml"))
    assert load_spec(folder / "1e3.yaml").name == "1e3"


def test_a_spec_in_another_folder_finds_the_task(folder: Path) -> None:
    (folder / "specs").mkdir()
    text = starter.for_task("mine.py:make", folder / "specs" / "a.yaml")
    assert 'task: "../mine.py:make"' in text


def test_batches_that_are_dicts_are_told_with_their_shapes(folder: Path) -> None:
    text = starter.for_task("mine.py:words", folder / "sweep.yaml")
    assert "a batch  {ids: [64, 2] int64, label: [64] int64}" in text
    assert "metrics  none" in text


def test_a_task_that_cannot_be_swept_is_refused_with_what_to_change(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"mine.py:broken cannot be swept as it is: .*y\.long\(\)"):
        starter.for_task("mine.py:broken", folder / "sweep.yaml")
    with pytest.raises(UsageError, match="nothing"):
        starter.for_task("mine.py:nothing", folder / "sweep.yaml")
