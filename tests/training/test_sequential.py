"""One run against training written out in plain torch (tests/support/oracle.py), and what its outcome says."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lrsweep.analysis.lr_finder import Ramp, ramp_lrs, smoothed, suggestions
from lrsweep.errors import StoppedError, StorageError, UsageError
from lrsweep.run_result import NoHooks, RunResult
from lrsweep.training import lone_steps, ramp, sequential, workload
from tests.support import stacked_tasks
from tests.support import tasks as own_tasks
from tests.support.oracle import double, plain_loop, run, workload_spec
from tests.training.test_stacked import (
    MIXED,
    NETS,
    SCHEDULES,
    STABLE,
    STEPS,
    Recording,
    _same_curves,
    alone,
    captured,
    made,
    outcomes,
)

# the optimizer's name and arguments in the spec, and torch's own class
OPTIMIZERS = {
    "sgd": ({}, torch.optim.SGD),
    "sgd nesterov": ({"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}, torch.optim.SGD),
    "adam": ({"betas": [0.8, 0.99]}, torch.optim.Adam),
    "adamw": ({"weight_decay": 0.1}, torch.optim.AdamW),
    "rmsprop": ({"momentum": 0.5}, torch.optim.RMSprop),
    "rprop": ({}, torch.optim.Rprop),
    "asgd": ({}, torch.optim.ASGD),
    "adafactor": ({}, torch.optim.Adafactor),
}


def trained(a_run, hooks=None) -> RunResult:
    (outcome,) = sequential.train([a_run], workload.build(a_run.workload_spec), hooks or NoHooks())
    return outcome


def losses(outcome: RunResult) -> list[tuple[int, float, float]]:
    rows = outcome.history
    return list(zip(rows["step"], rows["train_loss"], rows["val_loss"], strict=True))


def reference(optimizer, build=own_tasks.small_net, **options):
    return plain_loop(
        build, own_tasks.points(90), own_tasks.points(50, seed=4), optimizer, metric=own_tasks.accuracy, **options
    )


def check_equal(outcome: RunResult, plain) -> None:
    assert outcome.status == "ok", outcome.error
    assert [step for step, _, _ in losses(outcome)] == [step for step, _, _ in plain.rows]
    assert list(itertools.chain(*losses(outcome))) == pytest.approx(list(itertools.chain(*plain.rows)), rel=1e-12)
    assert outcome.history["val_accuracy"] == pytest.approx(plain.val_metric, rel=1e-12)
    assert plain.rows[0] != plain.rows[-1]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_is_the_plain_loop(name: str) -> None:
    args, cls = OPTIMIZERS[name]
    torch_args = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    plain = reference(lambda params: cls(params, lr=0.02, **torch_args), lr=0.02, seed=1)
    check_equal(trained(run(workload_spec("classify"), name.split()[0], lr=0.02, seed=1, **args)), plain)


@pytest.mark.parametrize("batch_size", [1, 7, 30, 89, 90, 200, "full"])
def test_batches_of_any_size(batch_size: int | str) -> None:
    plain = reference(lambda p: torch.optim.SGD(p, lr=0.1), batch_size=90 if batch_size == "full" else batch_size)
    check_equal(trained(run(workload_spec("classify", batch_size=batch_size))), plain)


@pytest.mark.parametrize("options", [{"drop_last": True}, {"shuffle": False}, {"clip_norm": 0.05}], ids=str)
def test_train_options(options: dict) -> None:
    plain = reference(lambda p: torch.optim.Adam(p, lr=0.1), **options)
    check_equal(trained(run(workload_spec("classify", **options), "adam")), plain)


def test_independent_weight_decay_follows_the_schedule_and_not_the_rate() -> None:
    plain = reference(lambda p: torch.optim.SGD(p, lr=0.1), factor=lambda t: 0.9**t, decay=0.05)
    a_run = run(
        workload_spec("classify"), schedule={"name": "exponential", "gamma": 0.9}, independent_weight_decay=0.05
    )
    check_equal(trained(a_run), plain)


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        ({"name": "linear", "end": 0.1}, lambda t: 1 - 0.9 * t / 9),
        (
            {"name": "cosine", "warmup": 3},
            lambda t: (t + 1) / 3 if t < 3 else (1 + math.cos(math.pi * (t - 3) / 6)) / 2,
        ),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_schedules(schedule, factor) -> None:
    outcome = trained(run(workload_spec("classify"), "adam", lr=0.05, schedule=schedule))
    check_equal(outcome, reference(lambda p: torch.optim.Adam(p, lr=0.05), lr=0.05, factor=factor))
    # of the last update made; row 0: of the first
    assert outcome.history["lr_now"] == pytest.approx([0.05 * factor(t) for t in (0, 2, 5, 8)], rel=1e-12)


def test_a_plateau_cuts_the_rate_from_the_update_after_the_row() -> None:
    schedule = {"name": "plateau", "factor": 0.1, "patience": 2, "metric": "val_loss"}
    outcome = trained(
        run(workload_spec({"name": "slope", "gradient": [0.0], "start": [0.0]}, epochs=7), lr=0.1, schedule=schedule)
    )
    # row 0 does not count, row 1 sets the reference; rows 3, 5 are the second bad ones
    assert outcome.history["lr_now"] == pytest.approx([0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rel=1e-12)


def test_a_dataset_or_a_step_is_trained_like_tensors() -> None:
    plain = reference(lambda p: torch.optim.SGD(p, lr=0.1))
    for task in ({"name": "dataset", "noise": 0.0}, {"name": "dict_dataset"}):
        check_equal(trained(run(workload_spec(task))), plain)
    stepped = trained(run(workload_spec("stepped")))
    assert losses(stepped) == losses(trained(run(workload_spec("classify"))))
    assert "val_accuracy" not in stepped.history


def test_batchnorm_trains_on_batches_and_evaluates_on_running_statistics() -> None:
    plain = reference(lambda p: torch.optim.SGD(p, lr=0.1), build=own_tasks.batchnorm_net)
    check_equal(trained(run(workload_spec({"name": "classify", "model": "batchnorm_net"}))), plain)


def test_a_model_that_writes_into_its_input_does_not_reach_the_data() -> None:
    for options in ({"shuffle": False}, {"epochs": 1}):
        options = {"epochs": 3} | options
        plain = reference(
            lambda p: torch.optim.SGD(p, lr=0.1), build=lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 3)), **options
        )
        a_run = run(workload_spec({"name": "classify", "model": "inplace_net"}, **options))
        shared = workload.build(a_run.workload_spec)
        for _ in range(2):
            (outcome,) = sequential.train([a_run], shared, NoHooks())
            check_equal(outcome, plain)


def test_rows_of_a_steps_budget_fall_at_the_ends_of_epochs_and_at_the_last_step() -> None:
    rows = trained(run(workload_spec("classify", steps=8, metrics=True))).history
    assert list(rows) == ["step", "epoch", "lr_now", "train_loss", "train_accuracy", "val_loss", "val_accuracy"]
    assert rows["step"] == [0, 3, 6, 8]
    assert rows["epoch"] == [0, 1, 2, pytest.approx(8 / 3)]
    assert trained(run(workload_spec("classify", steps=8, eval_every={"steps": 5}))).history["step"] == [0, 5, 8]
    assert trained(run(workload_spec("classify", epochs=5, eval_every=2))).history["step"] == [0, 6, 12, 15]


def test_train_columns_are_plain_means_of_the_batches_since_the_row_before() -> None:
    every = trained(run(workload_spec("classify", steps=6, metrics=True, eval_every={"steps": 1}))).history
    some = trained(run(workload_spec("classify", steps=6, metrics=True))).history
    for column in ("train_loss", "train_accuracy"):
        assert some[column][0] == every[column][0]
        assert some[column][1:] == pytest.approx([sum(every[column][k : k + 3]) / 3 for k in (1, 4)], rel=1e-14)
    assert every["val_loss"][3] == some["val_loss"][1]


def test_an_evaluation_is_a_mean_over_examples_however_it_is_cut() -> None:
    a_run = run(workload_spec({"name": "classify", "n": 1100}, epochs=1))
    (outcome,) = sequential.train([a_run], workload.build(a_run.workload_spec), NoHooks())
    x, y = own_tasks.points(1100)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16, dtype=torch.float64), nn.Tanh(), nn.Linear(16, 3, dtype=torch.float64))
    assert outcome.history["train_loss"][0] == pytest.approx(nn.functional.cross_entropy(net(x), y).item(), rel=1e-12)


def test_a_perplexity_is_the_exponential_of_the_mean_loss() -> None:
    a_run = run(
        workload_spec({"name": "builtin:char_lm"}, {"name": "transformer", "dim": 8, "layers": 1, "heads": 1}, steps=1)
    )
    rows = trained(a_run).history
    assert rows["val_perplexity"] == pytest.approx([math.exp(loss) for loss in rows["val_loss"]], rel=1e-12)


def test_the_test_split_is_reported_once() -> None:
    assert trained(run(workload_spec("classify"))).test == {}
    outcome = trained(run(workload_spec({"name": "classify", "test": True})))
    assert set(outcome.test) == {"test_loss", "test_accuracy"}
    plain = reference(lambda p: torch.optim.SGD(p, lr=0.1))
    x, y = own_tasks.points(40, seed=5)
    with torch.no_grad():
        expected = nn.functional.cross_entropy(plain.model(x), y).item()
    assert outcome.test["test_loss"] == pytest.approx(expected, rel=1e-12)


def test_random_layers_and_datasets_draw_from_seed_and_step_alone() -> None:
    for task in ({"name": "classify", "model": "dropout_net"}, {"name": "dataset"}):
        first = trained(run(workload_spec(task), seed=1))
        torch.rand(7)
        assert trained(run(workload_spec(task), seed=1)) == first
        assert losses(trained(run(workload_spec(task), seed=2))) != losses(first)
        # the draws of update 4 do not depend on what happened before it
        rates = [trained(run(workload_spec(task), seed=1, lr=lr)) for lr in (1e-300, 1e-301)]
        assert losses(rates[0]) == losses(rates[1])
        still = [loss for _, loss, _ in losses(rates[0])]
        assert len(set(still)) == len(still)


def test_a_dropout_mask_is_new_at_every_step_and_for_every_seed() -> None:
    seen = [
        trained(run(workload_spec("masks", epochs=4, batch_size=4, eval_every={"steps": 1}), seed=s)) for s in (0, 1, 0)
    ]
    drawn = [outcome.history["train_loss"][1:] for outcome in seen]
    assert drawn[0] == drawn[2]
    assert len({*drawn[0], *drawn[1]}) == 16


def test_training_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    trained(run(workload_spec({"name": "classify", "model": "dropout_net"})))
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_default_dtype() == torch.float32


def test_runs_share_nothing_but_their_seed() -> None:
    runs = [run(workload_spec("classify"), "adam", lr=lr, seed=seed) for seed in (0, 1) for lr in (0.1, 0.3)]
    shared = list(sequential.train(runs, workload.build(runs[0].workload_spec), NoHooks()))
    assert shared == [trained(each) for each in runs]
    hashes = [(outcome.weights_hash, outcome.batches_hash) for outcome in shared]
    assert hashes[0] == hashes[1] != hashes[2] == hashes[3]
    assert hashes[0][1] != hashes[2][1]
    assert losses(shared[0])[0] == losses(shared[1])[0]


# --- divergence


def test_a_non_finite_batch_loss_is_not_applied() -> None:
    # the weight falls by 0.1 an update, so it is -0.5 after 5; the batch loss of update 7 is the first below -0.55
    outcome = trained(run(workload_spec({"name": "cliff", "at": 0.55}, epochs=20, eval_every=4)))
    assert (outcome.status, outcome.diverged_step, outcome.steps) == ("diverged", 7, 6)
    rows = outcome.history
    assert rows["step"] == [0, 4, 7]
    assert math.isnan(rows["train_loss"][-1])
    assert math.isnan(rows["val_loss"][-1])
    assert rows["lr_now"] == [0.1, 0.1, 0.1]


def test_a_diverged_run_is_measured_with_the_weights_as_they_are() -> None:
    # the loss jumps to inf in training only
    def step(model, batch):
        w = model()
        return w.sum() * (math.inf if model.training and bool(w.min() < -0.55) else 1.0)

    made = workload.build(workload_spec("cliff", epochs=20))
    object.__setattr__(made.task, "step", step)
    (outcome,) = sequential.train([run(made.workload_spec)], made, NoHooks())
    assert (outcome.status, outcome.diverged_step, outcome.steps) == ("diverged", 7, 6)
    assert outcome.history["train_loss"][-1] == -math.inf
    assert outcome.history["val_loss"][-1] == pytest.approx(-0.6)


def test_an_evaluation_that_is_not_finite_ends_the_run() -> None:
    task = {"name": "cliff", "at": 0.55, "where": "evaluation", "value": math.inf}
    outcome = trained(run(workload_spec(task, epochs=20, eval_every=4)))
    assert (outcome.status, outcome.diverged_step, outcome.steps) == ("diverged", 8, 8)
    assert outcome.history["step"] == [0, 4, 8]
    assert outcome.history["train_loss"][-1] == pytest.approx(-0.55)
    assert outcome.history["val_loss"][-1] == -math.inf


def test_a_weight_that_is_not_finite_ends_the_run() -> None:
    # update 7 is the first from below -0.55; its loss is finite, its gradient is not
    outcome = trained(run(workload_spec({"name": "cliff", "at": 0.55, "where": "weight"}, epochs=20, eval_every=4)))
    assert (outcome.status, outcome.diverged_step, outcome.steps) == ("diverged", 7, 7)
    assert outcome.history["step"] == [0, 4, 7]
    assert math.isfinite(outcome.history["train_loss"][-1])


def test_an_untrained_model_that_is_not_finite_diverges_at_step_0() -> None:
    outcome = trained(run(workload_spec({"name": "cliff", "at": -1.0}, epochs=20)))
    assert (outcome.status, outcome.diverged_step, outcome.steps) == ("diverged", 0, 0)
    assert outcome.history["step"] == [0]


def test_large_finite_weights_are_not_divergence() -> None:
    weights = [torch.full((4,), 3e38)]
    assert lone_steps.all_finite(weights)
    for bad in (math.nan, math.inf):
        weights[0][2] = bad
        assert not lone_steps.all_finite(weights)


def test_complex_weights_are_looked_at_too() -> None:
    weights = [torch.ones(2, dtype=torch.complex64), torch.ones(3)]
    assert lone_steps.all_finite(weights)
    weights[0][1] = complex(0, math.inf)
    assert not lone_steps.all_finite(weights)


def test_a_model_with_complex_weights_trains() -> None:
    shared = workload_spec({"name": "tasks.py:classify", "model": "Complex"}, epochs=2)
    for lr in (0.1, 0.2):
        (outcome,) = sequential.train([run(shared, lr=lr)], workload.build(shared), NoHooks())
        assert (outcome.status, outcome.error) == ("ok", None)
        assert outcome.history["train_loss"][-1] < outcome.history["train_loss"][0]


def test_a_loss_that_rises_and_stays_up_is_diverged_though_finite() -> None:
    task = {"name": "builtin:quadratic", "dim": 2, "lam_min": 1.0, "lam_max": 1.0}
    outcome = trained(run(workload_spec(task, epochs=20), lr=2.2))
    assert (outcome.status, outcome.steps) == ("diverged", 20)
    # L_t = L_0 1.2^2t, and train_loss of row t is that of the weights before update t: above the start from row 2 on
    assert outcome.diverged_step == 2
    assert trained(run(workload_spec(task, epochs=20), lr=1.8)).status == "ok"


# --- failures


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"name": "classify", "model": "failing_net"}, "RuntimeError: no such layer (tasks.py:"),
        ({"name": "failing"}, "ZeroDivisionError: the batch is wrong (tasks.py:"),
        ({"name": "classify", "model": "no_net"}, "must return a torch.nn.Module, not a str"),
    ],
    ids=["builder", "step", "no module"],
)
def test_what_user_code_raises_fails_that_run(task, text: str) -> None:
    outcome = trained(run(workload_spec(task)))
    assert outcome.status == "failed"
    assert text in (outcome.error or "")


def test_an_optimizer_or_schedule_that_raises_fails_that_run() -> None:
    assert "momentum" in (trained(run(workload_spec("classify"), momentum=-1.0)).error or "")
    outcome = trained(run(workload_spec("classify"), schedule={"name": "tasks.py:broken_schedule"}))
    assert "KeyError: 'no factor' (tasks.py:" in (outcome.error or "")


def test_a_schedule_that_depends_on_the_training_fails_that_run(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("""
import torch
from lrsweep import Task

