"""Named points at which a test may kill the process, to prove that nothing written before is lost.

`LRSWEEP_CRASH=name:3` sends SIGKILL to the process that reaches the point `name` for the third time;
`LRSWEEP_CRASH_COUNT=file` appends the name of every point reached to `file`. Without them a point costs one test.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

_WANTED = os.environ.get("LRSWEEP_CRASH")
_COUNT_FILE = os.environ.get("LRSWEEP_CRASH_COUNT")
_ACTIVE = bool(_WANTED or _COUNT_FILE)
_reached: Counter[str] = Counter()


def point(name: str) -> None:
    """Die here if the environment asks for it."""
    if _ACTIVE:
        _reach(name)


def _reach(name: str) -> None:
    _reached[name] += 1
    if _COUNT_FILE:
        with Path(_COUNT_FILE).open("a", encoding="utf-8") as file:
            file.write(f"{name}\n")
    if _WANTED == f"{name}:{_reached[name]}":
        os.kill(os.getpid(), signal.SIGKILL)
