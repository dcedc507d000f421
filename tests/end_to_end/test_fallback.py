"""What raises in a stack or in a recorded step is trained one run at a time, and why is said once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lrsweep.cli import output
from lrsweep.cli.app import app
from lrsweep.results import tables
from lrsweep.sweep.progress import Silent
from lrsweep.system import child
from lrsweep.training import audit, reasons
from tests.support import sweeps

TASK = """
import torch
from torch import nn
from multiprocessing import current_process
from torch.utils._python_dispatch import _get_current_dispatch_mode
from lrsweep import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)
        BUILD

    def forward(self, x):
        FORWARD
        return self.layer(x)

def make():
    x = torch.randn(36, 2, generator=torch.Generator().manual_seed(0))
    return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=Net, loss=nn.functional.mse_loss)
"""
# The trial sees batches of 8 and of 36; the last batch of an epoch has 4.
# In a worker, that is: the trial of the model goes well.
ONLY_ALONE = (
    "if current_process().name != 'MainProcess' and _get_current_dispatch_mode() is not None: "
    "raise ValueError('recorded')"
)
SEED_2 = "if torch.initial_seed() == 2: raise ValueError('seed 2 is bad')"


def config(folder: Path, *, build: str = "pass", forward: str = "pass", **changed: Any) -> dict[str, Any]:
    (folder / "task.py").write_text(TASK.replace("BUILD", build).replace("FORWARD", forward))
    train = {"epochs": 3, "batch_size": 8}
    return sweeps.spec(task=f"{folder}/task.py:make", model=None, train=train, lr=[0.01, 0.1], **changed)


def swept(folder: Path, spec: dict[str, Any], **options: Any) -> tuple[list[str], dict[str, Any]]:
    """The notes on stderr and the manifest."""
    reporter = Silent()
    sweeps.run(folder, spec, reporter=reporter, workers=2, **options)
    return reporter.notes, json.loads((folder / "small" / "manifest.json").read_text())


def test_a_stack_and_a_recording_that_raise_are_each_told_once(tmp_path: Path) -> None:
    notes, manifest = swept(tmp_path, config(tmp_path, forward=ONLY_ALONE, optimizers=["sgd", "adam", "asgd"]))
    recording, stack = sorted((note for note in notes if "task.py" in note), key=lambda note: "together" in note)
    assert "runs trained one at a time: an error in training them together: " in stack
    assert "runs trained one at a time: an error in a recorded step: " in recording
    assert all("\n" not in note and len(note) < 400 for note in notes)
    assert sum("task.py" in note for note in manifest["notes"]) == 2
    assert manifest["engines"] == {"single": {"groups": 12, "runs": 12}}
    assert all("task.py" in group["reason"] for group in manifest["groups"])
    assert set(tables.read_runs(tmp_path / "small")["status"]) == {"ok"}


def test_a_run_that_fails_takes_its_stack_apart(tmp_path: Path) -> None:
    notes, manifest = swept(tmp_path, config(tmp_path, build=SEED_2, optimizers=["sgd"], seeds=3))
    runs = tables.read_runs(tmp_path / "small")
    assert runs["status"].tolist() == ["ok", "ok", "failed"] * 2
    assert sum("seed 2 is bad" in note for note in notes) == 1
    assert sum("seed 2 is bad" in note for note in manifest["notes"]) == 1


def test_a_stack_whose_runs_all_fail_alone_needs_no_note(tmp_path: Path) -> None:
    broken = config(tmp_path, build="raise ValueError('no weights')", optimizers=["sgd", "asgd"])
    assert not [note for note in swept(tmp_path, broken)[0] if "no weights" in note]


def test_a_dry_run_says_why_no_update_can_be_made(tmp_path: Path) -> None:
    broken = config(tmp_path, build="raise ValueError('no weights')", optimizers=["sgd"])
    found = sweeps.estimate(tmp_path, broken)
    text = output.estimate(found)
    assert "unknown: no step could be timed" in text
    assert found.errors == ("ValueError: no weights (task.py:12 in __init__)",)
    assert "fails            ValueError: no weights (task.py:12" in text
    assert text.count("no weights") == 1


OWN = """

class Odd(torch.optim.SGD):
    def step(self, closure=None):
        raise ValueError("not now " + "and much more " * 30)
"""


def test_a_class_whose_step_raises_is_not_tried_together(tmp_path: Path) -> None:
    """Each group that a worker gives up costs a new process, which imports torch."""
    odd = config(tmp_path, optimizers=[f"{tmp_path}/task.py:Odd"], seeds=1)
    (tmp_path / "task.py").write_text((tmp_path / "task.py").read_text() + OWN)
    text = output.estimate(sweeps.estimate(tmp_path, odd))
    assert text.count("not now") == 1
    notes, manifest = swept(tmp_path, odd)
    assert not any("not now" in note for note in notes)
    assert manifest["engines"] == {"single": {"groups": 2, "runs": 2}}
    assert set(tables.read_runs(tmp_path / "small")["status"]) == {"failed"}
    (reason,) = manifest["notes"]
    assert reason.endswith(" ... (task.py:25 in step)")
    assert len(reason) <= reasons.LONGEST


def test_a_dry_run_of_what_will_fail_ends_as_the_sweep_would(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(
        json.dumps(config(tmp_path, forward="raise ValueError('no batch')", optimizers=["sgd"]))
    )
    for changed, code in (((), 3), (("--set", "task=blobs", "--set", "model=linear"), 0)):
        ran = CliRunner().invoke(app, ["run", str(tmp_path / "sweep.yaml"), "--dry-run", *changed])
        assert ran.exit_code == code, ran.output
        assert ("fails            ValueError: no batch" in ran.output) == bool(code)
    assert not (tmp_path / "results").exists()


def test_verify_says_what_it_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = config(tmp_path, optimizers=["sgd"])
    notes, manifest = swept(tmp_path, own, verify=True)
    count = manifest["sessions"][-1]["audits"]["verified"]
    assert f"the first run of {count} groups was trained alone in plain torch, too" in notes[-1]
    assert count == manifest["engines"]["stacked"]["groups"]
    # On some processors both are equal to the bit. Workers are forked, whatever threads other tests have left here.
    monkeypatch.setattr(child, "can_fork", lambda: True)
    monkeypatch.setattr(audit, "difference", lambda together, alone, workload: f"run {together.run_id} differs")
    notes, manifest = swept(tmp_path / "differs", own, verify=True)
    assert any("an audit failed at --verify: run " in note for note in notes)
    assert manifest["engines"] == {"single": {"groups": 4, "runs": 4}}
    notes, _ = swept(tmp_path / "alone", config(tmp_path, forward="x.sum().item()", optimizers=["sgd"]), verify=True)
    assert notes[-1] == "--verify: every run was trained alone in plain torch; nothing to compare"
