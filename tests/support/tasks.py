"""Tasks, models and optimizers as a user would write them; tests name them by import path."""

from __future__ import annotations

import random
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

from lrsweep import Task


def points(n=90, seed=3, classes=3):
    """n points in the plane around `classes` centres; batches of 32 leave a short one of the usual 90."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64) + 2.0 * torch.stack([y == 1, y == 2], 1)
    return x, y


def small_net():
    return nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 3))


def accuracy(output, target):
    return (output.argmax(-1) == target).double().mean()


def classify(n=90, model="small_net", test=False, shift=0.0):
    x, y = points(n)
    xv, yv = points(50, seed=4)
    return Task(
        train=(x + shift, y),
        val=(xv, yv),
        test=points(40, seed=5) if test else None,
        model=globals()[model],
        loss=F.cross_entropy,
        metrics={"accuracy": accuracy},
    )


def dropout_net():
    return nn.Sequential(nn.Linear(2, 16), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(16, 3))


def batchnorm_net():
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


def inplace_net():
    """Writes into its input, as nn.ReLU(inplace=True) in front does."""
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(2, 3))


class Counting(nn.Module):
    """Keeps Python numbers and a buffer that is not in the state dict, and lets both change its output."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.calls = 0
        self.register_buffer("trace", torch.zeros(3), persistent=False)

    def forward(self, x):
        out = self.layer(x) + 0.01 * self.calls + self.trace
        if self.training:
            self.calls += 1
            self.trace = 0.9 * self.trace + 0.1 * out.detach().mean(0)
        return out


def counting_net():
    return Counting()


class Marking(nn.Module):
    """Counts its batches in an attribute of a weight."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.layer.weight.batches = 0

    def forward(self, x):
        self.layer.weight.batches += self.training
        return self.layer(x) / (1 + 0.1 * self.layer.weight.batches)


def marking_net():
    return Marking()


class Tracking(nn.Module):
    """Keeps what it has seen in plain attributes, as research code does."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.mean, self.seen = torch.zeros(3), {"batches": 0}

    def forward(self, x):
        out = self.layer(x)
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
            self.seen["batches"] += 1
        return out - self.mean + 0.01 * self.seen["batches"]


def tracking_net():
    return Tracking()


def lazy_net():
    return nn.Sequential(nn.LazyLinear(16), nn.Tanh(), nn.LazyLinear(3))


def failing_net():
    raise RuntimeError("no such layer")


def no_net():
    return "a model"


_SHARED = nn.Linear(2, 3)


def shared_net():
    return _SHARED


def warning_net():
    warnings.warn("this net warns", UserWarning, stacklevel=1)
    return small_net()


class Noisy(Dataset):
    """Points with noise from all three global generators, one example at a time, as dicts or pairs."""

    def __init__(self, n, seed, as_dict=False, noise=0.1):
        self.x, self.y = points(n, seed)
        self.as_dict, self.noise = as_dict, noise

    def __len__(self):
        return len(self.y)

    def __getitem__(self, index):
        noise = torch.randn(2, dtype=torch.float64) + random.gauss(0, 1) + np.random.randn()
        x = self.x[index] + self.noise * noise
        return {"x": x, "y": self.y[index]} if self.as_dict else (x, self.y[index])


def dataset(noise=0.1):
    return Task(
        train=Noisy(90, 3, noise=noise),
        val=Noisy(50, 4, noise=noise),
        model=small_net,
        loss=F.cross_entropy,
        metrics={"accuracy": accuracy},
    )


def dict_step(model, batch):
    output = model(batch["x"])
    return {"loss": F.cross_entropy(output, batch["y"]), "accuracy": accuracy(output, batch["y"])}


def dict_dataset(noise=0.0):
    return Task(train=Noisy(90, 3, True, noise), val=Noisy(50, 4, True, noise), model=small_net, step=dict_step)


