"""Stacked training against plain torch.optim loops, and against itself in other groups."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from lrsweep import optimizers
from lrsweep.compiler import passes, trace
from lrsweep.errors import StoppedError
from lrsweep.run_result import NoHooks
from lrsweep.system.plain import uses
from lrsweep.training import rates, sequential, stackable, stacked, workload
from tests.support import stacked_tasks
from tests.support.oracle import double, run, workload_spec

captured = functools.partial(sequential.train, captured=True)

STEPS = 200
recorded_only = pytest.mark.skipif(not uses("replay"), reason="nothing is recorded")
# What trains the small network stably for 200 steps.
STABLE: list[tuple[str, float, dict[str, Any]]] = [
    ("sgd", 0.1, {}),
    ("sgd", 0.03, {"momentum": 0.9}),
    ("sgd", 0.03, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("sgd", 0.05, {"momentum": 0.5, "dampening": 0.3}),
    ("adam", 0.003, {}),
    ("adam", 0.003, {"amsgrad": True, "weight_decay": 0.01}),
    ("adamw", 0.01, {"weight_decay": 0.1}),
    ("rmsprop", 0.001, {}),
    ("rmsprop", 0.001, {"momentum": 0.5}),
    ("adagrad", 0.02, {"lr_decay": 0.01}),
    ("adadelta", 0.5, {}),
    ("nadam", 0.003, {}),
    ("radam", 0.003, {}),
    ("adamax", 0.005, {"weight_decay": 0.01}),
]
SCHEDULES: list[dict[str, Any]] = [
    {"name": "constant"},
    {"name": "cosine", "end": 0.1, "warmup": 20},
    {"name": "plateau", "factor": 0.5, "patience": 2, "metric": "val_loss"},
]


def made(shared: Any, *members: tuple[Any, ...], **more: Any) -> list[Any]:
    """Runs of one workload from (optimizer, lr, args, schedule, seed), each with an id of its own."""
    runs = []
    for number, member in enumerate(members):
        name, lr, args, schedule, seed = (*member, *(None, None, {}, {"name": "constant"}, 0)[len(member) :])
        one = run(shared, name, lr=lr, seed=seed, schedule=schedule, **args)
        one.run_id = f"{number:03d}"
        runs.append(one)
    return runs


def ended(runs: list[Any], shared: Any) -> stacked.StackedTrainer:
    """The group after its last update."""
    prepared = workload.build(shared)
    with prepared.user_code():
        trainer = stacked.StackedTrainer(runs, prepared)
        trainer.start()
        while not trainer.done:
            trainer.train_step()
        trainer.end()
    return trainer


def outcomes(train: Any, runs: list[Any], shared: Any) -> dict[str, Any]:
    """The results of the runs by `train`: `sequential.train`, `captured` or `stacked.train`."""
    found = {one.run_id: one for one in train(runs, workload.build(shared), NoHooks())}
    assert {one.error for one in found.values()} == {None}
    return found


@double()
def alone(one: Any, clip_norm: float | None, eval_every: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The weights before and after STEPS updates of an ordinary loop in torch.optim; nothing of lrsweep is used."""
    torch.manual_seed(one.seed)
    model = stacked_tasks.NETS["mlp"]()
    start = [p.detach().clone() for p in model.parameters()]
    names = {cls.__name__.lower(): cls for cls in vars(torch.optim).values() if isinstance(cls, type)}
    opt = names[one.setting.name](model.parameters(), lr=one.lr, **one.setting.args)
    (x, y), (xv, yv) = stacked_tasks.data(), stacked_tasks.data(40, seed=2)
    schedule, scale, best, bad, t = one.setting.schedule, 1.0, math.inf, 0, 0
    for epoch in range(STEPS):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(one.seed * 1_000_003 + epoch))
        for index in order.split(32):
            factor = scale
            if schedule["name"] == "cosine":
                u = (t - 20) / (STEPS - 20)
                factor = (t + 1) / 20 if t < 20 else 0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2
            opt.zero_grad()
            nn.functional.cross_entropy(model(x[index]), y[index]).backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            opt.param_groups[0]["lr"] = one.lr * factor
            opt.step()
            t += 1
            if t % eval_every == 0 and schedule["name"] == "plateau":
                with torch.no_grad():
                    value = nn.functional.cross_entropy(model(xv), yv).item()
                bad = 0 if value < best else bad + 1
                best = min(best, value)
                if bad == 2:
                    scale, bad = scale * 0.5, 0
            if t == STEPS:
                return start, list(model.parameters())
    raise AssertionError


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("clip_norm", [None, pytest.param(0.5, marks=pytest.mark.slow)])
def test_every_rule_schedule_and_clipping_equals_plain_torch(clip_norm: float | None) -> None:
    shared = workload_spec(
        {"name": "stacked_tasks.py:task"}, steps=STEPS, clip_norm=clip_norm, eval_every={"steps": 10}
    )
    runs = made(shared, *((*rule, schedule, 0) for rule in STABLE for schedule in SCHEDULES))
    group = ended(runs, shared)
    assert {one.status for one in group.new_results()} == {"ok"}
    for one in runs:
        start, end = alone(one, clip_norm, 10)
        ours = group.parameters(one.run_id).values()
        difference = torch.cat([(a - b.detach()).flatten() for a, b in zip(ours, end, strict=True)]).norm()
        moved = torch.cat([(b.detach() - a).flatten() for a, b in zip(start, end, strict=True)]).norm()
        assert difference <= 1e-8 * moved, (one.setting, float(difference / moved))
        assert moved > 1e-3


