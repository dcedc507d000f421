"""What keeps a process from starting slowly."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

OBJECTS = 1_000_000
"""New objects between two searches for garbage, where there is next to none: more than torch and pandas come with."""
_USUAL = gc.get_threshold()


@contextmanager
def few_collections() -> Iterator[None]:
    """For imports and drawing, which make many objects that stay: Python looks them through again and again."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def collect_own_objects() -> None:
    """For a process that was forked to stay: search as usual for garbage, but not among what it was given.

    The first search would take a tenth of a second, and a copy of every page that it counts references in.
    """
    gc.freeze()
    gc.set_threshold(*_USUAL)


def keep_compiler_out() -> None:
    """Let optimizers be built without importing torch's compiler, which takes a second.

    torch shields some of their methods from its compiler, by a wrapper that imports it at the first call to ask for the
    shielded method, and keeps the answer in `__dynamo_disable`. Nothing compiles optimizers here, so the answer is the
    method itself. Where torch does this in another way, nothing changes.
    """
    import torch

    for method in vars(torch.optim.Optimizer).values():
        shielded = getattr(method, "__wrapped__", None)
        if shielded is not None and not hasattr(shielded, "__dynamo_disable"):
            shielded.__dynamo_disable = shielded