def pair_step(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def stepped():
    return Task(train=points(90), val=points(50, seed=4), model=small_net, step=pair_step)


def failing_step(model, batch):
    raise ZeroDivisionError("the batch is wrong")


def failing():
    return Task(train=points(90), val=points(50, seed=4), model=small_net, step=failing_step)


class Vector(nn.Module):
    def __init__(self, start):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(start))

    def forward(self):
        return self.w


def slope(gradient=(1.0, -2.0, 0.5), start=(0.0, 0.0, 0.0), scale=1.0):
    """A loss with the constant gradient `scale * gradient`."""
    row = torch.tensor([gradient], dtype=torch.float64)
    return Task(train=(row,), val=(row,), model=lambda: Vector(start), loss=lambda w, g: scale * (w * g).sum(-1).mean())


def cliff(at=0.5, value=float("nan"), where="batch"):
    """One weight that falls by lr a step from 0. Below -`at` the training loss or only the evaluation is `value`,
    or (where=weight) the gradient is."""
    row = torch.ones(1, 1, dtype=torch.float64)

    def step(model, batch):
        w = model()
        over = bool(w.detach().min() < -at)
        loss = w.sum()
        if where == "weight" and over:
            return {"loss": w.sum() + (w * 0).sum() + Blowing.apply(w).sum() * 0.0}
        if over and (where == "batch" or not model.training):
            loss = loss * value
        return {"loss": loss}

    return Task(train=(row,), val=(row,), model=lambda: Vector((0.0,)), step=step)


class Blowing(torch.autograd.Function):
    """The identity with an infinite gradient."""

    @staticmethod
    def forward(ctx, w):
        return w.clone()

    @staticmethod
    def backward(ctx, grad):
        return torch.full_like(grad, float("inf"))


class TwoModes(torch.optim.Optimizer):
    """Trains weights y but evaluates at x = y + 1, as optimizers with train() and eval() do."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.training = True

    def _shift(self, amount):
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(amount)

    def train(self):
        if not self.training:
            self._shift(-1.0)
        self.training = True

    def eval(self):
        if self.training:
            self._shift(1.0)
        self.training = False

    @torch.no_grad()
    def step(self):
        assert self.training
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * p.grad)


class Layerwise(torch.optim.SGD):
    """SGD whose biases have a tenth of the rate."""

    def __init__(self, params, lr=0.1):
        params = list(params)
        matrices = [p for p in params if p.ndim > 1]
        super().__init__([{"params": matrices}, {"params": [p for p in params if p.ndim < 2], "lr": lr / 10}], lr=lr)


class Warming(torch.optim.Optimizer):
    """Plain SGD that counts its own steps and warms up by them."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.count, self.speed = 0, torch.tensor(0.1)

    @torch.no_grad()
    def step(self):
        self.count += 1
        self.speed = torch.clamp(self.speed * 1.3, max=1.0)
        for p in self.param_groups[0]["params"]:
            p.sub_(self.param_groups[0]["lr"] * self.speed * min(1.0, self.count / 5) * p.grad)


