"""Data that are read in a process of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os
from lrsweep.errors import LrsweepError, WrongInSpec
from lrsweep.tasks.apart import read_apart

def refuse():
    raise WrongInSpec((("task", "path"), "data: no rows"))

for read in (os.getpid, refuse, lambda: os._exit(9)):
    try:
        print(read_apart("data", read) != os.getpid())
    except LrsweepError as error:
        print(error.exit_code, getattr(error, "found", ""), error)
"""


def test_what_happens_there_is_told_here() -> None:
    """In a program of its own: beside the threads of other tests it would be read in the same process."""
    command = [sys.executable, "-c", PROGRAM]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert shown.stdout.splitlines() == [
        "True",
        "2 ((('task', 'path'), 'data: no rows'),) data: no rows",
        "2  data: the process that read it exited with code 9 (os._exit, or a crash in native code?)",
    ]
