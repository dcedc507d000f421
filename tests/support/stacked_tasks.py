"""Models for the tests of stacked training: one per thing that stacks, and one per limit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from lrsweep import Task


def data(n=72, seed=1, size=4, classes=3):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % classes
    x = torch.randn(n, size, generator=generator, dtype=torch.float64) + y[:, None] * torch.linspace(-1, 1, size)
    return x, y


def task(net="mlp", n=72, loss="cross_entropy", test=False):
    x, y = data(n)
    return Task(
        train=(x, y),
        val=data(40, seed=2),
        test=data(30, seed=3) if test else None,
        model=NETS[net],
        loss=LOSSES[loss],
        metrics={"accuracy": lambda output, target: (output.argmax(-1) == target).double().mean()},
    )


def tokens(net="attention"):
    generator = torch.Generator().manual_seed(5)
    x = torch.randint(0, 7, (48, 6), generator=generator)
    return Task(train=(x, x.sum(1) % 3), val=(x[:20], x[:20].sum(1) % 3), model=NETS[net], loss=F.cross_entropy)


class Shaped(nn.Module):
    def __init__(self, shape, inner):
        super().__init__()
        self.shape, self.inner = shape, inner

    def forward(self, x):
        return self.inner(x.reshape(x.shape[0], *self.shape))


class Paired(nn.Module):
    """Parameters with one gradient for two, with one number for all, and one that is the other's transpose."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 3)
        self.p, self.q, self.r = (nn.Parameter(torch.randn(size)) for size in ((3,), (3,), (5,)))
        self.u, self.v = nn.Parameter(torch.randn(3, 3)), nn.Parameter(torch.randn(3, 3))

    def forward(self, x):
        return (self.one(x) + self.two(x) + self.p + self.q + self.r.sum()) @ (self.u + self.v.t())


class Tempered(nn.Linear):
    """Its first parameter is a single number."""

    def __init__(self):
        super().__init__(4, 3)
        self.temperature = nn.Parameter(torch.tensor(2.0))
        self._parameters = {name: self._parameters[name] for name in ("temperature", "weight", "bias")}

    def forward(self, x):
        return super().forward(x) / self.temperature


class Attention(nn.Module):
    def __init__(self, module=False):
        super().__init__()
        self.embed = nn.Embedding(7, 8)
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)
        self.module = nn.MultiheadAttention(8, 2, batch_first=True) if module else None

    def forward(self, x):
        h = self.embed(x)
        if self.module is not None:
            return self.out(self.module(h, h, h, need_weights=False)[0].mean(1))
        q, k, v = self.qkv(self.norm(h)).chunk(3, -1)
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).mean(1))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Turned(nn.Module):
    """The gradient of its weight comes transposed out of the backward pass."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return (x[:, :, None] * self.weight.t()).sum(1)


class Sparse(nn.Module):
    """Its first layer has sparse gradients."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.EmbeddingBag(5, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(torch.tanh(self.embed(x.clamp(-2, 2).round().long() + 2)))


class Partly(nn.Module):
    """`frozen` is not trained, `unused` never gets a gradient."""

    def __init__(self):
        super().__init__()
        self.frozen, self.unused, self.out = nn.Linear(4, 5), nn.Linear(4, 4), nn.Linear(5, 3)
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.out(torch.tanh(self.frozen(x)))


class OnePadding(nn.Module):
    """Its padding, a tuple, has one number for height and width."""

    def __init__(self):
        super().__init__()
        self.filters, self.out = nn.Conv2d(1, 20, 2), nn.Linear(20, 3)

    def forward(self, x):
        return self.out(F.conv2d(x, self.filters.weight, padding=(1,), stride=[1]).tanh().mean((2, 3)))


class Late(nn.Linear):
    """One of its layers gets no gradient in the first update."""

    def __init__(self):
        super().__init__(4, 3)
        self.other, self.calls = nn.Linear(4, 3), 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) + (self.other(x) if self.calls > 1 else 0)


