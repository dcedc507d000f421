"""How a sweep tells the outside what it does. The core calls a reporter; only the command line shows anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is about to be trained; counts are runs, steps are updates summed over runs. `tasks` describe the data."""

    name: str
    folder: str
    tasks: tuple[str, ...]
    total: int
    done_before: int
    groups: int
    workers: int
    device: str
    member_steps: int


@dataclass(frozen=True, kw_only=True)
class Update:
    """Where a sweep stands. `done` counts finished runs, those done before included."""

    done: int
    total: int
    diverged: int
    failed: int
    member_steps: int
    member_steps_total: int


class Reporter(Protocol):
    def start(self, start: Start) -> None:
        """Training begins. Not called when there is nothing to train."""

    def update(self, update: Update) -> None:
        """Called often; showing it rarely is the reporter's business."""

    def note(self, text: str) -> None:
        """One sentence for stderr, whatever the progress style: damage healed, why a run trains alone, ..."""

    def finish(self) -> None:
        """Training ended, for whatever reason."""


class Silent:
    """The reporter of a sweep run from Python: keeps the notes, shows nothing."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def start(self, start: Start) -> None:
        pass

    def update(self, update: Update) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finish(self) -> None:
        pass
