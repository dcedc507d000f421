"""Linear networks of any depth on inputs without correlation, where the largest stable learning rate is known."""

from __future__ import annotations

import torch
from torch import nn

from lrsweep import Task

TARGET = (4.0, 2.0, 1.0, 0.5)  # singular values of the map to be learned


class Deep(nn.Module):
    """`depth` square matrices, each the identity at the start, one after the other."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.eye(len(TARGET))) for _ in range(depth)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for weight in self.weights:
            x = x @ weight
        return x


def half_squared_error(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 0.5 * (output - target).square().sum(1).mean()


def make_task(depth: int = 1) -> Task:
    size = len(TARGET)
    x = torch.eye(size) * size**0.5  # the mean of x x' is the identity
    data = (x, x @ torch.diag(torch.tensor(TARGET)))
    return Task(train=data, val=data, model=lambda: Deep(depth), loss=half_squared_error)
