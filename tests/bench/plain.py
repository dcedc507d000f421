"""The loop one would write without lrsweep: an ordinary torch.optim training per run, a CSV at the end.

Run as a process of its own: python plain.py SPEC.json OUT.csv PART PARTS. It trains every PARTS-th run from PART on.
"""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from lion import Lion
from torch import nn


def mlp(sizes: list[int]) -> nn.Module:
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


class Language(nn.Module):
    """Embedding, pre-norm transformer blocks, a readout; attention by torch's own kernel."""

    def __init__(self, vocab: int, length: int, dim: int = 64, heads: int = 4, depth: int = 2) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(vocab, dim), nn.Parameter(torch.randn(length, dim) * 0.02)
        self.heads, self.depth = heads, depth
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(2 * depth + 1)])
        self.qkv = nn.ModuleList([nn.Linear(dim, 3 * dim) for _ in range(depth)])
        self.out = nn.ModuleList([nn.Linear(dim, dim) for _ in range(depth)])
        self.up = nn.ModuleList([nn.Linear(dim, 4 * dim) for _ in range(depth)])
        self.down = nn.ModuleList([nn.Linear(4 * dim, dim) for _ in range(depth)])
        self.readout = nn.Linear(dim, vocab)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.token(tokens) + self.position
        b, t, d = x.shape
        for k in range(self.depth):
            parts = self.qkv[k](self.norms[2 * k](x)).view(b, t, 3, self.heads, d // self.heads)
            q, key, v = parts.permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, key, v, is_causal=True).transpose(1, 2).reshape(b, t, d)
            x = x + self.out[k](mixed)
            x = x + self.down[k](F.gelu(self.up[k](self.norms[2 * k + 1](x))))
        return self.readout(self.norms[-1](x))


def loss_of(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(output.flatten(0, -2), target.flatten())


def train(run: dict, spec: dict, data: dict) -> list[list[object]]:
    torch.manual_seed(run["seed"])
    kinds = {"mlp": lambda: mlp(spec["sizes"]), "cnn": cnn, "language": lambda: Language(spec["vocab"], spec["length"])}
    model = kinds[spec["model"]]()
    cls = Lion if run["optimizer"] == "Lion" else getattr(torch.optim, run["optimizer"])
    optimizer = cls(model.parameters(), lr=run["lr"], **run["args"])
    x, y, xv, yv = data["x"], data["y"], data["xv"], data["yv"]
    rows: list[list[object]] = []
    step, epoch, losses = 0, 0, []
    while step < spec["steps"]:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(run["seed"] * 1_000_003 + epoch))
        for index in order.split(spec["batch_size"]):
            optimizer.zero_grad()
            loss = loss_of(model(x[index]), y[index])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            step += 1
            if step == spec["steps"]:
                break
        epoch += 1
        model.eval()
        with torch.no_grad():
            output = model(xv)
            value = loss_of(output, yv).item()
            accuracy = (output.argmax(-1) == yv).float().mean().item()
        model.train()
        rows.append([run["id"], run["lr"], run["seed"], step, sum(losses) / len(losses), value, accuracy])
        losses = []
    return rows


def main(spec_path: str, out_path: str, part: int, parts: int) -> None:
    spec = json.loads(Path(spec_path).read_text())
    if parts > 1:
        torch.set_num_threads(1)
    data = torch.load(spec["data"])
    with Path(out_path).open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["run", "lr", "seed", "step", "train_loss", "val_loss", "val_accuracy"])
        for run in spec["runs"][part::parts]:
            writer.writerows(train(run, spec, data))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
