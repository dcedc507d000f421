"""The snapshot of what user code keeps: equal while nothing changes, another as soon as anything does."""

from __future__ import annotations

import array
import collections
import contextlib
import copy
import functools
import importlib
import inspect
import itertools
import logging
import random
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lrsweep.training import user_names, user_state

SOURCE = """
import collections
import functools

import torch

class Slots:
    __slots__ = ("n",)
    def __init__(self):
        self.n = 0

class Held:
    count = 0

def counting():
    n = 0
    def count():
        nonlocal n
        n += 1
        return n
    return count

class Named(torch.nn.Module):
    total = 0

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.queue = collections.deque([1.0])
        self.tree = {"x": {"y": 1}}

CACHE = {"a": [1]}

def stepping():
    seen, slots = [0], Slots()

    def step():
        return seen, CACHE, slots

    return step, seen, slots

seen = []

def helper(n):
    seen.append(n)
    return n

def reads_a_global(n=0):
    return helper(n)

cached = functools.lru_cache(lambda n: n)
"""
user: Any = types.ModuleType("code_of_a_user")
sys.modules["code_of_a_user"] = user
exec(SOURCE, vars(user))


def deep() -> Any:
    return [[[[[[[[0]]]]]]]]


def set_deep(held: Any) -> None:
    held[0][0][0][0][0][0][0][0] = 1


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2))


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "list": (lambda: [1, 2], lambda held: held.append(3)),
    "dict": (lambda: {"a": [1]}, lambda held: held["a"].append(2)),
    "set": (lambda: {1}, lambda held: held.add(2)),
    "deep": (deep, set_deep),
    "deque": (collections.deque, lambda held: held.append(1)),
    "default dict": (lambda: collections.defaultdict(int), lambda held: held["x"]),
    "counter": (collections.Counter, lambda held: held.update("a")),
    "bytes": (lambda: bytearray(3), lambda held: held.__setitem__(0, 1)),
    "array": (lambda: array.array("d", [1.0]), lambda held: held.append(2.0)),
    "numpy": (lambda: np.zeros(3), lambda held: held.__setitem__(1, 1)),
    "numpy object": (lambda: np.array([[1], [2]], dtype=object)[:, 0:1], lambda held: held.__setitem__((0, 0), 5)),
    "tensor": (lambda: torch.zeros(3), lambda held: held.add_(1)),
    "tensor by numpy": (lambda: torch.zeros(3), lambda held: held.numpy().__setitem__(0, 1)),
    "slots": (user.Slots, lambda held: setattr(held, "n", 1)),
    "namespace": (lambda: types.SimpleNamespace(n=0), lambda held: setattr(held, "n", 1)),
    "class attribute": (user.Held, lambda held: setattr(type(held), "count", type(held).count + 1)),
    "closure": (user.counting, lambda held: held()),
    "partial": (lambda: functools.partial(print, [1]), lambda held: held.args[0].append(2)),
    "count": (itertools.count, next),
    "cycle": (lambda: itertools.cycle([1, 2, 3]), next),
    "list iterator": (lambda: iter([1, 2, 3]), next),
    "random": (lambda: random.Random(0), lambda held: held.random()),
    "numpy generator": (lambda: np.random.default_rng(0), lambda held: held.random()),
    "numpy random state": (lambda: np.random.RandomState(0), lambda held: held.rand()),
    "torch generator": (lambda: torch.Generator().manual_seed(0), lambda held: torch.rand(1, generator=held)),
    "module attribute": (module, lambda held: setattr(held[0], "seen", 1)),
    "new parameter": (module, lambda held: held.register_parameter("w", nn.Parameter(torch.zeros(1)))),
    "frozen": (module, lambda held: held.requires_grad_(False)),
    "hook": (module, lambda held: held.register_forward_hook(lambda *_: None)),
    "cache": (lambda: user.cached, lambda held: held(3)),
    "global of a helper": (lambda: user.reads_a_global, lambda held: held(3)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_seen(name: str) -> None:
    make, change = CHANGES[name]
    held = make()
    before = user_state.snapshot([held])
    assert before.same(user_state.snapshot([held])), "nothing has changed"
    assert not before.hidden
    change(held)
    assert not before.same(user_state.snapshot([held]))


def test_weights_and_buffers_are_no_state() -> None:
    held = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = user_state.snapshot([held])
    held(torch.randn(4, 2)).sum().backward()
    with torch.no_grad():
        held[0].weight.add_(1)
    assert before.same(user_state.snapshot([held]))


def test_what_cannot_be_looked_into_is_named() -> None:
    with open(__file__, "rb") as file:
        assert user_state.snapshot([{"x": file}]).hidden == ["BufferedReader"]
    assert user_state.snapshot([{"x": (n for n in range(3))}]).hidden == ["generator"]


@contextlib.contextmanager
def switched_off() -> Iterator[None]:
    yield


def test_a_context_manager_that_decorates_is_its_function() -> None:
    """It keeps a generator, which never runs: every call makes its own."""
    decorated = switched_off()(lambda x: x)
    before = user_state.snapshot([decorated])
    assert not before.hidden
    decorated(1)
    assert before.same(user_state.snapshot([decorated]))

    manager = inspect.getclosurevars(decorated).nonlocals["self"]
    manager.calls = 1
    assert not before.same(user_state.snapshot([decorated])), "the object may keep more"

    kept = switched_off()
    before = user_state.snapshot([kept])
    with kept:
        assert user_state.snapshot([kept]).hidden == ["generator"]
        assert not before.same(user_state.snapshot([kept]))


def test_a_union_of_types_is_plain() -> None:
    one, other = (user_state.snapshot([kind]) for kind in (int | None, str | None))
    assert not one.hidden
    assert not one.same(other)


def test_circles_and_shared_parts_end() -> None:
    held: list[Any] = []
    held += [held, {"again": held}]
    assert user_state.snapshot([held]).same(user_state.snapshot([held]))


def test_what_is_too_much_is_said() -> None:
    assert not user_state.snapshot([[[n] for n in range(user_state.MOST_OBJECTS + 1)]]).full


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3) | st.tuples(inner, inner),
)


