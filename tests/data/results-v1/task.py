"""The task of the stored sweep: a line through points; for seed 1 the model cannot be built."""

import torch

from lrsweep import Task


def model():
    if torch.initial_seed() == 1:
        raise RuntimeError('seed 1 is "bad",\nand says so on two lines')
    return torch.nn.Linear(2, 1)


def mean_squared_error(output, target):
    return ((output - target) ** 2).mean()


def absolute_error(output, target):
    return (output - target).abs().mean()


def make(n=12):
    x = torch.linspace(-1.0, 1.0, 2 * n).reshape(n, 2)
    y = x.sum(1, keepdim=True)
    metrics = {"absolute_error": absolute_error}
    return Task(train=(x, y), val=(x[:4], y[:4]), model=model, loss=mean_squared_error, metrics=metrics)
