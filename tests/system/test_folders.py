"""Paths as users give them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrsweep.errors import UsageError
from lrsweep.system import folders


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folders.given("~/sweeps") == tmp_path / "sweeps"
    assert folders.given(Path("~/sweeps")) == tmp_path / "sweeps"
    assert folders.given("a/~/b") == Path("a/~/b")
    assert folders.given("results") == Path("results")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("~nobody-of-this-name/x", "there is no home folder of that name"),
        ("a\udcff/x", r"a\\udcff/x: this path has bytes that are not UTF-8"),
        ("a\0/x", r"a\\x00/x: this path has a NUL character"),
    ],
)
def test_a_path_that_no_file_could_have_is_told(path: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        folders.given(path)


def test_a_current_folder_that_is_gone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(UsageError, match="the current folder is gone"):
        folders.absolute(Path("results"))
