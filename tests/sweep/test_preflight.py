"""What is found out before anything is trained: how many workers fit in memory, and whether the disk has room."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lrsweep.cli import output
from lrsweep.store.journal import Group
from lrsweep.sweep import context, preflight
from lrsweep.sweep.dry_run import CostEstimate
from lrsweep.sweep.progress import Silent
from lrsweep.system.machine import MIB, Machine
from lrsweep.workers.messages import Job
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


def test_what_takes_longest_is_trained_first() -> None:
    """By estimated time, not by steps; what an earlier command has cut is taken to be as fast as the rest."""
    steps = {"wide": 100, "narrow": 400, "stored": 800, "again": 10}
    jobs = {name: Job(group=Group(engine="stacked", runs=(name,)), runs=(), run_steps=of) for name, of in steps.items()}
    seconds = {jobs["wide"].group.id: 30.0, jobs["narrow"].group.id: 20.0}
    found = preflight._longest_first(list(jobs.values()), seconds)
    assert [job.group.runs[0] for job in found] == ["stored", "wide", "narrow", "again"]
