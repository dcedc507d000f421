"""What crosses the border between the process that runs a sweep and those that train: plain, picklable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from lrsweep.run_result import RunResult
from lrsweep.store.journal import Checkpoint, Group

if TYPE_CHECKING:
    from lrsweep.plan import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What a worker is told once. `checkpoint_seconds` is the least time between two checkpoints of a group."""

    folder: str
    device: str
    parent: int
    checkpoint_seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A group to train, from a checkpoint where there is one. `run_steps` is its length, summed over its runs."""

    group: Group
    runs: tuple[Run, ...] = field(repr=False)
    run_steps: int = 0
    resume: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class Ticked:
    """`run_steps` more updates, summed over the runs of the group."""

    run_steps: int


@dataclass(frozen=True, slots=True)
class Trained:
    outcome: RunResult


@dataclass(frozen=True, slots=True)
class Saved:
    """The checkpoint is on disk; it counts once the journal names it."""

    checkpoint: Checkpoint


@dataclass(frozen=True, slots=True)
class Ended:
    """All runs of the group have been sent."""


@dataclass(frozen=True, slots=True)
class Left:
    """The group was left because the sweep is stopping."""


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    text: str


@dataclass(frozen=True, slots=True)
class Raised:
    """The engine raised something that no single run is to blame for."""

    text: str


@dataclass(frozen=True, slots=True)
class Unwritable:
    """A checkpoint could not be written; the text is that of the StorageError."""

    text: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process that trained the group is gone."""

    text: str


Message: TypeAlias = Ticked | Trained | Saved | Ended | Left | OutOfMemory | Raised | Unwritable | Died

LAST = (Ended, Left, OutOfMemory, Raised, Unwritable, Died)
"""After one of these the worker is free again, or gone."""
