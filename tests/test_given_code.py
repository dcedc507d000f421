"""What makes given code other code, and what cannot be given."""

from __future__ import annotations

import functools
import linecache
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import lrsweep
from lrsweep import given_code
from lrsweep.errors import SpecError, UsageError
from lrsweep.spec.load import load_spec
from lrsweep.spec.resolved import dump_resolved
from tests.support import sweeps

CODE = """
    import torch
    from torch import nn

    HIDDEN, COUNT, SEEN = 8, 0, []
    X = torch.arange(6.0)

    def act(x):
        return torch.tanh(x)

    class Base(nn.Module):
        def forward(self, x):
            return act(self.a(x))

    class Net(Base):
        scale = 2

        def __init__(self, width=HIDDEN):
            super().__init__()
            self.a = nn.Linear(4, width)

    def task(n=4):
        global COUNT
        COUNT += 1
        SEEN.append(n)
        return Net, X[:n]

    def other():
        return 1
"""


def cell(text: str) -> ModuleType:
    """Code as in a notebook cell: a module without a file, of which Python keeps the source text."""
    module = ModuleType("notebook")
    text = textwrap.dedent(text)
    name = f"<cell {len(linecache.cache)} {hash(text)}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), vars(module))
    return module


def names(text: str, *of: str) -> list[str]:
    module = cell(text)
    return [given_code.register(getattr(module, name)) for name in of]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("X[:n]", "X[1:n]", ["task"]),
        ("torch.tanh(x)", "torch.relu(x)", ["task", "Net"]),
        ("act(self.a(x))", "2 * act(self.a(x))", ["task", "Net"]),
        ("scale = 2", "scale = 3", ["task", "Net"]),
        ("HIDDEN, COUNT, SEEN = 8,", "HIDDEN, COUNT, SEEN = 9,", ["task", "Net"]),
        ("arange(6.0)", "arange(7.0)", ["task"]),
        ("return 1", "return 2", []),
        ("COUNT, SEEN = 8, 0, []", "COUNT, SEEN = 8, 1, [1]", []),
    ],
)
def test_a_name_tells_the_code_and_what_it_uses(old: str, new: str, changed: list[str]) -> None:
    assert CODE.count(old) == 1
    before = names(CODE, "task", "Net")
    assert names(CODE, "task", "Net") == before
    after = names(CODE.replace(old, new), "task", "Net")
    assert [name for name, a, b in zip(("task", "Net"), before, after, strict=True) if a != b] == changed
    assert all(map(given_code.is_name, before))


def test_calls_change_no_name() -> None:
    module = cell(CODE)
    before = given_code.register(module.task)
    module.task()
    assert given_code.register(module.task) == before
    assert given_code.get(before) is module.task


def test_what_surrounds_a_function_counts() -> None:
    def make(n: int) -> Any:
        def task() -> int:
            return n

        return task

    assert given_code.register(make(1)) == given_code.register(make(1))
    assert given_code.register(make(1)) != given_code.register(make(2))


class Loose:
    def make(self) -> None: ...


Typed = type("Typed", (torch.optim.SGD,), {})
exec("def prompted():\n    return 1")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (lambda: None, "a lambda has no name; define a function with `def`"),
        (functools.partial(cell, "x"), "a partial has no source text to know it by; give a function or a class"),
        (Loose().make, "a method has no source text"),
        (print, "a builtin_function_or_method has no source text"),
        (torch.nn.Linear(2, 1), "a module (Linear) would be shared by all runs; give its class, or a function"),
        (torch.optim.SGD([torch.zeros(1)]), "an optimizer object (SGD) holds the weights of one model; give its class"),
        (
            lrsweep.Task(train=torch.ones(2), val=torch.ones(2), loss=lambda a, b: a),
            "a Task has no source text to know it by; give the function that makes it",
        ),
        (globals()["prompted"], "the source text of prompted cannot be found; define it in a file or in a notebook"),
        (Typed, "the source text of Typed cannot be found"),
    ],
)
def test_what_cannot_be_known_by_its_source_is_refused(value: Any, said: str) -> None:
    spec = sweeps.spec(task=value, optimizers=["sgd", {"name": value}])
    with pytest.raises(SpecError) as refused:
        load_spec(spec)
    assert [issue.path for issue in refused.value.issues] == ["task", "optimizers[1].name"]
    assert refused.value.issues[0].message.startswith(said)


def test_functions_elsewhere_in_a_spec_are_no_values() -> None:
    with pytest.raises(SpecError, match="a value of type function is not allowed in a spec"):
        load_spec(sweeps.spec(model={"name": "mlp", "activation": cell}))


def test_an_optimizer_of_torch_goes_by_its_name() -> None:
    made = load_spec(sweeps.spec(optimizers=[torch.optim.AdamW, {"name": torch.optim.SGD, "momentum": 0.9}]))
    assert [entry.label for entry in made.optimizers] == ["adamw", "sgd(momentum=0.9)"]


def test_data_without_bytes_are_not_looked_at() -> None:
    text = "import torch\nX = {}\ndef task():\n    return X\n"
    for one in ("torch.eye(3).to_sparse()", "torch.ones(2, dtype=torch.bfloat16)", "[1, 2]"):
        assert given_code.is_name(names(text.format(one), "task")[0])
    arrays = [names(f"import numpy as np\n{text.format(one)}", "task") for one in ("np.ones(3)", "np.zeros(3)")]
    assert arrays[0] != arrays[1]
    assert np.ones(1).size


def test_a_spec_on_disk_names_code_that_this_process_must_have(tmp_path: Path) -> None:
    module = cell(CODE)
    made = load_spec(sweeps.spec(task={"name": module.task, "n": 3}, model=module.Net))
    path = tmp_path / "spec.yaml"
    path.write_text(dump_resolved(made, tmp_path))
    assert load_spec(path).task == made.task
    path.write_text(re.sub("<python [0-9a-f]{16}>", "<python 0123456789abcdef>", path.read_text()))
    with pytest.raises(UsageError) as refused:
        load_spec(path)
    assert str(refused.value).startswith(f"{path}: task, Net were given in Python, and results do not hold the code")


def test_an_optimizer_object_is_refused_at_its_place() -> None:
    given = torch.optim.SGD([torch.zeros(1)])
    with pytest.raises(
        lrsweep.SpecError, match=r"^optimizers\[0\]: an optimizer object \(SGD\) holds the weights"
    ) as info:
        lrsweep.load_spec({"task": "blobs", "optimizers": [given, "adam"], "train": {"epochs": 1}})
    assert len(info.value.issues) == 1
