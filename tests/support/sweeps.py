"""Small sweeps in this process, or in a forked one that may be killed."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lrsweep.errors import LrsweepError
from lrsweep.results import figures
from lrsweep.results import tables as results
from lrsweep.store import atomic
from lrsweep.sweep import api
from lrsweep.sweep.background import LocalRenderer
from lrsweep.sweep.dry_run import CostEstimate
from lrsweep.sweep.progress import Silent
from lrsweep.sweep.publish import Finished

GIVEN: dict[str, Any] = {
    "device": "cpu", "workers": 1, "executor": "local", "set": (), "compile": "off", "refine": False, "fresh": False,
}  # fmt: skip
TABLES = ("runs.csv", "curves.csv", "summary.csv")


def spec(**changed: Any) -> dict[str, Any]:
    """12 runs of 6 updates, among them diverged ones."""
    return {
        "name": "small",
        "task": {"name": "blobs", "n": 90, "centers": 3},
        "model": {"name": "linear"},
        "lr": [0.01, 0.1, 1e38],
        "optimizers": ["sgd", "adam"],
        "seeds": 2,
        "train": {"epochs": 2, "batch_size": 20},
        **changed,
    }


class _Undrawn(LocalRenderer):
    def report(self, folder: Path, formats: tuple[str, ...] = ()) -> None:
        atomic.replace(folder / "report.html", figures.mark(results.digest_of(folder)))


def run(folder: Path, config: Any = None, *, reporter: Any = None, draw: bool = False, **options: Any) -> Finished:
    """`folder` is that of all results. Pictures are left out unless asked for: they take longer than the training."""
    config = spec() if config is None else config
    renderer = LocalRenderer() if draw else _Undrawn()
    return api.execute(config, results=folder, reporter=reporter or Silent(), renderer=renderer, **(GIVEN | options))


def estimate(folder: Path, config: Any = None, *, reporter: Any = None, **options: Any) -> CostEstimate:
    return api.estimate(config or spec(), results=folder, reporter=reporter or Silent(), **(GIVEN | options))


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def forked_code(function: Callable[[], object]) -> int:
    """Exit code that `function` ends with: 0, that of an LrsweepError, 1 for any other exception."""
    try:
        function()
    except LrsweepError as error:
        os.write(2, f"{error}\n".encode())
        return error.exit_code
    except BaseException:  # noqa: BLE001 - nothing may come out of a forked copy of the test
        os.write(2, traceback.format_exc().encode())
        return 1
    return 0


def forked(function: Callable[[], object]) -> int:
    """Exit code of a forked process that calls `function`; a negative number is a signal."""
    pid = os.fork()
    if pid == 0:
        os._exit(forked_code(function))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


KILLED = -signal.SIGKILL
