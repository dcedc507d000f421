"""Stacked rules against separate runs of plain torch.optim, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lrsweep.training.update_rules import ALONE, Decay, StackedRule, split

# M runs, B batch, D features, H hidden, C outputs
M, B, D, H, C = 8, 16, 4, 6, 2
SHAPES = [(D, H), (H,), (H, C), (C,)]
RATES = torch.logspace(-4, 0, M, dtype=torch.float64)
STEPS = 200

# name, arguments, and a factor on the rates so that the largest of them still trains this problem stably.
RULES: list[tuple[str, dict[str, Any], float]] = [
    ("sgd", {}, 0.3),
    ("sgd", {"momentum": 0.9}, 0.03),
    ("sgd", {"momentum": 0.9, "dampening": 0.5}, 0.03),
    ("sgd", {"momentum": 0.9, "nesterov": True}, 0.03),
    ("sgd", {"maximize": True}, 0.01),
    ("sgd", {"momentum": 0.5, "maximize": True}, 0.01),
    ("adam", {}, 0.1),
    ("adam", {"betas": [0.8, 0.95], "eps": 1e-6}, 0.1),
    ("adam", {"amsgrad": True}, 0.1),
    ("adam", {"maximize": True}, 0.01),
    ("adamw", {"weight_decay": 0.0}, 0.1),
    ("adamw", {"amsgrad": True}, 0.1),
    ("nadam", {}, 0.1),
    ("nadam", {"momentum_decay": 0.01}, 0.1),
    ("radam", {}, 0.1),
    ("adamax", {}, 0.1),
    ("adagrad", {}, 0.1),
    ("adagrad", {"lr_decay": 0.01, "initial_accumulator_value": 0.1}, 0.1),
    ("adadelta", {}, 1.0),
    ("rmsprop", {}, 0.01),
    ("rmsprop", {"momentum": 0.9}, 0.003),
    ("rmsprop", {"centered": True}, 0.01),
    ("rmsprop", {"centered": True, "momentum": 0.9, "alpha": 0.9}, 0.001),
]
DECAYS: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {"weight_decay": 0.1}),
    ("sgd", {"weight_decay": 0.1, "momentum": 0.9}),
    ("sgd", {"weight_decay": 0.1, "momentum": 0.9, "maximize": True}),
    ("sgd", {"weight_decay": 0.1, "maximize": True}),
    ("adam", {"weight_decay": 0.1}),
    ("adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("adam", {"weight_decay": 0.1, "maximize": True}),
    ("adamw", {}),
    ("adamw", {"weight_decay": 0.3}),
    ("nadam", {"weight_decay": 0.1}),
    ("nadam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", {"weight_decay": 0.1}),
    ("radam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("adamax", {"weight_decay": 0.1}),
    ("adagrad", {"weight_decay": 0.1}),
    ("adadelta", {"weight_decay": 0.1}),
    ("rmsprop", {"weight_decay": 0.1}),
]
SCALES = {name: scale for name, args, scale in reversed(RULES)}


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def torch_class(name: str) -> type[torch.optim.Optimizer]:
    return next(cls for key, cls in vars(torch.optim).items() if key.lower() == name)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    x_BD = torch.randn(B, D, generator=generator)
    return x_BD, torch.stack([x_BD.sin().sum(1), x_BD[:, 0] * x_BD[:, 1]], 1)


def gradients(params_M: list[Tensor], step: int) -> list[Tensor]:
    """Mean squared error of a two-layer network, for every run of a stack [M, ...] at once."""
    x_BD, y_BC = batch(step)
    w1, b1, w2, b2 = leaves = [p.detach().requires_grad_() for p in params_M]
    error_MBC = torch.tanh(x_BD @ w1 + b1.unsqueeze(1)) @ w2 + b2.unsqueeze(1) - y_BC
    return list(torch.autograd.grad(error_MBC.square().mean((1, 2)).sum(), leaves))


def factor(step: int) -> float:
    """A schedule that moves at every update: warmup, then a line."""
    return min((step + 1) / 10, 1 - step / (2 * STEPS))


def start() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * 0.5 for shape in SHAPES]


def alone(
    name: str, args: dict[str, Any], rates: Tensor, independent: float | None = None, steps: int = STEPS
) -> list[Tensor]:
    """Separate runs through plain torch.optim, single-tensor implementation; stacked at the end."""
    args = {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
    runs = [[torch.nn.Parameter(p) for p in start()] for _ in rates]
    singles = [torch_class(name)(params, lr=1.0, **args) for params in runs]
    for step in range(steps):
        grads = gradients([torch.stack(parts) for parts in zip(*runs, strict=True)], step)
        for run, (params, optimizer) in enumerate(zip(runs, singles, strict=True)):
            optimizer.param_groups[0]["lr"] = rates[run].item() * factor(step)
            for p, grad in zip(params, grads, strict=True):
                p.grad = grad[run].clone()
                p.data *= 1 - (independent or 0.0) * factor(step)
            optimizer.step()
    return [torch.stack(parts).detach() for parts in zip(*runs, strict=True)]


class Stack:
    """M runs of one rule; gradients are handed over as transposed views, as autograd may do."""

    def __init__(self, name: str, args: dict[str, Any], rates: Tensor, independent: float | None = None) -> None:
        rule, decay = split(name, args, independent)
        self.rates = rates
        self.rule = StackedRule(rule, [decay] * len(rates), SHAPES, dtype=torch.float64, device="cpu")
        self.params = [p.expand(len(rates), *p.shape).clone() for p in start()]

    def step(self, step: int) -> None:
        grads = [g.movedim(0, -1).contiguous().movedim(-1, 0) for g in gradients(self.params, step)]
        factors = torch.full_like(self.rates, factor(step))
        self.rule.step(self.params, grads, self.rates * factor(step), factors)

    def run(self, first: int = 0, last: int = STEPS) -> list[Tensor]:
        for step in range(first, last):
            self.step(step)
        return self.params


def relative_errors(stacked: list[Tensor], single: list[Tensor]) -> Tensor:
    """Per run, the difference over all parameters as a share of the displacement from the start."""
    difference = torch.cat([(p - q).flatten(1) for p, q in zip(stacked, single, strict=True)], 1).norm(dim=1)
    displacement = torch.cat([(q - p).flatten(1) for p, q in zip(start(), single, strict=True)], 1).norm(dim=1)
    assert displacement.isfinite().all()
    assert displacement.min() > 0
    return difference / displacement


def label(value: object) -> str:
    return "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("plain", ["", "1"], ids=["tricks", "plain"])
@pytest.mark.parametrize(("name", "args", "scale"), RULES, ids=label)
def test_a_stack_equals_separate_runs(
    name: str, args: dict[str, Any], scale: float, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSWEEP_PLAIN", plain)
    rates = (RATES[-2:] if plain else RATES) * scale
    errors = relative_errors(Stack(name, args, rates).run(), alone(name, args, rates))
    assert errors.max() <= 1e-8


@pytest.mark.parametrize(("name", "args"), DECAYS, ids=label)
def test_weight_decay_of_every_kind(name: str, args: dict[str, Any]) -> None:
    rates = RATES[::2] * (0.01 if args.get("maximize") else SCALES[name])
    assert relative_errors(Stack(name, args, rates).run(), alone(name, args, rates)).max() <= 1e-8


@pytest.mark.parametrize(("name", "args"), [("sgd", {}), ("sgd", {"momentum": 0.9}), ("adamw", {}), ("rmsprop", {})])
def test_independent_weight_decay(name: str, args: dict[str, Any]) -> None:
    rates = RATES[::2] * SCALES[name]
    plain = args | ({"weight_decay": 0.0} if name == "adamw" else {})
    single = alone(name, plain, rates, independent=0.02)
    assert relative_errors(Stack(name, args, rates, independent=0.02).run(), single).max() <= 1e-8


def test_runs_of_one_rule_may_differ_in_their_decay() -> None:
    settings: list[tuple[str, dict[str, Any], float | None]] = [
        ("adam", {}, None),
        ("adam", {"weight_decay": 0.2}, None),
        ("adamw", {"weight_decay": 0.2}, None),
        ("adamw", {}, 0.01),
    ]
    rules, decays = zip(*(split(*setting) for setting in settings), strict=True)
    assert len(set(rules)) == 1
    assert split("adam", {"amsgrad": True})[0] != rules[0]
    rates = torch.full((4,), 0.01)
    stack = Stack("adam", {}, rates)
    stack.rule = StackedRule(rules[0], decays, SHAPES, dtype=torch.float64, device="cpu")
    stack.run()
    for run, (name, args, independent) in enumerate(settings):
        plain = args | ({"weight_decay": 0.0} if independent else {})
        single = alone(name, plain, rates[:1], independent)
        assert relative_errors([p[run : run + 1] for p in stack.params], single).max() <= 1e-8


@pytest.mark.parametrize(("name", "args"), [("sgd", {"weight_decay": 0.1}), ("adam", {"weight_decay": 0.1})])
def test_gradients_are_left_as_they_are(name: str, args: dict[str, Any]) -> None:
    rule, decay = split(name, args)
    stacked = StackedRule(rule, [decay] * 2, [(3,)], dtype=torch.float64, device="cpu")
    grad = torch.arange(6.0).view(2, 3)
    for _ in range(3):
        stacked.step([torch.ones(2, 3)], [grad], torch.ones(2))
    assert torch.equal(grad, torch.arange(6.0).view(2, 3))


RULES_WITH_STATE = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    ("adamw", {}),
    ("adagrad", {"weight_decay": 0.1}),
    ("nadam", {}),
    ("rmsprop", {"centered": True}),
]


@pytest.mark.parametrize(("name", "args"), RULES_WITH_STATE, ids=label)
def test_an_exploding_run_leaves_the_others_alone(name: str, args: dict[str, Any]) -> None:
    rates = RATES * SCALES[name]
    quiet, hurt = Stack(name, args, rates), Stack(name, args, rates)
    quiet.run(0, 12)
    hurt.run(0, 5)
    for bad, step in zip((torch.inf, torch.nan, 1e300, -torch.inf), range(5, 12), strict=False):
        grads = [g.clone() for g in gradients(hurt.params, step)]
        for grad in grads:
            grad[2] = bad
        hurt.rule.step(hurt.params, grads, rates * factor(step))
    hurt.run(9, 12)
    others = torch.arange(M) != 2
    for p, q in zip(hurt.params, quiet.params, strict=True):
        assert not p[2].isfinite().any()
        assert torch.equal(p[others], q[others])


@pytest.mark.parametrize("plain", ["", "1"], ids=["tricks", "plain"])
@pytest.mark.parametrize(("name", "args"), RULES_WITH_STATE, ids=label)
def test_runs_that_leave_take_only_their_own_state(
    name: str, args: dict[str, Any], plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LRSWEEP_PLAIN", plain)
    rates, index = RATES * SCALES[name], torch.tensor([0, 3, 6])
    whole, part = Stack(name, args, rates), Stack(name, args, rates)
    whole.run(0, 40)
    part.run(0, 20)
    part.rule.keep(index)
    part.rates, part.params = rates[index], [p[index] for p in part.params]
    part.run(20, 40)
    for p, q in zip(part.params, whole.params, strict=True):
        torch.testing.assert_close(p, q[index], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "args"), [*RULES_WITH_STATE, ("radam", {}), ("adadelta", {})], ids=label)
def test_a_restored_rule_continues_to_the_bit(name: str, args: dict[str, Any], tmp_path: Path) -> None:
    rates = RATES * SCALES[name]
    straight = Stack(name, args, rates)
    straight.run(0, 10)
    torch.save({"rule": straight.rule.state(), "params": straight.params}, tmp_path / "state.pt")
    straight.run(10, 20)
    resumed = Stack(name, args, rates)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    resumed.rule.restore(saved["rule"])
    resumed.params = saved["params"]
    resumed.run(10, 20)
    assert all(torch.equal(p, q) for p, q in zip(resumed.params, straight.params, strict=True))


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_a_rule_goes_on_from_a_state_without_whole_vectors(name: str) -> None:
    """As checkpoints of earlier versions hold it."""
    straight, resumed = Stack(name, {}, RATES * SCALES[name]), Stack(name, {}, RATES * SCALES[name])
    straight.run(0, 10)
    state = straight.rule.state()
    for shape, tensors in zip(SHAPES, state["tensors"], strict=True):
        for key, value in tensors.items():
            if isinstance(value, Tensor) and value.ndim:
                tensors[key] = value[:, : torch.Size(shape).numel()].contiguous().view(M, *shape)
    resumed.rule.restore(state)
    resumed.params = [param.clone() for param in straight.params]
    for stack in (straight, resumed):
        stack.run(10, 20)
    assert all(torch.equal(p, q) for p, q in zip(resumed.params, straight.params, strict=True))


def test_a_state_does_not_change_afterwards() -> None:
    stack = Stack("adam", {}, RATES)
    stack.run(0, 3)
    state = stack.rule.state()
    before = state["tensors"][0]["exp_avg"].clone()
    stack.run(3, 6)
    assert torch.equal(state["tensors"][0]["exp_avg"], before)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_steps_by_lr_under_a_constant_gradient(name: str) -> None:
    """Up to eps / g = 4e-9."""
    for moved in constant_gradient(name, {"weight_decay": 0.0}):
        torch.testing.assert_close(moved, RATES, rtol=4.1e-9, atol=0)


def constant_gradient(name: str, args: dict[str, Any], g: float = 2.5) -> Iterator[Tensor]:
    """The size of every step of M runs at RATES whose gradient never changes."""
    rule, decay = split(name, args)
    stacked = StackedRule(rule, [decay] * M, [(1,)], dtype=torch.float64, device="cpu")
    params = [torch.zeros(M, 1)]
    for _ in range(20):
        before = params[0].clone()
        stacked.step(params, [torch.full((M, 1), g)], RATES)
        yield (before - params[0]).flatten()


def test_closed_forms_under_a_constant_gradient() -> None:
    """Adagrad lr / sqrt(t), RMSprop lr / sqrt(1 - alpha^t), SGD with momentum a geometric sum."""
    for t, moved in enumerate(constant_gradient("adagrad", {}), 1):
        torch.testing.assert_close(moved, RATES / t**0.5, rtol=1e-9, atol=0)
    for t, moved in enumerate(constant_gradient("rmsprop", {"alpha": 0.99}), 1):
        torch.testing.assert_close(moved, RATES / (1 - 0.99**t) ** 0.5, rtol=1e-7, atol=0)
    for t, moved in enumerate(constant_gradient("sgd", {"momentum": 0.9}), 1):
        torch.testing.assert_close(moved, RATES * 2.5 * (1 - 0.9**t) / (1 - 0.9), rtol=1e-12, atol=0)


def test_rules_that_train_alone_would_come_out_wrong_in_a_stack() -> None:
    for name in ("asgd", "rprop", "adafactor"):
        assert name in ALONE
        stacked = Stack(name, {}, RATES).run(0, 50)
        assert relative_errors(stacked, alone(name, {}, RATES, steps=50)).max() > 1e-6
    assert "adam" not in ALONE
    assert Decay() == Decay(coupled=0.0, decoupled=0.0, independent=0.0)
