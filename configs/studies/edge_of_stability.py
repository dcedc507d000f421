"""Twenty points of a Chebyshev polynomial and a small tanh network, whose sharpness is measured in every evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.func import functional_call, hessian

from lrsweep import Task


def build() -> nn.Module:
    model = nn.Sequential(nn.Linear(1, 100), nn.Tanh(), nn.Linear(100, 1, bias=False))
    nn.init.xavier_normal_(model[0].weight, gain=1.9)
    nn.init.zeros_(model[0].bias)
    nn.init.xavier_normal_(model[2].weight)
    return model


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 0.5 * (output - target).square().mean()


def sharpness(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The largest eigenvalue of the Hessian of the loss."""
    shapes = {name: value.shape for name, value in model.named_parameters()}
    flat = torch.cat([value.detach().flatten() for value in model.parameters()])

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        values = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return loss_of(functional_call(model, values, (x,)), y)

    return torch.linalg.eigvalsh(hessian(loss)(flat))[-1]


def step(model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
    x, y = batch
    found = {"loss": loss_of(model(x), y)}
    if not model.training:
        found["sharpness"] = sharpness(model, x, y)
    return found


def make_task() -> Task:
    x = torch.linspace(-1, 1, 20).unsqueeze(1)
    y = 16 * x**5 - 20 * x**3 + 5 * x
    return Task(train=(x, y), val=(x, y), model=build, step=step)
