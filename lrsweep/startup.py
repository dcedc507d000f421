"""What keeps a process from starting slowly."""

from __future__ import annotations

import torch


def keep_compiler_out() -> None:
    """Let optimizers be built without importing torch's compiler, which takes a second.

    torch shields some of their methods from its compiler, by a wrapper that imports it at the first call to ask for the
    shielded method, and keeps the answer in `__dynamo_disable`. Nothing compiles optimizers here, so the answer is the
    method itself. Where torch does this in another way, nothing changes.
    """
    for method in vars(torch.optim.Optimizer).values():
        shielded = getattr(method, "__wrapped__", None)
        if shielded is not None and not hasattr(shielded, "__dynamo_disable"):
            shielded.__dynamo_disable = shielded