class Remembering(torch.optim.Optimizer):
    """Plain SGD that keeps something no checkpoint can hold."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})
        self.param_groups[0]["memory"] = {1, 2}

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.sub_(self.param_groups[0]["lr"] * p.grad)


def broken_schedule(step, total_steps):
    raise KeyError("no factor")


def unseeded():
    """Draws its data from the global generators, and says which default dtype it saw."""
    x = torch.randn(12, 2) + np.random.randn() + random.random()
    y = torch.arange(12) % 3
    return Task(train=(x, y), val=(x, y), model=small_net, loss=F.cross_entropy, notes={"seen": torch.empty(0).dtype})


def raising():
    return {}["missing"]


def not_a_task():
    return small_net


def without_model():
    return Task(train=points(90), val=points(50), loss=F.cross_entropy)


def shaped_net(in_shape, num_outputs, width=4):
    return nn.Sequential(nn.Linear(in_shape[0], width), nn.Linear(width, num_outputs))


def weighted(reduction="mean"):
    """A loss with state: class weights."""
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0, 3.0]), reduction=reduction)
    return Task(train=points(90), val=points(50), model=small_net, loss=loss)


def fickle_step(model, batch):
    """Forgets a metric while training."""
    loss = pair_step(model, batch)
    return {"loss": loss} if model.training else {"loss": loss, "extra": loss}


def fickle():
    return Task(train=points(90), val=points(50), model=small_net, step=fickle_step)


def lossless():
    return Task(train=points(90), val=points(50), model=small_net, step=lambda model, batch: {"accuracy": 1.0})


def least_squares_data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 2.0, 0.5])
    return x, x @ torch.tensor([[1.0], [-1.0], [2.0]], dtype=torch.float64) + 0.3


def least_squares(half=False):
    """Mean squared error, or half of it; no bias, so that the curvature is 2 X'X / n, or X'X / n."""
    data = least_squares_data()
    factor = 0.5 if half else 1.0
    return Task(
        train=data,
        val=data,
        model=lambda: nn.Linear(3, 1, bias=False),
        loss=lambda output, target: factor * F.mse_loss(output, target),
    )


def scaled(factor=1.0):
    """The classification task with its loss multiplied by `factor`."""
    return Task(
        train=points(90),
        val=points(50, seed=4),
        model=small_net,
        loss=lambda output, target: factor * F.cross_entropy(output, target),
    )


def masks():
    """The loss tells which entries a dropout mask kept, and nothing else."""

    def step(model, batch):
        return F.dropout(torch.arange(1000.0), training=model.training).mean() + 0.0 * model().sum()

    row = torch.ones(8, 1)
    return Task(train=(row,), val=(row,), model=lambda: Vector((0.0,)), step=step)


def misshapen():
    """A Task that lrsweep itself refuses."""
    x, y = points(90)
    return Task(train=(x, y[:10]), val=(x, y), model=small_net, loss=F.cross_entropy)


def leaving():
    raise SystemExit("no data here")


class Complex(nn.Module):
    """A weight matrix of complex numbers."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(2, 3, dtype=torch.complex64))
        self.b = nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return (x.to(self.w.dtype) @ self.w).abs() + self.b


class ByDtype(nn.Linear):
    def forward(self, x):
        return super().forward(x if x.is_floating_point() else x / 9)


def by_dtype():
    """A model that scales integers only."""
    data = torch.arange(4.0).unsqueeze(1), torch.zeros(4, 1)
    return Task(train=data, val=data, model=lambda: ByDtype(1, 1), loss=nn.functional.mse_loss)


class Averaging(nn.Module):
    """Its buffer begins as an integer and becomes a mean: a slip that torch forgives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        self.seen = 0.9 * self.seen + 0.1 * x.abs().mean()
        return self.layer(x) * (1 + self.seen)


def averaging_net():
    return Averaging()


class Unfreezing(nn.Module):
    """Its first layer is frozen until `unfreezing_step` says otherwise."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 3)
        self.first.requires_grad_(False)

    def forward(self, x):
        return self.last(torch.tanh(self.first(x)))


def unfreezing_step(model, batch, step):
    if step == 2:
        model.first.requires_grad_(True)
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def unfreezing():
    return Task(train=points(), val=points(60, 4), model=Unfreezing, step=unfreezing_step)


def quiet_step(model, batch, step):
    """From step 6 on nothing is dropped, until the next evaluation switches the modes of all layers."""
    if step == 6:
        model[1].eval()
    x, y = batch
    return nn.functional.cross_entropy(model(x), y)


def quiet():
    return Task(
        train=points(),
        val=points(60, 4),
        model=lambda: nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.5), nn.Linear(4, 3)),
        step=quiet_step,
    )