losses = []


def loss(output, target):
    value = torch.nn.functional.mse_loss(output, target)
    losses.append(value.item())
    return value


def factor(step, total_steps):
    return 0.5 if losses and losses[-1] < 9 else 1.0


def make():
    data = (torch.ones(8, 1),) * 2
    return Task(train=data, val=data, model=lambda: torch.nn.Linear(1, 1), loss=loss)
""")
    spec = workload_spec({"name": f"{tmp_path}/own.py:make"}, epochs=1, batch_size=4)
    outcome = trained(run(spec, schedule={"name": f"{tmp_path}/own.py:factor"}))
    assert outcome.status == "failed"
    assert "the factor at step 0 of 2 differs when it is computed again" in (outcome.error or "")


def test_a_builder_that_hands_out_one_module_twice_is_found_out() -> None:
    runs = [run(workload_spec({"name": "classify", "model": "shared_net"}), lr=lr) for lr in (0.1, 0.2)]
    first, second = sequential.train(runs, workload.build(runs[0].workload_spec), NoHooks())
    assert first.status == "ok"
    assert (second.error or "").startswith("the model builder returned the same module twice")


def test_warnings_of_user_code_are_only_warnings() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("error")
        outcome = trained(run(workload_spec({"name": "classify", "model": "warning_net"})))
    assert outcome.status == "ok", outcome.error
    assert any("this net warns" in str(warning.message) for warning in seen)


# --- optimizers with a life of their own


def test_train_and_eval_of_an_optimizer_are_called() -> None:
    a_run = run(workload_spec({"name": "slope", "gradient": [1.0], "start": [0.0]}, epochs=3), "tasks.py:TwoModes")
    rows = trained(a_run).history
    # row 0, which no optimizer has touched, and the batch losses are measured at w, every other val_loss at w + 1
    assert rows["val_loss"] == pytest.approx([0.0, 0.9, 0.8, 0.7])
    assert rows["train_loss"] == pytest.approx([0.0, 0.0, -0.1, -0.2])


def test_groups_with_rates_of_their_own_keep_their_ratio() -> None:
    a_run = run(
        workload_spec("classify", steps=2), "tasks.py:Layerwise", 0.2, schedule={"name": "exponential", "gamma": 0.5}
    )
    model = reference(lambda p: torch.optim.SGD(p, lr=0.2), epochs=0).model
    opt = own_tasks.Layerwise(model.parameters(), lr=0.2)
    decaying = torch.optim.lr_scheduler.ExponentialLR(opt, 0.5)
    x, y = own_tasks.points(90)
    for index in torch.randperm(90, generator=torch.Generator().manual_seed(0)).split(32)[:2]:
        opt.zero_grad()
        nn.functional.cross_entropy(model(x[index]), y[index]).backward()
        opt.step()
        decaying.step()
    xv, yv = own_tasks.points(50, seed=4)
    expected = nn.functional.cross_entropy(model(xv), yv).item()
    assert trained(a_run).history["val_loss"][-1] == pytest.approx(expected, rel=1e-12)


# --- checkpoints


class Stopping(NoHooks):
    """Asks the sweep to stop after `after` updates, keeps what is saved as a file would."""

    def __init__(self, after: int = -1, resume=None) -> None:
        self.after, self.resume, self.asked, self.saved = after, resume, 0, None
        self.ticks = 0

    @property
    def stopping(self) -> bool:
        self.asked += 1
        return self.asked == self.after + 1

    def tick(self, run_steps: int) -> None:
        self.ticks += run_steps

    def save(self, state) -> None:
        file = io.BytesIO()
        torch.save(state, file)
        self.saved = torch.load(io.BytesIO(file.getvalue()), weights_only=True)


RESUMED = {
    "dropout, adam": (({"name": "classify", "model": "dropout_net"},), {"optimizer": "adam"}),
    "batchnorm, momentum": (({"name": "classify", "model": "batchnorm_net"},), {"momentum": 0.9}),
    "sparse gradients": (({"name": "stacked_tasks.py:task", "net": "sparse"},), {"optimizer": "adagrad"}),
    "dataset, muon": (({"name": "dataset"},), {"optimizer": "muon"}),
    "plateau": (
        ("classify",),
        {"lr": 3.0, "schedule": {"name": "plateau", "factor": 0.5, "patience": 1, "metric": "val_loss"}},
    ),
    "two modes": (("classify",), {"optimizer": "tasks.py:TwoModes"}),
    "nadam": (("classify",), {"optimizer": "nadam"}),
    "modes of layers": (("quiet",), {}),
}


@pytest.mark.parametrize("case", RESUMED)
@pytest.mark.parametrize("after", [0, 1, 3, 7])
def test_a_resumed_run_is_the_same_to_the_bit(case: str, after: int) -> None:
    (task,), options = RESUMED[case]
    a_run = run(workload_spec(task, metrics=True, epochs=3), **options)
    whole = trained(a_run)
    assert whole.status == "ok", whole.error
    hooks = Stopping(after)
    with pytest.raises(StoppedError):
        trained(a_run, hooks)
    assert hooks.saved["step"] == after
    again = Stopping(resume=hooks.saved)
    assert trained(a_run, again) == whole
    assert hooks.ticks + again.ticks == 9


def test_a_checkpoint_that_a_fresh_model_cannot_hold_starts_over() -> None:
    a_run = run(workload_spec({"name": "classify", "model": "averaging_net"}, epochs=3), "sgd")
    hooks = Stopping(4)
    with pytest.raises(StoppedError):
        trained(a_run, hooks)
    assert trained(a_run, Stopping(resume=hooks.saved)) == trained(a_run)


def test_layers_may_be_unfrozen_under_momentum() -> None:
    """Their momentum begins later than that of the others."""
    outcome = trained(run(workload_spec("unfreezing", epochs=3), "sgd", momentum=0.9, lr=0.1))
    assert outcome.status == "ok", outcome.error
    found = []
    with double():
        torch.manual_seed(0)
        model, (x, y) = own_tasks.Unfreezing(), own_tasks.points()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(9):
            order = torch.randperm(90, generator=torch.Generator().manual_seed(step // 3))
            index = order.split(32)[step % 3]
            optimizer.zero_grad()
            loss = own_tasks.unfreezing_step(model, (x[index].double(), y[index]), step)
            found.append(loss.item())
            loss.backward()
            optimizer.step()
    means = np.reshape(found, (3, 3)).mean(1)
    assert outcome.history["train_loss"][1:] == pytest.approx(means, rel=1e-12)


def test_a_checkpoint_does_not_disturb_the_run() -> None:
    class Saving(Stopping):
        def checkpoint_due(self) -> bool:
            return True

    a_run = run(workload_spec("classify"), "adam")
    assert trained(a_run, Saving()) == trained(a_run)


def test_a_checkpoint_of_another_run_is_not_used() -> None:
    hooks = Stopping(4)
    with pytest.raises(StoppedError):
        trained(run(workload_spec("classify"), seed=0), hooks)
    other = run(workload_spec("classify"), seed=1)
    assert trained(other, Stopping(resume=hooks.saved)) == trained(other)


def test_a_checkpoint_that_does_not_fit_costs_only_time() -> None:
    a_run = run(workload_spec("classify"))
    hooks = Stopping(4)
    with pytest.raises(StoppedError):
        trained(a_run, hooks)
    for damage in ({"tensors": {"w": torch.zeros(3)}}, {"optimizer": {}}, {"recorder": None}):
        assert trained(a_run, Stopping(resume=hooks.saved | damage)) == trained(a_run)


@pytest.mark.parametrize(
    ("model", "optimizer"),
    [(None, "tasks.py:Remembering"), ("tracking_net", "sgd"), ("counting_net", "sgd"), ("marking_net", "sgd")],
)
def test_state_that_no_checkpoint_can_hold_is_not_saved(model: str | None, optimizer: str) -> None:
    task = {"name": "classify", **({} if model is None else {"model": model})}
    hooks = Stopping(4)
    with pytest.raises(StoppedError):
        trained(run(workload_spec(task), optimizer), hooks)
    assert hooks.saved is None


def test_a_full_disk_is_not_the_runs_failure() -> None:
    class Full(Stopping):
        def save(self, state) -> None:
            raise StorageError("no space left")

    with pytest.raises(StorageError):
        trained(run(workload_spec("classify")), Full(2))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lower_precision_is_float32_with_or_without_autocast(dtype: str) -> None:
    def loss(data):
        x, y = data
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            return nn.functional.cross_entropy(model(x.float()), y)

    torch.manual_seed(0)
    model = own_tasks.small_net()
    opt = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = own_tasks.points(90)
    means = [loss((x, y)).item()]
    for epoch in range(3):
        losses = []
        for index in torch.randperm(90, generator=torch.Generator().manual_seed(epoch)).split(32):
            opt.zero_grad()
            value = loss((x[index], y[index]))
            value.backward()
            opt.step()
            losses.append(value.item())
        means.append(sum(losses) / 3)
    outcome = trained(run(workload_spec("classify", dtype=dtype), "adam", lr=0.01))
    assert outcome.history["train_loss"] == pytest.approx(means, rel=1e-6)
    assert outcome.history["val_loss"][-1] == pytest.approx(loss(own_tasks.points(50, seed=4)).item(), rel=1e-6)
    assert {p.dtype for p in workload.build(workload_spec("classify", dtype=dtype)).build_model(0).parameters()} == {
        torch.float32
    }


@pytest.mark.filterwarnings("ignore:Sparse invariant checks")
@pytest.mark.parametrize("optimizer", ["sgd", "adagrad"])
def test_sparse_gradients_are_trained_by_the_rules_that_take_them(optimizer: str) -> None:
    a_run = run(workload_spec({"name": "stacked_tasks.py:task", "net": "sparse"}, epochs=4), optimizer, lr=0.1)
    outcome = trained(a_run)
    x, y = stacked_tasks.data()
    plain = plain_loop(
        stacked_tasks.NETS["sparse"],
        (x, y),
        stacked_tasks.data(40, seed=2),
        lambda params: {"sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}[optimizer](params, lr=0.1),
        epochs=4,
    )
    assert outcome.error is None
    assert outcome.history["val_loss"] == pytest.approx([row[2] for row in plain.rows], rel=1e-12)


def test_momentum_may_begin_later_for_some_weights() -> None:
    outcome = trained(
        run(workload_spec({"name": "stacked_tasks.py:task", "net": "late"}, epochs=4), lr=0.1, momentum=0.9)
    )
    with double():
        data = stacked_tasks.data(), stacked_tasks.data(40, seed=2)
    plain = plain_loop(
        stacked_tasks.NETS["late"],
        *data,
        lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
        epochs=4,
    )
    assert outcome.error is None
    assert outcome.history["val_loss"] == pytest.approx([row[2] for row in plain.rows], rel=1e-12)


# --- captured steps

# Rules that no stack can take, at a rate that trains stably.
ALONE_RULES: list[tuple[str, float]] = [("asgd", 0.1), ("rprop", 0.01), ("adafactor", 0.02), ("muon", 0.01)]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("clip_norm", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_every_rule_schedule_and_clipping_captured_equals_plain_torch(clip_norm: float | None) -> None:
    shared = workload_spec(
        {"name": "stacked_tasks.py:task"}, steps=STEPS, clip_norm=clip_norm, eval_every={"steps": 10}
    )
    prepared = workload.build(shared)
    for one in made(shared, *((*rule, schedule, 0) for rule in STABLE for schedule in SCHEDULES)):
        start, end = alone(one, clip_norm, 10)
        with prepared.user_code():
            trainer = sequential.Trainer(one, prepared, captured=True)
            trainer.start()
            while not trainer.done:
                trainer.train_step()
        assert trainer.result().status == "ok"
        pairs = list(zip(trainer.model.parameters(), end, strict=True))
        difference = torch.cat([(a - b).detach().flatten() for a, b in pairs]).norm()
        moved = torch.cat([(b.detach() - a).flatten() for a, b in zip(start, end, strict=True)]).norm()
        assert difference <= 1e-8 * moved, (one.setting, float(difference / moved))
        assert moved > 1e-3


@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("net", [*NETS, "mlp", "turned", "channels_last"])
def test_layers_captured_equal_the_eager_run(net: str, clip_norm: float | None) -> None:
    function = "tokens" if net in ("attention", "mha") else "task"
    task = {"name": f"stacked_tasks.py:{function}", "net": net}
    shared = workload_spec(task, steps=60, eval_every={"steps": 10}, clip_norm=clip_norm)
    runs = made(shared, *MIXED, ("adam", 1e-3, {}, None, 1))
    _same_curves(outcomes(sequential.train, runs, shared), outcomes(captured, runs, shared))


def test_rules_that_cannot_be_stacked_captured_equal_the_eager_run() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "test": True}, steps=60, clip_norm=1.0, metrics=True)
    runs = made(shared, *ALONE_RULES)
    _same_curves(outcomes(sequential.train, runs, shared), outcomes(captured, runs, shared))


def test_divergence_is_the_same_eager_and_captured() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=60, dtype="float32")
    runs = made(shared, *((name, rate) for name in ("sgd", "adam", "adagrad") for rate in (1e2, 1e10, 1e36)))
    expected, found = outcomes(sequential.train, runs, shared), outcomes(captured, runs, shared)
    told = {key: (one.status, one.diverged_step, one.steps) for key, one in found.items()}
    assert told == {key: (one.status, one.diverged_step, one.steps) for key, one in expected.items()}
    assert {"diverged"} <= {one.status for one in found.values()}


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("net", ["batchnorm", "dropout"])
def test_a_captured_run_resumes_to_the_bit(net: str) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": net}, steps=20, dtype="float32")
    for member in (("adam", 0.01, {}, SCHEDULES[2]), ("sgd", 0.1, {"momentum": 0.9})):
        (one,) = made(shared, member)
        hooks = Recording()
        (straight,) = captured([one], workload.build(shared), hooks)
        assert len(hooks.states) > 5
        for state in hooks.states:
            (resumed,) = captured([one], workload.build(shared), Recording(state))
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
    found = list(captured(runs, workload.build(shared), NoHooks()))
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
    return runs, shared, outcomes(captured, runs, shared)


@given(chosen=st.permutations(range(9)).flatmap(lambda order: st.integers(1, 9).map(lambda n: order[:n])))
@settings(max_examples=15, deadline=None)
def test_neither_order_nor_company_changes_a_bit_of_a_captured_run(all_runs: Any, chosen: list[int]) -> None:
    runs, shared, expected = all_runs
    found = outcomes(captured, [runs[number] for number in chosen], shared)
    assert repr(sorted(found.items())) == repr(sorted((key, expected[key]) for key in found))


# --- the ramp of the lr finder

RAMP_TASK = """
import torch
from torch import nn
from lrsweep import Task

