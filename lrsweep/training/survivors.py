"""Which runs of a stack are still finite: looked at in every step, or kept on the device until the next row.

A run whose loss is not finite ends before that update, one whose weights are not finite after it. `AtOnce` looks, as is
cheapest on the CPU. On any other device the host would wait for the numbers in every step, so `AtRows` leaves them
there: weights and buffers of runs that have ended stay as they are and their losses no longer count, and the next row
finds all that would have been seen at once. A run whose captured steps train alone is a stack of one here.
"""

# K runs in the tensors

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from lrsweep.training.update_rules import Weights


class Ended(NamedTuple):
    """Runs that ended alike, by their slots: after `steps` updates, diverged at `diverged_step`."""

    diverged_step: int
    steps: int
    slots: list[int]


Noted = tuple[Tensor, Mapping[str, Tensor]]


def looks_at_once(device: torch.device) -> bool:
    """Does the host see every number of this device without waiting?"""
    return device.type == "cpu"


class AtOnce:
    """Looks at every loss and all weights."""

    alive: Tensor | None = None
    """Runs that may be updated, [K]; None: all."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.dead: Tensor | None = None
        self._ended: list[Ended] = []

    def begin_step(self) -> None:
        """To be called before a step is computed."""

    def note_losses(self, losses: Tensor, metrics: Mapping[str, Tensor], step: int) -> Noted:
        """End the runs whose loss [K] of step `step` (from 0) is not finite. Returns losses and metrics as they count:
        0 for the runs that had ended before."""
        if self.dead is not None:
            losses = losses.index_fill(0, self.dead, 0.0)
        if not math.isfinite(losses.sum().item()):
            self._end([slot for slot, loss in enumerate(losses.tolist()) if not math.isfinite(loss)], step, step + 1)
        return losses, metrics

    def note_weights(self, weights: Weights, steps: int) -> None:
        """End the runs whose weights after `steps` updates are not finite."""
        if not weights.finite():
            self._end(weights.not_finite(), steps, steps)

    def _end(self, slots: list[int], steps: int, diverged_step: int) -> None:
        if slots:
            self._ended.append(Ended(diverged_step, steps, slots))

    def ended(self, *, row: bool) -> list[Ended]:
        """The runs that are known to have ended since the last call, the first ones first. `row`: all that have."""
        found, self._ended = self._ended, []
        return found

    def know(self, dead: Sequence[int]) -> Tensor:
        """Take all slots whose runs have ended; returns them as `dead`."""
        self.dead = torch.tensor(dead, dtype=torch.long, device=self._device)
        return self.dead


class FiniteOfRuns(Protocol):
    """Weights that can tell for each run whether they are finite."""

    def finite_of_runs(self) -> Tensor:
        """[K], on the device."""


class AtRows:
    """Looks when it is asked for a row; see `AtOnce`."""

    alive: Tensor

    def __init__(self, count: int, device: torch.device, written: Sequence[Tensor]) -> None:
        """`written`: what computing a step may write into, [K, ...] each."""
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        self.dead: Tensor | None = None
        self._steps, self._diverged = torch.zeros(2, count, dtype=torch.int64, device=device)
        self._written, self._before = written, list[Tensor]()

    def begin_step(self) -> None:
        self._before = [value.clone() for value in self._written]

    def note_losses(self, losses: Tensor, metrics: Mapping[str, Tensor], step: int) -> Noted:
        before, finite = self.alive, losses.isfinite()
        self.undo(self._written, self._before)
        self._end(before & ~finite, step, step + 1)
        self.alive = before & finite
        counted = {name: value.masked_fill(~before, 0) for name, value in metrics.items()}
        return losses.masked_fill(~before, 0.0), counted

    def undo(self, values: Sequence[Tensor], before: Sequence[Tensor]) -> None:
        """Give back to the runs that have ended what they had before, [K, ...] each."""
        for value, old in zip(values, before, strict=True):
            value.copy_(torch.where(self.alive.view(-1, *[1] * (value.ndim - 1)), value, old))

    def note_weights(self, weights: FiniteOfRuns, steps: int) -> None:
        finite = weights.finite_of_runs()
        self._end(self.alive & ~finite, steps, steps)
        self.alive = self.alive & finite

    def _end(self, now: Tensor, steps: int, diverged_step: int) -> None:
        self._steps.masked_fill_(now, steps)
        self._diverged.masked_fill_(now, diverged_step)

    def ended(self, *, row: bool) -> list[Ended]:
        if not row:
            return []
        found: dict[tuple[int, int], list[int]] = {}
        for slot, key in enumerate(torch.stack([self._diverged, self._steps], 1).tolist()):
            if key[0]:
                found.setdefault(tuple(key), []).append(slot)
        self._diverged.zero_()
        return [Ended(*key, found[key]) for key in sorted(found)]

    def know(self, dead: Sequence[int]) -> Tensor:
        self.dead = torch.tensor(dead, dtype=torch.long, device=self.alive.device)
        self.alive = self.alive.index_fill(0, self.dead, value=False)
        return self.dead
