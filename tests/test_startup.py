"""What keeps a start short changes no answer: the same gradients, the same errors, less imported."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest
import torch

from lrsweep.startup import few_collections

GRADIENTS = """
import sys
import torch
import lrsweep.optimizers  # where torch is prepared

x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
given = torch.tensor([1.0, 10.0, 100.0])
(found,) = torch.autograd.grad(x**2, x, given)
assert found.tolist() == [2.0, 40.0, 600.0], found
torch.optim.SGD([x], lr=0.1)
assert "sympy" not in sys.modules
assert "torch._dynamo" not in sys.modules
"""


def test_gradients_and_optimizers_import_neither_sympy_nor_the_compiler() -> None:
    done = subprocess.run([sys.executable, "-c", GRADIENTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torch_still_refuses_gradients_of_another_shape() -> None:
    import lrsweep.optimizers

    del lrsweep.optimizers
    x = torch.ones(3, requires_grad=True)
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        torch.autograd.grad(x * 2, x, torch.ones(2))
    with pytest.raises(RuntimeError, match="complex"):
        torch.autograd.grad(x * 2, x, torch.ones(3, dtype=torch.complex64))
    (batched,) = torch.autograd.grad(x * 2, x, torch.eye(3), is_grads_batched=True)
    assert torch.equal(batched, 2 * torch.eye(3))


def test_the_search_for_garbage_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with few_collections():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before
