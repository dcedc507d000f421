"""Warnings of the user's code are told once a command, each on a line with its place, whatever process raised them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lrsweep.system import child, warned

TASK = """
import warnings
import torch
from torch import nn
from lrsweep import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x):
        FORWARD
        return self.layer(x)

def loss(output, target):
    return nn.functional.mse_loss(output, target[:, 0])

def make():
    warnings.warn("an old task")
    x = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))
    return Task(train=(x, x[:, :1]), val=(x[:9], x[:9, :1]), model=Net, loss=loss)
"""
LINES = [
    "warning: an old task (UserWarning, task.py:20 in make)",
    "warning: Using a target size (torch.Size([16])) that is different to the input size (torch.Size([16, 1])). This "
    "will likely lead to incorrect results due to broadcasting. Please ensure they have the same size. (UserWarning, "
    "task.py:17 in loss)",
]


def stderr(folder: Path, *arguments: str, forward: str = "pass") -> str:
    (folder / "task.py").write_text(TASK.replace("FORWARD", forward))
    spec = {"task": "task.py:make", "optimizers": ["sgd", "adam"], "lr": [0.01, 0.1], "seeds": 2}
    (folder / "own.yaml").write_text(json.dumps({**spec, "train": {"epochs": 2, "batch_size": 16}}))
    # As a user has it: none of the filters of these tests.
    env = {**{key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}, "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "lrsweep", *arguments], cwd=folder, env=env, capture_output=True, text=True, check=True
    )
    return done.stderr


@pytest.mark.parametrize("forward", ["pass", "x.sum().item()"], ids=["together", "one at a time"])
def test_a_warning_is_a_line_told_once_whatever_process_raises_it(tmp_path: Path, forward: str) -> None:
    told = stderr(tmp_path, "run", "own.yaml", forward=forward)
    assert [line for line in told.splitlines() if "Warning" in line] == LINES
    assert "return " not in told


def test_so_it_is_in_a_dry_run_and_a_range_test(tmp_path: Path) -> None:
    for command in (["run", "own.yaml", "--dry-run"], ["range-test", "own.yaml", "--steps", "20"]):
        assert [line for line in stderr(tmp_path, *command).splitlines() if "Warning" in line] == LINES


def test_warnings_of_a_copy_of_the_process_are_told_here() -> None:
    import warnings

    told: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with warned.told(lambda text, key: told.append((text, key))):
            child.call(lambda: [warnings.warn(f"{count}\n of them", stacklevel=1) for count in (1, 22)])
    ((text, key),) = told
    assert text.startswith("warning: 1 of them (UserWarning, test_warnings.py:")
    assert key.endswith("# of them")
