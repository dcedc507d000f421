"""muP (Yang et al. 2022, arXiv:2203.03466): initial weights and rates of Adam that keep the best rate at any width."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lrsweep import Task

BASE = 32  # the width at which muP is the usual parametrization


class Net(nn.Module):
    def __init__(self, width: int, mup: bool) -> None:
        super().__init__()
        self.input = nn.Linear(64, width)
        self.hidden = nn.Linear(width, width)
        self.output = nn.Linear(width, 10)
        self.ratio = width / BASE if mup else 1.0
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.hidden(torch.relu(self.input(x))))
        return self.output(h / self.ratio)


def param_groups(net: Net) -> list[dict[str, object]]:
    """The rate of the hidden matrix falls with the width. That of the output would, too, but for h / ratio above."""
    others = [weight for weight in net.parameters() if weight is not net.hidden.weight]
    return [{"params": [net.hidden.weight], "lr_scale": 1 / net.ratio}, {"params": others}]


def make_task(width: int = BASE, mup: bool = True) -> Task:
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    return Task(
        train=(x[:1024], y[:1024]),
        val=(x[1024:], y[1024:]),
        model=lambda: Net(width, mup),
        loss=nn.functional.cross_entropy,
        param_groups=param_groups,
    )
