"""What is wrong with the user's task, model or optimizer is told with the line of the spec and of their file."""

from __future__ import annotations

from pathlib import Path

import pytest

import lrsweep
from lrsweep.errors import UsageError
from tests.support import sweeps

CODE = """\
import torch
from lrsweep import Task

X = torch.linspace(-1, 1, 10)[:, None]

def model():
    return torch.nn.Linear(1, 1)

def make(n=10, metrics={}, loss=lambda output, target: (output - target).square().mean(), model=model):
    return Task(train=(X, X), val=(X, X), model=model, loss=loss, metrics=metrics)

def raising():
    raise ValueError("no data")

def asking():
    return make(metrics=["accuracy"])

def modelless():
    return make(model=None)

def other():
    return 3

def wide(width):
    return torch.nn.Linear(1, 1)

def bad_loss(output, target):
    raise ValueError("bad loss")

def failing():
    return make(loss=bad_loss)

class Own(torch.optim.SGD):
    def __init__(self, params, lr, rho):
        super().__init__(params, lr)

number = 3

def nothing(step, total_steps):
    pass

def falling(step, total_steps):
    return 1 - step

def broken(step, total_steps):
    raise ValueError("no factor")

def changing(step, total_steps, seen=[]):
    seen.append(step)
    return len(seen)
"""

SPEC = """\
task: task.py:make
model: task.py:model
optimizers: [sgd]
lr: [0.1]
seeds: 1
train: {epochs: 1, batch_size: 5}
"""

TASK, MODEL, BATCHES = "task: task.py:make", "model: task.py:model", "batch_size: 5"
SEEDS, PLACE = "seeds: 1", "6:1: schedule"


def scheduled(name: str) -> str:
    return f"{SEEDS}\nschedule: task.py:{name}"