def test_every_stackable_optimizer_is_in_the_table() -> None:
    tried = {name for name, _, _ in STABLE}
    assert tried == {name for name in optimizers.OPTIMIZERS if not _alone(name)}


def _alone(name: str) -> bool:
    return name in stackable.update_rules.ALONE


MIXED = [("sgd", 0.1), ("adam", 0.01), ("sgd", 0.03, {"momentum": 0.9}), ("adamw", 0.003, {"weight_decay": 0.1})]


NETS = "inplace wide batchnorm dropout conv pooled groupnorm tied partly attention mha".split()
NETS += ["image_dropout", "one_padding", "paired", "tempered"]


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("clip_norm", [None, 0.05])
@pytest.mark.parametrize("net", NETS)
def test_layers_equal_the_run_alone(net: str, clip_norm: float | None) -> None:
    function = "tokens" if net in ("attention", "mha") else "task"
    task = {"name": f"stacked_tasks.py:{function}", "net": net}
    shared = workload_spec(task, steps=60, eval_every={"steps": 10}, clip_norm=clip_norm)
    # A bias before BatchNorm does not count (contract), so that network has none.
    runs = made(shared, *MIXED)
    assert stackable.findings(workload.build(shared)).reason is None
    _same_curves(outcomes(sequential.train, runs, shared), outcomes(stacked.train, runs, shared))


@pytest.mark.parametrize("net", ["mlp", "groupnorm", "tied", "attention"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rounding_is_no_reason_to_train_alone(net: str, dtype: str) -> None:
    function = "tokens" if net == "attention" else "task"
    shared = workload_spec({"name": f"stacked_tasks.py:{function}", "net": net}, steps=20, dtype=dtype, metrics=True)
    assert stackable.findings(workload.build(shared)).reason is None


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("loss", ["cross_entropy", "smooth", "mse"])
def test_losses_metrics_and_test_split(loss: str) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "loss": loss, "test": True}, epochs=20, metrics=True)
    runs = made(shared, *MIXED, *((name, lr, {}, {"name": "constant"}, 1) for name, lr, *_ in MIXED))
    one, other = outcomes(sequential.train, runs, shared), outcomes(stacked.train, runs, shared)
    _same_curves(one, other)
    assert {"train_accuracy", "val_accuracy"} <= one["000"].history.keys()
    for key, value in one.items():
        assert value.test.keys() == {"test_loss", "test_accuracy"}
        assert other[key].test == pytest.approx(value.test, rel=1e-8)


