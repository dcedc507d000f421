"""A task of your own: noisy sine waves, two inputs to the model, a loss and a metric."""

import torch
from torch import nn

from lrsweep import Task


class Net(nn.Module):
    """Predicts a * sin(x) from x and a."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return self.layers(torch.stack([x, a], dim=1)).squeeze(1)


def r2(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of the targets' unit variance that is explained; a mean over the batch, as every metric is."""
    return 1 - (output - target).square().mean() / 0.5


def make_task(n: int = 1000, noise: float = 0.1) -> Task:
    """`n` training examples; the arguments are keys of `task:` in the spec."""
    generator = torch.Generator().manual_seed(0)

    def examples(count: int) -> tuple[torch.Tensor, ...]:
        x = 6.3 * torch.rand(count, generator=generator) - 3.15
        a = torch.rand(count, generator=generator) + 0.5
        return x, a, a * torch.sin(x) + noise * torch.randn(count, generator=generator)

    return Task(
        train=examples(n),  # tensors with a row per example; the last one is the target
        val=examples(400),
        test=examples(400),
        model=Net,  # () -> nn.Module; the seed of the run is set before it is called
        loss=nn.functional.mse_loss,  # (output, target) -> scalar
        metrics={"r2": r2},
    )
