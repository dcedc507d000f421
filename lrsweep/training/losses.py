"""The cross-entropy in the form that is cheap for a stack of runs. Same numbers, to rounding, as torch's own."""

# M runs, N examples, C classes

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lrsweep.tasks import base
from lrsweep.training.workload import LossModule, Problem


def use_stacked_loss(module: LossModule, problem: Problem) -> None:
    """Give the module a loss that is cheaper for a stack, if there is one for this task."""
    loss = stacked_loss(problem)
    if loss is not None:
        del module._loss  # it may be a module, which a function cannot take the place of
        module._loss = loss


def stacked_loss(problem: Problem) -> Callable[[Any, Any], Tensor] | None:
    """A loss that stands in for that of the task in a stack, or None where the task's own must be used.

    It stands in for `cross_entropy` with all its defaults, where every target is known to be a class number: torch's
    own raises an error for others, and this one must not hide it.
    """
    loss = problem.task.loss
    plain = isinstance(loss, nn.CrossEntropyLoss) and type(loss) is nn.CrossEntropyLoss and _is_default(loss)
    if loss is None or not (plain or loss in (base.cross_entropy, F.cross_entropy)) or not problem.shared_batches:
        return None
    targets = [split.tensors[-1] for split in problem.splits.values() if hasattr(split, "tensors")]
    if len(targets) < len(problem.splits) or any(target.dtype != torch.int64 for target in targets):
        return None
    if min(int(target.min()) for target in targets) < 0:
        return None
    highest = max(int(target.max()) for target in targets)
    flat = loss is base.cross_entropy

    def stands_in(output: Tensor, target: Tensor) -> Tensor:
        if (not flat and output.ndim != 2) or highest >= output.shape[-1]:
            return loss(output, target)
        return cross_entropy(output, target)

    return stands_in


def _is_default(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and loss.ignore_index == -100 and loss.reduction == "mean" and loss.label_smoothing == 0


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in nats; output (..., C), target (...) of class numbers from 0 to C - 1.

    Classes come first: a softmax over few neighbouring numbers is an order of magnitude slower. `where` selects, so an
    infinite log-probability of another class does not turn the sum into nan.
    """
    logits_CN = output.reshape(-1, output.shape[-1]).transpose(0, 1)
    log_CN = torch.log_softmax(logits_CN, 0)
    classes = torch.arange(output.shape[-1], device=target.device).unsqueeze(1)
    picked = torch.where(target.reshape(-1) == classes, log_CN, 0.0)
    return picked.sum() / -target.numel()