def _same_curves(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, mine in one.items():
        theirs = other[key]
        facts = ("status", "diverged_step", "steps", "error", "weights_hash", "batches_hash")
        assert [getattr(mine, fact) for fact in facts] == [getattr(theirs, fact) for fact in facts]
        assert list(mine.history) == list(theirs.history)
        for column, values in mine.history.items():
            assert theirs.history[column] == pytest.approx(values, rel=1e-8, abs=1e-12, nan_ok=True), (key, column)


def test_a_step_of_the_users_with_several_seeds_in_the_group() -> None:
    shared = workload_spec("stepped")
    runs = made(shared, ("sgd", 0.1, {}, SCHEDULES[0], 0), ("adam", 0.01, {}, SCHEDULES[0], 1))
    wanted = outcomes(sequential.train, runs, shared)
    group = ended(runs, shared)
    found = {one.run_id: one.history["train_loss"] for one in group.new_results()}
    for run_id, one in wanted.items():
        assert found[run_id] == pytest.approx(one.history["train_loss"], rel=1e-10)


def test_bfloat16_is_close_to_the_run_alone() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=30, dtype="bfloat16")
    runs = made(shared, *MIXED)
    one, other = outcomes(sequential.train, runs, shared), outcomes(stacked.train, runs, shared)
    for key, mine in one.items():
        assert other[key].history["val_loss"] == pytest.approx(mine.history["val_loss"], rel=0.05)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("where", ["batch", "weight"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_divergence_is_told_as_alone(where: str, dtype: str) -> None:
    # Rates whose first or later updates overflow the weights, or the loss of the batch after them.
    large = {"batch": [1e3, 1e12, 1e18], "weight": [1e35, 1e36, 3e36]}[where]
    rates = [rate ** (8 if dtype == "float64" else 1) for rate in large]
    shared = workload_spec(
        {"name": "stacked_tasks.py:task", "loss": "mse"}, steps=40, dtype=dtype, eval_every={"steps": 7}
    )
    runs = made(shared, *((name, rate) for name in ("sgd", "adam") for rate in (*rates, 0.01)))
    one, other = outcomes(sequential.train, runs, shared), outcomes(stacked.train, runs, shared)
    assert {"diverged", "ok"} == {mine.status for mine in one.values()}
    for key, mine in one.items():
        theirs = other[key]
        assert (mine.status, mine.diverged_step, mine.steps) == (theirs.status, theirs.diverged_step, theirs.steps)
        assert mine.history["step"] == theirs.history["step"]
        assert mine.history["lr_now"] == theirs.history["lr_now"]
        for column in ("train_loss", "val_loss"):
            pairs = zip(mine.history[column], theirs.history[column], strict=True)
            assert all(math.isfinite(a) == math.isfinite(b) for a, b in pairs)


def test_a_parameter_that_is_a_single_number_may_overflow() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "tempered"}, steps=6, dtype="float32")
    runs = made(shared, ("sgd", 3e38, {"weight_decay": 9.0}), ("sgd", 0.01), ("adam", 0.01))
    one, other = outcomes(sequential.train, runs, shared), outcomes(stacked.train, runs, shared)
    told = {key: (found.status, found.diverged_step) for key, found in one.items()}
    assert sorted(told.values(), key=str) == [("diverged", 1), ("ok", None), ("ok", None)]
    assert told == {key: (found.status, found.diverged_step) for key, found in other.items()}


@pytest.mark.usefixtures("both_ways")
def test_a_neighbour_that_explodes_changes_no_bit() -> None:
    shared = workload_spec(
        {"name": "stacked_tasks.py:task", "loss": "mse"}, steps=60, dtype="float32", eval_every={"steps": 5}
    )
    members = [("sgd", 0.1), ("sgd", 0.05), ("adam", 0.01), ("sgd", 0.02), ("adam", 0.003)]
    quiet = outcomes(stacked.train, made(shared, *members), shared)
    members[1], members[4] = ("sgd", 1e5), ("adam", 1e38)
    loud = outcomes(stacked.train, made(shared, *members), shared)
    assert [loud[key].status for key in ("001", "004")] == ["diverged", "diverged"]
    for key in ("000", "002", "003"):
        assert loud[key] == quiet[key], key
    assert quiet["001"].status == "ok"


POOL = [(*rule, schedule, seed) for rule in STABLE[:9:2] for schedule in SCHEDULES[:2] for seed in (0, 1)]


@pytest.fixture(scope="module")
def whole_group() -> dict[Any, Any]:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=40)
    return dict(zip(range(len(POOL)), outcomes(stacked.train, made(shared, *POOL), shared).values(), strict=True)) | {
        "rows": {one.run_id: one.history for one in outcomes(stacked.train, made(shared, *POOL), shared).values()}
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=len(POOL), unique=True))
def test_groups_and_their_order_do_not_matter(whole_group: dict[Any, Any], chosen: list[int]) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=40)
    runs = [made(shared, *POOL)[number] for number in chosen]
    for key, mine in outcomes(stacked.train, runs, shared).items():
        for column, values in whole_group["rows"][key].items():
            assert mine.history[column] == pytest.approx(values, rel=1e-8), column


