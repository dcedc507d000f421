"""Calls for which torch has no rule under `vmap`, or another one than for a run alone, written so that it has the same.

Each gives the bits that the call gives alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Layout(NamedTuple):
    """Of a dropout mask of one run. Random numbers fill it in the order of its memory."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Dropout(NamedTuple):
    """What a call of dropout asks for."""

    values: Tensor
    p: float
    training: bool
    inplace: bool = False

    @property
    def draws(self) -> bool:
        return self.training and 0 < self.p < 1


def _functional(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Dropout:
    return Dropout(input, p, training, inplace)


def _of_torch(input: Tensor, p: float, train: bool) -> Dropout:
    return Dropout(input, p, train)


def _of_torch_inplace(input: Tensor, p: float, train: bool) -> Dropout:
    return Dropout(input, p, train, True)


DROPOUTS: dict[Any, Callable[..., Dropout]] = {
    F.dropout: _functional,
    torch.dropout: _of_torch,
    torch.dropout_: _of_torch_inplace,
}


class NotedMasks(TorchFunctionMode):
    """While a run is computed alone: the layouts of its dropout masks, in the order in which they are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.layouts: list[Layout] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS and (asked := DROPOUTS[func](*args, **kwargs)).draws:
            mask = torch.empty_like(asked.values)
            self.layouts.append(Layout(tuple(mask.shape), tuple(mask.stride())))
        return func(*args, **kwargs)


class ByRun(TorchFunctionMode):
    """While a module is vmapped over runs. `masks`: as NotedMasks has found them, for one run of the same module.

    Masks that do not lie in order would be drawn in another order for several runs.
    """

    def __init__(self, masks: Iterable[Layout] = ()) -> None:
        super().__init__()
        self._masks = iter(masks)

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in DROPOUTS and (asked := DROPOUTS[func](*args, **kwargs)).draws:
            layout = next(self._masks, None)
            if layout is not None and layout.shape == asked.values.shape and not _in_order(layout):
                return _dropped(asked, layout)
        if func is Tensor.lerp_:
            return _lerp_(*args, **kwargs)
        if func in LISTS:
            return _one_by_one(LISTS[func], *args, **kwargs)
        return func(*args, **kwargs)


def _in_order(layout: Layout) -> bool:
    return torch.empty_strided(*layout, device="meta").is_contiguous()


def _dropped(asked: Dropout, layout: Layout) -> Tensor:
    """As torch does it on a CPU, with one mask for all runs."""
    kept = 1 - asked.p
    mask = torch.empty_strided(*layout, dtype=asked.values.dtype, device=asked.values.device)
    mask = mask.bernoulli_(kept).div_(kept)
    return asked.values.mul_(mask) if asked.inplace else asked.values * mask


def _lerp_(values: Tensor, end: Tensor, weight: Tensor | float) -> Tensor:
    return values.copy_(torch.lerp(values, end, weight))


def _one_by_one(one: Callable[..., Any], values: Sequence[Tensor], *args: Any, **kwargs: Any) -> None:
    """A function of lists of tensors, as calls for a tensor each: what torch does on a CPU."""

    def of(place: int, argument: Any) -> Any:
        return argument[place] if isinstance(argument, list | tuple) else argument

    for place, value in enumerate(values):
        one(value, *(of(place, argument) for argument in args), **{key: of(place, v) for key, v in kwargs.items()})


LISTS: dict[Any, Callable[..., Any]] = {
    torch._foreach_lerp_: _lerp_,
    torch._foreach_mul_: Tensor.mul_,
    torch._foreach_add_: Tensor.add_,
    torch._foreach_copy_: Tensor.copy_,
}
"""Moving averages of weights are written with these."""
