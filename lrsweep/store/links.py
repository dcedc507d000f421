"""Folders from elsewhere: what is read, written or deleted in the folder of a sweep lies in it, whatever its links say.

Files that are only ever replaced as a whole need no check: a link goes, and what it points to stays.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable
from pathlib import Path

from lrsweep.errors import StorageError
from lrsweep.store import atomic, fresh, journal, lock

_FOLDERS = (journal.FOLDER, journal.CHECKPOINTS)
_FILES = (lock.LOCK, lock.HOLDER, lock.TABLES_LOCK, fresh.NOTE)


def refuse(folder: Path, files: Iterable[str]) -> None:
    """Raise StorageError if something that lrsweep reads in the folder of a sweep is a link, a pipe or the like.

    That is `files`, locks and notes, and everything in the folders of the journal and the checkpoints.
    """
    with atomic.storage_errors(folder, "read"):
        for name in _FOLDERS:
            if is_plain(folder / name, stat.S_ISDIR):
                for path in (folder / name).iterdir():
                    is_plain(path, stat.S_ISREG)
        for name in (*_FILES, *files):
            is_plain(folder / name, stat.S_ISREG)


def is_plain(path: Path, wanted: Callable[[int], bool]) -> bool:
    """Whether it is there. Raises StorageError if it is something else than `wanted`, such as `stat.S_ISREG`."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISLNK(mode):
        raise StorageError(
            f"{path} is a symbolic link, which lrsweep does not follow inside the folder of a sweep; "
            "put what it points to in its place, or remove it"
        )
    if not wanted(mode):
        what = "a folder" if wanted is stat.S_ISDIR else "a regular file"
        raise StorageError(f"{path} is not {what}; move it elsewhere and rerun the command")
    return True
