"""Paths as users give them."""

from __future__ import annotations

import os
from pathlib import Path

from lrsweep.errors import UsageError


def given(path: str | os.PathLike[str]) -> Path:
    """A path from the command line or from Python, with `~` as the home folder; nobody else expands `--results=~/x`.

    Raises UsageError for one that no file of ours could name.
    """
    text = os.fspath(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise UsageError(f"{text}: this path has bytes that are not UTF-8; rename it") from None
    if "\0" in text:
        raise UsageError(f"{text}: this path has a NUL character; give another one")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UsageError(f"{text}: there is no home folder of that name; write ./{text} for a folder here") from None


def absolute(path: Path) -> Path:
    """The same path whatever the current folder becomes: a user's task may change it. Raises UsageError."""
    try:
        return path.absolute()
    except FileNotFoundError:
        raise UsageError(f"{path}: the current folder is gone; change to another one") from None
