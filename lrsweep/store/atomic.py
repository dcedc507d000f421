"""Writing files so that a reader sees the old one or the new one, and saying plainly why a write failed."""

from __future__ import annotations

import errno
import io
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from lrsweep.errors import StorageError
from lrsweep.store import failpoints

TEMPORARY = ".tmp-"
"""How the name of a file that is being written begins; a killed process may leave one behind.

Its writer holds a kernel lock on it, so that what is being written can be told from what was left behind.
"""

ADVICE = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is exhausted: free some space",
    errno.EFBIG: "the file would exceed the size limit (ulimit -f): raise the limit",
    errno.EROFS: "the file system is read-only: choose another folder with --results",
    errno.EACCES: "permission denied: change the folder's permissions or choose another with --results",
    errno.EPERM: "not permitted: change the folder's permissions or choose another with --results",
    errno.EIO: "the device reported an error: check the disk",
    errno.ENOTDIR: "a part of this path is a file: remove it or choose another folder with --results",
    errno.EISDIR: "a folder has this name: remove it or choose another folder with --results",
    errno.EEXIST: "something else has this name: remove it or choose another folder with --results",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter --results or name",
    errno.EMFILE: "too many open files (ulimit -n): raise the limit",
}


@contextmanager
def storage_errors(path: Path, verb: str = "write", *, only_storage: bool = False) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that names `path`, the cause and what to do.

    With `only_storage`, one that the disk is not to blame for passes.
    """
    try:
        yield
    except OSError as error:
        if only_storage and error.errno not in ADVICE:
            raise
        cause = error.strerror or str(error)
        if advice := ADVICE.get(error.errno or 0):
            cause = f"{advice}; then rerun the same command (finished runs are kept)"
        raise StorageError(f"cannot {verb} {path}: {cause}") from error


class Output(io.RawIOBase):
    """An unbuffered file descriptor; every write is a crash point."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._descriptor is None:
            return len(data)
        failpoints.point("file.write")
        return os.write(self._descriptor, data)

    def forget(self) -> None:
        """A buffer that is dropped after an error must not write to whoever has the descriptor next."""
        self._descriptor = None


def write_all(descriptor: int, data: bytes) -> None:
    """One os.write, and more only where the system took less than all of it."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_folder(folder: Path) -> None:
    """Make renames and new files in `folder` durable, where the system can open a folder."""
    with suppress(PermissionError, IsADirectoryError):  # Windows opens no folders
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary stream whose content takes the place of `path` when the block ends well; else `path` is untouched.

    Raises StorageError.
    """
    with storage_errors(path):
        descriptor, temporary = _temporary(path)
        output = Output(descriptor)
        try:
            try:
                stream = io.BufferedWriter(output, buffer_size=1 << 20)
                yield cast(BinaryIO, stream)
                stream.flush()
                if hasattr(os, "fchmod"):  # not on Windows, where there is no umask either
                    os.fchmod(descriptor, 0o666 & ~_umask())
                failpoints.point("file.fsync")
                os.fsync(descriptor)
            finally:
                output.forget()
                os.close(descriptor)
            failpoints.point("file.replace")
            os.replace(temporary, path)
            failpoints.point("file.replaced")
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise


def replace(path: Path, data: bytes | str) -> None:
    """Make `data` (text as UTF-8) the whole content of `path`. Raises StorageError."""
    with replacing(path) as stream:
        stream.write(data.encode("utf-8") if isinstance(data, str) else data)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if there is none, or it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def make_folder(path: Path) -> None:
    """Create `path` and its parents. Raises StorageError."""
    with storage_errors(path, "create"):
        path.mkdir(parents=True, exist_ok=True)


_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # 0 on Windows


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes were writing in `folder`, and nothing that a living one writes."""
    for path in folder.glob(f"{TEMPORARY}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | _NO_LINK)
            try:
                if _locked(descriptor, wait=False):
                    path.unlink()
            finally:
                os.close(descriptor)


def _temporary(path: Path) -> tuple[int, str]:
    """A new file beside `path`, open and locked."""
    while True:
        descriptor, name = tempfile.mkstemp(prefix=TEMPORARY, suffix=path.suffix, dir=path.parent)
        _locked(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink:
            return descriptor, name
        os.close(descriptor)  # somebody took it for a leftover before it was locked


def _locked(descriptor: int, *, wait: bool) -> bool:
    """Take the kernel's lock of an open file; True too where the file system or the system has no such locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES)
    return True


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
