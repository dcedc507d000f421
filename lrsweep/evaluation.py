"""The evaluation of one model on a whole split, and of the untrained model that all runs of a seed share."""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import torch

from lrsweep.problem import LossModule, Problem
from lrsweep.recorder import Means

Values = Mapping[str, float]

_UNTRAINED: weakref.WeakKeyDictionary[Problem, dict[int, dict[str, Values]]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def evaluate(module: LossModule, problem: Problem, split: str, seed: int, step: int) -> dict[str, float]:
    """Per-example means of `loss` and the metrics over a split after `step` updates, in evaluation mode."""
    means = Means(("loss", *problem.metric_names), 1, problem.device)
    training = module.training
    module.eval()
    problem.seed_step(seed, step)
    for batch, size in problem.eval_batches(split, seed, step):
        loss, metrics = module(*batch)
        means.add({"loss": loss, **metrics}, weight=size)
    module.train(training)
    return {name: value for name, (value,) in means.values(problem.finish).items()}


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
