"""Small tasks of kinds that are not among the examples of configs/own, as their users would write them."""

import copy
import random
from collections import namedtuple
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import Dataset

from lrsweep import Task

TRAIN, VAL = 512, 256


def generator():
    return torch.Generator().manual_seed(0)


def split(*tensors):
    return {"train": tuple(t[:TRAIN] for t in tensors), "val": tuple(t[TRAIN:] for t in tensors)}


def points():
    """Inputs [768, 8], and targets [768, 1] that are smooth in them."""
    x = torch.randn(TRAIN + VAL, 8, generator=generator())
    return x, torch.sin(x.sum(1, keepdim=True))


def images():
    """Images [768, 1, 16, 16] with a bright square, and where it is [768, 1, 16, 16]."""
    place = torch.randint(0, 12, (TRAIN + VAL, 2), generator=generator())
    rows = torch.arange(16)
    inside = (rows >= place[:, :, None]) & (rows < place[:, :, None] + 4)
    mask = (inside[:, 0, :, None] & inside[:, 1, None, :]).unsqueeze(1).to(torch.get_default_dtype())
    return mask + 0.5 * torch.randn(mask.shape, generator=generator()), mask


def tokens(length=12, vocabulary=20):
    """Sequences [768, 12] that count up by a step of their own, with some tokens replaced at random."""
    start, stride = torch.randint(1, vocabulary, (2, TRAIN + VAL, 1), generator=generator())
    text = 1 + (start + stride % 3 * torch.arange(length)) % (vocabulary - 1)
    return torch.where(torch.rand(text.shape, generator=generator()) < 0.1, 5, text)


def mlp(inputs=8, outputs=1, width=32):
    return nn.Sequential(
        nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, outputs)
    )


# ------------------------------------------------------------------- models


class Text(nn.Module):
    """The mean of embeddings, of which that of the padding stays zero."""

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 16, padding_idx=0), mlp(16, 1)

    def forward(self, text):
        return self.head(self.embedding(text).mean(1))


def padding_idx():
    text = tokens()
    kept = torch.randint(4, 13, (len(text), 1), generator=generator())
    text = torch.where(torch.arange(12) < kept, text, 0)
    return Task(**split(text, (text == 7).any(1, keepdim=True) * 1.0), model=Text, loss=F.mse_loss)


class InTurn(nn.Module):
    """Two branches that take turns."""

    def __init__(self):
        super().__init__()
        self.branches, self.turn = nn.ModuleList([mlp(), mlp()]), 0

    def forward(self, x):
        self.turn += self.training
        return self.branches[self.turn % 2](x)


def in_turn():
    return Task(**split(*points()), model=InTurn, loss=F.mse_loss)


class StochasticDepth(nn.Module):
    """Leaves layers out, by Python's random numbers."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 32), nn.Linear(32, 1)
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))

    def forward(self, x):
        h = self.first(x)
        for layer in self.layers:
            if not self.training or random.random() < 0.8:
                h = h + torch.tanh(layer(h))
        return self.last(h)


def stochastic_depth():
    return Task(**split(*points()), model=StochasticDepth, loss=F.mse_loss)


class Gated(nn.Module):
    """A mixture of four experts, of which each example gets the two with the largest gates."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(8, 4), nn.ModuleList(mlp() for _ in range(4))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(1).topk(2, dim=1)
        outputs = torch.stack([expert(x) for expert in self.experts], dim=1)
        picked = outputs.gather(1, chosen.unsqueeze(2)).squeeze(2)
        return (weights * picked).sum(1, keepdim=True)


def mixture_of_experts():
    return Task(**split(*points()), model=Gated, loss=F.mse_loss)


class Routed(Gated):
    """Each expert is given its own examples alone."""

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(1).max(1)
        output = x.new_zeros(len(x), 1)
        for number, expert in enumerate(self.experts):
            mine = torch.where(chosen == number)[0]
            output = output.index_add(0, mine, weights[mine, None] * expert(x[mine]))
        return output


