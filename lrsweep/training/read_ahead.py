"""Batches of a Dataset, prepared by processes of their own while this one trains (`Task(workers=N)`).

torch's DataLoader fetches them. What it is asked for are not examples but whole batches, each with the seed that the
generators get for it, so that a batch and the numbers drawn for it are those that this process would have come to. That
is checked: batches 0, 1, 2, 4, 8, ... are fetched here as well, workers look at what their Dataset keeps, and this
process looks whether training changes anything that the Dataset reads.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from lrsweep.system import child
from lrsweep.system.signals import ENDING, die_with
from lrsweep.training import isolation, user_names, user_state
from lrsweep.training.contents import Unnamed
from lrsweep.training.data import DatasetSplit, TensorSplit, Wanted, layout_of, map_tensors, same_batch

OWN_MEMORY = "gives tensors that are its own memory, into which training may write (return a .clone())"
KEEPS = "keeps something between calls ({}; what it keeps can be made before training, in __init__)"


class DifferentBatchError(RuntimeError):
    """A worker has prepared another batch than this process, or would sooner or later."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the Dataset {what}: its batches cannot be prepared by workers; leave out workers= of Task")


class ReadAhead:
    """Prepares batches of one split in `workers` processes; they live until `close`."""

    def __init__(self, split: DatasetSplit, workers: int) -> None:
        self._split = split
        self._wanted: Iterable[Wanted] = ()
        self._number = itertools.count()
        self._reads = _Reads(split)
        self._constant: dict[int, torch.Tensor] = {}  # what every batch holds, by its place in it: the Dataset's own
        self._loader = DataLoader(
            _Batches(split),
            batch_size=None,
            sampler=_Sampler(self),
            collate_fn=_unchanged,
            num_workers=workers,
            persistent_workers=True,
            multiprocessing_context="fork",
            worker_init_fn=_Started(os.getpid()),
            generator=torch.Generator(),  # its own, or it would draw from that of the run
        )

    def batches(self, wanted: Iterable[Wanted]) -> Iterator[Any]:
        """The batches as `DatasetSplit.batches` gives them, with the generators where it leaves them.

        Raises what the user's code raises, and DifferentBatchError.
        """
        asked: list[Wanted] = []

        def noted() -> Iterator[Wanted]:
            for one in wanted:
                asked.append(one)
                yield one

        self._wanted = noted()
        for prepared in self._loader:
            one = asked.pop(0)
            isolation.seed_all(one.seed)
            number = next(self._number)
            if isinstance(prepared, str) or number & (number - 1) == 0:
                yield self._compared(one, prepared, number)
            else:
                batch, states = prepared
                isolation.set_generator_states(states)
                yield self._split.place(self._with_constants(batch))

    def _with_constants(self, batch: Any) -> Any:
        """The batch with the Dataset's own tensors where it holds copies of them, as without workers: what is written
        into them is then seen."""
        if not self._constant:
            return batch
        tensors, place = _tensors(batch), itertools.count()
        for at, own in self._constant.items():
            if at >= len(tensors) or not same_batch(tensors[at], own):
                raise DifferentBatchError(OWN_MEMORY)
        return map_tensors(lambda tensor: self._constant.get(next(place), tensor), batch)

    def _compared(self, one: Wanted, prepared: Any, number: int) -> Any:
        """The batch as this process fetches it."""
        if number:
            self.check()
        batch = self._split.collated(one.examples)
        states = isolation.generator_states()
        if number == 0:
            again = self._split.collated(one.examples)
            pairs = zip(_tensors(batch), _tensors(again), strict=False)
            self._constant = {at: tensor for at, (tensor, other) in enumerate(pairs) if _same_memory(tensor, other)}
            place = itertools.count()
            rest = map_tensors(lambda tensor: None if next(place) in self._constant else tensor, batch)
            if not _memory(rest).isdisjoint(_memory(again)):
                raise DifferentBatchError(OWN_MEMORY)
            isolation.set_generator_states(states)
        elif self._constant:
            tensors = _tensors(batch)
            if not all(at < len(tensors) and _same_memory(own, tensors[at]) for at, own in self._constant.items()):
                raise DifferentBatchError(OWN_MEMORY)
        self._reads.settle()
        if isinstance(prepared, str):
            raise DifferentBatchError(prepared)
        if not same_batch(prepared, (batch, states)):
            raise DifferentBatchError("gives other examples in a worker")
        return self._split.place(batch)

    def check(self, last: bool = True) -> None:
        """Raises DifferentBatchError if something that the Dataset reads has changed since a batch was fetched here.

        Unless it is the `last` look, it is left out where looks would take more than a twentieth of the time.
        """
        if last or self._reads.due():
            if name := self._reads.change():
                raise DifferentBatchError(f"reads what training changes ({name})")

    def close(self) -> None:
        """End the processes."""
        del self._loader


