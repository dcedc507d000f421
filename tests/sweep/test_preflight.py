"""What is found out before anything is trained: how many workers fit in memory, and whether the disk has room."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lrsweep.cli import output
from lrsweep.results.results import load
from lrsweep.store import journal
from lrsweep.sweep import context, preflight
from lrsweep.sweep.dry_run import CostEstimate
from lrsweep.sweep.progress import Silent
from lrsweep.system.machine import MIB, Machine
from tests.support import sweeps

CONFIG = sweeps.spec(lr=[0.01, 0.1], model={"name": "mlp", "hidden": [300, 300]})
# Of these optimizers every run is trained alone: 8 jobs.
ALONE = {**CONFIG, "optimizers": ["adafactor", "rprop"]}


class Notes(Silent):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


def estimate(
    folder: Path, monkeypatch: pytest.MonkeyPatch, memory: int, workers: int | str
) -> tuple[CostEstimate, list[str]]:
    """On a machine of 4 cores with so many MiB."""
    machine = Machine(cores=4, cpu="test", memory=memory * MIB)
    for module in (context, preflight):
        monkeypatch.setattr(module, "this_machine", lambda: machine)
    notes = Notes()
    return sweeps.estimate(folder, ALONE, workers=workers, reporter=notes), notes.texts


def test_workers_are_limited_by_memory_and_the_dry_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = estimate(tmp_path, monkeypatch, 480, "auto")
    assert found.workers == 2
    assert any(text.startswith("2 workers instead of 4: a worker needs about 1") for text in notes)
    assert any("480 MiB can be used" in text for text in notes)
    assert "with 2 processes on cpu" in output.estimate(found)


def test_where_memory_is_enough_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = estimate(tmp_path, monkeypatch, 4000, "auto")
    assert found.workers == 4
    assert not any("memory" in text for text in notes)


def test_a_number_that_was_given_is_kept_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = estimate(tmp_path, monkeypatch, 480, 3)
    assert found.workers == 3
    assert any(text.startswith("warning: a worker needs") and "use --workers 2" in text for text in notes)


def test_one_run_that_may_not_fit_is_tried_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, notes = estimate(tmp_path, monkeypatch, 100, "auto")
    assert found.workers == 1
    assert any(text.endswith("the sweep may be killed") for text in notes)


def test_a_disk_without_room_is_told(tmp_path: Path) -> None:
    facts: Any = sweeps.estimate(tmp_path, CONFIG)
    assert 0 < facts.bytes < facts.free_bytes
    assert "are free" not in output.estimate(facts)
    assert "but only 2 KiB are free" in output.estimate(dataclasses.replace(facts, free_bytes=2048))


def test_what_takes_longest_is_trained_first(tmp_path: Path) -> None:
    """Not what makes most steps: the runs of a wide model make as many as those of a narrow one, in two groups."""
    model = {"name": "mlp", "hidden": [4]}
    sweeps.run(tmp_path, sweeps.spec(model=model, axes={"model.hidden": [[4], [512]]}, seeds=1), workers=2)
    runs = load(tmp_path / "small").runs.set_index("run_id")
    order = [runs.loc[group.runs[0], "model.hidden"] for group in journal.replay(tmp_path / "small").groups.values()]
    assert order == sorted(order, key="[512]".__ne__)
    assert set(order) == {"[4]", "[512]"}
