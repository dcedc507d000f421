"""A net that starts from the weights of scikit-learn's MLPClassifier, on the same rows in the same order."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from torch import nn

from lrsweep import Task

ROWS, BATCH = 300, 50


def rows():
    x, y = load_digits(return_X_y=True)
    return x[:ROWS] / 16, y[:ROWS]


def fitted(epochs, **options):
    """scikit-learn's own training: no shuffling and no early end (tol=0 and a patience that never runs out)."""
    options = {"solver": "sgd", "alpha": 0.0} | options
    net = MLPClassifier(
        (24, 12),
        activation="tanh",
        batch_size=BATCH,
        shuffle=False,
        tol=0,
        n_iter_no_change=10**6,
        max_iter=epochs,
        random_state=0,
        **options,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that max_iter was reached
        return net.fit(*rows())


def same_start():
    start = fitted(1, learning_rate_init=1e-300, momentum=0.0)
    layers = []
    for weight, bias in zip(start.coefs_, start.intercepts_, strict=True):
        layer = nn.Linear(*weight.shape)
        layer.weight.data, layer.bias.data = torch.tensor(weight.T), torch.tensor(bias)
        layers += [layer, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


def same(alpha=0.0):
    """`alpha`: scikit-learn's penalty, alpha |W|^2 / 2 over the batch size, weights only."""

    def step(model, batch):
        x, y = batch
        squares = sum((layer.weight**2).sum() for layer in model if isinstance(layer, nn.Linear))
        return F.cross_entropy(model(x), y) + alpha * squares / (2 * len(y))

    x, y = (torch.tensor(values) for values in rows())
    return Task(train=(x, y), val=(x, y), model=same_start, step=step)
