"""Rewrites of a recorded step (tracing.py) that make it cheaper and change its values by rounding at most."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from lrsweep import tracing
from lrsweep.tracing import Graph


def program(graph: Graph, *, compile: bool) -> Callable[..., Sequence[Tensor | None]]:
    """The rewritten graph as a function of its inputs."""
    return tracing.compiled(graph)
