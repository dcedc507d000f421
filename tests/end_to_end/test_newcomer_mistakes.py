"""What newcomers get wrong in a task of their own: told before training, in one message, with the place and the cure.

What the user's code or torch raises in a step fails the runs (exit code 3), with the same text; all else is a mistake
of the task (2). `python -m tests.end_to_end.test_newcomer_mistakes` prints all messages, to be read.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

import lrsweep
from lrsweep.cli import output
from lrsweep.errors import UsageError
from lrsweep.results import tables
from lrsweep.sweep.progress import Silent
from tests.support import sweeps

HEAD = """\
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from lrsweep import Task

g = torch.Generator().manual_seed(0)
X, Y = torch.randn(48, 4, generator=g), torch.randn(48, 1, generator=g)
C = torch.randint(0, 3, (48,), generator=g)
mse = nn.functional.mse_loss

def model(): return nn.Linear(4, 1)
def classes(): return nn.Linear(4, 3)
def made(train=(X, Y), val=(X, Y), model=model, loss=mse, **more):
    return Task(train=train, val=val, model=model, loss=loss, **more)
def classified(y, model=classes, loss=nn.CrossEntropyLoss()):
    return made(train=(X, y), val=(X, y), model=model, loss=loss)

"""
FIRST = HEAD.count("\n") + 1  # the line of what a case adds

SPEC = {"task": "task.py:make", "optimizers": "[sgd]", "lr": "[0.01, 0.1]", "seeds": "1"}
SPEC["train"] = "{epochs: 2, batch_size: 16}"

DOUBLE = (("train", "{epochs: 2, batch_size: 16, dtype: float64}"),)


@dataclass(frozen=True)
class Case:
    """`code` is the end of the user's file. `told`: parts of the message, a number being a line counted from the first
    of `code`. `code` 0: a warning. `key`: of the spec, with its place."""

    code: str
    exit_code: int
    told: tuple[str | int, ...]
    key: str = "1:1: task"
    changed: tuple[tuple[str, str], ...] = ()


def net(body: str, start: str = "super().__init__(4, 1)", base: str = "nn.Linear") -> str:
    return (
        f"class Net({base}):\n    def __init__(self):\n        {start}\n    def forward(self, x):\n        {body}\n\n"
        "def make(): return made(model=Net)"
    )


def data(item: str, more: str = "") -> str:
    return (
        f"class Own(Dataset):\n    def __len__(self): return 48\n    def __getitem__(self, i): return {item}\n\n"
        f"def make(): return made(train=Own(), val=Own(){more})"
    )


def stepped(body: str, arguments: str = "model, batch", net: str = "model") -> str:
    return f"def step({arguments}):\n    {body}\n\ndef make(): return made(loss=None, step=step, model={net})"


def function(name: str, body: str, arguments: str = "output, target", given: str = "") -> str:
    return f"def {name}({arguments}):\n    {body}\n\ndef make(): return made({given or f'{name}={name}'})"


OPTIMIZED = (
    "x, y = batch; model.opt.zero_grad(); loss = mse(model(x), y); loss.backward(); model.opt.step(); return loss"
)
GAN = """\
class Gan(nn.Module):
    def __init__(self):
        super().__init__()
        self.g, self.d = nn.Linear(2, 4), nn.Linear(4, 1)
        self.opt_g, self.opt_d = torch.optim.Adam(self.g.parameters()), torch.optim.Adam(self.d.parameters())

def step(model, batch):
    fake = model.g(torch.randn(len(batch[0]), 2))
    d = model.d(batch[0]).mean() - model.d(fake.detach()).mean()
    model.opt_d.zero_grad(); d.backward(); model.opt_d.step()
    loss = model.d(fake).mean()
    model.opt_g.zero_grad(); loss.backward(); model.opt_g.step()
    return loss

def make(): return Task(train=(X, Y), val=(X, Y), model=Gan, step=step)"""
OWN_OPTIMIZER = """\
class Own(nn.Linear):
    def __init__(self):
        super().__init__(4, 1)
        self.opt = torch.optim.SGD(self.parameters(), lr=0.1)

