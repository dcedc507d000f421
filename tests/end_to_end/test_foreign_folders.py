"""Results folders from elsewhere: no command reads, writes or deletes outside of them, whatever they hold."""

from __future__ import annotations

import json
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
from lrsweep.sweep.progress import Silent
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
    worker.one_thread()
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


DEEP = "[" * 100_000 + "]" * 100_000
WRONG = {
    "deep": f'{{"tasks": {DEEP}}}',
    "huge": '{"tables": ' + "9" * 5000 + "}",
    "a list": "[1]",
    "lists": '{"tasks": [1], "sessions": {"a": 1}, "tables": [], "journal": [], "files": []}',
    "numbers": '{"tasks": 1, "sessions": 2, "tables": 3, "journal": 4, "files": 5, "lrsweep": 6}',
    "texts": '{"journal": {"a-1-1.jsonl": "9"}, "files": {"runs.csv": 1}}',
}


@pytest.mark.parametrize("text", WRONG.values(), ids=WRONG)
def test_derived_files_with_wrong_content_are_rebuilt(folder: Path, text: str) -> None:
    before = sweeps.tables(folder)
    for command in (status, lrsweep.load, lambda folder: sweeps.run(folder.parent)):
        for name in ("manifest.json", "journal/tables.json", ".lock-holder"):
            (folder / name).write_text(text)
        command(folder)
        assert sweeps.tables(folder) == before
    assert json.loads((folder / "manifest.json").read_text())["sessions"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"spec": "{"},
        {"spec": "name: small"},
        {"spec": "{}"},
        {"spec": "seeds: 5"},
    ],
    ids=str,
)
def test_a_plan_record_that_holds_no_spec_is_a_storage_error(folder: Path, wrong: dict[str, object]) -> None:
    (path,) = journal.paths(folder)
    found = journal.replay(folder).plan
    assert found is not None
    with path.open("ab") as stream:
        stream.write(records.encode({**found, **wrong}))
    all_commands(folder, refused=True)
    assert sweeps.run(folder.parent, fresh=True).trained == 12


def test_a_plan_record_of_files_without_their_hashes_is_a_storage_error(folder: Path) -> None:
    (path,) = journal.paths(folder)
    text = "{task: t.py:make, lr: [0.1], optimizers: [sgd], seeds: 1, train: {epochs: 1}}"
    with path.open("ab") as stream:
        stream.write(records.encode({"kind": "plan", "spec": text, "fingerprints": {}, "default_lr": {}}))
    for command in READERS.values():
        with pytest.raises(StorageError, match="no fingerprint"):
            command(folder)
    assert sweeps.run(folder.parent).trained == 0  # it writes its own plan down


def test_a_plan_record_without_default_rates_gives_tables(folder: Path) -> None:
    (path,) = journal.paths(folder)
    found = journal.replay(folder).plan
    assert found is not None
    with path.open("ab") as stream:
        stream.write(records.encode({**found, "default_lr": {}}))
    lrsweep.load(folder).facts()


FOREIGN = {
    "runs.csv": "name,distance\nme,10\n",
    "curves.csv": "x,y\n1,2\n",
    "summary.csv": "a summary\n",
    "manifest.json": '{"name": "an app"}',
    "report.html": "<title>my report</title>",
    "spec.yaml": "# what I want to find out\ntask: blobs\n",
}


def test_files_of_others_with_our_names_are_kept_beside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    for name, text in FOREIGN.items():
        (folder / name).write_text(text)
    reporter = Silent()
    sweeps.run(tmp_path, draw=True, reporter=reporter)
    assert not any("published" in note for note in reporter.notes)
    sweeps.run(tmp_path, sweeps.spec(seeds=3), draw=True)
    for name, text in FOREIGN.items():
        stem, suffix = name.split(".")
        kept = f"{stem}.{'edited' if name == 'spec.yaml' else 'foreign'}.{suffix}"
        assert (folder / kept).read_text() == text
        assert caplog.text.count(f"kept as {kept}") == 1
    assert len(list(folder.glob("*.foreign*"))) == 5
    (folder / "runs.csv").write_text(FOREIGN["runs.csv"])
    lrsweep.load(folder)
    assert (folder / "runs.foreign-2.csv").read_text() == FOREIGN["runs.csv"]


@pytest.mark.parametrize("kind", ["climbing", "absolute", "of the right form"])
def test_a_checkpoint_record_deletes_nothing_outside(folder: Path, victim: Path, kind: str) -> None:
    path, *_ = journal.paths(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"outcome"' not in line]
    (group,) = {str(records.decode(line).group) for line in lines if line not in kept}
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
