"""torch's fused update kernels without the Python around them, which costs more than the update of a small stack.

Only for update number 2 and later: the first one, by the optimizer itself, makes the state that the kernels read. The
weights of a stack are zeros at rate 1 and without weight decay (rules.py), so that is what is passed here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

LATE = 2.0**24  # an update number at which Adam's bias correction is over, and to which float32 adds no 1

Kernel = Callable[[Sequence[Tensor]], None]


def kernel_of(name: str, optimizer: Any, device: torch.device) -> Kernel | None:
    """The next update of all weights of `optimizer` (a built-in by name, already used) as a function of the gradients.

    None where torch has no such kernel. It stays right until the state is replaced.
    """
    (group,) = optimizer.param_groups
    weights = list(group["params"])
    states = [optimizer.state[weight] for weight in weights]
    if group.get("fused"):
        return KERNELS[name](group, weights, states)
    if name == "rmsprop" and device.type == "cpu" and _is_late_adam(group):
        return _rmsprop(group, weights, states)
    return None


def _sgd(group: Mapping[str, Any], weights: list[Tensor], states: Sequence[Mapping[str, Any]]) -> Kernel:
    buffers = [state["momentum_buffer"] for state in states]
    more = {key: group[key] for key in ("momentum", "dampening", "nesterov", "maximize")}

    def update(grads: Sequence[Tensor]) -> None:
        torch._fused_sgd_(weights, list(grads), buffers, weight_decay=0.0, lr=1.0, is_first_step=False, **more)

    return update


def _adam(group: Mapping[str, Any], weights: list[Tensor], states: Sequence[Mapping[str, Any]]) -> Kernel:
    slots = ["exp_avg", "exp_avg_sq"]
    means, squares = ([state[slot] for state in states] for slot in slots)
    largest = [state["max_exp_avg_sq"] for state in states] if group["amsgrad"] else []
    steps = [state["step"] for state in states]
    beta1, beta2 = group["betas"]
    more = {key: group[key] for key in ("eps", "amsgrad", "maximize")}

    def update(grads: Sequence[Tensor]) -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adam_(
            weights, list(grads), means, squares, largest, steps,
            lr=1.0, beta1=beta1, beta2=beta2, weight_decay=0.0, **more,
        )  # fmt: skip

    return update


def _adagrad(group: Mapping[str, Any], weights: list[Tensor], states: Sequence[Mapping[str, Any]]) -> Kernel:
    sums, steps = ([state[slot] for state in states] for slot in ("sum", "step"))
    more = {key: group[key] for key in ("lr_decay", "eps", "maximize")}

    def update(grads: Sequence[Tensor]) -> None:
        torch._foreach_add_(steps, 1)
        torch._fused_adagrad_(weights, list(grads), sums, steps, lr=1.0, weight_decay=0.0, **more)

    return update


def _is_late_adam(group: Mapping[str, Any]) -> bool:
    """Is this RMSprop what Adam is late in its training, without its mean of gradients?"""
    plain = not (group["momentum"] or group["centered"] or group["maximize"])
    return plain and 1 - group["alpha"] ** LATE == 1


def _rmsprop(group: Mapping[str, Any], weights: list[Tensor], states: Sequence[Mapping[str, Any]]) -> Kernel:
    """RMSprop by Adam's kernel: torch has none of its own, and its square roots of zeros, which the gradients of idle
    units give, are twenty times slower than others.

    At beta1 = 0 the mean of the gradients is the gradient, so that one tensor can be both.
    """
    squares = [state["square_avg"] for state in states]
    steps = [torch.tensor(LATE) for _ in states]
    alpha, eps = group["alpha"], group["eps"]

    def update(grads: Sequence[Tensor]) -> None:
        grads = list(grads)
        torch._fused_adam_(
            weights, grads, grads, squares, [], steps,
            lr=1.0, beta1=0.0, beta2=alpha, weight_decay=0.0, eps=eps, amsgrad=False, maximize=False,
        )  # fmt: skip

    return update


KERNELS: dict[str, Callable[[Mapping[str, Any], list[Tensor], Sequence[Mapping[str, Any]]], Kernel]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adagrad": _adagrad,
}
