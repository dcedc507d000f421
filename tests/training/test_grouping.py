"""Which runs are trained together: from sizes, the same every time, and balanced over the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep.store.journal import Group
from lrsweep.system import machine
from lrsweep.system.machine import MIB, Machine
from lrsweep.training import grouping, workload
from tests.support.oracle import run, workload_spec

DESKTOP = Machine(cores=2, cpu="test", l2=MIB, l3=32 * MIB, l3_cores=2, memory=16 * 2**30)
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9}),
    ("adam", {}),
    ("rmsprop", {}),
    ("adagrad", {}),
]


def grid(shared: Any, rates: int = 13, seeds: int = 3, optimizers: Any = OPTIMIZERS) -> list[Any]:
    runs = []
    for name, args in optimizers:
        for rate in range(rates):
            for seed in range(seeds):
                one = run(shared, name, lr=10.0**-rate, seed=seed, **args)
                one.run_id = f"{len(runs):04d}"
                runs.append(one)
    return runs


def cut(shared: Any, runs: list[Any], workers: int = 2, on: Machine = DESKTOP) -> list[Group]:
    plans = grouping.cut(runs, workload.build(shared), on, workers)
    held = [run_id for plan in plans for run_id in plan.runs]
    assert sorted(held) == sorted(one.run_id for one in runs)
    return plans


def blobs(**train: Any) -> Any:
    return workload_spec({"name": "builtin:blobs"}, {"name": "mlp", "hidden": [50]}, dtype="float32", **train)


def test_small_networks_are_stacked_and_both_workers_end_together() -> None:
    shared = blobs(epochs=100)
    costed = grouping.cut_all([(grid(shared), workload.build(shared))], DESKTOP, 2)
    assert {group.engine for group, _ in costed} == {"stacked"}
    loads = [0.0, 0.0]
    for _, seconds in costed:
        loads[loads.index(min(loads))] += seconds
    assert max(loads) <= 1.03 * min(loads)
    assert [seconds for _, seconds in costed] == sorted((seconds for _, seconds in costed), reverse=True)


@pytest.mark.parametrize("workers", [2, 4, 16])
def test_workloads_are_cut_for_what_all_workers_do_together(workers: int) -> None:
    """Each for all workers, as if it were alone, would take longer: more and smaller groups."""
    shared = [blobs(epochs=10, batch_size=size) for size in (16, 64, 256)]
    recipes = [(grid(one, seeds=1), workload.build(one)) for one in shared]
    seconds = [each for _, each in grouping.cut_all(recipes, DESKTOP, workers)]
    apart = [each for one in recipes for _, each in grouping.cut_all([one], DESKTOP, workers)]
    assert len(seconds) < len(apart)
    assert sum(seconds) < 0.9 * sum(apart)
    assert grouping.makespan(seconds, workers) < 0.95 * grouping.makespan(apart, workers)


def test_the_longest_groups_are_split_where_workers_would_be_idle() -> None:
    """Those of small batches, which make most steps."""
    shared = [blobs(epochs=10, batch_size=size) for size in (16, 256)]
    groups = {
        workers: grouping.cut_all([(grid(one, seeds=1), workload.build(one)) for one in shared], DESKTOP, workers)
        for workers in (1, 16)
    }
    first = {workers: max(each for _, each in found) for workers, found in groups.items()}
    assert first[16] < 0.8 * first[1]
    short = [min(found, key=lambda each: each[1])[0] for found in groups.values()]
    assert short[0] == short[1]


def test_the_same_runs_are_cut_the_same_way() -> None:
    shared = blobs(epochs=3)
    runs = grid(shared)
    assert cut(shared, runs) == cut(shared, runs)


def test_large_networks_train_alone_with_a_reason() -> None:
    task = {"name": "builtin:blobs", "n": 2000, "features": 784, "centers": 10}
    shared = workload_spec(task, {"name": "mlp", "hidden": [512, 512]}, steps=10, batch_size=128, dtype="float32")
    plans = cut(shared, grid(shared, 8, 1, [("adam", {})]))
    assert {(plan.engine, len(plan.runs)) for plan in plans} == {("recorded", 1)}
    assert "would not be faster" in str(plans[0].reason)


def test_a_transformer_is_stacked_in_few_runs_and_as_often_on_each_core() -> None:
    """65 runs in groups of up to 6 are 11 groups, which two cores share badly."""
    shared = workload_spec(
        {"name": "builtin:char_lm"}, {"name": "transformer"}, steps=20, batch_size=16, dtype="float32"
    )
    plans = cut(shared, grid(shared, 13, 1))
    assert {plan.engine for plan in plans} == {"stacked"}
    assert sorted(len(plan.runs) for plan in plans) == [5] * 7 + [6] * 5


def test_a_few_large_networks_are_one_group_for_each_core() -> None:
    task = {"name": "builtin:digits"}
    shared = workload_spec(task, {"name": "mlp", "hidden": [512, 512]}, steps=10, batch_size=64, dtype="float32")
    plans = cut(shared, grid(shared, 8, 1, [("adam", {})]))
    assert [(plan.engine, len(plan.runs)) for plan in plans] == [("stacked", 4), ("stacked", 4)]


def test_groups_shrink_with_the_cache() -> None:
    shared = workload_spec(
        {"name": "builtin:digits"}, {"name": "mlp", "hidden": [128, 128]}, batch_size=64, dtype="float32"
    )
    runs = grid(shared, 13, 1)
    small = Machine(cores=2, cpu="test", l2=MIB // 2, l3=4 * MIB, l3_cores=2, memory=2**34)
    largest = [max(len(plan.runs) for plan in cut(shared, runs, on=on)) for on in (small, DESKTOP)]
    assert largest[0] < largest[1]


def test_a_group_fits_the_memory() -> None:
    shared = blobs(epochs=3)
    tiny = Machine(cores=2, cpu="test", memory=2 * MIB)
    assert max(len(plan.runs) for plan in cut(shared, grid(shared), on=tiny)) < 30


def test_random_layers_keep_seeds_apart() -> None:
    model = {"name": "mlp", "hidden": [16], "dropout": 0.5}
    shared = workload_spec({"name": "builtin:blobs"}, model, dtype="float32")
    runs = grid(shared, 3)
    seed = {one.run_id: one.seed for one in runs}
    for plan in cut(shared, runs):
        assert plan.engine == "single" or len({seed[run_id] for run_id in plan.runs}) == 1


def test_an_evaluation_that_draws_random_numbers_keeps_seeds_apart() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "noisy_evaluation"}, epochs=3)
    runs = grid(shared, 3)
    seed = {one.run_id: one.seed for one in runs}
    plans = cut(shared, runs)
    assert "stacked" in {plan.engine for plan in plans}
    assert {len({seed[run_id] for run_id in plan.runs}) for plan in plans} == {1}


def test_an_optimizer_that_cannot_be_stacked_trains_alone_beside_the_others() -> None:
    shared = blobs(epochs=3)
    runs = grid(shared, 4, 1, [("adam", {}), ("muon", {})])
    plans = cut(shared, runs)
    alone = {run_id: plan.reason for plan in plans if plan.engine != "stacked" for run_id in plan.runs}
    assert set(alone) == {one.run_id for one in runs if one.setting.name == "muon"}
    assert all("matrices" in str(reason) for reason in alone.values())


@settings(max_examples=20, deadline=None)
@given(rates=st.integers(1, 9), seeds=st.integers(1, 4), workers=st.integers(1, 5))
def test_every_run_is_in_one_group(rates: int, seeds: int, workers: int) -> None:
    shared = blobs(epochs=3)
    cut(shared, grid(shared, rates, seeds), workers)


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.integers(1, 4))
def test_makespan_is_between_the_bounds_of_graham(seconds: list[float], workers: int) -> None:
    found = grouping.makespan(seconds, workers)
    least = max(max(seconds), sum(seconds) / workers)
    assert least - 1e-9 <= found <= 2 * least + 1e-9


def sysfs(tmp_path: Path) -> Path:
    for index, (level, kind, size, shared) in enumerate(
        [("1", "Data", "48K", "0"), ("2", "Unified", "1024K", "0"), ("3", "Unified", "32M", "0-3,8")]
    ):
        folder = tmp_path / "cpu0" / "cache" / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in [("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)]:
            (folder / name).write_text(text + "\n")
    return tmp_path


def test_caches_are_read_from_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_DIR", sysfs(tmp_path))
    found = machine.this_machine()
    assert (found.l2, found.l3, found.l3_cores) == (MIB, 32 * MIB, 5)
    assert found.cache_per_worker(2) == 16 * MIB
    assert found.cache_per_worker(64) == 32 * MIB // 5


def test_a_system_that_tells_nothing_gets_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "CPU_DIR", tmp_path)
    monkeypatch.setattr(machine, "CGROUP_DIR", tmp_path)
    found = machine.this_machine()
    assert (found.l2, found.l3) == (MIB, 8 * MIB)
    assert found.cores >= 1
    assert found.cpu


@pytest.mark.parametrize(("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1)])
def test_a_control_group_limits_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "CGROUP_DIR", tmp_path)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert machine.available_cores() == cores


@pytest.mark.parametrize(("room", "largest"), [(None, 195), (195, 195), (100, 98), (10, 10)])
def test_groups_on_a_gpu_are_as_large_as_its_memory_allows(room: int | None, largest: int) -> None:
    shared = blobs(epochs=10)
    found = grouping.cut_all([(grid(shared), workload.build(shared))], DESKTOP, 1, on_device=[room])
    assert {group.engine for group, _ in found} == {"stacked"}
    assert max(len(group.runs) for group, _ in found) == largest
    assert sum(len(group.runs) for group, _ in found) == 195
