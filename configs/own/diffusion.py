"""Diffusion: a network learns to tell the noise in points of a spiral, at random times of the noising process."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrsweep import Task


class Denoiser(nn.Module):
    """Predicts the noise from a noisy point and the time, which is given as sines and cosines."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 + 8, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = t[:, None] * 3.14 * 2.0 ** torch.arange(4)
        return self.net(torch.cat([x, angles.sin(), angles.cos()], dim=1))


def step(model: nn.Module, batch: tuple[Tensor]) -> Tensor:
    (x,) = batch
    t = torch.rand(len(x))  # a time for every example; seeded by lrsweep
    noise = torch.randn_like(x)
    signal = torch.cos(1.57 * t)[:, None]
    return F.mse_loss(model(signal * x + (1 - signal**2).sqrt() * noise, t), noise)


def spiral(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    angle = 9.4 * torch.rand(count, 1, generator=generator).sqrt()
    return torch.cat([angle * angle.cos(), angle * angle.sin()], dim=1) / 4.7


def make_task(width: int = 64) -> Task:
    return Task(train=(spiral(2000, 1),), val=(spiral(2000, 2),), model=lambda: Denoiser(width), step=step)