def data():
    x = torch.randn(96, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, x.sin().sum(1, keepdim=True)

def model():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

def make(broken=False):
    def loss(output, target):
        if broken:
            raise ValueError("no loss today")
        return ((output - target) ** 2).mean()
    return Task(train=data(), val=data(), model=model, loss=loss)
"""


def ramp_workload(folder: Path, name: str = "make", **train: Any) -> tuple[Any, Any]:
    (folder / "mine.py").write_text(RAMP_TASK)
    made = workload_spec({"name": f"mine.py:{name}"}, batch_size=32, epochs=1, **train)
    made.base_dir = str(folder)
    return workload.build(made), made


def test_the_ramp_is_a_plain_torch_run_with_growing_rates(tmp_path: Path) -> None:
    built, made = ramp_workload(tmp_path, clip_norm=1.0)
    setting = run(made, "sgd", momentum=0.9, independent_weight_decay=0.01).setting
    found: Ramp = ramp.train(setting, built, 3, ramp_lrs(1e-4, 1e-1, 12))

    namespace: dict[str, Any] = {}
    exec(compile(RAMP_TASK, "mine.py", "exec"), namespace)
    x, y = namespace["data"]()
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(3)
        model = namespace["model"]()
    finally:
        torch.set_default_dtype(torch.float32)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    expected = []
    for step, lr in enumerate(np.logspace(-4, -1, 12)):
        epoch, within = divmod(step, 3)
        order = torch.randperm(96, generator=torch.Generator().manual_seed(3 * 1_000_003 + epoch))
        rows = order[32 * within : 32 * within + 32]
        optimizer.zero_grad()
        loss = ((model(x[rows]) - y[rows]) ** 2).mean()
        expected.append(loss.item())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.99)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
    np.testing.assert_allclose(found.losses, expected, rtol=1e-12)
    np.testing.assert_allclose(found.lrs, np.logspace(-4, -1, 12), rtol=1e-12)
    assert found.stopped is None


def test_the_ramp_keeps_what_it_saw_when_the_loss_explodes(tmp_path: Path) -> None:
    built, made = ramp_workload(tmp_path)
    found = ramp.train(run(made, "sgd").setting, built, 0, ramp_lrs(1e-3, 1e6, 60))
    assert found.stopped is not None
    assert len(found.lrs) == len(found.losses) < 60
    assert found.losses[-1] > found.losses[0]
    assert suggestions(found.lrs, smoothed(found.losses))["steepest"] < 10


def test_the_ramp_says_where_the_users_code_broke(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(RAMP_TASK)
    made = workload_spec({"name": "mine.py:make", "broken": True}, epochs=1)
    made.base_dir = str(tmp_path)
    with pytest.raises(UsageError, match=r"no loss today.*mine\.py:\d+"):
        ramp.train(run(made, "sgd").setting, workload.build(made), 0, ramp_lrs(1e-7, 10.0, 100))
