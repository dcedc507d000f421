"""Parameter groups of a task: every run equals the plain loop with torch's own groups, and mistakes are refused."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from lrsweep import Task, optimizers
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.run_result import NoHooks
from lrsweep.sweep import lr_finder
from lrsweep.training import param_groups, ramp, sequential, stackable, stacked, workload
from tests.support import group_tasks, sweeps
from tests.support.oracle import double, run, workload_spec
from tests.support.stacked_tasks import data
from tests.training.test_own_optimizers import Interrupted

STEPS = 24
SIGNED = "group_tasks.py:Signed"
CLASSES = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "asgd": torch.optim.ASGD,
    SIGNED: group_tasks.Signed,
}
CONSTANT, COSINE = {"name": "constant"}, {"name": "cosine", "end": 0.1, "warmup": 6}


def factor(schedule: dict[str, Any], t: int) -> float:
    if schedule["name"] == "constant":
        return 1.0
    return (t + 1) / 6 if t < 6 else 0.1 + 0.9 * (1 + math.cos(math.pi * (t - 6) / (STEPS - 6))) / 2


@double()
def plain(
    groups: str | Callable[[nn.Module], list[dict[str, Any]]],
    cls: Any,
    args: dict[str, Any],
    lr: float,
    seed: int,
    schedule: dict[str, Any],
    clip: float | None = None,
) -> list[tuple[float, float]]:
    """(train_loss, val_loss) of every epoch, by torch alone."""
    torch.manual_seed(seed)
    model = group_tasks.Net()
    of_model = getattr(group_tasks, groups) if isinstance(groups, str) else groups
    given = [dict(group) for group in of_model(model)]
    for group in given:
        group["lr"] = lr * group.pop("lr_scale", 1.0)
    optimizer = cls(given, lr=lr, **args)
    schedule_of = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: factor(schedule, t))
    (x, y), (xv, yv) = data(72), data(40, seed=2)
    rows = []
    for epoch in range(STEPS // 3):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        losses = []
        for index in order.split(24):
            model.zero_grad()
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            loss.backward()
            losses.append(loss.item())
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            schedule_of.step()
        with torch.no_grad():
            rows.append((sum(losses) / len(losses), nn.functional.cross_entropy(model(xv), yv).item()))
    return rows


def made(groups: str, name: str, args: dict[str, Any], schedule: dict[str, Any], **train: Any) -> tuple[Any, list[Any]]:
    """A workload and its runs."""
    shared = workload_spec({"name": "group_tasks.py:task", "groups": groups}, steps=STEPS, batch_size=24, **train)
    runs = [run(shared, name, lr=lr, seed=seed, schedule=schedule, **args) for lr in (0.02, 0.3) for seed in (0, 1)]
    for number, one in enumerate(runs):
        one.run_id = f"{number:03d}"
    return shared, runs


def same(history: dict[str, list[float]], wanted: list[tuple[float, float]]) -> None:
    assert history["train_loss"][1:] == pytest.approx([train for train, _ in wanted], rel=1e-11)
    assert history["val_loss"][1:] == pytest.approx([val for _, val in wanted], rel=1e-11)


RECIPES = [
    ("layerwise", "sgd", {"momentum": 0.9}),
    ("layerwise", "adamw", {"weight_decay": 0.1}),
    ("layerwise", SIGNED, {"weight_decay": 0.1}),
    ("undecayed", "adamw", {"weight_decay": 0.1, "betas": [0.8, 0.99]}),
    ("head_only", "sgd", {"momentum": 0.9}),
    ("frozen", "adamw", {}),
    ("frozen", SIGNED, {}),
    ("turned", "sgd", {}),
    ("by_size", "sgd", {"momentum": 0.9}),
    ("by_size", "adamw", {"weight_decay": 0.1}),
    ("quick", SIGNED, {}),
]


@pytest.mark.parametrize("schedule", [CONSTANT, COSINE], ids=["constant", "cosine"])
@pytest.mark.parametrize(("groups", "name", "args"), RECIPES)
def test_runs_together_are_the_plain_loop(
    groups: str, name: str, args: dict[str, Any], schedule: dict[str, Any]
) -> None:
    shared, runs = made(groups, name, args, schedule)
    prepared = workload.build(shared)
    assert stackable.stack_reason(prepared, runs[0].setting) is None
    found = {one.run_id: one for one in stacked.train(runs, prepared, NoHooks())}
    for one in runs:
        same(found[one.run_id].history, plain(groups, CLASSES[name], args, one.lr, one.seed, schedule))
    assert found["002"].history["lr_now"][1] == pytest.approx(
        0.3 * factor(schedule, 2)
    )  # of the sweep, whatever the group


@pytest.mark.parametrize("groups", ["undecayed", "by_size"])
def test_a_stack_of_several_optimizers_is_the_plain_loop(groups: str) -> None:
    recipes: list[tuple[str, dict[str, Any]]] = [
        ("adamw", {"weight_decay": 0.1}),
        ("adam", {"weight_decay": 0.2}),
        ("sgd", {"nesterov": True, "momentum": 0.9}),
        ("adam", {}),
        (SIGNED, {}),
    ]
    shared, _ = made(groups, "sgd", {}, COSINE)
    runs = [run(shared, name, lr=0.02, seed=seed, schedule=COSINE, **args) for name, args in recipes for seed in (0, 1)]
    for number, one in enumerate(runs):
        one.run_id = f"{number:03d}"
    found = {one.run_id: one for one in stacked.train(runs, workload.build(shared), NoHooks())}
    for one, (name, args) in zip(runs, [recipe for recipe in recipes for _ in range(2)], strict=True):
        wanted = plain(groups, CLASSES[name], args, 0.02, one.seed, COSINE)
        same(found[one.run_id].history, wanted)


CLASS_OF = {cls.lower(): cls for cls in dir(torch.optim) if cls[0].isupper()}
ARGUMENTS = [
    (name, key)
    for name in ("sgd", "adam", "adamw", "nadam", "radam", "adamax", "adadelta", "adagrad", "rmsprop")
    for key in optimizers.defaults(name)
    if key != "initial_accumulator_value"  # which torch reads when the optimizer is made
]
OTHERS: dict[str, Any] = {
    "betas": [0.7, 0.9], "momentum": 0.5, "alpha": 0.9, "rho": 0.7, "eps": 1e-2, "weight_decay": 0.2,
    "lr_decay": 0.1, "momentum_decay": 0.1, "dampening": 0.3,
}  # fmt: skip


@pytest.mark.parametrize(("name", "key"), ARGUMENTS)
def test_every_argument_may_differ_between_groups(name: str, key: str) -> None:
    options = {key: OTHERS.get(key, True)}
    args: dict[str, Any] = {"momentum": 0.9} if name == "sgd" else {}
    if key == "decoupled_weight_decay":
        args = {"weight_decay": 0.1}
    shared, runs = made("layerwise", name, args, COSINE)
    shared.task["options"] = options
    if name == "rmsprop":  # whose first steps are ten times as long: at 0.02, rounding grows to the ninth digit
        runs = runs[:2]
        for one in runs:
            one.lr = 0.001
    found = {one.run_id: one for one in stacked.train(runs, workload.build(shared), NoHooks())}
    as_torch = {one: tuple(value) if isinstance(value, list) else value for one, value in options.items()}
    for one in runs:
        wanted = plain(
            group_tasks.headed(as_torch), getattr(torch.optim, CLASS_OF[name]), args, one.lr, one.seed, COSINE
        )
        same(found[one.run_id].history, wanted)


@pytest.mark.parametrize("captured", [False, True], ids=["eager", "captured"])
@pytest.mark.parametrize(("groups", "name", "args"), [*RECIPES, ("layerwise", "asgd", {"weight_decay": 0.1})])
def test_one_run_after_another_is_the_plain_loop(groups: str, name: str, args: dict[str, Any], captured: bool) -> None:
    for schedule in (CONSTANT, COSINE):
        shared, runs = made(groups, name, args, schedule)
        (found,) = sequential.train(runs[3:], workload.build(shared), NoHooks(), captured=captured)
        same(found.history, plain(groups, CLASSES[name], args, 0.3, 1, schedule))


def test_a_step_has_groups_as_well() -> None:
    shared, _ = made("layerwise", "sgd", {}, CONSTANT)
    shared.task = {"name": "group_tasks.py:by_step"}
    found = list(stacked.train([run(shared, "sgd", lr=0.3)], workload.build(shared), NoHooks()))
    same(found[0].history, plain("layerwise", torch.optim.SGD, {}, 0.3, 0, CONSTANT))


def test_muon_splits_every_group() -> None:
    """In its matrices, for which the group is, and the rest, which has `aux`."""
    shared, runs = made("layerwise", "muon", {"weight_decay": 0.0, "aux": {"weight_decay": 0.2}}, COSINE)

    def both(groups: list[dict[str, Any]], lr: float) -> Any:
        split = [
            [{**g, "params": [p for p in g["params"] if (p.ndim == 2) == two]} for g in groups] for two in (True, False)
        ]
        return split

    class Both(torch.optim.Optimizer):
        def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
            groups = [{**group, "params": list(group["params"])} for group in groups]
            super().__init__(groups, {"lr": lr})
            two, rest = both(groups, lr)
            self.two = torch.optim.Muon(two, lr=lr, weight_decay=0.0)
            self.rest = torch.optim.AdamW(rest, lr=lr, weight_decay=0.2)

        def step(self, closure: Any = None) -> None:
            for part in (self.two, self.rest):
                for group, own in zip(part.param_groups, self.param_groups, strict=True):
                    group["lr"] = own["lr"]
                part.step()

    (found,) = sequential.train(runs[:1], workload.build(shared), NoHooks())
    same(found.history, plain("layerwise", Both, {}, 0.02, 0, COSINE))


@pytest.mark.parametrize("name", ["sgd", SIGNED])
def test_the_norm_of_a_clipped_gradient_is_that_of_all_parameters(name: str) -> None:
    """Those in no group have a gradient, too."""
    shared, runs = made("head_only", name, {}, CONSTANT, clip_norm=0.05)
    found = {one.run_id: one for one in stacked.train(runs, workload.build(shared), NoHooks())}
    (alone,) = sequential.train(runs[:1], workload.build(shared), NoHooks())
    wanted = plain("head_only", CLASSES[name], {}, 0.02, 0, CONSTANT, clip=0.05)
    same(found["000"].history, wanted)
    same(alone.history, wanted)


class Decaying(torch.optim.SGD):
    """w <- w (1 - 0.01 factor) first, but for the last group, which has a weight decay of its own."""

    def step(self, closure: Any = None) -> None:
        with torch.no_grad():
            for group in self.param_groups[:-1]:
                for p in group["params"]:
                    p.mul_(1 - 0.01 * group["lr"] / group["initial_lr"])
        super().step()


def test_independent_decay_leaves_groups_with_a_decay_of_their_own_alone() -> None:
    shared, _ = made("undecayed", "sgd", {}, COSINE)
    one = run(shared, "sgd", lr=0.3, schedule=COSINE, independent_weight_decay=0.01, weight_decay=0.0)
    wanted = plain("undecayed", Decaying, {}, 0.3, 0, COSINE)
    for train in (stacked.train, sequential.train):
        (found,) = train([one], workload.build(shared), NoHooks())
        same(found.history, wanted)


@pytest.mark.parametrize(("groups", "name"), [("layerwise", "adamw"), ("frozen", "sgd"), ("quick", SIGNED)])
@pytest.mark.parametrize("together", [True, False], ids=["together", "alone"])
def test_runs_resume_to_the_bit(groups: str, name: str, together: bool, tmp_path: Path) -> None:
    shared, runs = made(groups, name, {"momentum": 0.9} if name == "sgd" else {}, COSINE)
    train, runs = (stacked.train, runs) if together else (sequential.train, runs[:1])
    hooks = Interrupted(10)
    whole = {one.run_id: one.history for one in train(runs, workload.build(shared), hooks)}
    assert hooks.saved is not None
    torch.save(hooks.saved, tmp_path / "state.pt")
    resumed = NoHooks()
    resumed.resume = torch.load(tmp_path / "state.pt", weights_only=True)
    assert {one.run_id: one.history for one in train(runs, workload.build(shared), resumed)} == whole


@pytest.mark.parametrize("name", ["sgd", SIGNED])
def test_a_diverged_run_leaves_its_neighbors_alone(name: str) -> None:
    shared, runs = made("layerwise", name, {}, CONSTANT)
    wild = [run(shared, name, lr=1.7e308, seed=number) for number in range(6)]
    for number, one in enumerate(wild):
        one.run_id = f"wild-{number}"
    found = {one.run_id: one for one in stacked.train([*runs, *wild], workload.build(shared), NoHooks())}
    assert [found[one.run_id].status for one in wild] == ["diverged"] * 6
    for one in runs:
        same(found[one.run_id].history, plain("layerwise", CLASSES[name], {}, one.lr, one.seed, CONSTANT))


def test_a_ramp_sets_the_rate_of_every_group() -> None:
    shared, runs = made("layerwise", "sgd", {"momentum": 0.9}, COSINE)
    lrs = torch.logspace(-3, -1, STEPS, dtype=torch.float64).numpy()
    found = ramp.train(runs[0].setting, workload.build(shared), 0, lrs)
    with double():
        torch.manual_seed(0)
        model = group_tasks.Net()
        groups = group_tasks.layerwise(model)
        scales = [group.pop("lr_scale") for group in groups]
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9)
        x, y = data(72)
        orders = [torch.randperm(72, generator=torch.Generator().manual_seed(epoch)) for epoch in range(STEPS // 3)]
        losses = []
        for index, lr in zip(torch.cat(orders).split(24), lrs, strict=True):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            losses.append(loss.item())
            loss.backward()
            for group, scale in zip(optimizer.param_groups, scales, strict=True):
                group["lr"] = float(lr) * scale
            optimizer.step()
    assert found.losses == pytest.approx(losses, rel=1e-11)


WRONG: dict[str, tuple[str, str]] = {
    "a dict": ("{'params': model.parameters()}", "param_groups returned a dict, not a list of groups such as"),
    "nothing": ("None", "param_groups returned a NoneType, not a list"),
    "no groups": ("[]", "param_groups returned an empty list, so nothing would"),
    "parameters": ("list(model.parameters())", r"param_groups\[0\] is a Parameter, not a dict such as"),
    "no params": ("[{'lr_scale': 0.1}]", r'param_groups\[0\] has no "params"'),
    "empty": ("[{'params': all, 'lr_scale': 2}, {'params': all}]", r"\[1\] holds no parameters; .*read only once"),
    "names": ("[{'params': model.named_parameters()}]", r'\["params"\] holds a tuple, not only parameters'),
    "set": ("[{'params': set(model.parameters())}]", r'\["params"\] is a set, not a parameter or a list'),
    "number": ("[{'params': 3}]", r'\["params"\] is a int, not a parameter or a list'),
    "stranger": ("[{'params': torch.ones(2, 3)}]", r"a tensor of shape \[2, 3\] that is no parameter of the model"),
    "twice": (
        "[{'params': model.parameters()}, {'params': model.head.bias}]",
        r"param_groups\[1\] holds head.bias, which is in param_groups\[0\], too",
    ),
    "twice in one": ("[{'params': [model.head.bias] * 2}]", r"\[0\] holds head.bias, which is twice in it"),
    "lr": ("[{'params': model.parameters(), 'lr': 0.1}]", r"\[0\] sets lr, which the sweep varies; give lr_scale"),
    "zero": ("[{'params': model.parameters(), 'lr_scale': 0}]", "lr_scale must be a positive finite number, not 0"),
    "infinite": ("[{'params': model.parameters(), 'lr_scale': float('inf')}]", "finite number, not inf"),
    "text": ("[{'params': model.parameters(), 'lr_scale': '0.1'}]", "finite number, not '0.1'"),
    "raises": ("model.tail", r"param_groups: AttributeError: 'Net' object has no .* \(mine.py:\d+ in groups"),
    "argument": (
        "[{'params': model.parameters(), 'weight_decy': 0.1}]",
        r"param_groups\[0\]: sgd has no argument 'weight_decy' \(did you mean weight_decay\?\)",
    ),
    "initial": (
        "[{'params': model.parameters(), 'initial_accumulator_value': 0.5}]",
        r"\[0\]: initial_accumulator_value of adagrad is one for all groups, and torch ignores it in one",
    ),
    "value": ("[{'params': model.parameters(), 'momentum': -1}]", "momentum of sgd must be at least 0 and below 1"),
}  # fmt: skip
MINE = """
import torch
from lrsweep import Task
from tests.support.group_tasks import Net, data

