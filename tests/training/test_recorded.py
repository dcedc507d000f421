"""Runs alone with a recorded step, against plain torch.optim loops and against the engine that records nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep.run_result import NoHooks
from lrsweep.training import recorded, sequential, workload
from tests.support.oracle import workload_spec
from tests.training.test_stacked import (
    MIXED,
    NETS,
    SCHEDULES,
    STABLE,
    STEPS,
    Recording,
    _same_curves,
    alone,
    made,
    outcomes,
)

# Rules that no stack can take, at a rate that trains stably.
ALONE_RULES: list[tuple[str, float]] = [("asgd", 0.1), ("rprop", 0.01), ("adafactor", 0.02), ("muon", 0.01)]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_every_rule_schedule_and_clipping_equals_plain_torch(clip_norm: float | None) -> None:
    shared = workload_spec(
        {"name": "stacked_tasks.py:task"}, steps=STEPS, clip_norm=clip_norm, eval_every={"steps": 10}
    )
    prepared = workload.build(shared)
    for one in made(shared, *((*rule, schedule, 0) for rule in STABLE for schedule in SCHEDULES)):
        start, end = alone(one, clip_norm, 10)
        with prepared.user_code():
            training = recorded.Recorded(one, prepared)
            training.start()
            while not training.done:
                training.update()
        assert training.outcome().status == "ok"
        pairs = list(zip(training.model.parameters(), end, strict=True))
        difference = torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm()
        moved = torch.cat([(b.detach() - a).flatten() for a, b in zip(start, end, strict=True)]).norm()
        assert difference <= 1e-8 * moved, (one.setting, float(difference / moved))
        assert moved > 1e-3


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("net", [*NETS, "mlp", "turned", "channels_last"])
def test_layers_equal_the_run_that_is_not_recorded(net: str, clip_norm: float | None) -> None:
    function = "tokens" if net in ("attention", "mha") else "task"
    task = {"name": f"stacked_tasks.py:{function}", "net": net}
    shared = workload_spec(task, steps=60, eval_every={"steps": 10}, clip_norm=clip_norm)
    runs = made(shared, *MIXED, ("adam", 1e-3, {}, None, 1))
    _same_curves(outcomes(sequential, runs, shared), outcomes(recorded, runs, shared))


def test_rules_that_cannot_be_stacked_equal_the_run_that_is_not_recorded() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "test": True}, steps=60, clip_norm=1.0, metrics=True)
    runs = made(shared, *ALONE_RULES)
    _same_curves(outcomes(sequential, runs, shared), outcomes(recorded, runs, shared))


def test_divergence_is_told_as_by_the_other_engine() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=60, dtype="float32")
    runs = made(shared, *((name, rate) for name in ("sgd", "adam", "adagrad") for rate in (1e2, 1e10, 1e36)))
    expected, found = outcomes(sequential, runs, shared), outcomes(recorded, runs, shared)
    told = {key: (one.status, one.diverged_step, one.steps) for key, one in found.items()}
    assert told == {key: (one.status, one.diverged_step, one.steps) for key, one in expected.items()}
    assert {"diverged"} <= {one.status for one in found.values()}


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("net", ["batchnorm", "dropout"])
def test_a_run_resumes_to_the_bit(net: str) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": net}, steps=20, dtype="float32")
    for member in (("adam", 0.01, {}, SCHEDULES[2]), ("sgd", 0.1, {"momentum": 0.9})):
        (one,) = made(shared, member)
        hooks = Recording()
        (straight,) = recorded.train([one], workload.build(shared), hooks)
        assert len(hooks.states) > 5
        for state in hooks.states:
            (resumed,) = recorded.train([one], workload.build(shared), Recording(state))
            assert repr(resumed) == repr(straight)


def test_the_untrained_model_of_a_seed_is_evaluated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, int, int]] = []
    batches = workload.Workload.eval_batches

    def counted(self: Any, split: str, seed: int = 0, step: int = 0) -> Any:
        looks.append((split, seed, step))
        return batches(self, split, seed, step)

    monkeypatch.setattr(workload.Workload, "eval_batches", counted)
    shared = workload_spec({"name": "stacked_tasks.py:task"}, epochs=2)
    runs = made(shared, *MIXED, *((name, rate, {}, None, 1) for name, rate, *_ in MIXED))
    found = list(recorded.train(runs, workload.build(shared), NoHooks()))
    assert sorted(look for look in looks if look[2] == 0) == sorted(
        (split, seed, 0) for split in ("train", "val") for seed in (0, 1)
    )
    first = {(one.weights_hash, one.history["train_loss"][0], one.history["val_loss"][0]) for one in found}
    assert len(first) == 2


@pytest.fixture(scope="module")
def all_runs() -> tuple[list[Any], Any, dict[str, Any]]:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "dropout"}, steps=8, dtype="float32")
    seeds = [(name, rate, {}, None, seed) for name, rate, *_ in MIXED for seed in (0, 1)]
    runs = made(shared, *seeds, ("sgd", 1e38))
    return runs, shared, outcomes(recorded, runs, shared)


@given(chosen=st.permutations(range(9)).flatmap(lambda order: st.integers(1, 9).map(lambda n: order[:n])))
@settings(max_examples=15, deadline=None)
def test_neither_order_nor_company_changes_a_bit(all_runs: Any, chosen: list[int]) -> None:
    runs, shared, expected = all_runs
    found = outcomes(recorded, [runs[number] for number in chosen], shared)
    assert repr(sorted(found.items())) == repr(sorted((key, expected[key]) for key in found))
