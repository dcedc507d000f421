"""Convolution and pooling of images for stacked runs: runs stand among the channels, and channels lie side by side.

torch's own rules for `vmap` put the runs of a convolution among its channels, in planes, and those of pooling among the
batch. That costs copies between the two, and in planes there is fast code neither for pooling nor for convolutions of
few channels. What lies between the two is computed in the layout it is found in.
"""

# M runs, B batch, C channels, H height, W width

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._C import _functorch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


class RunsAmongChannels(TorchFunctionMode):
    """While a module is called, vmapped or not: its convolutions and poolings of images on the CPU go by `RULES`."""

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        rule, kwargs = RULES.get(func), dict(kwargs or {})
        if rule is None or not args or not _batch_of_images(args[0]):
            return func(*args, **kwargs)
        level = _functorch.maybe_current_level()
        if level is None:
            return _noticed(func(_side_by_side(args[0]), *args[1:], **kwargs))
        runs = _runs((*args, *kwargs.values()), level)
        if runs is None:
            return func(*args, **kwargs)
        images, dim = _functorch._unwrap_batched(args[0], level)
        if dim is not None:
            images = images.movedim(dim, 1).flatten(1, 2)
        rest, named = tree_map_only(Tensor, lambda value: _leading(value, runs, level), (args[1:], kwargs))
        out = rule(func, runs, images, dim is None, *rest, **named)
        return _functorch._add_batch_dim(_noticed(torch.unflatten(out, 1, (runs, -1))), 1, level)


def _batch_of_images(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 4 and value.device.type == "cpu"


def _runs(values: Sequence[Any], level: int) -> int | None:
    """How many runs have a part in `values`; None: they are the same for all."""
    for value in values:
        if isinstance(value, Tensor):
            inner, dim = _functorch._unwrap_batched(value, level)
            if dim is not None:
                return int(inner.shape[dim])
    return None


def _leading(value: Tensor, runs: int, level: int) -> Tensor:
    inner, dim = _functorch._unwrap_batched(value, level)
    return inner.expand(runs, *inner.shape) if dim is None else inner.movedim(dim, 0)


def _side_by_side(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        # `contiguous` would leave its strides as they are, and a convolution lays its result out by them.
        return images.clone(memory_format=torch.channels_last)
    return images.contiguous(memory_format=torch.channels_last)


def _noticed(images: Tensor) -> Tensor:
    """`images`, whose gradient will have its channels side by side too."""
    if images.requires_grad:
        images.register_hook(_gradient_side_by_side)  # type: ignore[no-untyped-call]
    return images


def _gradient_side_by_side(grad: Tensor) -> Tensor:
    """[B, (M,) C, H, W] copied at once to where it is wanted: torch would make planes first."""
    last, channels = grad.ndim - 1, range(1, grad.ndim - 2)
    turned = grad.permute(0, last - 1, last, *channels).contiguous()
    return turned.permute(0, *(dim + 2 for dim in channels), 1, 2)


def _convolution(
    func: Callable[..., Tensor],
    runs: int,
    images: Tensor,
    shared: bool,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """`weight` [M, out, C / groups, h, w]. Images that all runs share get the filters of all of them at once."""
    if shared and groups > 1:
        images, shared = images.repeat(1, runs, 1, 1), False
    parts = groups if shared else groups * runs
    filters, biases = weight.flatten(0, 1), None if bias is None else bias.flatten()
    return func(_side_by_side(images), filters, biases, stride, padding, dilation, parts)


def _per_channel(
    func: Callable[..., Tensor], runs: int, images: Tensor, shared: bool, *args: Any, **kwargs: Any
) -> Tensor:
    return func(_side_by_side(images), *args, **kwargs)


RULES: dict[Any, Callable[..., Tensor]] = {
    torch.conv2d: _convolution,
    F.max_pool2d: _per_channel,
    F.avg_pool2d: _per_channel,
    F.adaptive_avg_pool2d: _per_channel,
}
