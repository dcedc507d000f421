"""Whoever calls lrsweep from Python gets their process back as it was, and cannot change the numbers by its state."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress


@contextmanager
def restored() -> Iterator[None]:
    """Within: torch as a fresh process has it, with one thread; forked workers inherit that. Afterwards: as before.

    That is torch's threads, default dtype, default device, gradient mode, autocast and matmul precision, numpy's error
    handling, the global generators of torch, numpy and Python, the environment and the current folder.
    """
    import numpy as np
    import torch

    threads, dtype, precision = torch.get_num_threads(), torch.get_default_dtype(), torch.get_float32_matmul_precision()
    numpy_state, python_state, environment = np.random.get_state(), random.getstate(), dict(os.environ)
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with ExitStack() as stack:
        with suppress(FileNotFoundError):  # the current folder may be gone
            stack.callback(os.chdir, os.getcwd())
        stack.enter_context(torch.random.fork_rng(devices=gpus, device_type="cuda"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
        torch.set_num_threads(1)  # the bits of a run must not depend on the number of cores; a fork wants no threads
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.set_float32_matmul_precision(precision)
            torch.set_default_dtype(dtype)
            np.random.set_state(numpy_state)
            random.setstate(python_state)
            for name in os.environ.keys() - environment.keys():
                del os.environ[name]  # torch's compiler, where something imports it, sets one of its own
            os.environ.update(environment)
