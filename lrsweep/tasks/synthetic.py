"""Generated tasks. The points come from numpy's RandomState, whose stream is frozen: a data seed keeps its meaning.

`blobs` and `moons` are those of scikit-learn to the last bit (make_blobs, make_moons), written out here because
importing its data sets costs more than a second at every start of a worker.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Gt

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.tasks import room
from lrsweep.tasks.base import Task
from lrsweep.tasks.splits import Array, Seed, Table, table_task

Count = Annotated[int, Gt(0)]
Spread = Annotated[float, Ge(0)]
Positive = Annotated[float, Gt(0)]


def blob_points(n: int, features: int, centers: int, std: float, seed: int) -> tuple[Array, Array, Array]:
    """Points (n, features), classes (n,) and centres (centers, features) of sklearn.datasets.make_blobs."""
    random = np.random.RandomState(seed)
    middles = random.uniform(-10.0, 10.0, size=(centers, features))
    classes = np.repeat(np.arange(centers), n // centers + (np.arange(centers) < n % centers))
    points = random.normal(loc=middles[classes], scale=std)
    order = np.arange(n)
    random.shuffle(order)
    return points[order], classes[order], middles


def _check_classes(key: str, classes: int, n: int) -> None:
    if classes > n:
        wrong = f"{classes:,} classes for {n:,} points; every class needs one (use at most n, or a larger n)"
        raise WrongInSpec((("task", key), wrong))


@table_task()
def blobs(
    *,
    n: Count = 1000,
    features: Count = 2,
    centers: Annotated[int, Ge(2)] = 3,
    std: Spread = 2.0,
    data_seed: Seed = 2,
) -> Table:
    """Round clusters, one class each (scikit-learn's make_blobs); centres uniform in [-10, 10]."""
    _check_classes("centers", centers, n)
    room.check_table(n, features, "features")
    inputs, target, _ = blob_points(n, features, centers, std, data_seed)
    return Table(inputs=inputs, target=target, kind="classification", classes=centers)


def moon_points(n: int, noise: float, seed: int) -> tuple[Array, Array]:
    """Points (n, 2) and classes (n,) of sklearn.datasets.make_moons."""
    random = np.random.RandomState(seed)
    outer, inner = np.linspace(0, np.pi, n // 2), np.linspace(0, np.pi, n - n // 2)
    upper = np.stack([np.cos(outer), np.sin(outer)], axis=1)
    lower = np.stack([1 - np.cos(inner), 1 - np.sin(inner) - 0.5], axis=1)
    order = np.arange(n)
    random.shuffle(order)
    points = np.concatenate([upper, lower])[order]
    return points + random.normal(scale=noise, size=points.shape), np.repeat([0, 1], [n // 2, n - n // 2])[order]


@table_task()
def moons(
    *,
    n: Annotated[int, Ge(4)] = 1000,
    noise: Spread = 0.2,
    data_seed: Seed = 0,
) -> Table:
    """Two interleaved half circles with Gaussian noise (scikit-learn's make_moons)."""
    room.check_table(n, 2)
    inputs, target = moon_points(n, noise, data_seed)
    return Table(inputs=inputs, target=target, kind="classification", classes=2)


@table_task()
def spirals(
    *,
    n: Count = 1000,
    classes: Annotated[int, Ge(2)] = 3,
    turns: Positive = 1.25,
    noise: Spread = 0.03,
    data_seed: Seed = 0,
) -> Table:
    """Spiral arms around the origin, one class each: arm c at radius r <= 1 has angle 2 pi (turns r + c / classes)."""
    _check_classes("classes", classes, n)
    room.check_table(n, 2)
    random = np.random.RandomState(data_seed)
    target = random.permutation(np.arange(n) % classes)
    radius = np.sqrt(random.uniform(0.0, 1.0, size=n))
    angle = 2 * np.pi * (turns * radius + target / classes)
    inputs = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inputs += random.normal(scale=noise, size=inputs.shape)
    return Table(inputs=inputs, target=target, kind="classification", classes=classes)


@table_task()
def regression(
    *,
    n: Count = 1000,
    features: Count = 10,
    noise: Spread = 0.1,
    scale_ratio: Positive = 1.0,
    data_seed: Seed = 0,
) -> Table:
    """Linear regression: y = z.w + noise, |w| = 1, z ~ N(0, I).

    Inputs are x = z * s, s log-spaced from 1 to `scale_ratio`. With `scale: none` the largest eigenvalue of X'X/n grows
    with the square of `scale_ratio`, and the largest stable rate of gradient descent falls with it. The target has
    variance 1 + noise^2 and is not scaled.
    """
    room.check_table(n, features, "features")
    random = np.random.RandomState(data_seed)
    weights = random.normal(size=features)
    hidden = random.normal(size=(n, features))
    target = hidden @ (weights / np.linalg.norm(weights)) + random.normal(scale=noise, size=n)
    inputs = hidden * np.geomspace(1.0, scale_ratio, features)
    return Table(inputs=inputs, target=target[:, None], kind="regression")


class Point(torch.nn.Module):
    """A model without inputs: its output is its weight vector w (dim,)."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(start.clone())

    def forward(self) -> torch.Tensor:
        return self.w


def quadratic_loss(w: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1/2 w'Aw - b'w; target (batch, 2, dim) holds the eigenvalues of A and the vector b."""
    eigenvalues, linear = target[:, 0], target[:, 1]
    return ((0.5 * eigenvalues * w - linear) * w).sum(-1).mean()


COORDINATE = 80
"""Bytes a coordinate takes: eigenvalue, b and start, in a few copies, one of them for the manifest."""


def quadratic(
    *,
    eigenvalues: list[float] | None = None,
    dim: Count = 10,
    lam_min: Positive = 0.1,
    lam_max: Positive = 10.0,
    b: float | list[float] = 0.0,
    start: float | list[float] = 1.0,
    split_seed: Seed = 0,
) -> Task:
    """1/2 w'Aw - b'w, whose every step has a closed form: w_t - w* = (I - lr A)^t (w_0 - w*), stable below 2/lam_max.

    A is diagonal with `eigenvalues`, or `dim` of them log-spaced from lam_min to lam_max; `b` and `start` (w_0) are one
    number for all coordinates, or one each. There is nothing to split: train and val are the same single row, and
    `split_seed` changes nothing. Tensors are float64 whatever the default dtype (Goh 2017, distill.pub/2017/momentum).
    """
    if eigenvalues is None:
        room.check("dim", dim * COORDINATE, f"{dim:,} dimensions", "use a smaller dim")
    lam = np.asarray(eigenvalues if eigenvalues is not None else np.geomspace(lam_min, lam_max, dim), dtype=np.float64)
    if lam.size == 0 or not np.isfinite(lam).all():
        raise UsageError("quadratic: eigenvalues must be one or more finite numbers")
    vectors = {"b": np.asarray(b, dtype=np.float64), "start": np.asarray(start, dtype=np.float64)}
    for name, vector in vectors.items():
        if vector.ndim and vector.shape != lam.shape:
            raise UsageError(f"quadratic: {name} has {vector.size} numbers for {lam.size} eigenvalues")
    linear, origin = (torch.from_numpy(np.broadcast_to(vector, lam.shape).copy()) for vector in vectors.values())
    row = torch.stack([torch.from_numpy(lam.copy()), linear]).unsqueeze(0)
    notes = {"kind": "quadratic", "eigenvalues": lam.tolist(), "warnings": []}
    return Task(train=(row,), val=(row,), model=lambda: Point(origin), loss=quadratic_loss, notes=notes)
