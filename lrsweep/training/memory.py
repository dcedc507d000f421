"""Memory that training takes, counted before anything of that size is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lrsweep.errors import WrongInSpec
from lrsweep.models import size_of
from lrsweep.system.machine import memory_limit, size_text
from lrsweep.tasks.base import Task, rows
from lrsweep.training.data import TensorSplit

LAYER = 50_000
"""Bytes of the Python objects of a layer, at most."""


def check_model(name: str, arguments: Mapping[str, Any], task: Task, batch_size: int | str, itemsize: int) -> None:
    """Raises WrongInSpec if the built-in model `name` could not be trained here by any optimizer: if weights, gradients
    and the activations of one batch are larger than the memory that this process may use.

    `arguments` are those of its builder, `itemsize` the bytes of a number.
    """
    limit = memory_limit()
    if limit is None:
        return
    size = size_of(name, **arguments)
    count = rows(task.train)
    batch = count if batch_size == "full" else min(int(batch_size), count)
    in_batch = size.activations * batch
    if isinstance(task.val, tuple):
        in_batch = max(in_batch, 2 * size.largest * min(rows(task.val), TensorSplit(task.val).chunk(batch)))
    needed = (2 * size.parameters + in_batch) * itemsize + LAYER * size.layers
    if needed > limit:
        wrong = (
            f"model {name} with {size.parameters:,} parameters needs at least {size_text(needed)} of memory to train "
            f"in batches of {batch}, but only {size_text(limit)} can be used (use a smaller model or batch)"
        )
        raise WrongInSpec((("model", size.argument), wrong))
