"""Checkpoints of long groups: one file of tensors and numbers each, which counts once the journal names it.

What is in one is decided by the trainers (`state()` and `restore()` in training/).
"""

from __future__ import annotations

import hashlib
import io
import re
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrsweep.errors import StorageError
from lrsweep.store import atomic, failpoints
from lrsweep.store.journal import CHECKPOINTS, Checkpoint
from lrsweep.store.records import CHECKPOINT_NAME

FORMAT = 3  # of what the trainers keep; a group goes on from no other
_NAME = re.compile(CHECKPOINT_NAME)


def write(sweep: Path, group: str, state: dict[str, Any]) -> Checkpoint:
    """Write `state` to a new file in the folder of a sweep, durable when this returns. Raises StorageError."""
    import torch  # only here and in `read`: what hands files on does without it

    atomic.make_folder(sweep / CHECKPOINTS)
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "state": state}, buffer)
    data = buffer.getbuffer()
    path = sweep / CHECKPOINTS / f"{group}-{time.time_ns()}.pt"
    with atomic.replacing(path) as stream:
        failpoints.point("checkpoint.write")
        stream.write(data)
    return Checkpoint(file=path.name, sha256=hashlib.sha256(data).hexdigest())


def read(sweep: Path, checkpoint: Checkpoint) -> dict[str, Any] | None:
    """The state in a checkpoint. None if it is gone, not what was written, or of another version of lrsweep: the group
    starts over then."""
    import torch

    with suppress(OSError):
        data = (sweep / CHECKPOINTS / checkpoint.file).read_bytes()
        if hashlib.sha256(data).hexdigest() == checkpoint.sha256:
            found: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True)
            return found["state"] if found.get("format") == FORMAT else None
    return None


def content(sweep: Path, checkpoint: Checkpoint) -> bytes | None:
    """What its file holds, None if it is gone."""
    with suppress(OSError):
        return (sweep / CHECKPOINTS / checkpoint.file).read_bytes()
    return None


def keep(sweep: Path, checkpoint: Checkpoint, data: bytes) -> None:
    """Write what the file of a checkpoint holds, as another machine has sent it. Raises StorageError."""
    if not _NAME.fullmatch(checkpoint.file):
        raise StorageError(f"{checkpoint.file!r} is no name of a checkpoint")
    atomic.make_folder(sweep / CHECKPOINTS)
    with atomic.replacing(sweep / CHECKPOINTS / checkpoint.file) as stream:
        stream.write(data)


def delete(sweep: Path, checkpoint: Checkpoint) -> None:
    """A file that is left behind is deleted by the next run of the sweep."""
    failpoints.point("checkpoint.delete")
    with suppress(OSError):
        (sweep / CHECKPOINTS / checkpoint.file).unlink()


def delete_all_but(sweep: Path, kept: Collection[Checkpoint]) -> None:
    """Delete what no group will go on from: its group is done, or the journal never came to name it."""
    names = {checkpoint.file for checkpoint in kept}
    for path in (sweep / CHECKPOINTS).glob("*.pt"):
        if path.name not in names and _NAME.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()
