"""What a run leaves behind, what is known of it before, and what an engine may ask of the process that runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Status = Literal["ok", "diverged", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunResult:
    """One finished run.

    `history` holds equally long columns, one entry per evaluation: `step` (steps made, int), `epoch`, `lr_now`,
    `train_loss`, `val_loss`, then `train_<metric>` where asked for and `val_<metric>`. Values are as measured: nan and
    inf stay. `test` holds `test_loss` and `test_<metric>` where the task has a test split. `steps` counts the steps
    that were applied. `weights_hash` and `batches_hash` identify the initial weights and the order of the first epoch.
    """

    run_id: str
    status: Status
    diverged_step: int | None = None
    steps: int = 0
    error: str | None = None
    history: dict[str, list[Any]] = field(default_factory=dict)
    test: dict[str, float] = field(default_factory=dict)
    weights_hash: str = ""
    batches_hash: str = ""


@dataclass(frozen=True, slots=True)
class Probed:
    """What one evaluation of a fresh model shows: the metrics, and whether the loss takes derivatives itself (None:
    not known)."""

    metric_names: tuple[str, ...]
    differentiates: bool | None = None


class Hooks(Protocol):
    """How a training loop talks to the process around it. All calls are cheap.

    `resume` is a state that an earlier call of `save` received, or None; the engine continues from it to the bit.
    """

    resume: dict[str, Any] | None
    audits: int
    """How many audits of user code (training/audit.py) there were."""

    def tick(self, run_steps: int) -> None:
        """Report `run_steps` more steps (summed over the runs of the group)."""

    @property
    def stopping(self) -> bool:
        """True once the sweep is asked to stop: call `save`, then raise `StoppedError`."""

    def checkpoint_due(self) -> bool:
        """True when a checkpoint is worth its cost; asked between steps."""

    def save(self, state: dict[str, Any]) -> None:
        """Keep `state`: tensors, numbers, strings, None, lists and dicts of them only."""


class NoHooks:
    """Hooks of a training that nobody watches."""

    resume: dict[str, Any] | None = None
    stopping = False
    audits = 0

    def tick(self, run_steps: int) -> None:
        pass

    def checkpoint_due(self) -> bool:
        return False

    def save(self, state: dict[str, Any]) -> None:
        pass
