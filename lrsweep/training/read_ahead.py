"""Batches of a Dataset, prepared by processes of their own while this one trains (`Task(workers=N)`).

torch's DataLoader fetches them. What it is asked for are not examples but whole batches, each with the seed that the
generators get for it, so that a batch and the numbers drawn for it are those that this process would have come to. That
is checked: now and then a batch is fetched here as well.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from lrsweep.compiler.torch_private import tree_flatten
from lrsweep.system import child
from lrsweep.system.signals import ENDING, die_with
from lrsweep.training import isolation
from lrsweep.training.data import DatasetSplit, TensorSplit, Wanted, layout_of


class DifferentBatchError(RuntimeError):
    """A worker has prepared another batch than this process."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the Dataset {what} in a worker process: it keeps something between calls, or draws numbers that do not "
            "come from the generators of torch, numpy and random; leave out workers= of Task"
        )


class ReadAhead:
    """Prepares batches of one split in `workers` processes; they live until `close`."""

    def __init__(self, split: DatasetSplit, workers: int) -> None:
        self._split = split
        self._wanted: Iterable[Wanted] = ()
        self._number = itertools.count()
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
        """The batches as `DatasetSplit.take` gives them, with the generators where it leaves them.

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
            if isinstance(prepared, _Raised) or number & (number - 1) == 0:  # 0, 1, 2, 4, 8, ...
                yield self._compared(one, prepared)
            else:
                batch, states = prepared
                isolation.set_generator_states(states)
                yield self._split.place(batch)

    def _compared(self, one: Wanted, prepared: Any) -> Any:
        """The batch as this process fetches it."""
        batch = self._split.collated(one.examples)
        if isinstance(prepared, _Raised):
            raise DifferentBatchError(f"raises an exception ({prepared.text})")
        theirs, states = prepared
        if not _equal(theirs, batch) or not torch.equal(states[0], torch.default_generator.get_state()):
            raise DifferentBatchError("gives other examples")
        return self._split.place(batch)

    def close(self) -> None:
        """End the processes."""
        del self._loader


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
    """A Dataset whose examples are batches; what a worker reads from."""

    def __init__(self, split: DatasetSplit) -> None:
        self._split = split

    def __getitem__(self, wanted: Wanted) -> Any:
        isolation.seed_all(wanted.seed)
        try:
            return self._split.collated(wanted.examples), isolation.generator_states()
        except Exception as error:  # noqa: BLE001 - raised again where the same batch is fetched in the other process
            return _Raised(isolation.describe(error))


class _Raised(NamedTuple):
    text: str


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


def _equal(one: Any, other: Any) -> bool:
    """To the bit, and in memory alike."""
    if layout_of(one) != layout_of(other):
        return False
    leaves = zip(tree_flatten(one)[0], tree_flatten(other)[0], strict=True)
    return all(torch.equal(_bits(a), _bits(b)) for a, b in leaves if isinstance(a, torch.Tensor))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    """A nan equals itself here."""
    return tensor.contiguous().flatten().view(torch.uint8) if tensor.dtype.is_floating_point else tensor
