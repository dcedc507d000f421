"""Files replaced as a whole, and what is left of those that a killed process was writing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lrsweep.store import atomic
from tests.support.sweeps import KILLED, forked


def temporary(folder: Path) -> list[Path]:
    return list(folder.glob(".tmp-*"))


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    def die() -> None:
        with atomic.replacing(tmp_path / "a.csv") as stream:
            stream.write(b"half")
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die) == KILLED
    assert len(temporary(tmp_path)) == 1
    atomic.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_living_process_is_writing_stays(tmp_path: Path) -> None:
    def tidy() -> None:
        atomic.remove_leftovers(tmp_path)

    with atomic.replacing(tmp_path / "a.csv") as stream:
        stream.write(b"whole")
        assert forked(tidy) == 0
        assert len(temporary(tmp_path)) == 1
    assert (tmp_path / "a.csv").read_bytes() == b"whole"
    assert temporary(tmp_path) == []


def test_a_leftover_that_is_a_link_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".tmp-link").symlink_to(tmp_path / "victim")
    os.mkfifo(tmp_path / ".tmp-pipe")
    atomic.remove_leftovers(tmp_path)
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("fails", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, fails: bool) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    try:
        with atomic.replacing(path) as stream:
            stream.write(b"new")
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert path.read_text() == ("old" if fails else "new")
    assert temporary(tmp_path) == []
