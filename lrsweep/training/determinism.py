"""What torch is asked for before it computes on a GPU: the same bytes every time, and products as exact as the dtype.

Left alone, torch picks the convolution that a stopwatch likes best, adds up with atomic operations in any order, and
rounds the factors of float32 convolutions to 10 bits (TF32).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

WORKSPACES = (":4096:8", ":16:8")
"""Values of CUBLAS_WORKSPACE_CONFIG with which cuBLAS always takes the same kernels for the same products. It is read
when cuBLAS is first used."""


@contextmanager
def deterministic(device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Within: torch takes deterministic kernels on `device`, warns of operations that have none there, and multiplies
    float32 in TF32 only if `tf32`. Afterwards: as before. On the CPU kernels are deterministic, and nothing changes.
    """
    if device.type == "cpu":
        yield
        return
    backends: Any = torch.backends
    if os.environ.get("CUBLAS_WORKSPACE_CONFIG") not in WORKSPACES:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACES[0]
    was_on, only_warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    with ExitStack() as stack:
        stack.callback(torch.use_deterministic_algorithms, was_on, warn_only=only_warned)
        torch.use_deterministic_algorithms(True, warn_only=True)
        precision = "tf32" if tf32 else "ieee"
        for owner, name, value in (
            # Else every new tensor is filled, in case that somebody reads what nobody wrote.
            (torch.utils.deterministic, "fill_uninitialized_memory", False),
            (backends.cudnn, "benchmark", False),
            (backends.cuda.matmul, "fp32_precision", precision),
            (backends.cudnn.conv, "fp32_precision", precision),
            (backends.cudnn.rnn, "fp32_precision", precision),
        ):
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        yield
