"""Commands under limits of the system: they do their work, or end with one line and exit code 4."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lrsweep.system.machine import MIB
from tests.support import sweeps
from tests.support import tables as fabricate


def limited(kind: int, limit: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (limit, limit))


def command(*arguments: str, limit: Callable[[], None], before: str = "") -> subprocess.CompletedProcess[str]:
    """`before`: Python to be run in the same process first."""
    code = f"{before}\nfrom lrsweep.cli.app import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, preexec_fn=limit
    )


@pytest.fixture
def spec(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(sweeps.spec()))
    return str(path)


def refused(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 4, done.stderr
    assert "Traceback" not in done.stderr
    assert said in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("limit", [100 * MIB, 400 * MIB, 547 * MIB])
def test_a_sweep_without_the_memory_for_torch_says_so(spec: str, tmp_path: Path, limit: int) -> None:
    done = command("run", spec, "--results", str(tmp_path), limit=limited(resource.RLIMIT_AS, limit))
    refused(done, f"out of memory ({limit // MIB} MiB can be used)")


def test_a_sweep_without_files_says_so(spec: str, tmp_path: Path) -> None:
    done = command("run", spec, "--results", str(tmp_path), limit=limited(resource.RLIMIT_NOFILE, 11))
    refused(done, "too many open files (at most 11)")


NO_HELPERS = """
import errno, os, _multiprocessing
import lrsweep.sweep.background, lrsweep.plot.draw

def refused(*_, **__):
    raise OSError(errno.ENOSYS, "Function not implemented")

lrsweep.sweep.background.available_cores = lrsweep.plot.draw.available_cores = lambda: 2
_multiprocessing.SemLock = refused  # as without /dev/shm
os.fork = refused
"""


@pytest.mark.parametrize("files", [16, 64])
def test_plots_and_report_need_no_helper(tmp_path: Path, files: int) -> None:
    folder = fabricate.folder(tmp_path, rates=[1e-3, 1e-2, 1e-1])
    limit = limited(resource.RLIMIT_NOFILE, files)
    done = command("report", str(folder), limit=limit, before=NO_HELPERS)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "report.html").is_file()


def test_a_sweep_that_cannot_start_a_worker_says_so(spec: str, tmp_path: Path) -> None:
    no_worker = "import subprocess\nsubprocess._fork_exec = subprocess._USE_POSIX_SPAWN = refused"
    done = command(
        "run", spec, "--results", str(tmp_path), "--progress", "none", limit=lambda: None, before=NO_HELPERS + no_worker
    )
    refused(done, "no new process could be started")
