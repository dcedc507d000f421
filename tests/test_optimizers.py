"""The table of optimizers, their arguments, and the composite for muon."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsweep import optimizers
from lrsweep.errors import UsageError
from lrsweep.optimizers import OPTIMIZERS, build, check, defaults


def layers() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (4,), (2, 4), (2,), (2, 3, 3, 3)]
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def train(optimizer: Any, params: list[nn.Parameter], steps: int = 5) -> list[torch.Tensor]:
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        optimizer.step()
    return [p.detach().clone() for p in params]


def test_every_optimizer_of_torch_that_can_be_used() -> None:
    """Written out on purpose: a new torch should make somebody look."""
    assert set(OPTIMIZERS) == {
        *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd"),
        *("muon", "nadam", "radam", "rmsprop", "rprop", "sgd"),
    }
    assert not set(OPTIMIZERS) & set(optimizers.NOT_OFFERED)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_defaults_are_torchs_own(name: str) -> None:
    found = defaults(name)
    assert not {"params", "lr", "foreach", "capturable", "differentiable", "fused"} & set(found)
    signature = inspect.signature(OPTIMIZERS[name]).parameters
    for key, value in found.items():
        if key != "aux":
            default = signature[key].default
            assert value == (list(default) if isinstance(default, tuple) else default)
    assert optimizers.default_lr(name) == signature["lr"].default
    assert check(name, found) == []
    assert optimizers.resolved(name, {}) == found


def test_default_rates_that_differ_between_optimizers() -> None:
    names = ("sgd", "rmsprop", "adadelta", "nadam", "adam")
    assert [optimizers.default_lr(name) for name in names] == [1e-3, 1e-2, 1.0, 2e-3, 1e-3]
    assert any("on a different scale from the others" in note for note in optimizers.NOTES["adadelta"])


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "muon"])
def test_build_gives_torchs_optimizer(name: str) -> None:
    ours, theirs = layers(), layers()
    built = build(name, defaults(name), ours, 0.01, ".")
    assert type(built) is OPTIMIZERS[name]
    for p, q in zip(train(built, ours), train(OPTIMIZERS[name](theirs, lr=0.01), theirs), strict=True):
        assert torch.equal(p, q)


BAD: list[tuple[str, dict[str, Any], list[str]]] = [
    ("sgd", {"momentum": 1.0}, ["momentum"]),
    ("sgd", {"momentum": -0.1}, ["momentum"]),
    ("sgd", {"momentum": "0.9"}, ["momentum"]),
    ("sgd", {"momentum": True}, ["momentum"]),
    ("sgd", {"momentum": math.nan}, ["momentum"]),
    ("sgd", {"nesterov": 1}, ["nesterov"]),
    ("sgd", {"nesterov": True}, ["nesterov"]),
    ("sgd", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, ["nesterov"]),
    ("sgd", {"weight_decay": -1, "momentum": 2}, ["weight_decay", "momentum"]),
    ("adam", {"betas": [0.9, 1.0]}, ["betas"]),
    ("adam", {"betas": 0.9}, ["betas"]),
    ("adam", {"betas": [0.9]}, ["betas"]),
    ("adam", {"betas": [0.9, "x"]}, ["betas"]),
    ("adam", {"eps": -1e-8}, ["eps"]),
    ("adamw", {"weight_decay": math.inf}, ["weight_decay"]),
    ("rmsprop", {"alpha": 1.5}, ["alpha"]),
    ("rmsprop", {"momentum": 1}, ["momentum"]),
    ("adadelta", {"rho": 1.5}, ["rho"]),
    ("adagrad", {"lr_decay": -1}, ["lr_decay"]),
    ("rprop", {"etas": [0.5, 0.9]}, ["etas"]),
    ("rprop", {"step_sizes": [1.0, 0.1]}, ["step_sizes"]),
    ("adafactor", {"d": 0.5}, ["d"]),
    ("adafactor", {"beta2_decay": 0.5}, ["beta2_decay"]),
    ("adafactor", {"eps": [None, -1.0]}, ["eps"]),
    ("muon", {"ns_steps": 2.5}, ["ns_steps"]),
    ("muon", {"ns_steps": 100}, ["ns_steps"]),
    ("muon", {"adjust_lr_fn": "mine"}, ["adjust_lr_fn"]),
    ("muon", {"adjust_lr_fn": 3}, ["adjust_lr_fn"]),
    ("muon", {"aux": {"betas": [2, 0.9]}}, ["aux.betas"]),
    ("muon", {"aux": {"beta": 1, "eps": -1}}, ["aux.beta", "aux.eps"]),
    ("muon", {"aux": 3}, ["aux"]),
]


@pytest.mark.parametrize(("name", "args", "wrong"), BAD, ids=str)
def test_bad_arguments_are_named(name: str, args: dict[str, Any], wrong: list[str]) -> None:
    issues = check(name, args)
    assert [key for key, _ in issues] == wrong
    assert all(text for _, text in issues)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("sgd", {"momentum": 0, "nesterov": False}),
        ("sgd", {"momentum": 0.99, "nesterov": True}),
        ("adam", {"betas": [0, 0.99]}),
        ("adafactor", {"eps": [1e-30, 1e-3]}),
        ("muon", {"adjust_lr_fn": "match_rms_adamw", "aux": {"weight_decay": 0}}),
        ("rprop", {"etas": [0.4, 1.3], "step_sizes": [1e-5, 1]}),
        ("sgd", {"momntum": 0.9}),
    ],
)
def test_good_arguments_pass(name: str, args: dict[str, Any]) -> None:
    assert check(name, args) == []


def test_integers_in_betas_are_numbers_too() -> None:
    """torch itself refuses a list of an integer and a float."""
    params = layers()
    train(build("adam", {"betas": [0, 0.99]}, params, 0.1, "."), params)


def test_decay_is_said_as_it_is_done() -> None:
    """F6: what `decay_note` says, held against what torch does to a weight with a zero gradient."""
    for name in OPTIMIZERS:
        note = optimizers.decay_note(name)
        if "weight_decay" not in defaults(name):
            assert note == "has no weight decay"
            continue
        param = nn.Parameter(torch.ones(2, 2, dtype=torch.float64))
        optimizer = build(name, {"weight_decay": 0.5}, [param], 1e-2, ".")
        for _ in range(10):
            param.grad = torch.zeros_like(param)
            optimizer.step()
        shrunk_apart = param[0, 0].item() == pytest.approx((1 - 1e-2 * 0.5) ** 10, rel=1e-9)
        is_decoupled = shrunk_apart and name != "sgd"  # plain SGD cannot tell the two apart
        assert is_decoupled == note.startswith("weight decay is decoupled"), name
    assert "decoupled_weight_decay: true" in optimizers.decay_note("radam")


def test_muon_takes_matrices_and_adamw_the_rest() -> None:
    ours, theirs = layers(), layers()
    aux = {"betas": [0.8, 0.95], "weight_decay": 0.1}
    built = build("muon", {"momentum": 0.9, "aux": aux}, ours, 0.02, ".")
    optimizers.set_lr(built, 0.01, optimizers.shares(built, 0.02))
    matrices, rest = [p for p in theirs if p.ndim == 2], [p for p in theirs if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=0.01, momentum=0.9)
    adamw = torch.optim.AdamW(rest, lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)
    found = train(built, ours)
    for step in range(5):
        generator = torch.Generator().manual_seed(step)
        for p in theirs:
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
        muon.step()
        adamw.step()
    assert all(torch.equal(p, q) for p, q in zip(found, theirs, strict=True))
    built.zero_grad()
    assert all(p.grad is None for p in ours)
    assert [group["lr"] for group in built.param_groups] == [0.01, 0.01]


@pytest.mark.parametrize("ndim", [1, 2])
def test_muon_with_only_one_kind_of_weights(ndim: int) -> None:
    params = [p for p in layers() if p.ndim == ndim]
    before = [p.detach().clone() for p in params]
    after = train(build("muon", defaults("muon"), params, 0.02, "."), params)
    assert not any(torch.equal(p, q) for p, q in zip(before, after, strict=True))


@pytest.fixture
def _float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# NAdam keeps a product in the default dtype, and load_state_dict casts it to that of the weights.
@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_state_dicts_continue_a_run(name: str, tmp_path: Path) -> None:
    straight, resumed = layers(), layers()
    first = build(name, {}, straight, 0.01, ".")
    train(first, straight, 3)
    torch.save({"optimizer": first.state_dict(), "params": straight}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    second = build(name, {}, resumed, 0.01, ".")
    second.load_state_dict(saved["optimizer"])
    with torch.no_grad():
        for p, q in zip(resumed, saved["params"], strict=True):
            p.copy_(q)
    for p, q in zip(train(first, straight), train(second, resumed), strict=True):
        assert torch.equal(p, q)


def test_resolved_writes_every_argument_out() -> None:
    full = optimizers.resolved("muon", {"momentum": 0.8, "aux": {"eps": 1e-6}})
    assert full["momentum"] == 0.8
    assert full["aux"] == defaults("adamw") | {"eps": 1e-6}
    independent = optimizers.resolved("muon", {}, independent=True)
    assert independent["weight_decay"] == independent["aux"]["weight_decay"] == 0.0
    assert optimizers.resolved("adamw", {}, independent=True)["weight_decay"] == 0.0
    assert optimizers.resolved("adamw", {})["weight_decay"] == 0.01
    assert "weight_decay" not in optimizers.resolved("rprop", {}, independent=True)


def test_own_classes_by_import_path(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "class Mine(torch.optim.SGD):\n"
        "    def __init__(self, params, lr=0.3, strength=2.0, betas=(0.5, 0.9), *, must):\n"
        "        super().__init__(params, lr=lr)\n"
        "        assert isinstance(betas, tuple)\n"
        "        self.seen = (strength, betas, must)\n"
        "class Bare(torch.optim.SGD):\n"
        "    def __init__(self, params, lr):\n        super().__init__(params, lr=lr)\n"
        "def function(params, lr): ...\n"
    )
    built: Any = build("own.py:Mine", {"must": 1, "betas": [0.1, 0.2]}, layers(), 0.5, tmp_path)
    assert built.seen == (2.0, (0.1, 0.2), 1)
    assert built.param_groups[0]["lr"] == 0.5
    cls = optimizers.lookup("own.py:Mine", tmp_path)
    assert defaults(cls) == {"strength": 2.0, "betas": [0.5, 0.9]}
    assert optimizers.default_lr(cls) == 0.3
    assert math.isnan(optimizers.default_lr(optimizers.lookup("own.py:Bare", tmp_path)))
    with pytest.raises(UsageError, match="not a class"):
        build("own.py:function", {}, layers(), 0.5, tmp_path)


def test_groups_keep_their_share_of_the_rate() -> None:
    weight, bias = layers()[:2]
    optimizer = torch.optim.SGD([{"params": [weight]}, {"params": [bias], "lr": 0.03}], lr=0.1)
    optimizers.set_lr(optimizer, 0.2, optimizers.shares(optimizer, 0.1))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.2, 0.06], rel=1e-15)


def test_train_and_eval_are_called_where_they_exist() -> None:
    class Averaging(torch.optim.SGD):
        mode = ""

        def train(self) -> None:
            self.mode = "train"

        def eval(self) -> None:
            self.mode = "eval"

    optimizer = Averaging(layers(), lr=0.1)
    optimizers.set_mode(optimizer, training=True, seed=lambda: None)
    assert optimizer.mode == "train"
    optimizers.set_mode(optimizer, training=False, seed=lambda: None)
    assert optimizer.mode == "eval"
    optimizers.set_mode(torch.optim.SGD(layers(), lr=0.1), training=True, seed=lambda: None)


def test_independent_decay_shrinks_the_weights() -> None:
    params = layers()
    before = [p.detach().clone() for p in params]
    optimizers.decay_independently(params, 0.01 * 0.5)
    for p, q in zip(params, before, strict=True):
        torch.testing.assert_close(p.detach(), q * 0.995, rtol=1e-15, atol=0)


def test_attributes_of_state_tensors_are_not_in_a_checkpoint() -> None:
    params = [torch.nn.Parameter(torch.ones(2))]
    optimizer = torch.optim.SGD(params, lr=0.1, momentum=0.9)
    params[0].grad = torch.ones(2)
    optimizer.step()
    assert optimizers.own_state(optimizer, params) is not None
    optimizer.state[params[0]]["momentum_buffer"].age = 1
    assert optimizers.own_state(optimizer, params) is None
