"""Work shared out among processes: the same results, the same exceptions."""

from __future__ import annotations

import os
import time
from functools import partial

import pytest

from lrsweep.errors import StorageError
from lrsweep.system.parallel import spread


@pytest.mark.parametrize("processes", [1, 2, 3, 20])
def test_results_keep_their_order(processes: int) -> None:
    assert spread([partial(pow, base, 2) for base in range(7)], processes) == [0, 1, 4, 9, 16, 25, 36]


def slowly() -> int:
    time.sleep(0.05)
    return os.getpid()


def test_more_than_one_process_works() -> None:
    assert len(set(spread([slowly] * 8, 2))) == 2
    assert set(spread([slowly] * 4, 1)) == {os.getpid()}


def fail() -> int:
    raise StorageError("the disk is full")


@pytest.mark.parametrize("place", [0, 1])
def test_an_exception_comes_through_with_its_type(place: int) -> None:
    calls = [slowly, slowly]
    calls[place] = fail
    with pytest.raises(StorageError, match="the disk is full"):
        spread(calls, 2)


def test_a_killed_helper_is_told() -> None:
    here = os.getpid()

    def leave() -> int:
        if os.getpid() != here:
            os._exit(9)
        return slowly()

    with pytest.raises(RuntimeError, match="killed"):
        spread([leave] * 40, 2)