def routed_experts():
    return Task(**split(*points()), model=Routed, loss=F.mse_loss)


class Tied(nn.Module):
    """A language model of one attention layer, whose embedding is its readout."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 32)
        self.place = nn.Parameter(0.1 * torch.randn(11, 32))
        self.layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.1, batch_first=True)
        self.readout = nn.Linear(32, 20, bias=False)
        self.readout.weight = self.embedding.weight

    def forward(self, text):
        mask = nn.Transformer.generate_square_subsequent_mask(text.shape[1])
        return self.readout(self.layer(self.embedding(text) + self.place, src_mask=mask, is_causal=True))


def tied_language_model():
    def step(model, batch):
        (text,) = batch
        return F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())

    return Task(**split(tokens()), model=Tied, step=step)


class UNet(nn.Module):
    """One level down and, by a transposed convolution, up again beside a shortcut."""

    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU())
        self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.last = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, x):
        high = self.down(x)
        return self.last(torch.cat([high, self.up(self.low(high))], dim=1))


def unet():
    return Task(**split(*images()), model=UNet, loss=F.binary_cross_entropy_with_logits)


class Messages(nn.Module):
    """Two rounds of messages along the edges of a graph of 12 nodes, summed by index_add."""

    def __init__(self):
        super().__init__()
        self.message, self.update, self.head = mlp(16, 8), mlp(16, 8), nn.Linear(8, 1)
        ring = torch.arange(12)
        self.register_buffer("source", torch.cat([ring, ring]))
        self.register_buffer("target", torch.cat([(ring + 1) % 12, (ring + 5) % 12]))

    def forward(self, x):
        for _ in range(2):
            sent = self.message(torch.cat([x[:, self.source], x[:, self.target]], dim=2))
            received = torch.zeros_like(x).index_add(1, self.target, sent)
            x = x + self.update(torch.cat([x, received], dim=2))
        return self.head(x).mean(1)


def graph_network():
    nodes = torch.randn(TRAIN + VAL, 12, 8, generator=generator())
    target = (nodes[:, :, 0] * nodes.roll(1, 1)[:, :, 1]).mean(1, keepdim=True)
    return Task(**split(nodes, target), model=Messages, loss=F.mse_loss)


class Scripted(nn.Module):
    """Its activation is compiled by TorchScript."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 1)
        self.swish = torch.jit.script(swish)

    def forward(self, x):
        return self.b(self.swish(self.a(x), 1.5))


def swish(x: Tensor, slope: float) -> Tensor:
    return x * torch.sigmoid(slope * x)


def torchscript():
    return Task(**split(*points()), model=Scripted, loss=F.mse_loss)


class Binary(nn.Linear):
    """Weights of +-1 in the forward pass, gradients as if they were real (straight-through)."""

    def forward(self, x):
        weight = self.weight + (self.weight.sign() - self.weight).detach()
        return F.linear(x, weight / self.in_features**0.5, self.bias)


def binary_weights():
    def net():
        return nn.Sequential(Binary(8, 64), nn.Hardtanh(), Binary(64, 64), nn.Hardtanh(), nn.Linear(64, 1))

    return Task(**split(*points()), model=net, loss=F.mse_loss)


def spectral_norms():
    def net():
        return nn.Sequential(spectral_norm(nn.Linear(8, 32)), nn.Tanh(), spectral_norm(nn.Linear(32, 1)))

    return Task(**split(*points()), model=net, loss=F.mse_loss)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(20, 16), nn.GRU(16, 32, batch_first=True), nn.Linear(32, 20)

    def forward(self, text):
        return self.head(self.gru(self.embedding(text))[0])


def gru():
    text = tokens()

    def loss(output, target):
        return F.cross_entropy(output.flatten(0, 1), target.flatten())

    return Task(**split(text[:, :-1], text[:, 1:].clone()), model=Recurrent, loss=loss)


# -------------------------------------------------------------------- steps