"""
INPLACE = "y = super().forward(x).sigmoid(); z = y * y; y += 1; return z * y"
KEPT = "y = super().forward(x) + getattr(self, 'h', x).mean(); self.h = y if self.training else self.h; return y"

CASES = {
    # shapes and dtypes
    "a width that does not fit": Case(
        "def make(): return made(model=lambda: nn.Linear(5, 1))", 3, ("for 5 features is given 4; change the width", 0)
    ),
    "val of another width": Case("def make(): return made(val=(X[:, :3], Y))", 3, ("for 4 features is given 3",)),
    "a convolution over rows": Case(
        "def make(): return made(model=lambda: nn.Conv2d(1, 4, 3))", 3, ("[batch, channels, height, width]; reshape", 0)
    ),
    "integers as inputs": Case("def make(): return made((X.long(), Y), (X.long(), Y))", 3, ("X.float()",)),
    "float32 in the model under float64": Case(
        "class Net(nn.Linear):\n    def forward(self, x): return super().forward(x.float())\n"
        "def make(): return made(model=lambda: Net(4, 1))",
        3,
        ("the train.dtype of the spec", ".to(x.dtype) in place of .float()", 1),
        changed=DOUBLE,
    ),
    "float32 in the loss under float64": Case(
        "def loss(o, t): return mse(o.T @ torch.ones(len(o), 1, dtype=torch.float32), t[:1])\n"
        "def make(): return made(loss=loss)",
        3,
        ("the train.dtype of the spec", 0),
        changed=DOUBLE,
    ),
    "float32 in a convolution under float64": Case(
        "class Net(nn.Conv1d):\n    def forward(self, x): return super().forward(x.float()[:, None])[:, 0]\n"
        "def make(): return made(model=lambda: Net(1, 1, 4))",
        3,
        ("the train.dtype of the spec", 1),
        changed=DOUBLE,
    ),
    "float64 in objects of a batch": Case(
        "class Item:\n    def __init__(self, rows): self.x = torch.stack([x for x, _ in rows]).double()\n"
        "def make(): return Task(train=TensorDataset(X, Y), val=TensorDataset(X, Y), model=model, collate_fn=Item,\n"
        "    step=lambda model, item: model(item.x).mean())",
        3,
        ("those in objects of your own do not", 3),
    ),
    "labels that are floats": Case("def make(): return classified(C.float())", 3, ("y.long()",)),
    "labels in a column": Case("def make(): return classified(C[:, None])", 3, ("y.squeeze(1)",)),
    "labels out of range": Case("def make(): return classified(C + 1)", 3, ("from 0 to the number",)),
    "a target of integers": Case(
        "def make(): return classified((C > 0).long()[:, None], model=model, loss=nn.BCEWithLogitsLoss())",
        3,
        ("needs a target that is floating point", "y.float()"),
    ),
    "a target that is broadcast": Case("def make(): return made((X, Y[:, 0]), (X, Y[:, 0]))", 0, ("target size",)),
    "rows that differ": Case("def make(): return made((X, Y[:40]))", 2, ("different numbers of rows: 48, 40",)),
    "nan in the data": Case(
        "bad = X.clone(); bad[3, 1] = float('nan')\ndef make(): return made((bad, Y))",
        0,
        ("nan or infinite values in 1 of 48 rows of train[0], the first 3", "remove or fill them"),
    ),
    # the loss
    "a loss for each example": Case(
        "def make(): return made(loss=nn.MSELoss(reduction='none'))", 2, ("shape (16, 1)", "leave out reduction='none'")
    ),
    "a loss of several numbers": Case(
        function("loss", "return (output - target).square()"), 2, ("must be one number", "take its .mean()", 0)
    ),
    "a loss that is a float": Case(
        function("loss", "return mse(output, target).item()"), 2, ("a float, not a tensor", "without .item()", 0)
    ),
    "a loss that is cut off": Case(
        function("loss", "return mse(output, target).detach()"),
        2,
        ("does not depend on the parameters", ".detach()", 0),
    ),
    "a loss that is not returned": Case(
        function("loss", "mse(output, target)"), 2, ("the loss is None", "does the function return it?", 0)
    ),
    "a loss of one argument": Case(
        function("loss", "return output.mean()", "output"),
        3,
        ("takes 1 positional argument", "loss(output, target)", 0),
    ),
    "the name of a loss": Case("def make(): return made(loss='mse')", 2, ("loss is a str, not a function",)),
    "the class of a loss": Case("def make(): return made(loss=nn.MSELoss)", 2, ("the class MSELoss", "MSELoss()")),
    "a sum": Case("def make(): return made(loss=nn.MSELoss(reduction='sum'))", 0, ("divide it by the batch size",)),
    # the model
    "a module for a function": Case("def make(): return made(model=model())", 2, ("give a function that builds it",)),
    "a module for all runs": Case(
        "shared = model()\ndef make(): return made(model=lambda: shared)",
        2,
        ("the same module twice", "a fresh one", 1),
    ),
    "a builder without return": Case(function("model", "nn.Linear(4, 1)", ""), 2, ("not None; does it end with", 0)),
    "a builder with arguments": Case(
        function("model", "return nn.Linear(width, 1)", "width"),
        2,
        ("missing a required argument: 'width'",),
        "1:1: model",
    ),
    "a builder that raises": Case(function("model", "return nn.Linear(4)", ""), 3, ("out_features", 1)),
    "nothing to train": Case(
        function("model", "return nn.Linear(4, 1).requires_grad_(False)", ""), 2, ("requires a gradient; leave some", 0)
    ),
    "layers in a list": Case(
        net("return self.layers[0](x)", "super().__init__(); self.layers = [model()]", "nn.Module"),
        2,
        ("it has no parameters", "nn.ModuleList"),
    ),
    "no super().__init__()": Case(
        net("return self.layer(x)", "self.layer = model()", "nn.Module"), 3, ("call super().__init__() first", 2)
    ),
    "no forward": Case(
        net("return x").replace("forward", "foward").replace("nn.Linear", "nn.Module").replace("4, 1", ""),
        2,
        ("it has no parameters",),
    ),
    "two outputs": Case(net("return super().forward(x), x"), 3, ("if the model returns a tuple",)),
    "the meta device": Case(
        "def make(): return made(model=lambda: nn.Linear(4, 1, device='meta'))", 3, ("without device=", "--device", 0)
    ),
    "a name that is not there": Case(net("return F.relu(super().forward(x))"), 3, ("name 'F' is not defined", 4)),
    "in place": Case(net(INPLACE), 2, ("overwritten", "write y = y + 1", 3)),
    "a weight changed in place": Case(
        net("self.weight.mul_(0.5); return super().forward(x)"), 3, ("within torch.no_grad()", 4)
    ),
    "tensors of an earlier step": Case(net(KEPT), 2, ("tensors of an earlier step", ".detach()", 3)),
    # the data
    "a DataLoader": Case(
        "def make(): return made(DataLoader(TensorDataset(X, Y)))", 2, ("loader.dataset", "train.batch_size")
    ),
    "a generator": Case("def make(): return made(x for x in X)", 2, ("a generator; give a tuple of tensors",)),
    "a list of pairs": Case("def make(): return made(list(zip(X, Y)))", 2, ("one tensor of all inputs",)),
    "a list of labels": Case(
        "def make(): return made((X, ['a'] * 48))", 2, ("a list, not a tensor; use torch.tensor",)
    ),
    "numpy": Case("def make(): return made((X.numpy(), Y.numpy()))", 2, ("use torch.from_numpy",)),
    "a dict": Case("def make(): return made({'x': X, 'y': Y})", 2, ("train is a dict; give a tuple",)),
    "no validation data": Case("def make(): return made(val=(X[:0], Y[:0]))", 2, ("val has no examples",)),
    "no val": Case("def make(): return made(val=None)", 2, ("val is missing (give tensors",)),
    "a dict for each example": Case(data("{'x': X[i], 'y': Y[i]}"), 2, ("a batch is a dict", "(*inputs, target)", 2)),
    "sets": Case(data("{1.0, float(X[i, 0])}"), 3, ("found <class 'set'>", "give a collate_fn", 2)),
    "examples of several shapes": Case(data("(torch.ones(i + 1), Y[i])"), 3, ("give Task a collate_fn", 2)),
    "no example for one index": Case(
        data("(X[i], Y[i]) if i != 37 else None"),
        3,
        ("train[37] is None; `__getitem__` must return a tuple of tensors (", 2),
    ),
    "a __getitem__ without return": Case(
        data("print(end='')"), 3, ("`__getitem__` must return a tuple of tensors; is its `return` missing? (", 2)
    ),
    "an index too far": Case(data("(X[i + 1], Y[i])"), 3, ("does __len__ of the Dataset", 2)),
    "a collate_fn without return": Case(
        "def collate(items):\n    pass\n\n" + data("(X[i], Y[i])", ", collate_fn=collate"), 2, ("a batch is None", 0)
    ),
    "a batch larger than the data": Case(
        "def make(): return made()",
        0,
        ("exceeds the 48 training examples",),
        "",
        (("train", "{epochs: 2, batch_size: 500}"),),
    ),
    # metrics
    "a metric of several numbers": Case(
        "def make(): return made(metrics={'hits': lambda o, t: (o - t).abs()})", 2, ("metric hits has shape (48, 1)", 0)
    ),
    "a metric that raises": Case(
        function("hits", "return output.argmax(3)", given="metrics={'hits': hits}"), 3, ("Dimension out of range", 1)
    ),
    "a metric without return": Case(
        function("hits", "pass", given="metrics={'hits': hits}"), 2, ("metric hits is None", "return it?", 0)
    ),
    "a list of metrics": Case("def make(): return made(metrics=['accuracy'])", 2, ("give a dict of name: function",)),
    # step
    "backward in step": Case(
        stepped("x, y = batch; loss = mse(model(x), y); loss.backward(); return loss"),
        2,
        ("must call neither backward() nor an optimizer", 0),
    ),
    "an optimizer in step": Case(
        OWN_OPTIMIZER + stepped(OPTIMIZED, net="Own"), 2, ("must call neither backward() nor an optimizer", 5)
    ),
    "two optimizers in step": Case(GAN, 2, ("such as a GAN, cannot be swept", 6)),
    "a step of one argument": Case(stepped("return model(X).mean()", "model"), 3, ("step(model, batch)", 0)),
    "a step that returns no loss": Case(
        stepped("return {'mse': mse(model(batch[0]), batch[1])}"), 2, ("without 'loss' (it has mse)", 0)
    ),
    "a step that returns a pair": Case(
        stepped("return mse(model(batch[0]), batch[1]), 1.0"), 2, ("the loss is a tuple", "return the loss alone", 0)
    ),
    # the machine
    ".cuda() in the model": Case(net("return super().forward(x.cuda())"), 3, ("leave out .cuda()", "--device", 4)),
    ".cuda() of the model": Case(function("model", "return nn.Linear(4, 1).cuda()", ""), 3, ("leave out .cuda()", 1)),
    ".cuda() of the data": Case("def make(): return made((X.cuda(), Y.cuda()))", 2, ("leave out .cuda()", 0)),
    # the file and the task function
    "no such function": Case(
        "def mak(): return made()", 2, ("does not define 'make' (did you mean mak?)",), "1:7: task"
    ),
    "a task with arguments": Case(
        "def make(path): return made()", 2, ("missing a required argument: 'path'", "(path)")
    ),
    "no return": Case("def make():\n    made()", 2, ("must return an lrsweep.Task, not a NoneType",)),
    "a tuple for a task": Case("def make(): return (X, Y), (X, Y)", 2, ("must return an lrsweep.Task, not a tuple",)),
    "a model for a task": Case("def make(): return model()", 2, ("must return an lrsweep.Task, not a Linear",)),
    "a keyword that is mistyped": Case(
        "def make(): return Task(train=(X, Y), valid=(X, Y))", 2, ("keyword argument 'valid'", "did you mean val?", 0)
    ),
    "no keywords": Case("def make(): return Task((X, Y), (X, Y))", 2, ("write Task(train=..., val=..., ...)", 0)),
    "a file that is missing": Case("def make(): open('data.csv')", 2, ("No such file or directory: 'data.csv'", 0)),
    "an import that fails": Case(
        "import numpi\ndef make(): return made()", 2, ("No module named 'numpi'", "install it", f"task.py:{FIRST}")
    ),
    "a relative import": Case(
        "from .other import make", 2, ("without the dot: the folder of the file is searched", f"task.py:{FIRST}")
    ),
    "a syntax error": Case("def make() return 1", 2, (f"task.py:{FIRST} is not valid Python",), "1:7: task"),
    # the optimizer
    "lbfgs": Case(
        "def make(): return made()",
        2,
        ("did you mean torch.optim:LBFGS?",),
        "2:14: optimizers[0]",
        (("optimizers", "[lbfgs]"),),
    ),
    "an argument of another optimizer": Case(
        "def make(): return made()",
        2,
        ("adam has no 'momentum' (allowed: betas",),
        "2:27: optimizers[0].momentum",
        (("optimizers", "[{name: adam, momentum: 0.9}]"),),
    ),
    "a learning rate of an optimizer": Case(
        "def make(): return made()",
        2,
        ("write [0.1] for a single learning rate",),
        "2:30: optimizers[0].lr",
        (("optimizers", "[{name: sgd, lr: 0.1}]"),),
    ),
    "a class without lr": Case(
        "class Own(torch.optim.SGD):\n    def __init__(self, params): super().__init__(params, lr=1)\n"
        "def make(): return made()",
        2,
        ("lrsweep passes the parameters and lr",),
        "2:14: optimizers[0]",
        (("optimizers", "['task.py:Own']"),),
    ),
    "a function for an optimizer": Case(
        "def own(params, lr): pass\ndef make(): return made()",
        2,
        ("a subclass of torch.optim.Optimizer",),
        "2:14: optimizers[0]",
        (("optimizers", "['task.py:own']"),),
    ),
}


def answer(folder: Path, case: Case) -> tuple[int, list[str]]:
    """The exit code of a dry run, and what it tells: the message, or what runs fail with, or warnings."""
    (folder / "task.py").write_text(HEAD + case.code + "\n")
    (folder / "spec.yaml").write_text("".join(f"{key}: {text}\n" for key, text in (SPEC | dict(case.changed)).items()))
    reporter = Silent()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # as users have it
            found = sweeps.estimate(folder / "results", folder / "spec.yaml", reporter=reporter)
    except UsageError as error:
        return error.exit_code, str(error).splitlines()
    return (3, list(found.errors)) if found.errors else (0, reporter.notes)


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_told_before_training_with_its_place_and_its_cure(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    code, told = answer(tmp_path, case)
    assert code == case.exit_code, told
    (message,) = told
    if code == 2:
        assert message.startswith(f"{tmp_path}/spec.yaml:{case.key}: ")
    for part in case.told:
        assert (part if isinstance(part, str) else f"(task.py:{FIRST + part} in ") in message
    if code and case.key.endswith("task"):
        assert re.search(r"task\.py[: ]", message)
    assert "Traceback" not in message
    assert len(message.replace(str(tmp_path), "")) < 420


def test_runs_that_all_fail_are_told_once_with_the_place_in_the_spec(tmp_path: Path) -> None:
    answer(tmp_path, CASES["a width that does not fit"])
    done = sweeps.run(tmp_path / "results", tmp_path / "spec.yaml")
    runs = tables.read_runs(done.path)
    assert set(runs["status"]) == {"failed"}
    text = output.failures(runs, done.place)
    assert f"2 of 2 runs failed; correct the code that {tmp_path}/spec.yaml:1:1: task names, then rerun" in text
    assert text.count("for 5 features is given 4") == 1


def test_failures_that_differ_by_the_numbers_of_processes_are_one() -> None:
    lost = [f"RuntimeError: DataLoader worker (pid(s) {pid}) exited unexpectedly" for pid in ("201", "202, 203")]
    killed = [f"RuntimeError: DataLoader worker (pid {pid}) is killed by signal: Aborted." for pid in (7, 8)]
    one = {"status": "failed", "optimizer": "sgd", "lr": 0.1, "seed": 0}
    runs = pd.DataFrame([{**one, "run_id": str(n), "error": error} for n, error in enumerate([*lost, *killed])])
    lines = output.failures(runs).splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["2", "0"], ["2", "2"]]
    assert lines[2].endswith("DataLoader worker (pid(s)) exited unexpectedly")


def test_nothing_is_said_to_be_trained_again_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("x,y\n" + "".join(f"{n},{n % 7}.5\n" for n in range(60)))
    (tmp_path / "bad.csv").write_text("x,y\n")
    (tmp_path / "better.csv").write_text("x,y\n" + "".join(f"{n},{n % 5}.5\n" for n in range(60)))
    spec = {"task": {"name": "csv", "path": str(tmp_path / "good.csv"), "target": "y"}, "optimizers": ["sgd"]}
    config = {**spec, "name": "sweep", "lr": [0.1], "seeds": 1, "train": {"steps": 2}}
    sweeps.run(tmp_path, config)
    reporter = Silent()
    with pytest.raises(UsageError, match="holds no rows"):
        sweeps.run(tmp_path, config, set=[f"task.path={tmp_path}/bad.csv"], reporter=reporter)
    assert reporter.notes == []
    sweeps.run(tmp_path, config, set=[f"task.path={tmp_path}/better.csv"], reporter=reporter)
    assert any(note.startswith("changed since the last run") for note in reporter.notes)


def test_a_mistake_leaves_no_folder_behind(tmp_path: Path) -> None:
    answer(tmp_path, CASES["a loss that is a float"])
    with pytest.raises(UsageError, match="a float, not a tensor"):
        sweeps.run(tmp_path / "results", tmp_path / "spec.yaml")
    assert not (tmp_path / "results" / "spec").exists()


def test_a_range_test_names_the_task_too(tmp_path: Path) -> None:
    answer(tmp_path, CASES["a loss that is a float"])
    with pytest.raises(UsageError, match=r"spec.yaml:1:1: task: the loss is a float"):
        lrsweep.lr_finder(tmp_path / "spec.yaml", results=tmp_path / "results")


def test_a_file_that_is_called_torch_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("x = 1\n")
    done = subprocess.run([sys.executable, "-m", "lrsweep", "list"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            code, told = answer(Path(folder), case)
        print(f"{name}\n  {code} " + "\n    ".join(told).replace(f"{folder}/", ""))
