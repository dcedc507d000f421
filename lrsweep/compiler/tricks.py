"""Which tricks are used: those that `LRSWEEP_PLAIN` leaves on and that pass a test of themselves with this torch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import vmap

from lrsweep.compiler import channels, passes, trace
from lrsweep.system.plain import uses

# M runs, B batch, C channels


def enabled(trick: str) -> bool:
    """Is this trick to be used, and does it work here?"""
    return uses(trick) and works(trick)


@functools.cache
def works(trick: str) -> bool:
    """Does the trick give here what torch gives without it? True of tricks that use nothing private.

    The answer holds for the whole process, so it must not depend on who asks first, which may be an evaluation.
    """
    test = TESTS.get(trick)
    try:
        with torch.enable_grad():
            return test is None or test()
    except Exception:  # noqa: BLE001 - whatever a release of torch has changed, runs are trained without the trick
        return False


def _same(ours: Sequence[Tensor | None], wanted: Sequence[Tensor | None]) -> bool:
    pairs = zip(ours, wanted, strict=True)
    return all(a is not None and b is not None and torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in pairs)


def _numbers(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel(), dtype=torch.float32).cos().view(shape)


def _step(*inputs: Tensor) -> list[Tensor]:
    """A training step of M stacked networks of a convolution and a readout: losses [M] and gradients."""
    *weights, images_BCHW = inputs
    weights = [value.detach().requires_grad_() for value in weights]

    def loss(filters: Tensor, bias: Tensor, readout: Tensor) -> Tensor:
        hidden = F.max_pool2d(F.conv2d(images_BCHW, filters, bias, padding=1).relu(), 2)
        # Not cross_entropy: vmap decomposes it by code that imports sympy, which takes a second.
        return (hidden.flatten(1) @ readout).logsumexp(1).mean()

    losses_M = vmap(loss)(*weights)
    return [losses_M.detach(), *torch.autograd.grad(losses_M.sum(), weights)]


def _values(scale: float) -> list[Tensor]:
    return [scale * _numbers(*shape) for shape in ((2, 3, 1, 3, 3), (2, 3), (2, 12, 4), (5, 1, 4, 4))]


def _replay_works() -> bool:
    """What is recorded with some values gives with others what torch gives for those."""
    replay, _ = passes.program(trace.record(_step, *_values(1.0)), _values(1.0))
    with torch.no_grad():
        found = replay(*_values(0.5))
    return _same(found, _step(*_values(0.5)))


def _channels_work() -> bool:
    with channels.RunsAmongChannels():
        found = _step(*_values(1.0))
    return _same(found, _step(*_values(1.0)))


TESTS: dict[str, Callable[[], bool]] = {"replay": _replay_works, "channels": _channels_work}
