"""Layer-wise decay of the learning rate: each layer learns at a fraction of the rate of the layer above it."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from lrsweep import Task


def make_task(decay: float = 1.0, depth: int = 4) -> Task:
    def model() -> nn.Module:
        layers: list[nn.Module] = [nn.Linear(64, 64), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Linear(64, 64), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(64, 10))

    def param_groups(net: nn.Sequential) -> list[dict[str, object]]:
        layers = [layer for layer in net if isinstance(layer, nn.Linear)]
        return [
            {"params": layer.parameters(), "lr_scale": decay ** (len(layers) - 1 - k)} for k, layer in enumerate(layers)
        ]

    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    return Task(
        train=(x[:1024], y[:1024]),
        val=(x[1024:], y[1024:]),
        model=model,
        loss=nn.functional.cross_entropy,
        param_groups=param_groups,
    )
