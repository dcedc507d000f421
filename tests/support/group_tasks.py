"""A small task with parameter groups of every kind, and an optimizer class that reads what they set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from lrsweep import Task
from tests.support.stacked_tasks import data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.backbone(x))


def layerwise(model):
    """Each layer at half the rate of the next one."""
    layers = [model.backbone[0], model.backbone[2], model.head]
    return [{"params": layer.parameters(), "lr_scale": 0.5 ** (2 - depth)} for depth, layer in enumerate(layers)]


def undecayed(model):
    """Biases have no weight decay, and nothing else is said of them."""
    biases = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": [p for p in model.parameters() if p.ndim > 1]}, {"params": biases, "weight_decay": 0.0}]


def head_only(model):
    """The backbone is in no group."""
    return ({"params": list(model.head.parameters()), "lr_scale": 3},)


def frozen(model):
    """The backbone is frozen here."""
    model.backbone.requires_grad_(False)
    return [{"params": model.head.weight, "lr_scale": 0.5}, {"params": [model.head.bias]}]


def turned(model):
    """The last parameters come first, and one layer is left out."""
    return [
        {"params": model.head.parameters(), "lr_scale": 0.3},
        {"params": reversed([*model.backbone[0].parameters()])},
    ]


def by_size(model):
    """The rate depends on the initial weights, so every seed has another."""
    size = model.head.weight.detach().abs().mean().item()
    return [{"params": model.head.parameters(), "lr_scale": size}, {"params": model.backbone.parameters()}]


def quick(model):
    """A group that the class at the end of this file knows."""
    return [{"params": model.head.parameters(), "beta": 0.5}, {"params": model.backbone.parameters(), "lr_scale": 0.2}]


def headed(options):
    """The head has these options, the backbone none."""
    return lambda model: [{"params": model.head.parameters(), **options}, {"params": model.backbone.parameters()}]


def task(groups="layerwise", options=None):
    made = globals()[groups] if options is None else headed(options)
    return Task(train=data(72), val=data(40, seed=2), model=Net, loss=F.cross_entropy, param_groups=made)


def by_step(groups="layerwise"):
    """The same by a step."""
    step = lambda model, batch: F.cross_entropy(model(batch[0]), batch[1])  # noqa: E731
    return Task(train=data(72), val=data(40, seed=2), model=Net, step=step, param_groups=globals()[groups])


class Signed(Optimizer):
    """Steps along the sign of a mean of gradients."""

    def __init__(self, params, lr=0.1, beta=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "beta": beta, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                    mean.lerp_(p.grad, 1 - group["beta"])
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(0.1 * torch.tanh(mean), alpha=group["lr"])