class Students(nn.Module):
    """A student, and the moving average of it that teaches."""

    def __init__(self):
        super().__init__()
        self.student = mlp()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)


def ema_teacher():
    def step(model, batch):
        x, y = batch
        output = model.student(x + 0.1 * torch.randn_like(x))
        with torch.no_grad():
            wanted = model.teacher(x)
            if model.training:
                for slow, fast in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)
        return {"loss": F.mse_loss(output, y) + 0.5 * F.mse_loss(output, wanted), "error": F.mse_loss(wanted, y)}

    return Task(**split(*points()), model=Students, step=step)


class Momentum(nn.Module):
    """MoCo: keys of an averaged encoder, the last 128 of which are kept in a buffer."""

    def __init__(self):
        super().__init__()
        self.encoder = mlp(8, 8)
        self.keys = copy.deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("queue", F.normalize(torch.randn(128, 8), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))


def momentum_queue():
    def step(model, batch):
        (x,) = batch
        query = F.normalize(model.encoder(x + 0.2 * torch.randn_like(x)), dim=1)
        with torch.no_grad():
            if model.training:
                for slow, fast in zip(model.keys.parameters(), model.encoder.parameters(), strict=True):
                    slow.lerp_(fast, 0.05)
            key = F.normalize(model.keys(x + 0.2 * torch.randn_like(x)), dim=1)
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ model.queue.clone().T], dim=1) / 0.2
        if model.training:
            place = int(model.pointer)
            model.queue[place : place + len(key)] = key
            model.pointer.fill_((place + len(key)) % 128)
        return F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))

    return Task(**split(points()[0]), model=Momentum, step=step)


def annealed():
    def step(model, batch, step):
        x, y = batch
        output = model(x)
        return F.mse_loss(output, y) + min(1.0, step / 60) * 0.1 * output.square().mean()

    return Task(**split(*points()), model=mlp, step=step)


def gradient_penalty():
    """The critic of a Wasserstein GAN."""

    def step(model, batch):
        real, fake = batch
        share = torch.rand(len(real), 1)
        mixed = (share * real + (1 - share) * fake).requires_grad_()
        (slope,) = torch.autograd.grad(model(mixed).sum(), mixed, create_graph=True)
        return model(fake).mean() - model(real).mean() + 10 * (slope.norm(dim=1) - 1).square().mean()

    x, _ = points()
    return Task(**split(x, 0.5 * x.roll(1, 0) + 1), model=mlp, step=step)


def functional_derivative():
    """The derivative by the input, in the way of torch.func."""

    def step(model, batch):
        x, y = batch
        output, slope = torch.func.jvp(model, (x,), (torch.ones_like(x),))
        return F.mse_loss(output, y) + 0.1 * (slope - 8 * torch.cos(x.sum(1, keepdim=True))).square().mean()

    return Task(**split(*points()), model=mlp, step=step)


# --------------------------------------------------------------------- data

Pair = namedtuple("Pair", "x y")


@dataclass
class Batch:
    x: Tensor
    y: Tensor


class Points(Dataset):
    def __init__(self, low, high, kind):
        x, y = points()
        self.x, self.y, self.kind = x[low:high], y[low:high], kind

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.kind(self.x[index], self.y[index])


def collated(examples):
    return Batch(torch.stack([one.x for one in examples]), torch.stack([one.y for one in examples]))


def by_name(model, batch):
    return F.mse_loss(model(batch.x), batch.y)


def namedtuple_batches():
    return Task(train=Points(0, 512, Pair), val=Points(512, 768, Pair), model=mlp, step=by_name)


def dataclass_batches():
    data = {"train": Points(0, 512, Batch), "val": Points(512, 768, Batch)}
    return Task(**data, collate_fn=collated, model=mlp, step=by_name)


class Augmented(Points):
    """Every example is fetched with other noise."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn(8), y


def augmented_dataset():
    return Task(train=Augmented(0, 512, Pair), val=Points(512, 768, Pair), model=mlp, loss=F.mse_loss)
