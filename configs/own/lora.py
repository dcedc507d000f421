"""LoRA: a pretrained network is frozen, and small low-rank adapters beside its layers learn the new data."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lrsweep import Task


def data() -> tuple[Tensor, Tensor]:
    digits = load_digits()
    x = torch.tensor(digits.data, dtype=torch.get_default_dtype())  # `train.dtype` of the spec
    return x / 16, torch.tensor(digits.target)


def pretrained() -> nn.Module:
    """Stands for a downloaded model: trained for a second on the digits 0 to 4."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    x, y = data()
    x, y = x[y < 5], y[y < 5]
    optimizer = torch.optim.Adam(net.parameters(), lr=0.005)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net


class LoRA(nn.Module):
    """base(x) + B A x, of which only A and B are trained."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
        self.B = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.A.T @ self.B.T


def make_task(rank: int = 4) -> Task:
    weights = pretrained().state_dict()

    def model() -> nn.Module:  # a copy of the pretrained weights and fresh adapters for every run
        net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        net.load_state_dict(weights)
        return nn.Sequential(*(LoRA(layer, rank) if isinstance(layer, nn.Linear) else layer for layer in net))

    x, y = data()
    return Task(train=(x[:1024], y[:1024]), val=(x[1024:], y[1024:]), model=model, loss=nn.functional.cross_entropy)