def groups(model):
    all = model.parameters()
    return {}

def make():
    loss = torch.nn.functional.cross_entropy
    return Task(train=data(72), val=data(40, seed=2), model=Net, loss=loss, param_groups=groups)
"""


def spec(folder: Path, **changed: Any) -> dict[str, Any]:
    return {
        "name": "grouped",
        "task": f"{folder}/mine.py:make",
        "lr": [0.01, 0.1],
        "optimizers": ["sgd"],
        "seeds": 2,
        "train": {"steps": 6, "batch_size": 24, "dtype": "float64"},
        **changed,
    }


@pytest.mark.parametrize("wrong", WRONG)
def test_groups_that_cannot_be_are_refused_before_training(wrong: str, tmp_path: Path) -> None:
    returned, told = WRONG[wrong]
    (tmp_path / "mine.py").write_text(MINE.format(returned))
    with pytest.raises(UsageError, match=told) as refused:
        sweeps.run(tmp_path, spec(tmp_path, **({"optimizers": ["adagrad"]} if wrong == "initial" else {})))
    assert str(refused.value).count("param_groups") <= 3
    assert "mine.py:make" in str(refused.value)
    assert not (tmp_path / "grouped" / "runs.csv").exists()


def test_all_wrong_arguments_are_told_at_once() -> None:
    shared, _ = made("quick", "sgd", {}, CONSTANT)
    settings = [run(shared, name).setting for name in ("sgd", "adam", SIGNED)]
    with pytest.raises(WrongInSpec) as refused:
        param_groups.check_arguments(workload.build(shared), settings, 0)
    assert [text.partition(" (")[0] for _, text in refused.value.found] == [
        "task group_tasks.py:task: param_groups[0]: sgd has no argument 'beta'",
        "task group_tasks.py:task: param_groups[0]: adam has no argument 'beta'",
    ]
    param_groups.check_arguments(workload.build(shared), settings[2:], 0)


def test_a_function_that_keeps_something_is_noticed(tmp_path: Path) -> None:
    """Alone, it is for every run what it is for the first."""
    body = "CALLS.append(0) or [{'params': model.parameters(), 'lr_scale': len(CALLS)}]\n\nCALLS = []"
    (tmp_path / "mine.py").write_text(MINE.format(body))
    reason = stackable.workload_reason(workload.build(workload_spec({"name": f"{tmp_path}/mine.py:make"})))
    assert "changes Python state between steps" in str(reason)


def test_a_list_of_groups_is_no_function() -> None:
    with pytest.raises(
        UsageError, match="param_groups is a list, not a function; give a function that makes the groups"
    ):
        Task(train=data(), val=data(), loss=nn.functional.cross_entropy, param_groups=[{"params": []}])


@pytest.mark.process
def test_a_range_test_refuses_them_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE.format("[{'params': model.parameters(), 'beta': 1}]"))
    with pytest.raises(UsageError, match="sgd has no argument 'beta'"):
        lr_finder.run(
            spec(tmp_path), results=tmp_path, device="cpu", overrides=(), low=1e-3, high=1.0, steps=20, seed=0
        )


@pytest.mark.process
@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_a_sweep_with_groups_is_extended_and_verified(dtype: str, tmp_path: Path) -> None:
    """More seeds and rates train only these; --verify finds runs together what they are alone."""
    body = "[{'params': model.head.parameters(), 'lr_scale': 2.0}, {'params': model.backbone.parameters()}]"
    (tmp_path / "mine.py").write_text(MINE.format(body))
    train = {"steps": 12, "batch_size": 24, "dtype": dtype, "clip_norm": 1.0}
    given = spec(tmp_path, train=train, schedule={"name": "plateau", "factor": 0.5, "patience": 1})
    first = sweeps.run(tmp_path / "a", given)
    rows = (first.path / "curves.csv").read_text().splitlines()
    more = {**given, "seeds": 3, "lr": [0.01, 0.03, 0.1]}
    wider = sweeps.run(tmp_path / "a", more, verify=True)
    again = (wider.path / "curves.csv").read_text().splitlines()
    assert set(rows) <= set(again)
    whole = sweeps.run(tmp_path / "b", more, workers=2)
    assert (whole.path / "curves.csv").read_text().splitlines() == again
    rates = {tuple(line.split(",")[2:4]) for line in again[1:]}
    assert rates == set(itertools.product(("0.01", "0.03", "0.1"), "012"))


def test_groups_whose_options_do_not_compare_count_as_different() -> None:
    """An optimizer of the user's may take tensors; of two such, Python cannot say whether they are equal."""
    groups = [(param_groups.ParamGroup(names=("a",), lr_scale=1.0, options={"beta": torch.ones(2)}),) for _ in range(2)]
    assert param_groups.differ(SimpleNamespace(groups=each) for each in groups)
    assert not param_groups.differ(SimpleNamespace(groups=groups[0]) for _ in range(2))
