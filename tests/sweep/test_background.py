"""A report drawn by a process of its own: the same files, and no trace of that process, whatever becomes of anyone."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lrsweep.errors import UsageError
from lrsweep.results import run_tables, tables
from lrsweep.spec.load import read_resolved
from lrsweep.sweep import background
from tests.support import tables as fabricate
from tests.support.sweeps import forked


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "available_cores", lambda: 2)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    return fabricate.folder(tmp_path, rates=[1e-3, 1e-2, 1e-1])


def children() -> list[int]:
    return [int(text) for text in Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_it_draws_what_this_process_draws(sweep: Path) -> None:
    background.LocalRenderer().report(sweep)
    here = files(sweep)
    assert {"report.html", "u_curve.png"} <= set(here)
    for name in ("report.html", "u_curve.png"):
        (sweep / name).unlink()
    with background.renderer(aside=True) as renderer:
        assert isinstance(renderer, background.BackgroundRenderer)
        assert len(children()) == 1
        renderer.report(sweep)
        renderer.report(sweep)
    assert files(sweep) == here
    assert not children()


ALONE = """
import sys
from pathlib import Path
from lrsweep.sweep import background
background.available_cores = lambda: 2
with background.renderer(aside=True) as renderer:
    renderer.report(Path(sys.argv[1]))
assert "matplotlib" not in sys.modules
"""


def test_this_process_never_imports_matplotlib(sweep: Path) -> None:
    command = [sys.executable, "-c", ALONE, str(sweep)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (sweep / "report.html").is_file()


def test_where_it_was_killed_this_process_draws(sweep: Path) -> None:
    with background.renderer(aside=True) as renderer:
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        renderer.report(sweep)
    assert (sweep / "report.html").is_file()


@pytest.mark.slow
def test_where_it_is_stopped_this_process_draws(sweep: Path) -> None:
    with background.renderer(aside=True) as renderer:
        (child,) = children()
        os.kill(child, signal.SIGSTOP)
        renderer.report(sweep)
        os.kill(child, signal.SIGCONT)
        renderer.report(sweep)  # whose answer is not the one that comes now
    assert (sweep / "report.html").is_file()
    assert not children()


def test_where_it_hangs_this_process_draws(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "PATIENCE", 0.3)
    monkeypatch.setattr(background, "write_pickled", lambda *_: time.sleep(3600))
    with background.renderer(aside=True) as renderer:
        renderer.report(sweep)
    assert (sweep / "report.html").is_file()
    assert not children()


@pytest.mark.parametrize("function", ["memfd_create", "socketpair", "fork"])
def test_without_files_or_processes_this_process_draws(monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket if function == "socketpair" else os, function, refused)
    with background.renderer(aside=True) as renderer:
        assert not isinstance(renderer, background.BackgroundRenderer)
    assert not children()


def test_its_errors_are_those_of_this_process(tmp_path: Path, sweep: Path) -> None:
    with background.renderer(aside=True) as renderer:
        with pytest.raises(UsageError, match="no such folder"):
            renderer.report(tmp_path / "nothing")
        renderer.report(sweep)
    assert (sweep / "report.html").is_file()


def test_ctrl_c_does_not_reach_it(sweep: Path) -> None:
    with background.renderer(aside=True) as renderer:
        (child,) = children()
        renderer.report(sweep)  # it has come so far
        os.kill(child, signal.SIGINT)
        renderer.report(sweep)
        assert children() == [child]


def test_it_dies_with_this_process(tmp_path: Path) -> None:
    told = tmp_path / "child"

    def die() -> None:
        with background.renderer(aside=True):
            told.write_text(str(children()[0]))
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die) == -signal.SIGKILL
    status = Path(f"/proc/{told.read_text()}/stat")
    deadline = time.monotonic() + 5
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline, "it outlived its parent"
        time.sleep(0.02)


def test_this_process_draws_unless_another_can_and_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_aside(**options: bool) -> bool:
        with background.renderer(**options) as renderer:
            return isinstance(renderer, background.BackgroundRenderer)

    assert is_aside(aside=True)
    assert not is_aside(aside=False)
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    assert not is_aside(aside=True)  # a fork would find the locks that other threads hold
    waiting.set()
    thread.join()
    monkeypatch.setattr(background, "available_cores", lambda: 1)
    assert not is_aside(aside=True)


@pytest.mark.parametrize("killed", [False, True])
def test_its_summary_and_its_report_are_those_of_this_process(sweep: Path, killed: bool) -> None:
    spec = read_resolved(sweep / tables.SPEC)
    rates = {str(one.label): 1e-3 for one in spec.optimizers}
    here = background.LocalRenderer().summarise(sweep, spec, rates)
    run_tables.write_frame(sweep / tables.SUMMARY, here.header, here.rows)
    background.LocalRenderer().report(sweep)
    drawn = files(sweep)
    for name in ("report.html", "u_curve.png", tables.SUMMARY):
        (sweep / name).unlink()
    with background.renderer(aside=True) as renderer:
        if killed:
            os.kill(children()[0], signal.SIGKILL)
        aside = renderer.summarise(sweep, spec, rates)
        assert repr(aside) == repr(here)
        run_tables.write_frame(sweep / tables.SUMMARY, aside.header, aside.rows)
        renderer.report(sweep)
    assert files(sweep) == drawn


@pytest.mark.slow
def test_a_draft_is_for_one_report_of_its_own_folder(sweep: Path, tmp_path: Path) -> None:
    spec = read_resolved(sweep / tables.SPEC)
    other = fabricate.folder(tmp_path / "other", rates=[1e-3, 1e-2])
    with background.renderer(aside=True) as renderer:
        renderer.summarise(sweep, spec, {})
        renderer.report(other)
        assert f"{tables.read_runs(other).shape[0]} runs, " in (other / "report.html").read_text()
        renderer.summarise(sweep, spec, {})
        renderer.report(sweep)
        for name in (tables.RUNS, tables.CURVES, tables.SUMMARY):
            (sweep / name).write_bytes((other / name).read_bytes())
        renderer.report(sweep)
        assert f"{tables.read_runs(other).shape[0]} runs, " in (sweep / "report.html").read_text()