@pytest.mark.parametrize(
    ("net", "told"),
    [
        ("branching", "turns a tensor into Python values (if, bool())"),
        ("item", ".item()"),
        ("counter", "changes Python state between steps"),
        ("masked", "shapes depend on their values"),
        ("recurrent", "GRU"),
        ("bag", "EmbeddingBag"),
        ("hidden", "changes Python state between steps"),
        ("shared_item", "turns a tensor into Python values (float())"),
    ],
)
def test_what_cannot_be_stacked_is_told_before_training(net: str, told: str) -> None:
    function = "tokens" if net == "bag" else "task"
    shared = workload_spec({"name": f"stacked_tasks.py:{function}", "net": net}, steps=3)
    prepared = workload.build(shared)
    reason = stackable.stack_reason(prepared, run(shared).setting)
    assert reason is not None
    assert not reason.raised
    assert reason.text.startswith(("the model ", "the code "))
    assert told in reason.text


def test_the_optimizer_may_be_the_reason() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=3)
    prepared = workload.build(shared)
    assert "whole weight matrices" in str(stackable.stack_reason(prepared, run(shared, "muon").setting))
    assert stackable.stack_reason(prepared, run(shared, "adam").setting) is None


class Recording(NoHooks):
    """Asks for a checkpoint before every update and keeps them all."""

    def __init__(self, resume: dict[str, Any] | None = None) -> None:
        self.states: list[dict[str, Any]] = []
        self.resume = resume

    def checkpoint_due(self) -> bool:
        return True

    def save(self, state: dict[str, Any]) -> None:
        self.states.append(state)


@pytest.mark.usefixtures("both_ways")
def test_a_group_resumes_to_the_bit() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "batchnorm"}, steps=30, dtype="float32")
    # Most of them diverge on the way, so that the tensors shrink.
    rates = [0.1, 1e38, 0.05, 1e37, 1e36, 1e35]
    members = [(name, rate, {}, SCHEDULES[i % 3]) for name in ("sgd", "adam") for i, rate in enumerate(rates)]
    runs = made(shared, *members)
    prepared = workload.build(shared)
    hooks = Recording()
    straight = {one.run_id: one for one in stacked.train(runs, prepared, hooks)}
    assert len(hooks.states[-1]["positions"]) < len(runs)
    for state in hooks.states[::7] + hooks.states[-1:]:
        resumed = {one.run_id: one for one in stacked.train(runs, workload.build(shared), Recording(state))}
        assert repr(sorted(resumed.items())) == repr(sorted(straight.items()))  # nan equals nan


def test_a_group_with_dropout_resumes_to_the_bit() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "dropout"}, steps=12, dtype="float32")
    runs = made(shared, *((name, rate, {}, None) for name in ("sgd", "adam") for rate in (0.1, 0.01)))
    hooks = Recording()
    straight = {one.run_id: one for one in stacked.train(runs, workload.build(shared), hooks)}
    assert len(hooks.states) > 5
    for state in hooks.states:
        resumed = {one.run_id: one for one in stacked.train(runs, workload.build(shared), Recording(state))}
        assert repr(sorted(resumed.items())) == repr(sorted(straight.items()))


@pytest.mark.parametrize("train", [stacked.train, captured])
def test_a_stop_saves_and_leaves(train: Any) -> None:
    class Stopping(Recording):
        stopping = True

    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=30)
    hooks = Stopping()
    with pytest.raises(StoppedError):
        list(train(made(shared, *MIXED), workload.build(shared), hooks))
    assert [state["step"] for state in hooks.states] == [0]


def test_what_the_users_code_raises_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=10)
    prepared = workload.build(shared)
    build = workload.Workload.build_model

    def failing(self: Any, seed: int) -> Any:
        if seed == 1:
            raise RuntimeError("no weights for seed 1")
        return build(self, seed)

    monkeypatch.setattr(workload.Workload, "build_model", failing)
    runs = made(shared, ("sgd", 0.1), ("sgd", 0.1, {}, {"name": "constant"}, 1))
    with pytest.raises(RuntimeError, match="no weights for seed 1"):
        list(stacked.train(runs, prepared, NoHooks()))


def test_batches_of_many_shapes_need_no_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=20)
    runs = made(shared, *MIXED)
    recorded = outcomes(stacked.train, runs, shared)
    monkeypatch.setattr("lrsweep.training.stepper.MANY_SHAPES", 0)
    _same_curves(recorded, outcomes(stacked.train, runs, shared))


