"""Models that cannot be trained in the memory there is are refused before they are built."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from lrsweep.errors import WrongInSpec
from lrsweep.system.machine import GIB, MIB, Machine
from lrsweep.tasks import TASKS
from lrsweep.training import memory, workload
from tests.support.oracle import workload_spec

BLOBS = TASKS["blobs"](n=100)
TEXT = TASKS["char_lm"](characters=2000, context=16)


@pytest.mark.parametrize(
    ("name", "key", "arguments"),
    [
        ("mlp", "hidden", {"hidden": [10**12]}),
        ("mlp", "hidden", {"hidden": [10**15, 10**15]}),
        ("transformer", "dim", {"dim": 10**8}),
        ("transformer", "layers", {"layers": 10**9}),
    ],
)
def test_a_model_is_counted_before_it_is_built(
    monkeypatch: pytest.MonkeyPatch, name: str, key: str, arguments: dict[str, Any]
) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("it was built")

    monkeypatch.setattr(nn.Linear, "__init__", build)
    task = TEXT if name == "transformer" else BLOBS
    shape = {"in_shape": task.notes["in_shape"], "num_outputs": task.notes["num_outputs"]}
    with pytest.raises(WrongInSpec) as caught:
        memory.check_model(name, {**shape, **arguments}, task, {"batch_size": 32, "eval_batch_size": None}, 4)
    ((place, text),) = caught.value.found
    assert place == ("model", key)
    assert text.startswith(f"model {name} with ")


def test_batches_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"in_shape": (2,), "num_outputs": 3, "hidden": [1000]}
    monkeypatch.setattr(memory, "memory_limit", lambda: 500_000)
    memory.check_model("mlp", arguments, BLOBS, {"batch_size": 1, "eval_batch_size": None}, 4)
    for size in (60, "full"):
        with pytest.raises(WrongInSpec, match="in batches of 60"):
            memory.check_model("mlp", arguments, BLOBS, {"batch_size": size, "eval_batch_size": None}, 4)


def test_so_do_evaluation_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {"in_shape": (2,), "num_outputs": 3, "hidden": [1000]}
    monkeypatch.setattr(memory, "memory_limit", lambda: 200_000)
    memory.check_model("mlp", arguments, BLOBS, {"batch_size": 1, "eval_batch_size": 2}, 4)
    with pytest.raises(WrongInSpec, match="in batches of 1"):
        memory.check_model("mlp", arguments, BLOBS, {"batch_size": 1, "eval_batch_size": None}, 4)


@pytest.mark.parametrize("gib", [1, 4, 16])
def test_workers_are_as_many_as_fit(gib: int) -> None:
    shared = workload_spec({"name": "builtin:blobs"}, {"name": "mlp", "hidden": [1500, 1500]})
    prepared = workload.build(shared)
    on = Machine(cores=64, cpu="test", memory=gib * GIB)
    found = memory.needed(prepared, on)
    assert prepared.weights_bytes == sum(p.nbytes for p in prepared.build_model(0).parameters()) > 9_000_000
    assert found.bytes > 16 * prepared.weights_bytes
    assert found.workers * found.bytes < gib * GIB < (found.workers + 2) * found.bytes * 1.3


def test_a_worker_that_exceeds_ulimit_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = workload.build(workload_spec({"name": "builtin:blobs"}, {"name": "linear"}))
    on = Machine(cores=2, cpu="test", memory=16 * GIB)
    assert memory.needed(prepared, on).workers > 2
    monkeypatch.setattr(memory, "memory_limit", lambda: 100 * MIB)
    assert memory.needed(prepared, on).workers == 0
