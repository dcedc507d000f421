"""What crosses the border between the process that runs a sweep and those that train: plain, picklable values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from lrsweep.run_result import Probed, RunResult
from lrsweep.store.journal import Checkpoint, Group
from lrsweep.user_imports import Versions

if TYPE_CHECKING:
    from lrsweep.plan import Run


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerConfig:
    """What a worker is told once. `checkpoint_seconds` is the least time between two checkpoints of a group.

    `versions`: the user's files as the run ids were made from them (user_imports.py). `verify`: train the first run of
    each group alone too.
    """

    folder: str
    device: str
    parent: int
    checkpoint_seconds: float
    threads: int = 1
    verify: bool = False
    versions: Versions | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A group to train, from a checkpoint where there is one. `run_steps` is its length, summed over its runs.

    `probed`: of its workload, found out before; a worker must not run the user's code to find them.
    `unused_worker`: in a process in which no code of the user's has trained yet.
    `made_at`: the place in the user's file where the task was made, for messages.
    """

    group: Group
    runs: tuple[Run, ...] = field(repr=False)
    run_steps: int = 0
    resume: Checkpoint | None = None
    probed: Probed | None = None
    unused_worker: bool = False
    made_at: str = ""

    @property
    def in_a_copy(self) -> bool:
        """Is it a run of the user's code that may keep something? It then starts from what its task was when made."""
        return self.group.engine == "single" and not self.runs[0].built_in


@dataclass(frozen=True, slots=True)
class Taken:
    """The job is a `worker`'s from now on; its name is for users."""

    worker: str


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
class Quiet:
    """Nothing was heard of the group for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """All runs of the group have been sent. `audits`: how often user code was computed alone for comparison;
    `verified`: how many of its runs were trained alone in full."""

    audits: int = 0
    verified: int = 0


@dataclass(frozen=True, slots=True)
class AuditFailed:
    """User code gave something else together than alone. `label`: the optimizer to blame, None for the workload."""

    text: str
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning of the user's code or of torch, as a sentence; `key` is the same for those that are one."""

    text: str
    key: str


@dataclass(frozen=True, slots=True)
class Retiring:
    """The worker takes no job after this one: what the user's code keeps must not reach another run."""


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


@dataclass(frozen=True, slots=True)
class Lost:
    """So is the machine it was on, or what kept it there: the group is not to blame."""

    text: str


Message: TypeAlias = (
    Taken
    | Ticked
    | Trained
    | Saved
    | Quiet
    | Warned
    | Retiring
    | Ended
    | Left
    | AuditFailed
    | OutOfMemory
    | Raised
    | Unwritable
    | Died
    | Lost
)

LAST = (Ended, Left, AuditFailed, OutOfMemory, Raised, Unwritable, Died, Lost)
"""After one of these the worker is free again, or gone."""
