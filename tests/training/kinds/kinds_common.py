"""What the files of this folder share: a small regression, and a network of three layers."""

import torch
import torch.nn.functional as F
from torch import nn

from lrsweep import Task

TRAIN, VAL = 64, 32


def points(features=4, scale=1.0):
    """Inputs [96, features] and a smooth target [96, 1]."""
    x = torch.randn(TRAIN + VAL, features, generator=torch.Generator().manual_seed(0))
    return x, scale * torch.sin(x.sum(1, keepdim=True))


def split(*tensors):
    """Train and validation split."""
    return tuple(t[:TRAIN] for t in tensors), tuple(t[TRAIN:] for t in tensors)


def regression(model, *, loss=F.mse_loss, features=4, scale=1.0, **more):
    train, val = split(*points(features, scale))
    return Task(train=train, val=val, model=model, loss=None if "step" in more else loss, **more)


class Net(nn.Module):
    """Three layers; `middle` is where the kinds differ."""

    def __init__(self, features=4, width=16):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(features, width), nn.Linear(width, width), nn.Linear(width, 1)

    def middle(self, h):
        return torch.tanh(self.b(h))

    def forward(self, x):
        return self.c(self.middle(torch.tanh(self.a(x))))


def smooth(scale=1.0):
    """A task without a kind of its own, for optimizers that have one."""
    return regression(Net, scale=scale)
