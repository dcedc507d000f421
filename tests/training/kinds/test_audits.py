"""What audits keep right: without them, kinds of this folder come to other numbers than in plain torch."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lrsweep.training.audit import Auditor
from lrsweep.training.own_optimizers import Outside
from tests.training.kinds.test_kinds import BY_NAME, check

pytestmark = pytest.mark.slow

STEPS, ROWS, OUTSIDE = (Auditor, "due"), (Auditor, "row_due"), (Outside, "look")


@dataclass(frozen=True)
class Audited:
    """What notices a kind, what it says then, and how the kind would be trained without it."""

    by: tuple[tuple[type, str], ...]
    said: str
    engine: str = "stacked"
    seeds: int = 2
    workers: int = 1


AUDITED = {
    "optimizers-KeptClass": Audited((OUTSIDE,), "step 1: it keeps state outside its object"),
    "optimizers-GlobalCount": Audited((OUTSIDE,), "step 1: it keeps state outside its object"),
    "optimizers-FreezesLater": Audited(
        (STEPS,), "step 48: a.weight has a gradient together", "recorded", seeds=1, workers=2
    ),
    "unseen-Printed": Audited((STEPS, ROWS), "step |the evaluation after step "),
    "unseen-InTraining": Audited((STEPS,), "step "),
    "unseen-InEvaluation": Audited((ROWS,), "the evaluation after step "),
    "unseen-Recorded": Audited((STEPS,), "step ", "recorded"),
}
"""The kinds that pass the trial, though their runs cannot be trained together."""


def _trained(folder: Path, name: str) -> tuple[list[str], dict[str, Any], dict[str, Any]]:
    """Train a kind: a line for each run that is wrong, and what the manifest tells of engines and audits."""
    kind, how = BY_NAME[name], AUDITED[name]
    runs = list(itertools.product(kind.lr, range(how.seeds)))
    wrong = check(folder, kind, seeds=how.seeds, workers=how.workers, runs=runs)
    manifest = json.loads((folder / "kind" / "manifest.json").read_text())
    return wrong, manifest["engines"], manifest["audits"]


@pytest.mark.parametrize("name", AUDITED)
def test_an_audit_keeps_it_right(tmp_path: Path, name: str) -> None:
    wrong, engines, audits = _trained(tmp_path, name)
    assert not wrong, "\n".join(wrong)
    assert engines.keys() == {"single"}
    assert audits["failed"] > 0
    assert re.match(AUDITED[name].said, audits["where"][0])


@pytest.mark.parametrize("name", AUDITED)
def test_without_it_the_numbers_are_others(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers are forks of this process, so they audit as little."""
    for cls, method in AUDITED[name].by:
        monkeypatch.setattr(cls, method, lambda *_: False)
    wrong, engines, audits = _trained(tmp_path, name)
    assert len(wrong) == len(BY_NAME[name].lr) * AUDITED[name].seeds, "\n".join(wrong)
    assert engines.keys() == {AUDITED[name].engine}
    assert audits["failed"] == 0
