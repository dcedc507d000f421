"""The order in which an epoch visits the examples, and the examples of a split taken by index.

A split is tensors on the device, or a user's Dataset. `Workload` (workload.py) cuts the order into batches.
"""

from __future__ import annotations

import collections
import operator
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import default_collate

from lrsweep.compiler.torch_private import tree_flatten
from lrsweep.compiler.trace import map_leaves
from lrsweep.tasks.base import Split
from lrsweep.training import isolation, mistakes

PERMUTED_BYTES = 2**26  # a train split up to this size is permuted once an epoch; a larger one is gathered by batches
EVAL_CHUNK = 512  # examples of one evaluation batch, at most
EVAL_NUMBERS = 2**21  # and numbers in it, where examples are large
EVAL_TARGETS = 2048  # and targets in it, where examples are sequences: each costs as much as an example elsewhere


def epoch_order(seed: int, epoch: int, count: int, *, shuffle: bool) -> torch.Tensor:
    """The order [count] in which `epoch` (from 0) of `seed` visits the training examples."""
    if not shuffle:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def map_tensors(function: Callable[[torch.Tensor], Any], batch: Any) -> Any:
    """`batch` with every tensor in it replaced by `function` of it, in dataclasses too."""

    def mapped(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return function(leaf)
        if not is_dataclass(leaf) or isinstance(leaf, type):
            return leaf
        changed = copy(leaf)
        for field in fields(leaf):
            object.__setattr__(changed, field.name, map_tensors(function, getattr(leaf, field.name)))  # frozen or not
        return changed

    return map_leaves(mapped, batch)


def layout_of(batch: Any) -> Hashable:
    """What user code can tell of a batch without looking at its numbers: structure, shapes, strides, dtypes, and the
    leaves that are no tensors."""
    if type(batch) is tuple and all(type(leaf) is torch.Tensor for leaf in batch):  # what nearly every batch is
        return tuple((leaf.shape, leaf.stride(), leaf.dtype) for leaf in batch)
    leaves, spec = tree_flatten(batch)
    return str(spec), *(
        (leaf.shape, leaf.stride(), leaf.dtype) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves
    )


def same_batch(one: Any, other: Any) -> bool:
    """Are these to the bit alike, in memory too? Arrays, dataclasses and other objects are looked into."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.layout is not torch.strided or other.layout is not torch.strided:
            return one.layout is other.layout and torch.equal(one.to_dense(), other.to_dense())
        if layout_of((one,)) != layout_of((other,)):
            return False
        return torch.equal(*(tensor.detach().contiguous().view(-1).view(torch.uint8) for tensor in (one, other)))
    if isinstance(one, np.ndarray) and one.dtype.kind != "O":
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    if isinstance(one, np.ndarray | list | tuple | collections.deque):
        return len(one) == len(other) and all(map(same_batch, one, other)) and _same_attributes(one, other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same_batch(one[key], other[key]) for key in one)
    if isinstance(one, float | complex):
        return repr(one) == repr(other)
    if isinstance(one, str | bytes | int | type | None | types.FunctionType) or not hasattr(one, "__dict__"):
        return bool(one == other)
    return _same_attributes(one, other)


def _same_attributes(one: Any, other: Any) -> bool:
    return same_batch(dict(getattr(one, "__dict__", {})), dict(getattr(other, "__dict__", {})))


class Wanted(NamedTuple):
    """A batch of a Dataset: `seed` for the generators that it draws from, and the numbers of its examples."""

    seed: int
    examples: list[int]


class TensorSplit:
    """Tensors with one row per example. Batches are copies: what a model does to one in place
    never reaches the data."""

    def __init__(self, tensors: tuple[torch.Tensor, ...], place: Callable[[Any], Any] = tuple) -> None:
        """`tensors` are the task's own; `place` moves them to the device and casts them."""
        self._given, self._place = tensors, place
        self.tensors: tuple[torch.Tensor, ...] = place(tensors)
        self._in_place = all(map(operator.is_, tensors, self.tensors))
        self._shares = False

    def share(self) -> None:
        """Take every batch from the task's own tensors from now on: the user's code may write into them."""
        self._shares = True

    def __len__(self) -> int:
        return self.tensors[0].shape[0]

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def chunk(self, batch_size: int) -> int:
        """Examples of one evaluation batch; the same for every run of a workload, whatever it is trained with."""
        width = max(1, sum(tensor[0].numel() for tensor in self.tensors))
        targets = max(1, self.tensors[-1][0].numel())
        return min(EVAL_CHUNK, max(batch_size, min(EVAL_NUMBERS // width, EVAL_TARGETS // targets)))

    def take(self, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The examples `index` [B], stacked."""
        return self._batch(lambda tensor: tensor.index_select(0, index.to(tensor.device)))

    def slice(self, low: int, high: int) -> tuple[torch.Tensor, ...]:
        return self._batch(lambda tensor: tensor[low:high].clone())

    def _batch(self, cut: Callable[[torch.Tensor], torch.Tensor]) -> tuple[torch.Tensor, ...]:
        batch = tuple(cut(tensor) for tensor in (self._given if self._shares else self.tensors))
        return self._place(batch) if self._shares and not self._in_place else batch


class DatasetSplit:
    """A map-style Dataset; examples are fetched one by one (or by its `__getitems__`) and collated."""

    def __init__(
        self, name: str, data: Any, collate: Callable[[list[Any]], Any] | None, place: Callable[[Any], Any]
    ) -> None:
        """`place` moves a collated batch to the device and casts it; messages call the split `name`."""
        self.name, self.data = name, data
        self._own_collate = collate is not None
        self._collate = default_collate if collate is None else collate
        self.place = place

    def __len__(self) -> int:
        return len(self.data)

    @property
    def code(self) -> list[Any]:
        """What the user gave."""
        return [self.data, self._collate]

    def chunk(self, batch_size: int) -> int:
        """Examples of one evaluation batch. A `collate_fn` of the user's is given as many as in training: it may rely
        on it, as one that takes ready batches does with a batch size of 1."""
        return batch_size if self._own_collate else min(EVAL_CHUNK, max(batch_size, 64))

    def collated(self, numbers: list[int]) -> Any:
        """The examples with these numbers as the user's code gives them, neither moved nor cast."""
        several = getattr(self.data, "__getitems__", None)
        given: tuple[Any, ...] = (self.data,)  # for mistakes.py
        examples = several(numbers) if callable(several) else [self.data[number] for number in numbers]
        if not self._own_collate:  # one of the user's may leave such examples out
            mistakes.refuse_none(self.name, numbers, examples)
        given = (self._collate, self.data)
        return given[0](examples)

    def batches(self, wanted: Iterable[Wanted]) -> Iterator[Any]:
        """The batches, collated and placed."""
        for one in wanted:
            isolation.seed_all(one.seed)
            yield self.place(self.collated(one.examples))


def split_of(
    name: str, data: Split, collate: Callable[[list[Any]], Any] | None, place: Callable[[Any], Any]
) -> TensorSplit | DatasetSplit:
    """What a task gave for one split, made ready; tensors are placed once and for all."""
    if isinstance(data, tuple):
        return TensorSplit(data, place)
    return DatasetSplit(name, data, collate, place)