@given(plain)
def test_equal_values_have_equal_snapshots(value: Any) -> None:
    assert user_state.snapshot([value]).same(user_state.snapshot([copy.deepcopy(value)]))


@given(plain, plain)
def test_other_values_have_other_snapshots(one: Any, other: Any) -> None:
    if repr(one) != repr(other):
        assert not user_state.snapshot([one]).same(user_state.snapshot([other]))


def test_an_abstract_class_hides_nothing() -> None:
    found: dict[str, Any] = {"__name__": "own"}
    exec("import abc\nclass Base(abc.ABC):\n    @abc.abstractmethod\n    def step(self): ...", found)
    assert not user_state.snapshot([found["Base"]]).hidden


def test_what_raises_when_it_is_looked_at_is_hidden() -> None:
    class Raising:
        @property
        def __dict__(self) -> Any:  # type: ignore[override]
            raise RuntimeError("not yours")

    found = user_state.snapshot([Raising()])
    assert found.hidden == ["Raising"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        compiled = torch.jit.script(nn.Linear(2, 2))
    assert "Module" in user_state.snapshot([nn.Sequential(compiled)]).hidden[0]


def test_looking_at_a_class_runs_none_of_its_descriptors() -> None:
    text = """
calls = []
class Noting:
    def __get__(self, instance, owner=None):
        calls.append(owner)
class Base:
    value = Noting()
class Own(Base):
    value = 1
"""
    found: dict[str, Any] = {"__name__": "own"}
    exec(text, found)
    user_state.snapshot([found["Own"]])
    assert not found["calls"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Named.calls", lambda net, step, seen, slots: setattr(net, "calls", 1)),
        ("Named.queue", lambda net, step, seen, slots: net.queue.append(2.0)),
        ("Named.tree", lambda net, step, seen, slots: net.tree["x"].update(y=2)),
        ("Named.total", lambda net, step, seen, slots: setattr(type(net), "total", net.total + 1)),
        ("seen of step", lambda net, step, seen, slots: seen.append(1)),
        ("Slots.n", lambda net, step, seen, slots: setattr(slots, "n", 5)),
        ("CACHE in <string>", lambda net, step, seen, slots: user.CACHE["a"].append(1)),
        ("an attribute of step", lambda net, step, seen, slots: setattr(step, "mark", 1)),
    ],
)
def test_what_has_changed_is_named(name: str, change: Callable[..., None]) -> None:
    net, (step, seen, slots) = user.Named(), user.stepping()
    before = user_state.snapshot([net, step])
    change(net, step, seen, slots)
    after = user_state.snapshot([net, step])
    assert not before.same(after)
    assert user_names.of_change(before, after) == name


def test_what_a_logger_notes_for_itself_is_no_state() -> None:
    logger = logging.getLogger("lrsweep.tests.user_state")

    before = user_state.snapshot([logger])
    logger.debug("a step")
    assert before.same(user_state.snapshot([logger]))
    logger.clock = [0]  # type: ignore[attr-defined]
    assert not before.same(user_state.snapshot([logger]))


def test_what_torchs_compiler_sets_in_the_environment_is_no_state_of_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    before = user_state.snapshot([])
    monkeypatch.setenv("_TORCHINDUCTOR_PYOBJECT_TENSOR_DATA_PTR", "1")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/cache")
    assert before.same(user_state.snapshot([]))
    monkeypatch.setenv("STEPS", "1")
    assert not before.same(user_state.snapshot([]))


