"""lrsweep: learning-rate sensitivity sweeps for PyTorch.

Importing this package imports neither torch nor pandas; each public name is fetched when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsweep.errors import LrsweepError, SpecError
    from lrsweep.results.results import Results, load
    from lrsweep.spec.load import load_spec
    from lrsweep.sweep.api import run
    from lrsweep.tasks import Task

__version__ = "0.1.0"
__all__ = ["LrsweepError", "Results", "SpecError", "Task", "__version__", "load", "load_spec", "run"]

_HOMES = {
    "LrsweepError": "lrsweep.errors",
    "SpecError": "lrsweep.errors",
    "Results": "lrsweep.results.results",
    "load": "lrsweep.results.results",
    "load_spec": "lrsweep.spec.load",
    "run": "lrsweep.sweep.api",
    "Task": "lrsweep.tasks",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lrsweep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
