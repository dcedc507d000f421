"""A physics-informed network: solves u'' = -u on [0, 2 pi] with u(0) = 0 and u'(0) = 1, without any target."""

import torch
from torch import Tensor, nn

from lrsweep import Task


def derivative(u: Tensor, t: Tensor) -> Tensor:
    return torch.autograd.grad(u.sum(), t, create_graph=True)[0]


def step(model: nn.Module, batch: tuple[Tensor]) -> dict[str, Tensor]:
    t = batch[0].requires_grad_()
    u = model(t)
    residual = derivative(derivative(u, t), t) + u
    start = torch.zeros(1, 1, requires_grad=True)
    u0 = model(start)
    conditions = u0.square().sum() + (derivative(u0, start) - 1).square().sum()
    return {"loss": residual.square().mean() + conditions, "error": (u - torch.sin(t)).square().mean()}


def make_task(width: int = 32) -> Task:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))

    times = torch.linspace(0, 6.2832, 256).unsqueeze(1)
    return Task(train=(times,), val=(times[::4] + 0.01,), model=net, step=step)
