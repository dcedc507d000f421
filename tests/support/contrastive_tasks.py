"""A contrastive loss, which depends on how many examples are in a batch, in every form that a task can have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset, default_collate

from lrsweep import Task


def views(n, seed):
    """Two views [n, 4] of each example."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    return x, x + 0.3 * torch.randn(n, 4, generator=generator, dtype=torch.float64)


TRAIN, VAL, TEST = views(48, 1), views(40, 2), views(30, 3)


class Pairs(Dataset):
    def __init__(self, pair):
        self.pair = pair

    def __len__(self):
        return len(self.pair[0])

    def __getitem__(self, index):
        return self.pair[0][index], self.pair[1][index]


def net():
    return nn.Linear(4, 3)


def contrast(output, other):
    """An example is to be told from the others of its batch by its other view [B, 3]."""
    return F.cross_entropy(output @ other.t(), torch.arange(len(output), device=output.device))


def project(output, target):
    return contrast(output, target[:, :3])


def step(model, batch):
    return {"loss": contrast(model(batch[0]), model(batch[1])), "spread": model(batch[0]).std()}


def make(form="step"):
    data = {"train": TRAIN, "val": VAL, "test": TEST}
    if form in ("dataset", "collate"):
        data = {name: Pairs(pair) for name, pair in data.items()}
    how = {"loss": project} if form == "tensors" else {"step": step}
    collate = default_collate if form == "collate" else None
    return Task(**data, **how, model=net, collate_fn=collate)
