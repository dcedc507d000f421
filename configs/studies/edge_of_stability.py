"""Twenty points of a Chebyshev polynomial and a small tanh network, whose sharpness is measured in every evaluation.

With `scaled`, for the optimizers below: they divide each entry of their step by a scale P of their own, so that the
curvature that limits the rate is that of P^-1 H, H being the Hessian of the loss. A task sees no optimizer, but an
optimizer sees the weights: it writes P into a frozen parameter of the network, where the task reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, hessian

from lrsweep import Task


class Net(nn.Sequential):
    def __init__(self, scaled: bool) -> None:
        super().__init__(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False))
        nn.init.xavier_normal_(self[0].weight, gain=1.9)
        nn.init.zeros_(self[0].bias)
        nn.init.xavier_normal_(self[2].weight)
        if scaled:  # 1 before the first step, and the last of all parameters
            size = sum(weight.numel() for weight in self.parameters())
            self[2].register_parameter("scale", nn.Parameter(torch.ones(size), requires_grad=False))


def _tell(optimizer: torch.optim.Optimizer, scale_of: Callable[[dict[str, Any]], Tensor]) -> None:
    """Write P into the last parameter: `scale_of` the state of each of the others, one after the other."""
    *weights, scale = optimizer.param_groups[0]["params"]
    with torch.no_grad():
        scale.copy_(torch.cat([scale_of(optimizer.state[weight]).flatten() for weight in weights]))


class Adam(torch.optim.Adam):
    """P = sqrt(v / (1 - beta2^t)) + eps, with torch's default betas and eps."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3) -> None:
        super().__init__(params, lr, betas=(0.9, 0.999), eps=1e-8)

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        super().step(closure)
        _tell(self, lambda state: (state["exp_avg_sq"] / (1 - 0.999 ** state["step"])).sqrt() + 1e-8)


class RMSprop(torch.optim.RMSprop):
    """P = sqrt(v) + eps, with torch's default eps."""

    def __init__(self, params: Iterable[Tensor], lr: float = 0.01, alpha: float = 0.99) -> None:
        super().__init__(params, lr, alpha, eps=1e-8)

    def step(self, closure: Callable[[], Any] | None = None) -> None:
        super().step(closure)
        _tell(self, lambda state: state["square_avg"].sqrt() + 1e-8)


def loss_of(output: Tensor, target: Tensor) -> Tensor:
    return 0.5 * (output - target).square().mean()


def sharpness(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The largest eigenvalue of the Hessian H of the loss, or of P^-1 H where the network holds a scale P."""
    weights = dict(model.named_parameters())
    scale = weights.pop("2.scale", None)
    flat = torch.cat([value.detach().flatten() for value in weights.values()])

    def loss(flat: Tensor) -> Tensor:
        parts = flat.split([value.numel() for value in weights.values()])
        values = {name: part.view(value.shape) for (name, value), part in zip(weights.items(), parts, strict=True)}
        return loss_of(functional_call(model, values, (x,)), y)

    curvature = hessian(loss)(flat)
    if scale is not None:  # P^-1/2 H P^-1/2 has the eigenvalues of P^-1 H and is symmetric
        root = scale.detach().sqrt()
        curvature = curvature / root / root.unsqueeze(1)
    return torch.linalg.eigvalsh(curvature)[-1]


def step(model: nn.Module, batch: Any) -> dict[str, Tensor]:
    x, y = batch
    found = {"loss": loss_of(model(x), y)}
    if not model.training:
        found["sharpness"] = sharpness(model, x, y)
    return found


def make_task(scaled: bool = False) -> Task:
    x = torch.linspace(-1, 1, 20).unsqueeze(1)
    y = 16 * x**5 - 20 * x**3 + 5 * x
    return Task(train=(x, y), val=(x, y), model=lambda: Net(scaled), step=step)
