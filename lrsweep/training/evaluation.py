"""The evaluation of one model on a whole split, and of the untrained model that all runs of a seed share."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping

import torch

from lrsweep.training.recorder import Means
from lrsweep.training.workload import LossModule, Problem

Values = Mapping[str, float]
Forward = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]

_UNTRAINED: weakref.WeakKeyDictionary[Problem, dict[int, dict[str, Values]]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def means_over(forward: Forward, problem: Problem, split: str, seed: int, step: int) -> dict[str, float]:
    """Per-example means over a split, after `step` updates, of the loss and metrics that `forward(*batch)` gives."""
    means = Means(("loss", *problem.metric_names), 1, problem.device)
    problem.seed_step(seed, step)
    for batch, size in problem.eval_batches(split, seed, step):
        loss, metrics = forward(*batch)
        means.add({"loss": loss, **metrics}, weight=size)
    return {name: value for name, (value,) in means.values(problem.finish).items()}


def evaluate(module: LossModule, problem: Problem, split: str, seed: int, step: int) -> dict[str, float]:
    """`means_over` the module in evaluation mode."""
    training = module.training
    module.eval()
    found = means_over(module, problem, split, seed, step)
    module.train(training)
    return found


def untrained(problem: Problem, seed: int, module: LossModule | None = None) -> Mapping[str, Values]:
    """Row 0 of every run of a seed, `train` and `val`: they start from one model, so it is evaluated once.

    `module`: such a model, if there is one already. Only for problems whose functions keep nothing between calls
    (stackable.py finds out).
    """
    known = _UNTRAINED.setdefault(problem, {})
    if seed not in known:
        if module is None:
            module = problem.build_model(seed)
        known[seed] = {split: evaluate(module, problem, split, seed, 0) for split in ("train", "val")}
    return known[seed]
