"""Commands where the system lacks what Windows lacks: forks, signals, file modes, locks, limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support import sweeps

WITHOUT = """
import multiprocessing.resource_tracker, os, signal, subprocess, sys
import filelock, matplotlib.figure, pandas, torch  # what these do elsewhere is their own affair

def remove(module, *names):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)

remove(os, "fchmod", "fork", "forkpty", "memfd_create", "waitid", "WNOWAIT", "WSTOPPED", "WEXITED",
       "sched_getaffinity", "sysconf", "statvfs", "pread", "pwrite", "getuid", "uname", "set_blocking")
remove(signal, "pthread_sigmask", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ", "siginterrupt", "sigpending")
multiprocessing.resource_tracker._HAVE_SIGMASK = False
sys.modules |= {"fcntl": None, "resource": None, "pwd": None, "grp": None}
sys.platform = "another"
"""
COMMANDS = """
from lrsweep.cli.app import _run
for command in (%s):
    sys.argv = ["lrsweep", *command.split()]
    code = _run()
    assert code == 0, (command, code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With small.yaml and its results, made here."""
    path = tmp_path_factory.mktemp("here")
    (path / "small.yaml").write_text(yaml.safe_dump(sweeps.spec()))
    sweeps.run(path / "results", path / "small.yaml", draw=True)
    return path


def commands(folder: Path, *texts: str) -> subprocess.CompletedProcess[str]:
    code = WITHOUT + COMMANDS % "".join(f"{text!r}, " for text in texts)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_results_are_read_and_drawn(folder: Path) -> None:
    done = commands(
        folder, "plot results/small", "report results/small", "status results", "check results/small --max-diverged 1",
        "compare results/small results/small", "range-test small.yaml --steps 20", "list", "schema",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_sweep_is_run_with_the_same_tables(folder: Path, workers: int) -> None:
    done = commands(folder, f"run small.yaml --results other-{workers} --workers {workers} --progress none")
    assert done.returncode == 0, done.stderr
    assert sweeps.tables(folder / f"other-{workers}" / "small") == sweeps.tables(folder / "results" / "small")
