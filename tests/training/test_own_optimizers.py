"""Optimizer classes of the user's, stacked: equal to a plain loop, to the last digits, whatever they look at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lrsweep.run_result import NoHooks
from lrsweep.training import sequential, stackable, stacked, user_state, workload
from lrsweep.training.audit import AuditFailedError
from lrsweep.user_imports import resolve
from tests.support import stacked_tasks
from tests.support.oracle import double, run, workload_spec

OWN = '''
import collections
import functools
import random

import torch
from torch.optim import SGD, Adam, Optimizer


class Each(Optimizer):
    def __init__(self, params, lr=0.1, **more):
        super().__init__(params, dict(lr=lr, **more))
        self.built = lr
        self.start()

    def start(self):
        pass

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.one(p, group["lr"], self.state[p])


class Normed(Each):
    def one(self, p, lr, state):
        p.sub_(p.grad / (p.grad.norm() + 1e-8), alpha=lr)


class Squared(Each):
    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr**2)


class Built(Each):
    def one(self, p, lr, state):
        p.sub_(p.grad.clamp(-self.built, self.built), alpha=lr)


class Halving(Each):
    def start(self):
        self.t = 0

    def step(self, closure=None):
        self.t += 1
        if self.t % 5 == 0:
            for group in self.param_groups:
                group["lr"] *= 0.5
        super().step()

    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr)


class Clipped(Each):
    def step(self, closure=None):
        torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 0.1)
        super().step()

    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr)


class Swapping(Each):
    def one(self, p, lr, state):
        p.data = p.data - lr * p.grad


class Noisy(Each):
    def one(self, p, lr, state):
        p.sub_(p.grad + 0.1 * torch.randn_like(p) + 0.01 * random.random(), alpha=lr)


class Sometimes(Each):
    """Draws random numbers from its fourth step on."""

    def start(self):
        self.t = 0

    def step(self, closure=None):
        self.t += 1
        super().step()

    def one(self, p, lr, state):
        p.sub_(p.grad + (0.1 * DRAW() if self.t > 3 else 0.0), alpha=lr)


DRAW = random.random


class Quarterly(Sometimes):
    """Draws in every fourth step, the first one included."""

    def one(self, p, lr, state):
        p.sub_(p.grad + (0.1 * DRAW() if self.t % 4 == 1 else 0.0), alpha=lr)


class Bounded(Each):
    """Clips after its step, by a hook that torch calls."""

    def start(self):
        self.register_step_post_hook(lambda *_: [p.data.clamp_(-0.3, 0.3) for p in self.param_groups[0]["params"]])

    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr)


def twice(step):
    @functools.wraps(step)
    def both(self, closure=None):
        step(self)
        step(self)

    return both


class Plain(Each):
    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr)


Plain([torch.zeros(2)])  # whose `step` torch has wrapped by now


class Twice(Plain):
    step = twice(Plain.step)


class Remembering(Each):
    def start(self):
        self.past = collections.deque(maxlen=3)

    def one(self, p, lr, state):
        self.past.append(float(p.grad.norm()))
        p.sub_(p.grad, alpha=lr / (1 + sum(self.past)))


class Averaged(Each):
    """Trains at one point, is evaluated at another."""

    def start(self):
        self.training = False

    def one(self, p, lr, state):
        assert self.training
        state.setdefault("x", p.clone())
        p.sub_(p.grad, alpha=lr)
        state["x"].lerp_(p, 0.3)

    @torch.no_grad()
    def swap(self):
        for group in self.param_groups:
            for p in group["params"]:
                if "x" in self.state[p]:
                    kept = p.clone()
                    p.copy_(self.state[p]["x"])
                    self.state[p]["x"] = kept

    def train(self):
        if not self.training:
            self.training = True
            self.swap()

    def eval(self):
        if self.training:
            self.training = False
            self.swap()


class Grouped(SGD):
    def __init__(self, params, lr=0.1):
        first, *rest = params
        super().__init__([{"params": [first], "lr": lr / 3}, {"params": rest}], lr=lr, momentum=0.9)


class Wrapping(Each):
    def start(self):
        self.inner = Adam(self.param_groups[0]["params"], lr=self.built)

    def step(self, closure=None):
        self.inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        self.inner.step()


class Aliasing(Each):
    """Keeps the weights themselves in its state."""

    def one(self, p, lr, state):
        state["itself"] = p.data
        p.sub_(p.grad, alpha=lr)


class Counting(Each):
    count = 0

    def one(self, p, lr, state):
        Counting.count += 1
        p.sub_(p.grad, alpha=lr / Counting.count)


class Closing(Each):
    def step(self, closure):
        loss = closure()
        super().step()
        return loss

    def one(self, p, lr, state):
        p.sub_(p.grad, alpha=lr)


class Hooked(Each):
    def start(self):
        for p in self.param_groups[0]["params"]:
            p.register_post_accumulate_grad_hook(lambda p: p.data.sub_(p.grad, alpha=0.1))

    def one(self, p, lr, state):
        pass


class Picky(Each):
    def start(self):
        raise ValueError("not today")


class Slotted(Each):
    """Counts in a slot."""

    __slots__ = ("made",)

    def start(self):
        self.made = 0

    def one(self, p, lr, state):
        self.made += 1
        p.sub_(p.grad, alpha=lr / self.made)


class Replacing(Plain):
    """Goes over to another step."""

    def one(self, p, lr, state):
        super().one(p, lr, state)
        self.step = self.shrinking

    @torch.no_grad()
    def shrinking(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.mul_(0.9)


class Defaulting(Each):
    """Keeps a factor in its defaults."""

    def start(self):
        self.defaults["factor"] = 1.0

    def one(self, p, lr, state):
        self.defaults["factor"] *= 0.98
        p.sub_(p.grad, alpha=lr * self.defaults["factor"])


class Freezing(Plain):
    """Ends the training of its first parameter after five steps."""

    def one(self, p, lr, state):
        super().one(p, lr, state)
        state["n"] = state.get("n", 0) + 1
        if state["n"] == 5 and p is self.param_groups[0]["params"][0]:
            p.requires_grad_(False)
            p.grad = None


class Gathering(Plain):
    """Halves gradients where others clear them."""

    @torch.no_grad()
    def zero_grad(self, set_to_none=True):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None:
                p.grad.mul_(0.5)


class Attaching(Each):
    """Keeps its momentum in an attribute of the parameter."""

    def one(self, p, lr, state):
        p.momentum = 0.9 * getattr(p, "momentum", 0.0) + p.grad
        p.sub_(p.momentum, alpha=lr)
'''
STEPS = 24
SCHEDULES = [{"name": "constant"}, {"name": "cosine", "end": 0.1, "warmup": 6}]


def path(folder: Path, name: str) -> str:
    (folder / "own.py").write_text(OWN)
    return f"{folder / 'own.py'}:{name}"


@double()
def plain(cls: Any, lr: float, seed: int, schedule: dict[str, Any], net: str = "mlp") -> list[tuple[float, float]]:
    """(train_loss, val_loss) of every epoch, by torch alone."""
    torch.manual_seed(seed)
    model = stacked_tasks.NETS[net]()
    optimizer = cls(list(model.parameters()), lr=lr)
    factors = [1.0] * STEPS
    if schedule["name"] == "cosine":
        for t in range(STEPS):
            u = (t - 6) / (STEPS - 6)
            factors[t] = (t + 1) / 6 if t < 6 else 0.1 + 0.9 * (1 + math.cos(math.pi * u)) / 2
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    base = [group["lr"] for group in optimizer.param_groups]
    (x, y), (xv, yv) = stacked_tasks.data(), stacked_tasks.data(40, seed=2)
    rows, t = [], 0
    mode = lambda name: getattr(optimizer, name, lambda: None)()  # noqa: E731
    mode("train")
    for epoch in range(STEPS // 3):
        order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        losses = []
        for index in order.split(24):
            optimizer.zero_grad()
            workload.isolation.seed_all(workload.isolation.stream_seed("layers", seed, t))
            loss = nn.functional.cross_entropy(model(x[index]), y[index])
            loss.backward()
            losses.append(loss.item())
            if schedule["name"] != "constant":
                for group, rate in zip(optimizer.param_groups, base, strict=True):
                    group["lr"] = rate * factors[t]
            optimizer.step()
            t += 1
        mode("eval")
        with torch.no_grad():
            rows.append((sum(losses) / len(losses), nn.functional.cross_entropy(model(xv), yv).item()))
        mode("train")
    return rows


def made(shared: Any, name: str, schedule: dict[str, Any]) -> list[Any]:
    runs = [run(shared, name, lr=lr, seed=seed, schedule=schedule) for lr in (0.02, 0.3) for seed in (0, 1)]
    runs += [run(shared, "adam", lr=0.01, seed=seed) for seed in (0, 1)]
    for number, one in enumerate(runs):
        one.run_id = f"{number:03d}"
    return runs


CLASSES = (
    "Normed Squared Built Halving Clipped Swapping Noisy Bounded Twice Remembering Averaged Grouped Wrapping".split()
)


@pytest.mark.usefixtures("both_ways")
@pytest.mark.parametrize("schedule", SCHEDULES, ids=["constant", "cosine"])
@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_stacked_as_it_is_alone(name: str, schedule: dict[str, Any], tmp_path: Path) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=STEPS, batch_size=24)
    runs = made(shared, path(tmp_path, name), schedule)
    prepared = workload.build(shared)
    assert stackable.stack_reason(prepared, runs[0].setting) is None
    found = {one.run_id: one for one in stacked.train(runs, prepared, NoHooks())}
    cls = resolve(path(tmp_path, name), ".")
    for one in runs[:4]:
        wanted = plain(cls, one.lr, one.seed, schedule)
        history = found[one.run_id].history
        assert history["train_loss"][1:] == pytest.approx([train for train, _ in wanted], rel=1e-10)
        assert history["val_loss"][1:] == pytest.approx([val for _, val in wanted], rel=1e-10)


@pytest.mark.parametrize("name", ["Clipped", "Swapping"])
def test_a_class_writes_into_the_gradients_of_its_own_run_and_parameter_only(name: str, tmp_path: Path) -> None:
    """Where autograd gives one gradient for two parameters, or one number for a whole one."""
    shared = workload_spec({"name": "stacked_tasks.py:task", "net": "paired"}, steps=STEPS, batch_size=24)
    runs = made(shared, path(tmp_path, name), SCHEDULES[0])[:4]
    found = {one.run_id: one for one in stacked.train(runs, workload.build(shared), NoHooks())}
    cls = resolve(path(tmp_path, name), ".")
    for one in runs:
        wanted = plain(cls, one.lr, one.seed, SCHEDULES[0], "paired")
        assert found[one.run_id].history["val_loss"][1:] == pytest.approx([val for _, val in wanted], rel=1e-10)


@pytest.mark.parametrize("draw", ["random.random", "lambda: float(torch.rand(()))", "lambda: np.random.random()"])
def test_a_class_that_begins_to_draw_random_numbers_is_noticed(draw: str, tmp_path: Path) -> None:
    """Runs of a seed share the seeding of the generators until then."""
    own = path(tmp_path, "Sometimes")
    (tmp_path / "own.py").write_text("import numpy as np\n" + OWN.replace("DRAW = random.random", f"DRAW = {draw}"))
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=STEPS, batch_size=24)
    with pytest.raises(AuditFailedError, match=r"^step 4: .*draws random numbers"):
        list(stacked.train(made(shared, own, SCHEDULES[0])[:4], workload.build(shared), NoHooks()))


@pytest.mark.parametrize("name", ["Closing", "Counting", *CLASSES])
def test_one_run_after_another_is_the_plain_loop_too(name: str, tmp_path: Path) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=STEPS, batch_size=24)
    own = path(tmp_path, name)
    (found,) = sequential.train([run(shared, own, lr=0.1)], workload.build(shared), NoHooks())
    cls = resolve(own, ".")
    if name == "Counting":
        cls.count = 0
    if name == "Closing":
        closing = cls
        cls = type("Open", (closing,), {"step": lambda self: super(closing, self).step()})
    wanted = plain(cls, 0.1, 0, SCHEDULES[0])
    assert found.history["val_loss"][1:] == pytest.approx([val for _, val in wanted], rel=1e-10)


@pytest.mark.parametrize(
    ("name", "told", "raised"),
    [
        ("Closing", "evaluates the loss itself", False),
        ("Hooked", "registers hooks on the parameters", False),
        ("Gathering", "clears gradients in a way of its own", False),
        ("Picky", "ValueError: not today", True),
    ],
)
def test_what_cannot_be_stacked_is_told_before_training(name: str, told: str, raised: bool, tmp_path: Path) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=3)
    reason = stackable.stack_reason(workload.build(shared), run(shared, path(tmp_path, name)).setting)
    assert reason is not None
    assert told in reason.text
    assert reason.raised == raised


def test_a_class_beside_more_than_can_be_looked_through_is_not_stacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_state, "MOST_OBJECTS", 20_000)
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=3)
    reasons = []
    for count in (200, 20_000):
        (tmp_path / f"beside_{count}.py").write_text(
            f"{OWN}\n\nclass Looking(Plain):\n    def look(self):\n        return TABLE\n\n"
            f"TABLE = [[n] for n in range({count})]\n"
        )
        setting = run(shared, f"{tmp_path}/beside_{count}.py:Looking").setting
        reasons.append(stackable.stack_reason(workload.build(shared), setting))
    assert reasons[0] is None
    assert reasons[1] is not None
    assert "more Python objects than lrsweep looks through" in reasons[1].text


def test_a_class_that_torch_would_stop_is_stopped(tmp_path: Path) -> None:
    """Weights may not be changed in place where autograd is on."""
    body = "for p in self.param_groups[0]['params']:\n            p.sub_(0.1 * p.grad)"
    (tmp_path / "careless.py").write_text(f"{OWN}\n\nclass Careless(Plain):\n    def step(self):\n        {body}\n")
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=3)
    runs = made(shared, f"{tmp_path}/careless.py:Careless", SCHEDULES[0])[:2]
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
        list(stacked.train(runs, workload.build(shared), NoHooks()))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Counting", r"keeps state outside its object.* \(Counting.count\)"),
        ("Attaching", "keeps attributes of parameters"),
    ],
)
def test_state_outside_the_object_is_noticed(name: str, told: str, tmp_path: Path) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=STEPS, batch_size=24)
    runs = made(shared, path(tmp_path, name), SCHEDULES[0])[:2]
    with pytest.raises(AuditFailedError, match=told):
        list(stacked.train(runs, workload.build(shared), NoHooks()))


class Interrupted(NoHooks):
    """Saves after some steps, and stops."""

    def __init__(self, after: int) -> None:
        self._left, self.saved = after, None

    def checkpoint_due(self) -> bool:
        self._left -= 1
        return self._left == 0

    def save(self, state: dict[str, Any]) -> None:
        self.saved = state


HELD = {
    "Halving": (True, True),
    "Grouped": (True, True),
    "Quarterly": (True, True),
    "Defaulting": (True, True),
    "Freezing": (True, False),  # alone, the model that it writes into is looked at, too
    "Remembering": (False, False),
    "Aliasing": (False, False),
    "Wrapping": (False, False),
    "Slotted": (False, False),
    "Replacing": (False, False),
    "Gathering": (None, False),
    "Attaching": (None, False),
    "Counting": (None, False),
}
"""Does a checkpoint hold what the class keeps: of runs together, and of one alone? None: not trained together."""


@pytest.mark.parametrize(
    ("name", "held", "together"),
    [
        (name, held, together)
        for name, ways in HELD.items()
        for together, held in zip((True, False), ways, strict=True)
        if held is not None
    ],
)
def test_a_checkpoint_holds_what_comes_back_and_nothing_else(
    name: str, held: bool, together: bool, tmp_path: Path
) -> None:
    shared = workload_spec({"name": "stacked_tasks.py:task"}, steps=STEPS, batch_size=24)
    runs = made(shared, path(tmp_path, name), SCHEDULES[0])[: 4 if together else 1]
    train = stacked.train if together else sequential.train
    hooks = Interrupted(10)
    whole = {one.run_id: one.history for one in train(runs, workload.build(shared), hooks)}
    assert (hooks.saved is not None) == held
    if held:
        torch.save(hooks.saved, tmp_path / "state.pt")
        resumed = NoHooks()
        resumed.resume = torch.load(tmp_path / "state.pt", weights_only=True)
        again = {one.run_id: one.history for one in train(runs, workload.build(shared), resumed)}
        assert again == whole