# What is replaced in the spec, by what; then the place of the mistake with its key, and what else the message says.
CASES: dict[str, tuple[str, str, str, str]] = {
    "the task raises": (TASK, "task: task.py:raising", "1:1: task", "no data (task.py:13 in raising)"),
    "the task is refused": (TASK, "task: task.py:asking", "1:1: task", "metrics is a list"),
    "no task comes back": (TASK, "task: task.py:other", "1:1: task", "task.py:21: it must return"),
    "no function": (TASK, "task: task.py:number", "1:1: task", "not a function"),
    "no model": (f"{TASK}\n{MODEL}", "task: task.py:modelless", "1:1: task", "set one with `model:`"),
    "import of the task": (TASK, "task: broken.py:make", "1:1: task", "broken.py:1: cannot be loaded"),
    "import of the model": (MODEL, "model: broken.py:model", "2:1: model", "broken.py:1: cannot be loaded"),
    "argument of the model": (MODEL, "model: task.py:wide", "2:1: model", "missing a required argument"),
    "import of an optimizer": ("[sgd]", "[adam, broken.py:Own]", "3:20: optimizers[1]", "broken.py:1: cannot be"),
    "argument of an optimizer": ("[sgd]", "[adam, task.py:Own]", "3:20: optimizers[1]", "missing a required argument"),
    "no batches": (BATCHES, "batch_size: 50, drop_last: true", "6:36: train.drop_last", "leaving no batch"),
    "no factor": (SEEDS, scheduled("nothing"), PLACE, "task.py:39: the factor at step 0 of 2 is None; it must be a"),
    "a negative factor": (SEEDS, scheduled("falling") + "\naxes: {train.epochs: [1, 4]}", PLACE, "2 of 8 is -1.0; it"),
    "a schedule that raises": (SEEDS, scheduled("broken"), PLACE, "ValueError: no factor (task.py:46 in broken)"),
    "a schedule that keeps something": (SEEDS, scheduled("changing"), PLACE, "differs when it is computed again"),
    "arguments of a schedule": (SEEDS, f"{SEEDS}\nschedule: {{name: task.py:falling, to: 1}}", PLACE, "keyword"),
    "a schedule that is none": (SEEDS, scheduled("number"), PLACE, "is a int, not a function"),
    "a schedule of an axis": (SEEDS, f"{SEEDS}\naxes: {{schedule: [constant, task.py:nothing]}}", "6:8: axes", ""),
    "a schedule of an optimizer": ("[sgd]", "[adam, {name: sgd, schedule: task.py:nothing}]", "3:32: optim", "None"),
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(CODE)
    (tmp_path / "broken.py").write_text("1 / 0\ndef make(): pass\ndef model(): pass\nclass Own: pass\n")
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    return path


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_in_the_users_code_names_the_line_of_the_spec(spec: Path, case: str) -> None:
    before, after, place, what = CASES[case]
    spec.write_text(SPEC.replace(before, after))
    with pytest.raises(UsageError) as info:
        sweeps.run(spec.parent / "results", spec)
    assert str(info.value).startswith(f"{spec}:{place}")
    assert what in str(info.value)


def test_all_that_is_wrong_with_a_table_is_told_with_the_lines_of_the_spec_and_of_the_table(spec: Path) -> None:
    (spec.parent / "t.csv").write_text("id,a,city,y\nx,1,Oslo,1.5\nx,?,Rome,2.5\nx,3,Oslo,3.5\n")
    spec.write_text("optimizers: [sgd]\ntrain: {epochs: 1}\ntask: {name: csv, path: t.csv, target: y, drop: [id]}\n")
    with pytest.raises(UsageError) as info:
        sweeps.run(spec.parent / "results", spec)
    one, two, last = str(info.value).splitlines()
    place, table = f"{spec}:3:1: task: ", spec.parent / "t.csv"
    assert one.startswith(
        f"{place}{table}:3: column 'a': 1 cell is missing: '?' (write missing: drop_rows or missing: "
    )
    assert two.startswith(f"{place}{table}:2: column 'city': 3 of 3 cells are text, first 'Oslo' (write one_hot: text_")
    assert two.endswith(", or drop: [id, city])")
    assert last == f"{place}what drop, one_hot and missing do: lrsweep list tasks"
    spec.write_text(spec.read_text().replace("drop: [id]", "drop: [id, b, y]"))
    with pytest.raises(UsageError) as info:
        sweeps.run(spec.parent / "results", spec)
    assert [line.partition(": ")[0] for line in str(info.value).splitlines()] == [f"{spec}:3:43"] * 2


def test_so_does_a_range_test(spec: Path) -> None:
    spec.write_text(SPEC.replace("task.py:make", "task.py:failing"))
    with pytest.raises(UsageError) as info:
        lrsweep.lr_finder(spec, results=spec.parent / "results", steps=20)
    assert str(info.value).startswith(f"{spec}:3:14: optimizers[0]: ")
    assert "bad loss (task.py:28 in bad_loss)" in str(info.value)


def test_in_a_dict_the_key_is_named(spec: Path) -> None:
    config = sweeps.spec(task=f"{spec.parent}/task.py:raising", model=None)
    with pytest.raises(UsageError, match=r"^task: task .*no data \(task.py:13 in raising\)$"):
        sweeps.run(spec.parent / "results", config)


def test_a_long_error_is_a_paragraph_in_runs_csv_and_whole_in_the_journal(spec: Path) -> None:
    code = CODE.replace('"bad loss"', '"bad loss\\n\\n" + "much more\\n" * 100')
    (spec.parent / "task.py").write_text(code)
    spec.write_text(SPEC.replace("task.py:make", "task.py:failing"))
    sweeps.run(spec.parent / "results", spec)
    folder = spec.parent / "results" / "spec"
    error = lrsweep.load(folder).runs["error"][0]
    assert error == "ValueError: bad loss ... (task.py:28 in bad_loss)"
    (journal,) = (folder / "journal").glob("*.jsonl")
    assert r"much more\nmuch more" in journal.read_text()