def test_a_dataclass_and_a_compiled_pattern_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The methods that Python writes for a dataclass have the globals of Python's own module, a pattern among them."""
    monkeypatch.setitem(sys.modules, "own", types.ModuleType("own"))
    found = vars(sys.modules["own"])
    source = (
        "import dataclasses, re\n@dataclasses.dataclass\nclass Config:\n    width: int = 4\nWORD = re.compile('a+')"
    )
    exec(source, found)
    before = user_state.snapshot([found["Config"], found["WORD"]])
    assert not before.hidden
    assert not before.same(user_state.snapshot([found["Config"], re.compile("b+")]))


BESIDE = """
import re
import pandas as pd

frame = pd.DataFrame({"a": [1.0]})
WORD = re.compile("[a-z]+")
log, total, deep = [0], {"n": [0]}, [[[[[object()]]]]]

def prepare():
    return frame

def inner():
    return WORD, lambda: TABLE

def step():
    return inner()

TABLE = [1]
"""


def beside(*lines: str) -> dict[str, Any]:
    """The globals of a module or notebook that holds a DataFrame, and functions that do not use it."""
    names: dict[str, Any] = {"__name__": "beside"}
    exec("\n".join([BESIDE, *lines]), names)
    return names


def test_globals_that_the_code_does_not_name_need_not_be_looked_into() -> None:
    """A notebook is full of them: DataFrames, results, files, iterators."""
    names = beside("numbers = iter([1])")
    assert user_state.snapshot([names["step"]]).hidden == []
    assert user_state.snapshot([names["prepare"]]).hidden == ["DataFrame"]


def test_an_attribute_is_no_global_of_the_same_name() -> None:
    names = beside("def step(p=0):\n    return p.frame")
    assert user_state.snapshot([names["step"]]).hidden == []
    module = types.ModuleType("beside")
    vars(module).update(names)
    taken: dict[str, Any] = {"beside": module}
    exec("def step():\n    return beside.frame", taken)
    assert user_state.snapshot([taken["step"]]).hidden == ["DataFrame"]


def test_a_computed_attribute_of_a_module_may_be_any() -> None:
    module = types.ModuleType("beside")
    vars(module).update(beside())
    for code, hidden in {"getattr(beside, 'fr' + str(p))": ["DataFrame"], "beside, p": []}.items():
        taken: dict[str, Any] = {"beside": module}
        exec(f"def step(p=0):\n    return {code}", taken)
        assert [kind for kind in user_state.snapshot([taken["step"]]).hidden if kind == "DataFrame"] == hidden