class NoisyEvaluation(nn.Linear):
    def forward(self, x):
        return super().forward(x if self.training else x + torch.randn_like(x))


class Brittle(nn.Module):
    """In training, not in evaluations, its output is no number once a weight is larger than 1.2."""

    def __init__(self):
        super().__init__()
        self.hidden, self.norm, self.readout = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        out = self.readout(torch.tanh(self.norm(self.hidden(x))))
        if not self.training:
            return out
        return torch.where(self.readout.weight.abs().amax() > 1.2, torch.nan, 1.0) * out


class Branching(nn.Linear):
    def forward(self, x):
        out = super().forward(x)
        return out if out.sum() > 0 else 2 * out


class Item(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (1 + self.weight.abs().max().item())


class SharedItem(nn.Linear):
    """Reads a number off its batch, which all runs share: it can be stacked, but not recorded."""

    def forward(self, x):
        return super().forward(x) * (1 + float(x[0, 0]))


class Counter(nn.Linear):
    calls = 0

    def forward(self, x):
        if self.training:
            self.calls += 1
        return super().forward(x) * (1 + 0.1 * self.calls)


class Masked(nn.Linear):
    def forward(self, x):
        out = super().forward(x)
        out[out > 0].sum()
        return out


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRU(1, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.cell(x.unsqueeze(-1))[0][:, -1])


class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag, self.out = nn.EmbeddingBag(7, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.bag(x))


class Hidden(nn.Linear):
    """Keeps a running mean in a tensor that is no buffer."""

    def __init__(self):
        super().__init__(4, 3)
        self.mean = torch.zeros(4, dtype=torch.float64)

    def forward(self, x):
        self.mean.mul_(0.9).add_(x.detach().double().mean(0), alpha=0.1)
        return super().forward(x - self.mean.to(x))


NETS = {
    "mlp": lambda: nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)),
    "inplace": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 3)),
    "wide": lambda: nn.Sequential(nn.Linear(4, 64), nn.GELU(), nn.Linear(64, 40), nn.SiLU(), nn.Linear(40, 3)),
    "batchnorm": lambda: nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "biased_batchnorm": lambda: nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3)),
    "dropout": lambda: nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Tanh(), nn.Linear(16, 3)),
    "conv": lambda: Shaped(
        (1, 2, 2),
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 3, 2, padding=1),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(3, 3),
        ),
    ),
    "pooled": lambda: Shaped(
        (1, 2, 2), nn.Sequential(nn.Conv2d(1, 8, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    ),
    "image_dropout": lambda: Shaped(
        (1, 2, 2),
        nn.Sequential(nn.Conv2d(1, 8, 2, padding=1), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(72, 3)),
    ),
    "one_padding": lambda: Shaped((1, 2, 2), OnePadding()),
    "paired": Paired,
    "tempered": Tempered,
    "late": Late,
    "brittle": Brittle,
    "noisy_evaluation": lambda: NoisyEvaluation(4, 3),
    "groupnorm": lambda: Shaped(
        (4, 1, 1), nn.Sequential(nn.Conv2d(4, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    ),
    "attention": Attention,
    "mha": lambda: Attention(module=True),
    "tied": Tied,
    "partly": Partly,
    "turned": Turned,
    "sparse": Sparse,
    "channels_last": lambda: Shaped(
        (2, 2, 1), nn.Sequential(nn.Conv2d(2, 4, 2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))
    ).to(memory_format=torch.channels_last),
    "branching": lambda: Branching(4, 3),
    "item": lambda: Item(4, 3),
    "shared_item": lambda: SharedItem(4, 3),
    "counter": lambda: Counter(4, 3),
    "masked": lambda: Masked(4, 3),
    "recurrent": Recurrent,
    "bag": Bag,
    "hidden": Hidden,
}
LOSSES = {
    "cross_entropy": F.cross_entropy,
    "smooth": lambda output, target: F.cross_entropy(output, target, label_smoothing=0.1),
    "mse": lambda output, target: F.mse_loss(output, F.one_hot(target, 3).to(output.dtype)),
}
