"""Results folders from elsewhere: no command reads, writes or deletes outside of them, whatever they hold."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import lrsweep
from lrsweep import plot
from lrsweep.errors import StorageError
from lrsweep.report import page
from lrsweep.results.check import check
from lrsweep.results.compare import compare
from lrsweep.results.status import status
from lrsweep.store import journal, records
from lrsweep.workers import worker
from tests.support import sweeps

READERS: dict[str, Callable[[Path], object]] = {
    "status": status,
    "plot": plot.draw_all,
    "report": page.write,
    "check": check,
    "compare": lambda folder: compare(folder, folder),
    "load": lrsweep.load,
}
READ = (
    *("spec.yaml", "runs.csv", "curves.csv", "summary.csv", "manifest.json", "journal/tables.json", ".fresh"),
    *(".lock", ".lock-holder", ".tables.lock"),
)
REPLACED = ("report.html", "u_curve.png", "loss_curves.png")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    worker.prepare()
    folder = tmp_path_factory.mktemp("finished")
    sweeps.run(folder, draw=True)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "results")
    return tmp_path / "results" / "small"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder of the user's; nothing may happen to what is in it."""
    outside = tmp_path / "victim"
    outside.mkdir()
    (outside / "thesis.txt").write_text("precious")
    (outside / f"{'a' * 16}-1.pt").write_text("weights")
    return outside


def untouched(victim: Path) -> bool:
    texts = {path.name: path.read_text() for path in victim.iterdir()}
    return texts == {"thesis.txt": "precious", f"{'a' * 16}-1.pt": "weights"}


def all_commands(folder: Path, *, refused: bool) -> None:
    """Every command; each is refused, or none is."""
    commands = {**READERS, "run": lambda folder: sweeps.run(folder.parent, draw=True)}
    for command in commands.values():
        if not refused:
            command(folder)
            continue
        with pytest.raises(StorageError, match=re.escape(str(folder))):
            command(folder)


@pytest.mark.parametrize("name", READ)
def test_a_link_in_place_of_a_file_that_is_read_is_refused(folder: Path, victim: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(victim / "thesis.txt")
    all_commands(folder, refused=True)
    assert untouched(victim)


@pytest.mark.parametrize("kind", ["a whole folder", "one of its files", "nowhere"])
@pytest.mark.parametrize("name", ["journal", "checkpoints"])
def test_a_link_in_place_of_a_folder_is_refused(folder: Path, victim: Path, name: str, kind: str) -> None:
    if kind == "one of its files":
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "a-1-1.jsonl").symlink_to(victim / "thesis.txt")
    else:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).symlink_to(victim if kind == "a whole folder" else "/nonexistent/x")
    all_commands(folder, refused=True)
    assert untouched(victim)


def test_a_pipe_in_place_of_a_file_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "journal" / "a-1-1.jsonl")
    all_commands(folder, refused=True)


def test_links_in_place_of_files_that_are_only_written_are_replaced(folder: Path, victim: Path) -> None:
    for name in REPLACED:
        (folder / name).unlink()
        (folder / name).symlink_to(victim / "thesis.txt")
    all_commands(folder, refused=False)
    assert untouched(victim)
    assert not any((folder / name).is_symlink() for name in REPLACED)


@pytest.mark.parametrize("kind", ["climbing", "absolute", "of the right form"])
def test_a_checkpoint_record_deletes_nothing_outside(folder: Path, victim: Path, kind: str) -> None:
    path, *_ = journal.paths(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"outcome"' not in line]
    (group,) = {str(records.decode_outcome(line).group) for line in lines if line not in kept}
    file = {
        "climbing": "../../../victim/thesis.txt",
        "absolute": str(victim / "thesis.txt"),
        "of the right form": f"../../../victim/{'a' * 16}-1.pt",
    }[kind]
    record = {"kind": "checkpoint", "group": group, "file": file, "sha256": "0" * 64}
    path.write_bytes(b"".join(kept) + records.encode(record))
    (folder / "checkpoints").mkdir(exist_ok=True)
    assert sweeps.run(folder.parent).trained == 12
    assert untouched(victim)
