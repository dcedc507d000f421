"""`--fresh`: the journal is set aside, and one that was stopped on its way goes on instead of starting over.

From before the journal is moved until the new sweep is complete, a note in the folder says where the old one went.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from lrsweep.store import atomic, failpoints, journal, lock

NOTE = ".fresh"
_NOTHING = "nothing"
_ASIDE = re.compile(r"journal\.old-[0-9]+")


def starts_over(folder: Path, fresh: bool) -> bool:
    """Whether a run with the option `fresh` trains everything: not if it goes on with one that was stopped."""
    return fresh and not underway(folder)


def underway(folder: Path) -> bool:
    """Whether the journal (if there is one yet) belongs to a `--fresh` that has not come to its end."""
    try:
        aside = (folder / NOTE).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return False
    return aside == _NOTHING or (_ASIDE.fullmatch(aside) is not None and (folder / aside).is_dir())


def begin(folder: Path) -> None:
    """Set the journal aside (`journal.old-<n>`); nothing is deleted. Raises StorageError."""
    current = folder / journal.FOLDER
    if not current.exists():
        atomic.replace(folder / NOTE, f"{_NOTHING}\n")
        return
    number = 1
    while (aside := folder / f"{journal.FOLDER}.old-{number}").exists():
        number += 1
    atomic.replace(folder / NOTE, f"{aside.name}\n")
    with lock.tables(folder), atomic.storage_errors(aside, "create"):  # a reader may be at the tables
        failpoints.point("journal.aside")
        current.rename(aside)
        atomic.sync_folder(folder)


def end(folder: Path) -> None:
    """The sweep is complete: the next `--fresh` starts over."""
    with suppress(OSError):
        (folder / NOTE).unlink()
