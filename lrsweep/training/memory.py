"""Memory that training takes, counted before anything of that size is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrsweep.errors import WrongInSpec
from lrsweep.models import size_of
from lrsweep.system.machine import MIB, Machine, memory_limit, size_text
from lrsweep.tasks.base import Task, rows
from lrsweep.training.data import PERMUTED_BYTES, TensorSplit

if TYPE_CHECKING:
    from lrsweep.training.workload import Workload

LAYER = 50_000
"""Bytes of the Python objects of a layer, at most."""
PROCESS = 150 * MIB
"""Bytes of a worker that shares torch with the process it was forked from, without any model."""
COPIES = 16
"""Bytes that training one run takes at its peak, in the bytes of its weights: 1.63 GB for 25 million parameters in
float32 (a multilayer perceptron, sgd and adam alike, 2026-11)."""
SHARE = 0.8
"""Of the memory that can be used, for all workers together; the rest is for the process that runs the sweep, and for
what else runs on the machine."""


def check_model(name: str, arguments: Mapping[str, Any], task: Task, train: Mapping[str, Any], itemsize: int) -> None:
    """Raises WrongInSpec if the built-in model `name` could not be trained here by any optimizer: if weights, gradients
    and the activations of one batch are larger than the memory that this process may use.

    `arguments` are those of its builder, `train` is the section of the spec, `itemsize` the bytes of a number.
    """
    limit = memory_limit()
    if limit is None:
        return
    size = size_of(name, **arguments)
    count = rows(task.train)
    batch = count if train["batch_size"] == "full" else min(int(train["batch_size"]), count)
    in_batch = size.activations * batch
    if isinstance(task.val, tuple):
        evaluated = min(rows(task.val), train["eval_batch_size"] or TensorSplit(task.val).chunk(batch))
        in_batch = max(in_batch, 2 * size.largest * evaluated)
    needed = (2 * size.parameters + in_batch) * itemsize + LAYER * size.layers
    if needed > limit:
        wrong = (
            f"model {name} with {size.parameters:,} parameters needs at least {size_text(needed)} of memory to train "
            f"in batches of {batch}, but only {size_text(limit)} can be used (use a smaller model or batch)"
        )
        raise WrongInSpec((("model", size.argument), wrong))


@dataclass(frozen=True, kw_only=True)
class Needed:
    """Bytes that a process takes, about, while it trains one run alone, and how many of them fit in memory: maybe 0."""

    bytes: int
    workers: int


def needed(workload: Workload, machine: Machine) -> Needed:
    """What runs of `workload` need on `machine`. Data are shared by the processes, but for an epoch in its order."""
    splits = [split for split in workload.splits.values() if isinstance(split, TensorSplit)]
    epoch = sum(min(split.nbytes, PERMUTED_BYTES) for split in splits)
    each = PROCESS + COPIES * workload.weights_bytes + epoch
    left = SHARE * machine.memory - sum(split.nbytes for split in splits)
    alone = memory_limit()
    return Needed(bytes=each, workers=max(0, int(left / each)) if alone is None or each < alone else 0)