@recorded_only
def test_a_rewrite_is_checked_with_healthy_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a step is first recorded must not decide what replaces it: a resumed run records it at another time."""
    checked: list[torch.Tensor] = []
    agree = passes._agree
    monkeypatch.setattr(passes, "_agree", lambda *args: checked.extend(args[2]) or agree(*args))
    shared = workload_spec("stacked_tasks.py:task")
    prepared = workload.build(shared)
    with prepared.user_code():
        group = stacked.StackedTrainer(made(shared, *MIXED), prepared)
        for weight in group._weights.params:
            weight.fill_(math.inf)
        group._evaluate("val", range(len(MIXED)), 0)
    assert checked
    assert all(bool(value.isfinite().all()) for value in checked)
    stacks = [value for value in checked if len(value) == len(MIXED)]
    assert all(not torch.equal(value[0], value[1]) for value in stacks)


@recorded_only
def test_groups_of_many_sizes_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = []
    record = trace.record

    def counted(*args: Any, **more: Any) -> Any:
        recorded.append(args)
        return record(*args, **more)

    monkeypatch.setattr("lrsweep.training.stepper.MANY_SHAPES", 4)
    monkeypatch.setattr(trace, "record", counted)
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=4)
    runs, ready = made(shared, *MIXED), workload.build(shared)
    list(stacked.train(runs[:2], ready, NoHooks()))
    of_one_size = len(recorded)
    for size in range(3, 5):
        list(stacked.train(runs[:size], ready, NoHooks()))
    assert 0 < of_one_size <= 4
    assert len(recorded) == 3 * of_one_size


def graph_of(net: str) -> tuple[trace.Graph, list[torch.Tensor]]:
    x, y = stacked_tasks.data()
    x, y = x.float()[:32], y[:32]
    modules = [stacked_tasks.NETS[net]() for _ in range(5)]
    params, _ = torch.func.stack_module_state(modules)

    def step(*inputs: torch.Tensor) -> list[torch.Tensor]:
        leaves = [value.detach().requires_grad_() for value in inputs[:-2]]

        def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
            output = torch.func.functional_call(modules[0], weights, (inputs[-2],))
            return nn.functional.cross_entropy(output, inputs[-1])

        losses = torch.func.vmap(loss)(dict(zip(params, leaves, strict=True)))
        return [losses, *torch.autograd.grad(losses.sum(), leaves)]

    inputs = [*(value.detach() for value in params.values()), x, y]
    return trace.record(step, *inputs), inputs


@pytest.mark.parametrize("net", ["mlp", "wide", "conv", "pooled", "tied"])
def test_every_rewrite_keeps_the_results(net: str) -> None:
    graph, inputs = graph_of(net)
    wanted = trace.compiled(graph)(*inputs)
    changed = graph.copy()
    for rewrite in (*passes.PASSES, passes.overwrite_operands):
        rewrite(changed)
        with torch.no_grad():
            found = trace.compiled(changed)(*inputs)
        for one, other in zip(wanted, found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert len(changed.nodes) < 0.7 * len(graph.nodes)


@pytest.mark.slow
def test_compiled_steps_equal_the_run_alone() -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=30)
    runs = made(shared, *MIXED)
    compiled = {one.run_id: one for one in stacked.train(runs, workload.build(shared), NoHooks(), compile=True)}
    _same_curves(outcomes(sequential.train, runs, shared), compiled)


def test_a_rewrite_that_is_wrong_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, inputs = graph_of("mlp")

    def wrong(graph: trace.Graph) -> None:
        for node in graph.nodes:
            if node.op is torch.ops.aten.tanh.default:
                node.op = torch.ops.aten.relu.default

    wanted = trace.compiled(graph)(*inputs)
    monkeypatch.setattr(passes, "PASSES", (*passes.PASSES, wrong))
    with torch.no_grad():
        found = passes.program(graph, inputs)[0](*inputs)
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(one, other)


def test_the_rate_of_the_last_step_is_the_one_before_the_plateau_fell() -> None:
    """A run may turn out to have ended with that step, in a sweep that was resumed there, too."""

    class Rising:
        def last(self, column: str, run: int = 0) -> float:
            return math.inf

    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=20)
    runs, prepared = made(shared, ("sgd", 0.1, {}, SCHEDULES[2])), workload.build(shared)
    found, resumed = rates.Rates(runs, prepared), rates.Rates(runs, prepared)
    found.mark(10)
    for _ in range(3):
        found.observe(0, Rising(), 10)  # type: ignore[arg-type]
    resumed.restore(found.state(10), 10)
    for one in (found, resumed):
        assert one.after(10) == [0.1]
        assert one.after(11) == [0.05]
        assert one.at(10, [0])[0].tolist() == [0.05]
