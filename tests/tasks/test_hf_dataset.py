"""`hf_dataset`: what `datasets` saved is read back, table, arrays and images alike."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.tasks import TASKS, Task, describe, room

STORED: dict[str, Any] = {"split": "stored", "val": 1, "test": 0, "scale": "none", "target_scale": "none"}


def hf(path: Path, **arguments: Any) -> Task:
    return TASKS["hf_dataset"](path=str(path), **(STORED | arguments))


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError) as caught:
        hf(tmp_path)
    assert str(caught.value) == "the library datasets is not installed (pip install 'lrsweep[datasets]')"


@pytest.fixture
def datasets() -> Any:
    return pytest.importorskip("datasets")


def refused(path: Path, **arguments: Any) -> list[tuple[str, str]]:
    with pytest.raises(UsageError) as caught:
        hf(path, **arguments)
    found = getattr(caught.value, "found", (((), str(caught.value)),))
    return [(".".join(keys), wrong.replace(str(path), "data")) for keys, wrong in found]


@pytest.fixture
def table(tmp_path: Path, datasets: Any) -> Path:
    features = datasets.Features(
        {
            "size": datasets.Value("float32"),
            "rooms": datasets.Value("int64"),
            "city": datasets.Value("string"),
            "new": datasets.Value("bool"),
            "label": datasets.ClassLabel(names=["dear", "cheap"]),
        }
    )
    columns = {
        "size": [1.5, 2.5, None, 4.5],
        "rooms": [1, 2, 3, 4],
        "city": ["Oslo", "Bergen", "Oslo", "Rome"],
        "new": [True, False, True, True],
        "label": [0, 1, 0, 1],
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_table_follows_the_rule_of_csv(table: Path) -> None:
    assert [wrong.partition(" (")[0] for _, wrong in refused(table)[:-1]] == [
        "data: row 3: column 'size': 1 cell is missing: ''",
        "data: row 1: column 'city': 4 of 4 cells are text, first 'Oslo'",
    ]
    task = hf(table, one_hot="text_columns", missing="mean", drop=["rooms"])
    assert task.notes["inputs"] == ["size", "size is missing", "city=Bergen", "city=Oslo", "new"]
    assert task.train[0].tolist() == [[1.5, 0, 0, 1, 1], [2.5, 0, 1, 0, 0], [2, 1, 0, 1, 1]]
    assert task.val[0].tolist() == [[4.5, 0, 0, 0, 1]]
    names = [task.notes["classes"][code] for code in (*task.train[1], *task.val[1])]
    assert names == ["dear", "cheap", "dear", "cheap"]
    assert "left out: rooms; one-hot: city (2 values)" in describe(task)


def test_rows_that_were_selected_are_the_rows(table: Path, datasets: Any, tmp_path: Path) -> None:
    datasets.load_from_disk(str(table)).select([3, 1, 0]).save_to_disk(str(tmp_path / "few"))
    task = hf(tmp_path / "few", drop=["size", "city"])
    assert torch.cat([task.train[0], task.val[0]]).tolist() == [[4, 1], [2, 0], [1, 1]]


def images(datasets: Any, count: int, *, start: int = 0, shape: tuple[int, ...] = (4, 6, 3)) -> tuple[Any, np.ndarray]:
    pixels = np.random.RandomState(start).randint(0, 256, size=(count, *shape), dtype=np.uint8)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    columns = {"image": [Image.fromarray(one) for one in pixels], "label": [i % 2 for i in range(count)]}
    return datasets.Dataset.from_dict(columns, features=features), pixels


def test_images_are_pixels(tmp_path: Path, datasets: Any) -> None:
    data, pixels = images(datasets, 5)
    data.save_to_disk(str(tmp_path / "d"))
    task = hf(tmp_path / "d")
    expected = torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255).float()
    assert torch.equal(torch.cat([task.train[0], task.val[0]]), expected)
    said = describe(hf(tmp_path / "d", scale="standard"))
    assert said.endswith("RGB images of 4x6 pixels; inputs standardized per channel")
    assert hf(tmp_path / "d", size=3, grayscale=True).train[0].shape == (4, 1, 3, 3)


def test_splits_of_its_own(tmp_path: Path, datasets: Any) -> None:
    parts = {name: images(datasets, count, start=count) for name, count in (("test", 3), ("train", 4), ("extra", 2))}
    saved = datasets.DatasetDict({name: data for name, (data, _) in parts.items()})
    saved.save_to_disk(str(tmp_path / "d"))
    task = hf(tmp_path / "d", val=1, test=2)
    assert [task.notes[name] for name in ("train", "val", "test")] == [3, 1, 3]
    for ours, (_, pixels) in ((torch.cat([task.train[0], task.val[0]]), parts["train"]), (task.test[0], parts["test"])):
        assert torch.equal(ours, torch.from_numpy(pixels.transpose(0, 3, 1, 2) / 255).float())
    assert any("none of train, val, test: extra" in text for text in task.notes["warnings"])
    saved["validation"] = saved.pop("extra")
    saved.save_to_disk(str(tmp_path / "e"))
    assert [hf(tmp_path / "e", val=0.5, test=0.5).notes[name] for name in ("train", "val", "test")] == [4, 2, 3]
    del saved["train"]
    saved.save_to_disk(str(tmp_path / "f"))
    assert refused(tmp_path / "f") == [("task.path", "data: there is no split train (there are: test, validation)")]


def test_rows_left_out_are_left_out_of_their_split(tmp_path: Path, datasets: Any) -> None:
    parts = {
        "train": {"x": [1.0, None, 3.0], "label": [0, 1, 1]},
        "val": {"x": [None, 5.0], "label": [0, 1]},
        "test": {"x": [6.0], "label": [0]},
    }
    data = datasets.DatasetDict({name: datasets.Dataset.from_dict(columns) for name, columns in parts.items()})
    data.save_to_disk(str(tmp_path / "d"))
    ((_, wrong), _) = refused(tmp_path / "d")
    assert wrong.startswith("data: row 2 of train: column 'x': 2 of 6 cells are missing")
    task = hf(tmp_path / "d", missing="drop_rows")
    assert [split[0][:, 0].tolist() for split in (task.train, task.val, task.test)] == [[1, 3], [5], [6]]
    data["test"] = datasets.Dataset.from_dict({"x": [None], "label": [0]}, features=data["train"].features)
    data.save_to_disk(str(tmp_path / "e"))
    assert refused(tmp_path / "e", missing="drop_rows") == [("task", "no rows are left in test")]


@pytest.mark.parametrize("fixed", [True, False])
def test_arrays_keep_their_shape(tmp_path: Path, datasets: Any, fixed: bool) -> None:
    values = np.random.RandomState(0).normal(size=(4, 2, 3)).astype(np.float32)
    features = {"x": datasets.Array2D((2, 3), "float32"), "label": datasets.Value("float64")} if fixed else None
    data = datasets.Dataset.from_dict(
        {"x": values.tolist(), "label": [0.5, 1.5, 2.5, 3.5]}, features=features and datasets.Features(features)
    )
    data.save_to_disk(str(tmp_path / "d"))
    task = hf(tmp_path / "d")
    assert torch.equal(torch.cat([task.train[0], task.val[0]]), torch.from_numpy(values))
    assert (task.notes["kind"], task.train[1][:, 0].tolist()) == ("regression", [0.5, 1.5, 2.5])


@pytest.mark.parametrize(
    ("columns", "arguments", "key", "wrong"),
    [
        ({"x": [[1.0, 2.0], [3.0]], "label": [0, 1]}, {}, "", "column 'x' is no array of numbers of one shape"),
        ({"x": [[1.0], [None]], "label": [0, 1]}, {}, "", "data: row 2: column 'x' holds a missing (nan)"),
        ({"x": [["a"], ["b"]], "label": [0, 1]}, {}, "", "column 'x' is no array of numbers of one shape"),
        ({"x": [[1.0], [2.0]], "z": [1, 2], "label": [0, 1]}, {}, "task.drop", "can only be the one input"),
        ({"x": [[1.0], [2.0]], "label": [0, None]}, {}, "task", "row 2: column 'label': 1 cell is missing"),
        ({"x": [1.0, 2.0], "label": [[0], [1]]}, {}, "task.target", "column 'label' holds no plain values"),
        ({"x": [1.0, 2.0], "label": [0, 1]}, {"target": "labl"}, "task.target", "did you mean label?"),
        ({"x": [1.0, 2.0], "label": [0, 1]}, {"drop": ["y"]}, "task.drop", "there is no column 'y'"),
        ({"x": [1.0, 2.0], "label": [0, 1]}, {"drop": ["x"]}, "task.drop", "there are no inputs beside 'label'"),
        ({"x": [], "label": []}, {}, "task.path", "holds no"),
    ],
)
def test_what_cannot_be_used_is_refused(
    tmp_path: Path, datasets: Any, columns: dict[str, Any], arguments: dict[str, Any], key: str, wrong: str
) -> None:
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "d"))
    (at, text), *_ = refused(tmp_path / "d", **arguments)
    assert at == key
    assert wrong in text


def test_a_folder_that_holds_no_dataset(tmp_path: Path, datasets: Any) -> None:
    ((key, wrong),) = refused(tmp_path)
    assert key == "task.path"
    assert wrong.startswith("data: holds no dataset that save_to_disk wrote (")
    (tmp_path / "dataset_info.json").write_text("{")
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(WrongInSpec, match=r"holds no dataset that save_to_disk wrote"):
        hf(tmp_path)


def test_what_cannot_fit_is_refused(tmp_path: Path, datasets: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets.Dataset.from_dict({"x": [[1.0] * 100] * 50, "label": [0, 1] * 25}).save_to_disk(str(tmp_path / "d"))
    hf(tmp_path / "d")
    datasets.Dataset.from_dict({"x": [1.0] * 50, "label": [0, 1] * 25}).save_to_disk(str(tmp_path / "e"))
    monkeypatch.setattr(room, "memory_limit", lambda: 100_000)
    ((key, wrong),) = refused(tmp_path / "d")
    assert key == "task.path"
    assert wrong.startswith("the 50 arrays of shape (100,) of data need about 176 KiB")
    monkeypatch.setattr(room, "memory_limit", lambda: 10_000)
    ((key, wrong),) = refused(tmp_path / "e")
    assert key == "task.path"
    assert wrong.startswith("the 50 rows with 2 columns of data need about 13.7 KiB")


def test_no_thread_is_left_behind(table: Path) -> None:
    """Beside threads no worker could be forked. In a process of its own, since other tests may have started some."""
    program = (
        "import os, sys; from lrsweep.system import child; from lrsweep.tasks import TASKS; child.before_user_code();"
        "TASKS['hf_dataset'](path=sys.argv[1], drop=['size', 'city'], test=0);"
        "print(child.can_fork(), 'datasets' in sys.modules)"
    )
    command = [sys.executable, "-c", program, str(table)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert shown.stdout.split() == ["True", "False"]
