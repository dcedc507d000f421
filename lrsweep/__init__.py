"""Learning-rate sensitivity sweeps for PyTorch.

    results = lrsweep.run("sweep.yaml", workers=2)     # trains missing runs only
    results.summary[["optimizer", "best_lr", "recommended_lr", "sensitivity"]]
    results.u_curve().savefig("u_curve.pdf")
    lrsweep.dry_run("sweep.yaml").seconds              # what it would take
    lrsweep.compare("results/a", "results/b").text()   # what changed
    lrsweep.check("results/a", max_sensitivity=0.5).ok

Functions: run, dry_run, load, load_spec, check, compare, lr_finder.
Your own task: Task.  They return: Results, CostEstimate, Spec, Verdict,
Comparison, RangeTest.  Errors: LrsweepError and its subclasses UsageError
(SpecError, WrongInSpec, WrongOption), StorageError, BusyError and StoppedError.
See help(lrsweep.run), and README.md for the spec.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsweep.analysis.lr_finder import RangeTest as RangeTest
    from lrsweep.errors import BusyError as BusyError
    from lrsweep.errors import LrsweepError as LrsweepError
    from lrsweep.errors import SpecError as SpecError
    from lrsweep.errors import SpecIssue as SpecIssue
    from lrsweep.errors import StoppedError as StoppedError
    from lrsweep.errors import StorageError as StorageError
    from lrsweep.errors import UsageError as UsageError
    from lrsweep.errors import WrongInSpec as WrongInSpec
    from lrsweep.errors import WrongOption as WrongOption
    from lrsweep.results.check import Verdict as Verdict
    from lrsweep.results.check import check as check
    from lrsweep.results.compare import Comparison as Comparison
    from lrsweep.results.compare import compare as compare
    from lrsweep.results.results import Results as Results
    from lrsweep.results.results import load as load
    from lrsweep.spec.load import load_spec as load_spec
    from lrsweep.spec.model import Spec as Spec
    from lrsweep.sweep.api import dry_run as dry_run
    from lrsweep.sweep.api import lr_finder as lr_finder
    from lrsweep.sweep.api import run as run
    from lrsweep.sweep.dry_run import CostEstimate as CostEstimate
    from lrsweep.tasks import Task as Task

__version__ = "0.1.0"

# Each public name is fetched when it is first used: importing lrsweep imports neither torch nor pandas. There is no
# __all__, with which help(lrsweep) would import everything and show every class in full.
_PUBLIC = {
    "lrsweep.analysis.lr_finder": ("RangeTest",),
    "lrsweep.errors": (
        *("BusyError", "LrsweepError", "SpecError", "SpecIssue", "StoppedError", "StorageError", "UsageError"),
        *("WrongInSpec", "WrongOption"),
    ),
    "lrsweep.results.check": ("Verdict", "check"),
    "lrsweep.results.compare": ("Comparison", "compare"),
    "lrsweep.results.results": ("Results", "load"),
    "lrsweep.spec.load": ("load_spec",),
    "lrsweep.spec.model": ("Spec",),
    "lrsweep.sweep.api": ("dry_run", "lr_finder", "run"),
    "lrsweep.sweep.dry_run": ("CostEstimate",),
    "lrsweep.tasks": ("Task",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lrsweep' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
