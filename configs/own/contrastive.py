"""A contrastive loss (SimCLR): two noisy views of a digit belong together, all others of the batch do not."""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lrsweep import Task


def view(x: Tensor) -> Tensor:
    """Half of the pixels are masked, at random."""
    return x * (torch.rand_like(x) < 0.5)


def step(model: nn.Module, batch: tuple[Tensor]) -> dict[str, Tensor]:
    (x,) = batch
    z = F.normalize(model(torch.cat([view(x), view(x)])), dim=1)
    similarity = z @ z.T / 0.2
    similarity = similarity - 1e9 * torch.eye(len(z))  # nothing is compared with itself
    partner = torch.arange(len(z)).roll(len(x))
    found = similarity.argmax(1) == partner
    return {"loss": F.cross_entropy(similarity, partner), "found": found.float().mean()}


def make_task(dim: int = 16) -> Task:
    x = torch.tensor(load_digits().data, dtype=torch.float32) / 16
    net = lambda: nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, dim))  # noqa: E731
    return Task(train=(x[:1024],), val=(x[1024:1792],), model=net, step=step)
