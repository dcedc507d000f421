"""Files of somebody else's that have the name of one of ours: kept beside, never overwritten."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Callable
from pathlib import Path

from lrsweep.errors import printable
from lrsweep.store import atomic

HEAD = 100_000
"""Bytes by which a file is judged."""

_log = logging.getLogger("lrsweep")


def keep(path: Path, is_ours: Callable[[bytes], bool]) -> None:
    """Rename a file that is about to be replaced and is not ours, and say so; one without content is not kept.

    Raises StorageError.
    """
    if path.is_symlink() or not path.is_file():
        return
    with atomic.storage_errors(path):
        with path.open("rb") as stream:
            head = stream.read(HEAD)
        if is_ours(head) or not head.strip(b"\0\r\n\t "):
            return
        kept = free_name(path, "foreign")
        os.rename(path, kept)
    _log.warning("%s was not written by lrsweep; it is kept as %s", printable(str(path)), kept.name)


def free_name(path: Path, word: str) -> Path:
    """`runs.foreign.csv` for `runs.csv`, with a number if that is taken."""
    names = (path.with_name(f"{path.stem}.{word}{end}{path.suffix}") for end in _ends())
    return next(name for name in names if not os.path.lexists(name))


def _ends() -> itertools.chain[str]:
    return itertools.chain([""], (f"-{number}" for number in itertools.count(2)))
