"""`openml`, on the answers of the server that scikit-learn's own tests bring along."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets._openml as fetching
import torch
from sklearn.datasets import fetch_openml
from sklearn.datasets.tests.test_openml import _monkey_patch_webbased_functions as answer_from_files

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.tasks import TASKS, Task, room

STORED: dict[str, Any] = {"split": "stored", "val": 5, "test": 0, "scale": "none", "target_scale": "none"}


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Cached below a folder of its own; a test names the dataset whose files answer."""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    return monkeypatch


def openml(dataset: str | int, **arguments: Any) -> Task:
    return TASKS["openml"](dataset=dataset, **(STORED | arguments))


def rows(task: Task, place: int) -> torch.Tensor:
    return torch.cat([task.train[place], task.val[place]])


@pytest.mark.parametrize(("dataset", "version"), [(61, None), ("iris", None), ("Iris", 1)])
def test_a_table_by_its_number_or_name(server: pytest.MonkeyPatch, dataset: str | int, version: int | None) -> None:
    answer_from_files(server, 61, True)
    task = openml(dataset, version=version)
    data = fetch_openml(data_id=61, as_frame=True)
    assert np.allclose(rows(task, 0), data.data.to_numpy(dtype=np.float64))
    assert [task.notes["classes"][code] for code in rows(task, 1)] == data.target.tolist()
    assert task.notes["inputs"] == data.feature_names
    assert (task.notes["train"], task.notes["kind"]) == (145, "classification")


def test_text_columns_follow_the_rule_of_csv(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 561, True)
    with pytest.raises(WrongInSpec, match=r"openml cpu version 1, row 1: column 'vendor': 209 of 209 cells are text"):
        openml("cpu")
    task = openml("cpu", one_hot="text_columns")
    data = fetch_openml(data_id=561, as_frame=True)
    train = data.data[:-5]
    expected = pd.concat([pd.get_dummies(train["vendor"].astype(str)), train.drop(columns="vendor")], axis=1)
    assert task.notes["inputs"] == [f"vendor={name}" for name in sorted(set(train["vendor"]))] + list(
        train.columns.drop("vendor")
    )
    assert np.allclose(task.train[0], expected.to_numpy(dtype=np.float64))
    assert task.notes["kind"] == "regression"  # OpenML says numeric, though all are whole numbers
    assert np.allclose(rows(task, 1)[:, 0], data.target)


def test_missing_cells_are_those_of_the_frame(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 40945, True)
    data = fetch_openml(data_id=40945, as_frame=True, parser="liac-arff").data
    task = openml(40945, one_hot="text_columns", missing="mean")
    train = data[:-5]
    marks = [name for name in data.columns if train[name].isna().any()]
    assert [name for name in task.notes["inputs"] if name.endswith(" is missing")] == [
        f"{name} is missing" for name in marks
    ]
    age = rows(task, 0)[:, task.notes["inputs"].index("age")]
    assert np.allclose(age, data["age"].fillna(train["age"].mean()))


def test_another_target_can_be_named(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 61, True)
    task = openml("iris", target="petalwidth", drop=["class"])
    data = fetch_openml(data_id=61, as_frame=True).data
    assert np.allclose(rows(task, 1)[:, 0], data["petalwidth"])
    assert "petalwidth" not in task.notes["inputs"]


def test_the_second_use_needs_no_network(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 61, True)
    first = openml("iris")

    def unreachable(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError("no network")

    server.setattr(fetching, "urlopen", unreachable)
    server.setattr("time.sleep", lambda _: None)  # between the attempts
    assert torch.equal(openml("iris").train[0], first.train[0])
    with pytest.raises(UsageError) as caught:
        openml("cpu")
    wrong = r"openml cpu version 1: cannot be downloaded \(.*no network.*\); the first use needs the network, later .*"
    assert re.fullmatch(wrong, str(caught.value))


def test_what_does_not_exist_is_told(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 61, True)
    with pytest.raises(WrongInSpec) as caught:
        openml("iris", target="petals")
    ((keys, wrong),) = caught.value.found
    assert keys[0] == "task"
    assert "petals" in wrong
    with pytest.raises(WrongInSpec, match=r"61 is the number of one version; leave version out"):
        openml(61, version=1)


def test_what_cannot_fit_is_refused(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 3, True)
    openml(3, one_hot="text_columns")
    server.setattr(room, "memory_limit", lambda: 10_000_000)
    with pytest.raises(WrongInSpec, match=r"the 3,196 rows with 37 columns of openml 3 need about 15.8 MiB"):
        openml(3, one_hot="text_columns")


def test_several_targets_need_one(server: pytest.MonkeyPatch) -> None:
    answer_from_files(server, 40589, True)
    with pytest.raises(WrongInSpec, match=r"one column has to be the target, but OpenML names amazed.suprised, happy"):
        openml(40589)
