"""The same bytes from the command line and from a process that has used torch before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support import sweeps

SPEC = """
name: one
task: blobs
lr: [0.001, 0.1]
optimizers: [sgd, adam]
seeds: 2
train: {epochs: 2, batch_size: 30}
"""
IN_PYTHON = """
import torch
torch.randn(64, 64) @ torch.randn(64, 64)
import lrsweep
lrsweep.run("one.yaml", results="python", workers=2)
"""
GIVEN = """
import torch
from torch import nn
import lrsweep
def make():
    X = torch.linspace(-1, 1, 60).view(20, 3)
    return lrsweep.Task(train=(X, X.sum(1, keepdim=True)), val=(X, X.sum(1, keepdim=True)),
                        model=lambda: nn.Linear(3, 1), loss=nn.functional.mse_loss)
spec = {"name": "given", "task": make, "lr": [0.01, 0.1], "optimizers": ["sgd"], "seeds": 1, "train": {"epochs": 2}}
if USED:
    torch.randn(64, 64) @ torch.randn(64, 64)
lrsweep.run(spec, results="given" + str(USED))
"""


def python(code: str, folder: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "MKL_CBWR"}
    (folder / "script.py").write_text(code)
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_process_that_has_multiplied_before_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(SPEC)
    python(IN_PYTHON, tmp_path)
    python("from lrsweep.cli.app import main; import sys; sys.argv[1:] = ['run', 'one.yaml']; main()", tmp_path)
    for table in ("runs.csv", "curves.csv", "summary.csv"):
        assert (tmp_path / "python" / "one" / table).read_bytes() == (tmp_path / "results" / "one" / table).read_bytes()


def test_code_given_by_such_a_process_is_told_what_it_cannot_have(tmp_path: Path) -> None:
    for used in (False, True):
        python(GIVEN.replace("USED", str(used)), tmp_path)
        manifest = json.loads((tmp_path / f"given{used}" / "given" / "manifest.json").read_text())
        assert manifest["company"]["same_bits"] is not used
        assert [("MKL_CBWR" in text) for text in manifest["company"]["why_not"]] == [True] * used


def test_convolutions_in_float64_are_told_of(tmp_path: Path) -> None:
    """They sum in another order beside others, built-in models too."""
    for dtype in ("float32", "float64"):
        train = {"steps": 2, "batch_size": 32, "dtype": dtype}
        spec = sweeps.spec(name=dtype, task="digits", model="cnn", optimizers=["sgd"], seeds=1, train=train)
        sweeps.run(tmp_path, spec)
        company = json.loads((tmp_path / dtype / "manifest.json").read_text())["company"]
        assert company["same_bits"] is (dtype == "float32")
        assert any("convolutions in float64" in why for why in company["why_not"]) is (dtype == "float64")
