"""What keeps a process from starting slowly."""

from __future__ import annotations

import functools
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

OBJECTS = 100_000
"""New objects between two searches for garbage, where there is next to none."""

SYMBOLS = "torch.fx.experimental.symbolic_shapes"


@contextmanager
def few_collections() -> Iterator[None]:
    """For imports and drawing, which make many objects that stay: Python looks them through again and again."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


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


def keep_symbols_out() -> None:
    """Let `torch.autograd.grad` start from given gradients without importing sympy, which takes a third of a second.

    torch compares the shapes of outputs and gradients by functions for sizes that are symbols, and imports them at the
    first call. As long as nobody else has imported them there are no such sizes, and plain tensors are compared
    plainly; whatever is unequal goes to torch, which says why. Where torch does this in another way, nothing changes.
    """
    import torch

    checked = getattr(torch.autograd, "_make_grads", None)
    if checked is None:
        return

    @functools.wraps(checked)
    def make_grads(outputs: Sequence[Any], grads: Sequence[Any], *more: Any, **options: Any) -> Any:
        usual = SYMBOLS not in sys.modules and len(outputs) == len(grads) and not any((*more, *options.values()))
        if usual and all(map(_alike, outputs, grads)):
            return tuple(grads)
        return checked(outputs, grads, *more, **options)

    torch.autograd._make_grads = make_grads


def _alike(output: Any, gradient: Any) -> bool:
    import torch

    if not type(output) is type(gradient) is torch.Tensor or output.is_nested or gradient.is_nested:
        return False
    return bool(output.shape == gradient.shape and output.dtype.is_complex == gradient.dtype.is_complex)
