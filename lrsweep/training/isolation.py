"""Running the user's code: with the dtype of the spec, random numbers of its own, and the place of what it raises."""

from __future__ import annotations

import hashlib
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from lrsweep.errors import LrsweepError
from lrsweep.training import mistakes
from lrsweep.training.determinism import deterministic


def stream_seed(*key: object) -> int:
    """A 63-bit seed that depends on every part of `key` and on nothing else."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_all(seed: int) -> None:
    """Seed the global generators of torch (the CPU's, and the GPUs' where there are any), numpy and Python."""
    # torch.manual_seed does the same at 100 times the cost where a device is there but not in use.
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


GeneratorStates = tuple[torch.Tensor, Any, Any]


def generator_states() -> GeneratorStates:
    """Of the global generators of torch's CPU, numpy and Python."""
    return torch.default_generator.get_state(), np.random.get_state(), random.getstate()


def set_generator_states(states: GeneratorStates) -> None:
    torch.default_generator.set_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])


@contextmanager
def isolated(dtype: torch.dtype, device: torch.device, *, tf32: bool = False) -> Iterator[None]:
    """Within: torch's default dtype is `dtype`, warnings are never raised, and `device` computes deterministically (in
    TF32 if asked to). Afterwards: all as before.

    The global generators of torch (CPU and `device`), numpy and Python are put back too.
    """
    numpy_state, python_state, default = np.random.get_state(), random.getstate(), torch.get_default_dtype()
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda, device_type="cuda"), _tolerant(), deterministic(device, tf32=tf32):
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(default)
            np.random.set_state(numpy_state)
            random.setstate(python_state)


@contextmanager
def _tolerant() -> Iterator[None]:
    """Within, no filter makes an exception of a warning. Other filters stay: to touch them is to repeat warnings."""
    if not any(action == "error" for action, *_ in warnings.filters):
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        for quiet in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", quiet)
        yield


def describe(error: BaseException) -> str:
    """`Type: message: cure (file.py:12 in function)`, the place being the deepest one in the user's own code, if any.

    Of errors of lrsweep's own the message alone.
    """
    if isinstance(error, LrsweepError):
        return str(error)
    return mistakes.described(error)