@pytest.mark.parametrize("code", ["globals()", "vars(__import__('sys').modules['beside'])", "eval('frame')"])
def test_code_that_can_reach_all_globals_has_them_all_looked_into(code: str) -> None:
    assert user_state.snapshot([beside(f"def step():\n    return {code}")["step"]]).hidden


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("log in beside", lambda names: names["log"].append(1)),
        ("total in beside", lambda names: names["total"]["n"].append(1)),
        ("deep in beside", lambda names: names.update(deep=[])),
        ("TABLE in <string>", lambda names: names["TABLE"].append(1)),
    ],
)
def test_a_change_of_any_global_is_seen(name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Those that the code names, from a function within a function here, are looked through; others to some depth."""
    names = beside()
    before = user_state.snapshot([names["step"]])
    assert before.same(user_state.snapshot([names["step"]]))
    change(names)
    after = user_state.snapshot([names["step"]])
    assert not before.same(after)
    assert user_names.of_change(before, after) == name


BOXES = """
import dataclasses
import functools
import operator
import types

import torch

class Box:
    def __init__(self):
        self.n = 0

BOX = Box()
"""

MADE = {
    "a wrapper named after a function of torch": """
@functools.wraps(torch.nn.functional.mse_loss)
def root():
    BOX.n += 1
change = root
""",
    "a class made by exec without a name": """
space = {"BOX": BOX}
exec("class root:\\n    def step(self): BOX.n += 1", space)
root = space["root"]
def change(): root().step()
""",
    "a class that types makes": """
root = types.new_class("Own", (), {}, lambda body: body.update(step=lambda self: vars(BOX).update(n=BOX.n + 1)))
def change(): root().step()
""",
    "a metaclass": """
class Meta(type):
    box = Box()
class root(metaclass=Meta): pass
def change(): Meta.box.n += 1
""",
    "a property of a metaclass": """
class Meta(type):
    late = property(lambda cls: vars(BOX).update(n=BOX.n + 1))
class root(metaclass=Meta): pass
def change(): root.late
""",
    "a module that makes its attributes": """
import code_of_another
kept = {"box": Box()}
code_of_another.__getattr__ = lambda name: kept[name]
def root(): return code_of_another.box
def change(): kept["box"].n += 1
""",
    "a getter made beside the code": """
import code_of_another
code_of_another.HELD, get = Box(), operator.attrgetter("HELD")
def root(): return get(code_of_another)
def change(): code_of_another.HELD.n += 1
""",
    "a getter of items for the variables of a module": """
import code_of_another
code_of_another.HELD = Box()
variables, get = vars(code_of_another), operator.itemgetter("DLEH"[::-1])
def root(): return get(variables)
def change(): code_of_another.HELD.n += 1
""",
    "the variables of its own module kept in a table": """
table = {"mine": globals()}
def root(): return table["mine"]["XOB"[::-1]]
def change(): BOX.n += 1
""",
    "a method of the variables of a module": """
import code_of_another
code_of_another.HELD = Box()
get = vars(code_of_another).get
def root(): return get("DLEH"[::-1])
def change(): code_of_another.HELD.n += 1
""",
    "getattr under another name": """
import code_of_another
code_of_another.HELD, get = Box(), getattr
def root(): return get(code_of_another, "DLEH"[::-1])
def change(): code_of_another.HELD.n += 1
""",
    "an object on torch": """
torch.box_of_tests = Box()
def root(): return torch.box_of_tests
def change(): torch.box_of_tests.n += 1
""",
    "a method put on a layer of torch": """
class root(torch.nn.Linear): pass
def extra(self): return BOX
torch.nn.Linear.extra_of_tests = extra
def change(): BOX.n += 1
""",
    "subclasses": """
class Base: pass
class Own(Base): box = Box()
def root(): return Base.__subclasses__()
def change(): Own.box.n += 1
""",
    "an array of a class of its own": """
import numpy as np
class Array(np.ndarray): pass
root = np.zeros(2).view(Array)
def change(): root.n = 1
""",
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """The module of a user's that this code makes, beside another module."""

    def make(code: str) -> Any:
        for name in ("code_of_another", "code_of_one"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
            exec("", vars(sys.modules[name]))  # as an import does, which gives it Python's built-in functions
        monkeypatch.setattr(torch, "box_of_tests", None, raising=False)
        monkeypatch.setattr(nn.Linear, "extra_of_tests", None, raising=False)
        exec(compile(BOXES + code, "/home/user/code_of_one.py", "exec"), vars(sys.modules["code_of_one"]))
        return sys.modules["code_of_one"]

    return make


@pytest.mark.parametrize("name", MADE)
def test_a_change_is_seen_wherever_python_may_keep_it(name: str, made: Callable[[str], Any]) -> None:
    user = made(MADE[name])
    before = user_state.snapshot([user.root])
    assert before.same(user_state.snapshot([user.root]))
    assert not before.hidden
    user.change()
    assert not before.same(user_state.snapshot([user.root]))


def test_a_file_of_the_users_may_be_named_as_one_of_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "profile.py").write_text("class Own:\n    held = [[0]]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "profile", raising=False)
    own = importlib.import_module("profile").Own
    monkeypatch.setitem(sys.modules, "profile", sys.modules["profile"])
    before = user_state.snapshot([own])
    own.inner = types.SimpleNamespace(n=1)
    now = user_state.snapshot([own])
    own.inner.n = 2
    assert not before.same(now)
    assert not now.same(user_state.snapshot([own]))
    del sys.modules["profile"]


PLAIN = """
import abc
import contextlib
import enum
import typing

class Phase(enum.Enum):
    TRAINING = "training"

class Base(abc.ABC):
    @abc.abstractmethod
    def step(self): ...

class Meta(type):
    def __call__(cls, *args):
        return super().__call__(*args)

@dataclasses.dataclass(frozen=True)
class Config:
    width: int = 4

class Pair(typing.NamedTuple):
    one: int

class Net(torch.nn.Module, metaclass=Meta):
    phase, config, pair = Phase.TRAINING, Config(), Pair(1)
    norm = functools.partial(torch.nn.LayerNorm, eps=1e-6)
    shape = operator.attrgetter("shape")

    @contextlib.contextmanager
    def timed(self):
        yield

    @torch.no_grad()
    def forward(self, x):
        with self.timed():
            return torch.nn.functional.relu(x), self.shape(x), self.norm(2), Phase("training")

frame = (n for n in range(3))
root = Net()
"""


def test_plain_code_neither_hides_nor_changes_anything(made: Callable[[str], Any]) -> None:
    user = made(PLAIN)
    before = user_state.snapshot([user.root])
    user.root(torch.ones(2))
    assert before.hidden == []
    assert before.same(user_state.snapshot([user.root]))
