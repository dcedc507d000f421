"""Checkpoints: what is written comes back, and only what is a checkpoint is deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrsweep.store import checkpoints


def test_a_state_comes_back_until_it_is_deleted(tmp_path: Path) -> None:
    saved = checkpoints.write(tmp_path, "a" * 16, {"step": 7})
    assert checkpoints.read(tmp_path, saved) == {"step": 7}
    checkpoints.delete(tmp_path, saved)
    assert checkpoints.read(tmp_path, saved) is None


def test_other_files_beside_the_checkpoints_stay(tmp_path: Path) -> None:
    kept, old = (checkpoints.write(tmp_path, letter * 16, {}) for letter in "ab")
    folder = tmp_path / "checkpoints"
    for name in ("model.pt", "notes.txt"):
        (folder / name).write_text("mine")
    checkpoints.delete_all_but(tmp_path, [kept])
    assert {path.name for path in folder.iterdir()} == {"model.pt", "notes.txt", kept.file}
    assert not (folder / old.file).exists()


def test_a_checkpoint_of_another_version_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = checkpoints.write(tmp_path, "a" * 16, {"step": 7})
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    assert checkpoints.read(tmp_path, saved) is None
