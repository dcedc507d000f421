"""One process at a time per sweep: a kernel lock that dies with its holder, and a note saying who that is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import filelock

from lrsweep.errors import BusyError
from lrsweep.store import atomic

LOCK = ".lock"
HOLDER = ".lock-holder"
TABLES_LOCK = ".tables.lock"
PATIENCE = 0.5
"""Seconds to wait for the lock: those who ask whether it is held hold it for a moment."""


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Keep the sweep in `folder` for this process. Raises BusyError naming the holder, StorageError."""
    guard = _guard(folder / LOCK)
    with atomic.storage_errors(folder / LOCK):
        try:
            guard.acquire(timeout=PATIENCE, poll_interval=PATIENCE / 10)
        except filelock.Timeout:
            raise BusyError(busy_text(folder)) from None
    try:
        facts = {"host": socket.gethostname(), "pid": os.getpid(), "since": datetime.now(UTC).isoformat("T", "seconds")}
        atomic.replace(folder / HOLDER, json.dumps(facts) + "\n")
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink()
        guard.release()


def forget(folder: Path) -> None:
    """Delete a folder that was made for nothing: it holds the lock alone, which this process has."""
    with suppress(OSError):
        (folder / HOLDER).unlink()
    if {path.name for path in folder.iterdir()} <= {LOCK}:
        with suppress(OSError):
            (folder / LOCK).unlink()
            folder.rmdir()


@contextmanager
def tables(folder: Path) -> Iterator[None]:
    """Keep the tables of `folder` while they are rebuilt, so that an older state never replaces a newer one."""
    guard = _guard(folder / TABLES_LOCK)
    with atomic.storage_errors(folder / TABLES_LOCK):
        guard.acquire()
    try:
        yield
    finally:
        guard.release()


def holder(folder: Path) -> bytes:
    """What says who holds the sweep in `folder`: on another machine, whether the folder there is this one."""
    with suppress(OSError):
        return (folder / HOLDER).read_bytes()
    return b""


def is_held(folder: Path) -> bool:
    """Whether a process runs the sweep in `folder` now."""
    if not (folder / LOCK).exists():
        return False
    guard = _guard(folder / LOCK)
    try:
        guard.acquire(blocking=False)
    except filelock.Timeout:
        return True
    except OSError:
        return False
    guard.release()
    return False


def drop_inherited(folder: Path) -> None:
    """Close, in a forked child, the descriptors through which it would hold the parent's lock beyond its death."""
    with suppress(OSError):
        wanted = os.stat(folder / LOCK)
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                found = os.fstat(int(name))
                if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                    os.close(int(name))


def _guard(path: Path) -> filelock.BaseFileLock:
    return filelock.FileLock(str(path))


def busy_text(folder: Path) -> str:
    """Who runs the sweep in `folder`, and what to do."""
    facts = atomic.read_object(folder / HOLDER)
    known = {"pid", "host", "since"} <= set(facts)
    who = f"process {facts['pid']} on {facts['host']} (since {facts['since']})" if known else "another process"
    return f"{folder} is in use by {who}; wait for it or stop it, then rerun the command"