class _Reads:
    """A snapshot of what the code of a Dataset can reach, and whether that is still so."""

    def __init__(self, split: DatasetSplit) -> None:
        self._code = split.code
        self._looked = self._cost = 0.0
        self._before = self._snapshot()

    def _snapshot(self) -> user_state.Snapshot:
        begun = time.monotonic()
        found = user_state.snapshot(self._code)
        self._looked = time.monotonic()
        self._cost = self._looked - begun
        return found

    def due(self) -> bool:
        return time.monotonic() - self._looked > 20 * self._cost

    def settle(self) -> None:
        """What is there now is what counts."""
        self._before = self._snapshot()

    def change(self) -> str:
        """What has changed, "" if nothing has."""
        now = self._snapshot()
        # Variables of its module that it does not name are none that it reads.
        before, after = ([part for part in one.parts if not isinstance(part, Unnamed)] for one in (self._before, now))
        return "" if user_state.equal(before, after) else user_names.of_change(self._before, now) or "its state"


class Readers:
    """What reads ahead for the run or group in training: the train split in one go, the others evaluation by
    evaluation."""

    def __init__(self, splits: Mapping[str, TensorSplit | DatasetSplit], workers: int) -> None:
        self._workers = workers
        self._splits = {name: split for name, split in splits.items() if isinstance(split, DatasetSplit)}
        self._open: dict[str, ReadAhead] = {}
        self._training: Iterator[Any] = iter(())
        self._next: tuple[int, int] | None = None

    def train_batch(self, seed: int, step: int, rest: Iterable[Wanted]) -> Any:
        """The batch of a step; `rest` are this one and those after it, asked for unless they are on their way."""
        if self._next != (seed, step):
            self._training = self.reader("train").batches(rest)
        self._next = (seed, step + 1)
        return next(self._training)

    def check(self, *, last: bool) -> None:
        """As of each reader."""
        for reader in self._open.values():
            reader.check(last)

    def reader(self, split: str) -> ReadAhead:
        """For a split from its beginning; batches of training that are on their way are given up."""
        if split not in self._open:
            self._open[split] = ReadAhead(self._splits[split], self._workers)
        if split == "train":
            self._next = None
        return self._open[split]

    def close(self) -> None:
        for reader in self._open.values():
            reader.close()
        self._open.clear()
        self._training, self._next = iter(()), None


@contextmanager
def opened(splits: Mapping[str, TensorSplit | DatasetSplit], workers: int) -> Iterator[Readers | None]:
    """Readers until the end of the block; None where this process fetches the batches itself.

    Workers are forked, so that any Dataset reaches them as it is: where that is not possible there are none.
    """
    if not workers or not child.can_fork() or multiprocessing.current_process().daemon:
        yield None
        return
    readers = Readers(splits, workers)
    try:
        yield readers
    finally:
        readers.close()


class _Batches(Dataset[Any]):
    """A Dataset whose examples are batches; what a worker reads from. A text in place of one tells what is wrong."""

    def __init__(self, split: DatasetSplit) -> None:
        self._split = split
        self._calls = 0
        self._reads: _Reads | None = None

    def __getitem__(self, wanted: Wanted) -> Any:
        isolation.seed_all(wanted.seed)
        try:
            batch, states = self._split.collated(wanted.examples), isolation.generator_states()
        except Exception as error:  # noqa: BLE001 - raised again where the same batch is fetched in the other process
            return f"raises an exception in a worker ({isolation.describe(error)})"
        # What the first call opens or computes may stay, what later ones change may not.
        if self._reads is None:
            self._reads = _Reads(self._split)
        elif self._calls & (self._calls - 1) == 0 and (name := self._reads.change()):
            return KEEPS.format(name)
        self._calls += 1
        return batch, states


class _Sampler:
    """The batches that are wanted, as DataLoader asks for them."""

    def __init__(self, reader: ReadAhead) -> None:
        self._reader = reader

    def __iter__(self) -> Iterator[Wanted]:
        return iter(self._reader._wanted)


class _Started:
    """Called in a worker before its first batch: the signals of a terminal or batch system are the trainer's to act
    on, and no worker outlives it."""

    def __init__(self, parent: int) -> None:
        self._parent = parent

    def __call__(self, _: int) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        sys.excepthook = _nothing  # a thread of torch would tell of every batch that the trainer no longer wants
        die_with(self._parent)


def _nothing(*_: object) -> None:
    pass


def _unchanged(batch: Any) -> Any:
    return batch


def _tensors(batch: Any) -> list[torch.Tensor]:
    """Those that `map_tensors` comes to, in its order."""
    found: list[torch.Tensor] = []
    map_tensors(found.append, batch)
    return found


def _same_memory(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Are these the same numbers, not equal ones?"""
    if one.layout is not torch.strided or other.layout is not torch.strided or not one.numel():
        return one is other
    return one.data_ptr() == other.data_ptr() and layout_of((one,)) == layout_of((other,))


def _memory(value: Any) -> set[int]:
    """Where the tensors and arrays of a batch lie, those in objects of the user's included."""
    if isinstance(value, torch.Tensor):
        return {value.untyped_storage().data_ptr()} if value.layout is torch.strided and value.numel() else set()
    if isinstance(value, np.ndarray):
        return {value.__array_interface__["data"][0]} if value.size else set()
    held: list[Any] = []
    if isinstance(value, Mapping):
        held += value.values()
    elif isinstance(value, list | tuple):
        held += value
    if not isinstance(value, type | types.FunctionType | types.ModuleType):
        held += getattr(value, "__dict__", {}).values()
    return set().union(*map(_memory, held))
