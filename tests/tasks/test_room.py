"""Data that cannot fit in memory are refused by their size, with the key of the spec, before they are made or read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lrsweep.errors import WrongInSpec
from lrsweep.tasks import TASKS, room

HUGE = 10**13


def refused(name: str, **arguments: Any) -> tuple[tuple[str, ...], str]:
    """Where in the spec, and what the message says."""
    with pytest.raises(WrongInSpec) as caught:
        TASKS[name](**arguments)
    (found,) = caught.value.found
    return found


@pytest.mark.parametrize(
    ("name", "key", "arguments"),
    [
        ("blobs", "n", {"n": HUGE}),
        ("blobs", "features", {"features": HUGE}),
        ("blobs", "n", {"n": 10**7, "features": 10**6}),
        ("moons", "n", {"n": HUGE}),
        ("spirals", "n", {"n": HUGE}),
        ("regression", "n", {"n": HUGE}),
        ("regression", "features", {"features": HUGE}),
        ("quadratic", "dim", {"dim": HUGE}),
        ("char_lm", "characters", {"characters": HUGE}),
    ],
)
def test_generated_data_are_counted_before_they_are_made(name: str, key: str, arguments: dict[str, int]) -> None:
    place, text = refused(name, **arguments)
    assert place == ("task", key)
    assert "of memory, but only" in text
    assert f"{arguments[key]:,}" in text


@pytest.mark.parametrize(("name", "key"), [("blobs", "centers"), ("spirals", "classes")])
def test_a_class_without_a_point_is_refused(name: str, key: str) -> None:
    place, text = refused(name, n=1000, **{key: 10_000_000})
    assert place == ("task", key)
    assert text.startswith("10,000,000 classes for 1,000 points")
    TASKS[name](n=10, **{key: 10})


def test_what_fits_is_made_and_what_does_not_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_limit", lambda: 10_000_000)
    TASKS["blobs"](n=100_000)
    refused("blobs", n=110_000)
    monkeypatch.setattr(room, "memory_limit", lambda: None)  # a system that does not tell
    TASKS["blobs"](n=110_000)


def test_an_archive_is_refused_by_its_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, X=np.zeros((200_000, 10), dtype=np.int8), y=np.arange(200_000) % 2)
    assert path.stat().st_size < 500_000
    monkeypatch.setattr(room, "memory_limit", lambda: 50_000_000)

    def unpack(*_: object) -> None:
        raise AssertionError("it was unpacked")

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", unpack)
    place, text = refused("npz", path=str(path), target="y")
    assert place == ("task", "path")
    assert "X (200000, 10), y (200000,)" in text


def test_a_header_that_promises_more_than_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez(path, y=np.arange(4))
    with zipfile.ZipFile(path, "a") as archive, archive.open("X.npy", "w") as file:
        np.lib.format.write_array_header_1_0(
            file, {"shape": (10**15, 4), "fortran_order": False, "descr": "<f8"}
        )  # fmt: skip
    place, text = refused("npz", path=str(path), target="y")
    assert place == ("task", "path")
    assert "(1000000000000000, 4)" in text


def test_a_text_table_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table.csv"
    path.write_text("a,b,y\n" + "1.5,2.5,0\n3.5,4.5,1\n" * 5000)
    TASKS["csv"](path=str(path), target="y")
    monkeypatch.setattr(room, "memory_limit", lambda: 3_000_000)
    monkeypatch.setattr("lrsweep.tasks.user_files.csv_module.reader", None)
    place, text = refused("csv", path=str(path), target="y")
    assert place == ("task", "path")
    assert str(path) in text


def test_the_inputs_that_one_hot_makes_are_counted_before_they_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "names.csv"
    path.write_text("name,y\n" + "".join(f"name {i},{i % 2}\n" for i in range(2000)))
    arguments = {"path": str(path), "target": "y", "one_hot": "text_columns"}
    TASKS["csv"](**arguments)
    monkeypatch.setattr(room, "memory_limit", lambda: 50_000_000)
    place, text = refused("csv", **arguments)
    assert place == ("task", "one_hot")
    assert text.startswith("2,000 rows with the 1,200 inputs that one_hot makes of ")
