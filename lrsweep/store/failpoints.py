"""Named points at which a test may kill the process, to prove that nothing written before is lost.

`LRSWEEP_CRASH=name:3` sends SIGKILL to the process that reaches the point `name` for the third time;
`LRSWEEP_CRASH_COUNT=file` appends process id and name of every point reached to `file`. Without them a point costs one
test.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path


class _Plan:
    """What the environment asks for."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.wanted = environment.get("LRSWEEP_CRASH")
        self.count_file = environment.get("LRSWEEP_CRASH_COUNT")
        self.active = bool(self.wanted or self.count_file)
        self.reached: Counter[str] = Counter()
        self.process = os.getpid()

    def reach(self, name: str) -> None:
        self.reached[name] += 1
        if self.count_file:
            with Path(self.count_file).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {name}\n")
        # A forked worker has this object too: it counts, but the one to die is the process that was asked to.
        if self.wanted == f"{name}:{self.reached[name]}" and os.getpid() == self.process:
            os.kill(os.getpid(), signal.SIGKILL)


_plan = _Plan(os.environ)


def point(name: str) -> None:
    """Die here if the environment asks for it."""
    if _plan.active:
        _plan.reach(name)
