"""`LRSWEEP_PLAIN`: the switch for what is there for speed alone.

`LRSWEEP_PLAIN=1` turns every trick off: runs are then trained by plain `vmap`, `autograd.grad` and `torch.optim`.
`LRSWEEP_PLAIN=replay,channels` turns off the ones it names, to measure them (`python -m tests.bench.tricks`).
"""

from __future__ import annotations

import os

VARIABLE = "LRSWEEP_PLAIN"


def uses(trick: str) -> bool:
    """Is this trick on?"""
    off = os.environ.get(VARIABLE, "")
    return off != "1" and trick not in off.split(",")
