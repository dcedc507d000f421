"""`Task`: what may be given, what is refused and how it is said, and what models are told about it."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lrsweep.errors import UsageError
from lrsweep.tasks import TASKS, Task, describe, shapes_of


def loss(output, target):
    return (output - target).square().mean()


X, Y = torch.randn(6, 2), torch.randn(6, 1)


class Pairs(Dataset):
    def __init__(self, labels=None):
        self.labels = labels

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index], Y[index] if self.labels is None else self.labels[index]


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def test_a_task_takes_tensors_lists_and_datasets():
    task = Task(train=[X, Y], val=TensorDataset(X[:3], Y[:3]), loss=loss)
    assert isinstance(task.train, tuple)
    assert torch.equal(task.val[0], X[:3])
    assert (task.notes["train"], task.notes["val"], task.notes["test"]) == (6, 3, 0)
    alone = Task(train=X, val=X, loss=loss)
    assert len(alone.train) == 1
    data = Task(train=Pairs(), val=Pairs(), step=lambda model, batch: loss(model(batch[0]), batch[1]))
    assert data.notes["train"] == 6
    keep = Task(train=TensorDataset(X, Y), val=TensorDataset(X, Y), loss=loss, collate_fn=list)
    assert isinstance(keep.train, TensorDataset)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"val": None}, "val is missing"),
        ({"train": (X, Y[:5])}, "different numbers of rows: 6, 5"),
        ({"train": (X.numpy(), Y)}, r"train\[0\] is a ndarray, not a tensor; use torch.from_numpy"),
        ({"train": (X, torch.tensor(1.0))}, r"train\[1\] is a single number"),
        ({"train": ()}, "train is empty"),
        ({"test": (X[:0], Y[:0])}, "test has no examples"),
        ({"val": (X,)}, "train 2, val 1"),
        ({"val": Stream()}, "IterableDataset"),
        ({"train": 3}, "train is a int"),
        ({"train": {"x": X}}, "train is a dict"),
        ({"loss": None}, "give loss="),
        ({"step": loss}, "not both"),
        ({"loss": None, "step": loss, "metrics": {"a": loss}}, "leave metrics out"),
        ({"loss": "mse"}, "loss is a str, not a function"),
        ({"loss": torch.nn.MSELoss}, r"loss is the class MSELoss; give an object of it: MSELoss\(\)"),
        ({"metrics": {"error": torch.nn.L1Loss}}, r"metric 'error' is the class L1Loss"),
        ({"model": torch.nn.Linear(2, 1)}, "a function that builds it"),
        ({"metrics": {"loss": loss}}, "'loss' cannot name a metric"),
        ({"metrics": {"a,b": loss}}, "cannot name a metric"),
        ({"metrics": {"a\x1b[31m": loss}}, "cannot name a metric"),
        ({"metrics": {"a": 1}}, "metric 'a' is a int"),
        ({"metrics": [loss]}, "metrics is a list"),
        ({"collate_fn": list}, "collate_fn is for Datasets"),
    ],
)
def test_what_cannot_be_trained_is_said(arguments, message):
    with pytest.raises(UsageError, match=message):
        Task(**{"train": (X, Y), "val": (X, Y), "loss": loss, **arguments})


@pytest.mark.parametrize(
    ("name", "arguments", "line"),
    [
        ("digits", {}, "1077 train, 360 val, 360 test; classification, 10 outputs; inputs standardized"),
        (
            "digits",
            {"scale": "none", "test": 0},
            "1437 train, 360 val, no test; classification, 10 outputs; inputs not scaled",
        ),
        ("diabetes", {}, "264 train, 89 val, 89 test; regression; inputs and target standardized"),
        ("quadratic", {}, "1 train, 1 val, no test; quadratic"),
        ("csv", {}, "3 train, 1 val, 1 test; classification (inferred from the target), 2 outputs; inputs not scaled"),
    ],
)
def test_a_task_says_its_split_sizes(name, arguments, line, tmp_path):
    if name == "csv":
        path = tmp_path / "t.csv"
        path.write_text("x,y\n1,a\n2,b\n3,a\n4,b\n5,a\n")
        arguments = {"path": str(path), "target": "y", "scale": "none"}
    assert describe(TASKS[name](**arguments)) == line


def test_a_users_task_says_its_split_sizes():
    assert describe(Task(train=(X, Y), val=(X, Y), loss=loss)) == "6 train, 6 val, no test"


def test_shapes_are_read_off_the_data():
    def shapes(train, val=None, **notes):
        found = shapes_of(Task(train=train, val=val or train, loss=loss, notes=notes))
        return found.in_shape, found.num_outputs, found.tokens

    assert shapes((X, Y)) == ((2,), 1, False)
    assert shapes((X, Y[:, 0])) == ((2,), 1, False)
    assert shapes((torch.zeros(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))) == ((1, 8, 8), 3, False)
    assert shapes((X, torch.tensor([0, 1] * 3)), (X, torch.tensor([0, 4] * 3))) == ((2,), 5, False)
    assert shapes((torch.zeros(4, 7, dtype=torch.long), torch.full((4, 7), 8))) == ((7,), 9, True)
    assert shapes((Y,)) == (None, 1, False)
    assert shapes((X, torch.tensor([0, 1] * 3)), num_outputs=9, in_shape=[5]) == ((5,), 9, False)
    assert shapes(Pairs()) == ((2,), 1, False)
    assert shapes(Pairs(labels=[0, 1, 2, 3, 0, 1])) == ((2,), 4, False)
    assert shapes(Pairs(labels=["a"] * 6)) == ((2,), None, False)


def test_notes_spare_reading_a_dataset_through():
    class Costly(Pairs):
        def __getitem__(self, index):
            assert index == 0, "only the first example is looked at"
            return X[0], 1

    task = Task(train=Costly(), val=Costly(), loss=loss, notes={"num_outputs": 4})
    assert shapes_of(task).num_outputs == 4
