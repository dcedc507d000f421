"""Specs that are wrong: each is refused with the place, the key and a way out, and all mistakes are told at once.

`@` in a spec marks the place that the error must point at; it is taken out before the spec is read.
"""

from __future__ import annotations

import contextlib
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep.errors import LrsweepError, SpecError, UsageError
from lrsweep.spec.load import load_spec
from lrsweep.spec.resolved import resolved_dict
from lrsweep.spec.yaml_tree import parse

STARTER = (files("lrsweep.cli") / "starter.yaml").read_text(encoding="utf-8")
DEFAULTS = {"task": "digits", "optimizers": "[sgd]", "train": "{epochs: 1}"}
DEFAULT_DICT = {"task": "digits", "optimizers": ["sgd"], "train": {"epochs": 1}}

OWN = """
import torch as pytorch
class Lion: ...
def make(): ...
try:
    from fast import rate
except ImportError as missing:
    rate = None
"""
BROKEN = "def make(:\n"

# name -> spec (missing task, optimizers and train are added below it), path, part of the message
CASES: dict[str, tuple[str, str, str]] = {
    # the spec as a whole
    "unknown key": ("@optimiser: [sgd]", "optimiser", "did you mean optimizers?"),
    "near key": ("@sheduler: constant", "sheduler", "did you mean schedule?"),
    "another word": ("@learning_rate: [0.1]", "learning_rate", "did you mean lr?"),
    "a key of train": ("@batch_size: 3", "batch_size", "train.batch_size"),
    "a far key": ("@zzz: 1", "zzz", "allowed: name, task, model"),
    # name
    "name climbs": ("name: @../../x", "name", "one path component"),
    "name hidden": ("name: @.hidden", "name", "for example hidden"),
    "name empty": ("name: @''", "name", "one path component"),
    "name with a blank": ("name: @my sweep", "name", "for example my-sweep"),
    "name is a number": ("name: @2024", "name", "write '2024' in quotes"),
    "name is a version": ("name: @1.10", "name", "not 1.10 (write '1.10' in quotes)"),
    "name with zeros": ("name: @007", "name", "not 007 (write '007' in quotes)"),
    "name with an exponent": ("name: @1e5", "name", "not 1e5 (write '1e5' in quotes)"),
    "name is octal": ("name: @0o17", "name", "not 0o17 (write '0o17' in quotes)"),
    "name is a boolean": ("name: @True", "name", "not True (write 'True' in quotes)"),
    "label is a number": (
        "optimizers: [{name: sgd, label: @1.10}]",
        "optimizers[0].label",
        "not 1.10 (write '1.10' in quotes)",
    ),
    "a path is a number": ("task: {name: csv, target: y, path: @007}", "task.path", "not 007 (write '007' in quotes)"),
    "an axis as written": ("axes: {train.epochs: [@2.50]}", "axes.train.epochs[0]", "not 2.50"),
    "one rate as written": ("lr: @1e-3", "lr", "write [1e-3] for a single learning rate"),
    "a number as written": ("train: {epochs: @2.50}", "train.epochs", "not 2.50"),
    "name absolute": ("name: @/etc", "name", "one path component"),
    "name with a line end": ('name: @"a\\n"', "name", "one path component"),
    # task
    "unknown task": ("task: @digit", "task", "did you mean digits?"),
    "unknown task in a mapping": ("task: {name: @iris2, split_seed: 1}", "task.name", "did you mean iris?"),
    "task without name": ("task: @{split_seed: 1}", "task", "needs name"),
    "task is a list": ("task: @[digits]", "task", "a name or a mapping"),
    "task name is a number": ("task: {name: @3}", "task.name", "must be text"),
    "unknown argument of a task": ("task: {name: blobs, @sd: 1}", "task.sd", "did you mean std?"),
    "argument of the wrong type": ("task: {name: blobs, n: @many}", "task.n", "must be an integer"),
    "integer as float": ("task: {name: blobs, n: @1e3}", "task.n", "write 1000"),
    "argument out of range": ("task: {name: blobs, n: @0}", "task.n", "above 0, not 0"),
    "choice": ("task: {name: digits, scale: @standrd}", "task.scale", "did you mean standard?"),
    "task without its file": ("task: @gone.py:make", "task", "no file 'gone.py'"),
    "task without its function": ("task: @own.py", "task", "did you mean own.py:function?"),
    "task without that function": ("task: @own.py:mak", "task", "own.py does not define 'mak' (did you mean make?)"),
    "task in a file that is no Python": ("task: @broken.py:make", "task", "broken.py:1 is not valid Python"),
    "optimizer without its class": ("optimizers: [@own.py:Tiger]", "optimizers[0]", "(it defines Lion, make)"),
    "task with half a function": ("task: @'own.py:'", "task", "is not an import path"),
    "csv without path": ("task: @{name: csv, target: y}", "task.path", "is missing"),
    "text where names are": (
        "task: {name: csv, path: own.py, target: y, drop: @a}",
        "task.drop",
        "a list (each text) or null",
    ),
    "another way to encode": (
        "task: {name: csv, path: own.py, target: y, one_hot: @text}",
        "task.one_hot",
        "text_columns or a list",
    ),
    "another way to fill in": (
        "task: {name: csv, path: own.py, target: y, missing: @median}",
        "task.missing",
        "one of drop_rows, mean or null",
    ),
    "images without their folder": (
        "task: {name: image_folder, path: @gone}",
        "task.path",
        "there is no folder 'gone'",
    ),
    "images in the place of a file": ("task: {name: image_folder, path: @own.py}", "task.path", "a file, not a folder"),
    "a size of nothing": (
        "task: {name: image_folder, path: ., size: @0}",
        "task.size",
        "must be an integer from 1, [height, width] or null, not 0",
    ),
    "a size of three": (
        "task: {name: image_folder, path: ., size: @[1, 2, 3]}",
        "task.size",
        "[height, width] or null, not",
    ),
    "openml without a table": ("task: @{name: openml}", "task.dataset", "is missing"),
    "csv without its file": ("task: {name: csv, path: @gone.csv, target: y}", "task.path", "relative to the spec"),
    # model
    "unknown model": ("model: @mpl", "model", "did you mean mlp?"),
    "a list with text": ("model: {name: mlp, hidden: [64, @wide]}", "model.hidden[1]", "must be an integer above 0"),
    "no list": ("model: {name: mlp, hidden: @64}", "model.hidden", "must be a list"),
    "argument lrsweep gives": ("model: {name: mlp, @in_shape: [1]}", "model.in_shape", "mlp has no 'in_shape'"),
    # lr
    "no learning rate": ("lr: @[]", "lr", "at least one learning rate"),
    "one rate": ("lr: @0.1", "lr", "write [0.1]"),
    "rate zero": ("lr: [0.1, @0]", "lr[1]", "a number above 0"),
    "rate negative": ("lr: [@-0.1]", "lr[0]", "a number above 0"),
    "rate nan": ("lr: [@.nan]", "lr[0]", "a number above 0"),
    "rate infinite": ("lr: [0.1, @.inf]", "lr[1]", "a number above 0"),
    "rate overflowing": ("lr: [@1e999]", "lr[0]", "a number above 0"),
    "rate as text": ('lr: [@"1e-3"]', "lr[0]", "write 1e-3 without quotes"),
    "rate with a comma": ("lr: [@'0,1']", "lr[0]", "write 0.1"),
    "rate true": ("lr: [@true]", "lr[0]", "not true"),
    "rate twice": ("lr: [1e-3, @0.001]", "lr[1]", "given twice"),
    "grid upside down": ("lr: {min: 1, max: @0.1}", "lr.max", "above min"),
    "grid of one": ("lr: {min: 1, max: @1}", "lr.max", "give a list"),
    "grid from zero": ("lr: {min: @0, max: 1}", "lr.min", "a number above 0"),
    "two spacings": ("lr: {points: 3, @per_decade: 2}", "lr.per_decade", "points or per_decade, not both"),
    "one point": ("lr: {points: @1}", "lr.points", "an integer from 2"),
    "half steps": ("lr: {per_decade: @1.5}", "lr.per_decade", "an integer from 1"),
    "too fine": ("lr: @{min: 1, max: 1.00001, points: 100}", "lr", "fewer points"),
    "far too fine": ("lr: {per_decade: @1000000000}", "lr.per_decade", "an integer from 1 to 100"),
    "unknown key of lr": ("lr: {@mn: 1e-5}", "lr.mn", "did you mean min?"),
    # optimizers
    "no list of optimizers": ("optimizers: @sgd", "optimizers", "write [sgd]"),
    "no optimizer": ("optimizers: @[]", "optimizers", "at least one"),
    "unknown optimizer": ("optimizers: [sgd, @adm]", "optimizers[1]", "did you mean adam?"),
    "optimizer not offered": ("optimizers: [@lbfgs]", "optimizers[0]", "did you mean torch.optim:LBFGS?"),
    "unknown argument": (
        "optimizers: [{name: sgd, @momentun: 0.9}]",
        "optimizers[0].momentun",
        "did you mean momentum?",
    ),
    "argument of another": ("optimizers: [{name: sgd, @betas: [0.9, 0.99]}]", "optimizers[0].betas", "sgd has no"),
    "momentum one": ("optimizers: [{name: sgd, momentum: @1}]", "optimizers[0].momentum", "below 1"),
    "momentum negative": ("optimizers: [{name: sgd, momentum: @-0.1}]", "optimizers[0].momentum", "at least 0"),
    "momentum as text": ("optimizers: [{name: sgd, momentum: @'0.9'}]", "optimizers[0].momentum", "write 0.9 without"),
    "nesterov alone": ("optimizers: [{name: sgd, nesterov: @true}]", "optimizers[0].nesterov", "needs momentum"),
    "nesterov as on": (
        "optimizers: [{name: sgd, momentum: 0.9, nesterov: @on}]",
        "optimizers[0].nesterov",
        "true or false",
    ),
    "one beta": ("optimizers: [{name: adam, betas: @[0.9]}]", "optimizers[0].betas", "a list of 2"),
    "beta one": ("optimizers: [{name: adam, betas: @[0.9, 1]}]", "optimizers[0].betas", "below 1"),
    "fused": ("optimizers: [{name: adam, @fused: true}]", "optimizers[0].fused", "cannot be set"),
    "params": ("optimizers: [{name: adam, @params: []}]", "optimizers[0].params", "cannot be set"),
    "a rate for torch": ("optimizers: [{name: adam, lr: @0.1}]", "optimizers[0].lr", "write [0.1]"),
    "label twice": ("optimizers: [sgd, @SGD]", "optimizers[1]", "give one of them a `label:`"),
    "label empty": ("optimizers: [{name: sgd, label: @''}]", "optimizers[0].label", "text on one line"),
    "label number": ("optimizers: [{name: sgd, label: @1}]", "optimizers[0].label", "text on one line"),
    "equal settings": ("optimizers: [sgd, @{name: sgd, label: b, momentum: 0}]", "optimizers[1]", "same setting"),
    "two decays": (
        "optimizers: [{name: adamw, @weight_decay: 0.1, independent_weight_decay: 0.1}]",
        "optimizers[0].weight_decay",
        "weight_decay or independent_weight_decay, not both",
    ),
    "decay negative": (
        "optimizers: [{name: adamw, independent_weight_decay: @-1}]",
        "optimizers[0].independent_weight_decay",
        "a number from 0",
    ),
    "own optimizer gone": ("optimizers: [@'gone.py:Lion']", "optimizers[0]", "no file 'gone.py'"),
    "schedule of an optimizer": ("optimizers: [{name: sgd, schedule: @cosin}]", "optimizers[0].schedule", "cosine?"),
    # schedule
    "unknown schedule": ("schedule: @linaer", "schedule", "did you mean linear?"),
    "schedule without its argument": ("schedule: @exponential", "schedule.gamma", "is missing"),
    "until above one": ("schedule: {name: linear, until: @1.5}", "schedule.until", "at most 1"),
    "warmup of one and a half": ("schedule: {name: linear, warmup: @1.5}", "schedule.warmup", "below 1"),
    "warmup negative": ("schedule: {name: linear, warmup: @-3}", "schedule.warmup", "an integer from 0"),
    "plateau factor": ("schedule: {name: plateau, factor: @1, patience: 2}", "schedule.factor", "below 1"),
    "plateau metric": (
        "schedule: {name: plateau, factor: 0.1, patience: 2, metric: @loss}",
        "schedule.metric",
        "did you mean val_loss or train_loss?",
    ),
    "half a raise": (
        "schedule: {name: plateau, factor: 0.1, patience: 2, raise_factor: @2}",
        "schedule.raise_factor",
        "needs raise_patience",
    ),
    # seeds
    "no seed": ("seeds: @0", "seeds", "an integer from 1 to "),
    "seeds as text": ("seeds: @'3'", "seeds", "write 3 without quotes"),
    "seed twice": ("seeds: [1, 2, @1]", "seeds[2]", "given twice"),
    "seed negative": ("seeds: [@-1]", "seeds[0]", "an integer at least 0"),
    "seed list empty": ("seeds: @[]", "seeds", "a list of seeds"),
    # train
    "neither epochs nor steps": ("train: @{batch_size: 64}", "train", "needs epochs or steps"),
    "epochs and steps": ("train: {epochs: 1, @steps: 10}", "train.steps", "epochs or steps, not both"),
    "epochs zero": ("train: {epochs: @0}", "train.epochs", "an integer from 1"),
    "epochs as text": ("train: {epochs: @'5'}", "train.epochs", "write 5 without quotes"),
    "epochs with an underscore": ("train: {steps: @1_000}", "train.steps", "write 1000"),
    "epochs as a word": ("train: {epochs: @five}", "train.epochs", "not 'five'"),
    "batch size": ("train: {epochs: 1, batch_size: @fulll}", "train.batch_size", "did you mean full?"),
    "evaluation batch zero": ("train: {epochs: 1, eval_batch_size: @0}", "train.eval_batch_size", "an integer from 1"),
    "evaluation batch full": ("train: {epochs: 1, eval_batch_size: @full}", "train.eval_batch_size", "not 'full'"),
    "shuffle no": ("train: {epochs: 1, shuffle: @no}", "train.shuffle", "write false"),
    "dtype": ("train: {epochs: 1, dtype: @float16}", "train.dtype", "one of float32, float64, bfloat16"),
    "clip zero": ("train: {epochs: 1, clip_norm: @0}", "train.clip_norm", "a number above 0"),
    "clip infinite": ("train: {epochs: 1, clip_norm: @.inf}", "train.clip_norm", "a number above 0"),
    "eval_every": ("train: {epochs: 1, eval_every: {@step: 3}}", "train.eval_every.step", "did you mean steps?"),
    "eval_every zero": ("train: {epochs: 1, eval_every: {steps: @0}}", "train.eval_every.steps", "an integer from 1"),
    "unknown key of train": ("train: {epochs: 1, @batchsize: 3}", "train.batchsize", "did you mean batch_size?"),
    "train is a list": ("train: @[epochs]", "train", "must be a mapping"),
    # objective
    "metric without split": ("objective: {metric: @accuracy}", "objective.metric", "did you mean val_accuracy?"),
    "metric of the test split": ("objective: {metric: @test_loss}", "objective.metric", "never used for selection"),
    "metric of another task": ("objective: {metric: @val_mse}", "objective.metric", "digits records no 'val_mse'"),
    "metric not recorded": ("objective: {metric: @train_accuracy}", "objective.metric", "train.metrics: true"),
    "at": ("objective: {at: @last}", "objective.at", "last_K"),
    "at none": ("objective: {at: @last_0}", "objective.at", "K from 1"),
    "mode": ("objective: {mode: @mni}", "objective.mode", "did you mean min?"),
    "unknown key of objective": ("objective: {@metrics: val_loss}", "objective.metrics", "did you mean metric?"),
    # axes
    "axes is a list": ("axes: @[train.epochs]", "axes", "must be a mapping"),
    "axis of a barred key": ("axes: {@seeds: [1, 2]}", "axes.seeds", "cannot be an axis"),
    "axis of a rate": ("axes: {@lr.max: [1]}", "axes.lr.max", "cannot be an axis"),
    "axis of the optimizers": ("axes: {@optimizers: [[sgd]]}", "axes.optimizers", "name an argument"),
    "axis without its head": ("axes: {@epochs: [1]}", "axes.epochs", "did you mean train.epochs?"),
    "axis of train as a whole": ("axes: {@train: [{epochs: 1}]}", "axes.train", "write for example train.epochs"),
    "axis unknown in train": ("axes: {@train.epoch: [1]}", "axes.train.epoch", "did you mean epochs?"),
    "axis without values": ("axes: {train.epochs: @[]}", "axes.train.epochs", "at least one value"),
    "axis with one value": ("axes: {train.epochs: @3}", "axes.train.epochs", "must be a list"),
    "axis value wrong": ("axes: {train.batch_size: [16, @0]}", "axes.train.batch_size[1]", "an integer from 1"),
    "axis value twice": ("axes: {train.batch_size: [16, @16]}", "axes.train.batch_size[1]", "given twice"),
    "axis against epochs": ("axes: {@train.steps: [10]}", "axes.train.steps", "epochs or steps, not both"),
    "axis of a schedule": ("axes: {schedule: [constant, @lin]}", "axes.schedule[1]", "unknown schedule 'lin'"),
    "argument in an axis": (
        "axes: {schedule: [constant, {name: linear, @ned: 0}]}",
        "axes.schedule[1].ned",
        "did you mean end?",
    ),
    "axis the schedule has not": ("axes: {@schedule.end: [0, 1]}", "axes.schedule.end", "constant has no 'end'"),
    "axis of a schedule twice": (
        "axes: {schedule: [constant], @schedule.name: [linear]}",
        "axes.schedule.name",
        "set the same thing",
    ),
    "axis the model has not": ("axes: {@model.width: [1]}", "axes.model.width", "mlp has no 'width'"),
    "axis of a model that is the task's": (
        "task: own.py:make\naxes: {@model.hidden: [[8]]}",
        "axes.model.hidden",
        "the task uses its own; set one with `model:`",
    ),
    "axis of a model": ("axes: {model.hidden: [[8], @8]}", "axes.model.hidden[1]", "must be a list"),
    "axis no optimizer has": (
        "axes: {@optimizers.betas: [[0.9, 0.99]]}",
        "axes.optimizers.betas",
        "no listed optimizer",
    ),
    "axis out of range": ("axes: {optimizers.momentum: [0, @1]}", "axes.optimizers.momentum[1]", "below 1"),
    "axis that makes two the same": (
        "optimizers: [sgd, @{name: sgd, momentum: 0.9}]\naxes: {optimizers.momentum: [0, 0.9]}",
        "optimizers[1]",
        "same setting as optimizers[0]",
    ),
    "tasks with other models": ("axes: {@task: [digits, wine]}", "axes.task", "set one with `model:`"),
    "task in an axis": ("model: linear\naxes: {task: [digits, @wein]}", "axes.task[1]", "did you mean wine?"),
    "too many runs": (
        "@seeds: 10000\nlr: {points: 1000}",
        "spec",
        "runs are too many",
    ),
    "far too many axes": (
        "axes: @{train.batch_size: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], task.split_seed: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],"
        " model.hidden: [[1], [2], [3], [4], [5], [6], [7], [8], [9], [10]],"
        " train.epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], schedule.warmup: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10],"
        " optimizers.weight_decay: [1, 2]}",
        "axes",
        "200000 combinations",
    ),
    "plateau of an optimizer": (
        "optimizers: [{name: sgd, schedule: {name: plateau, factor: 0.5, patience: 1, metric: @val_mse}}]",
        "optimizers[0].schedule.metric",
        "digits records no 'val_mse'",
    ),
    "plateau in an axis": (
        "axes: {schedule: [{name: plateau, factor: 0.5, patience: 1, metric: @val_mse}]}",
        "axes.schedule[0].metric",
        "digits records no 'val_mse'",
    ),
    # refined
    "refined unknown": ("refined: {@sdg: [0.1]}", "refined.sdg", "did you mean sgd?"),
    "refined wrong": ("refined: {sgd: [@-1]}", "refined.sgd[0]", "a number above 0"),
}


def written(folder: Path, text: str) -> tuple[Path, int, int]:
    """The spec as a file, with line and column of the mark."""
    (folder / "own.py").write_text(OWN)
    (folder / "broken.py").write_text(BROKEN)
    for key, value in DEFAULTS.items():
        if not re.search(rf"^@?{key}:", text, re.M):
            text += f"\n{key}: {value}"
    before = text.partition("@")[0]
    path = folder / "spec.yaml"
    path.write_text(text.replace("@", "", 1) + "\n")
    return path, before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_mistake_is_told_with_its_place_and_a_way_out(case: str, tmp_path: Path) -> None:
    text, dotted, message = CASES[case]
    path, line, column = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    assert [issue.path for issue in caught.value.issues] == [dotted]
    issue = caught.value.issues[0]
    assert message in issue.message
    assert (issue.file, issue.line, issue.column) == (str(path), line, column)
    assert str(caught.value).startswith(f"{path}:{line}:{column}: {dotted}: ")


def test_all_mistakes_of_a_spec_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "tsk: digits\n"
        "task: digitz\n"
        "model: {name: mlp, hidden: wide}\n"
        "lr: {min: -1}\n"
        "optimizers: [adm, {name: sgd, momentum: 2, nestrov: true}]\n"
        "schedule: {name: linear, end: -1}\n"
        "seeds: none\n"
        "train: {epochs: 0, dtype: half}\n"
        "objective: {metric: loss, at: end}\n"
        "axes: {epochs: [1]}\n"
    )
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    places = [(issue.line, issue.path) for issue in caught.value.issues]
    assert places == [
        (1, "tsk"),
        (2, "task"),
        (3, "model.hidden"),
        (4, "lr.min"),
        (5, "optimizers[0]"),
        (5, "optimizers[1].momentum"),
        (5, "optimizers[1].nestrov"),
        (6, "schedule.end"),
        (7, "seeds"),
        (8, "train.epochs"),
        (8, "train.dtype"),
        (9, "objective.metric"),
        (9, "objective.at"),
        (10, "axes.epochs"),
    ]


# Several mistakes each, and where every one of them is told.
TOGETHER: dict[str, tuple[str, list[str]]] = {
    "a key twice": (
        "task: digits\noptimizers: [adm]\ntask: iris\ntrain: {epochs: -1, steps: 2, steps: 3}\nlr: {min: 1, max: 0.1}",
        ["2:14 optimizers[0]", "3:1 task", "4:17 train.epochs", "4:21 train.steps", "4:31 train.steps", "5:19 lr.max"],
    ),
    "a key twice in an optimizer": (
        "optimizers:\n  - {name: sgd, momentum: 0.9, momentum: 0.8, nestrov: true}\n  - {name: adam, betas: [0.9, 2]}",
        ["2:32 optimizers[0].momentum", "2:47 optimizers[0].nestrov", "3:25 optimizers[1].betas"],
    ),
    "tags": (
        "task: !!python/name:os.system digits\ntrain: {epochs: !!int x}\nseeds: -1\n1: 3\nmodel: mpl",
        ["1:7 task", "2:17 train.epochs", "3:8 seeds", "4:1 spec", "5:8 model"],
    ),
    "a merge key": (
        "base: &b {epochs: 1}\noptimizers: [sgd, agd]\ntrain: {<<: *b, batch_size: x}",
        ["1:1 base", "2:19 optimizers[1]", "3:9 train.<<", "3:29 train.batch_size"],
    ),
    "files of the user's": (
        "task: own.py:mak\nmodel: broken.py:Net\noptimizers: [gone.py:Lion, own.py:Tiger, adm]\nschedule: own.py:rat",
        ["1:7 task", "2:8 model", "3:14 optimizers[0]", "3:28 optimizers[1]", "3:42 optimizers[2]", "4:11 schedule"],
    ),
    "a function and values": (
        "task: own.py:mak\ntrain: {epochs: 0, batchsize: 3}\nseeds: [1, 1]",
        ["1:7 task", "2:17 train.epochs", "2:20 train.batchsize", "3:12 seeds[1]"],
    ),
    "a file and its other arguments": (
        "task: {name: csv, path: gone.csv, target: y, kind: clas}\noptimizers: [{name: adamw, weight_decay: -1}]",
        ["1:25 task.path", "1:52 task.kind", "2:42 optimizers[0].weight_decay"],
    ),
    "a metric and the rest": (
        "objective: {metric: los, at: lst_5}\noptimizers: [sgd, sgd]\ntrain: {epochs: 1, batch: 3}",
        ["1:21 objective.metric", "1:30 objective.at", "2:19 optimizers[1]", "3:20 train.batch"],
    ),
    "a metric that is not recorded and the rest": (
        "objective: {metric: val_acc}\nseeds: 0\noptimizers: [sgd, {name: sgd, label: b}, adm]\n"
        "task: {name: digits, x: 1}",
        ["1:21 objective.metric", "2:8 seeds", "3:19 optimizers[1]", "3:42 optimizers[2]", "4:22 task.x"],
    ),
    "metrics of training": (
        "objective: {metric: train_accuracy}\noptimizers: [adm]",
        ["1:21 objective.metric", "2:14 optimizers[0]"],
    ),
    "no metrics of training are missed in a section that is wrong": (
        "objective: {metric: train_accuracy}\ntrain: {epochs: 1, metrics: true, batch: 3}",
        ["2:35 train.batch"],
    ),
    "plateaus": (
        "schedule: {name: plateau, factor: 3, patience: 1, raise_factor: 2, metric: los}\n"
        "optimizers: [adm, {name: sgd, schedule: {name: plateau, factor: 0.5, patience: 1, metric: val_los}}]",
        ["1:35 schedule.factor", "1:65 schedule.raise_factor", "1:76 schedule.metric", "2:14 optimizers[0]",
         "2:91 optimizers[1].schedule.metric"],
    ),
    "too many runs": (
        "seeds: 10000\nlr: {min: 1e-9, max: 1, per_decade: 50}\noptimizers: [sgd, {name: sgd, label: b}]\n"
        "objective: {metric: val_acuracy}",
        ["1:1 spec", "3:19 optimizers[1]", "4:21 objective.metric"],
    ),
    "a grid": (
        "lr: {min: 3, max: 1, per_decade: 1000, pints: 3}\noptimizers: [{name: sgd, lr: {mn: 3, max: -1}}]",
        ["1:19 lr.max", "1:34 lr.per_decade", "1:40 lr.pints", "2:31 optimizers[0].lr.mn", "2:43 optimizers[0].lr.max"],
    ),
    "axes of sections that are wrong": (
        "optimizers: [{name: sgd, momentm: 0.9}, adam]\nmodel: {name: mlp, hiden: [3]}\ntrain: {epochs: 1, batch: 3}\n"
        "axes: {train.batch_size: [0, 16], model.hidden: [[8], [x]], optimizers.weight_decay: [-1, 0.1], nme: [1]}",
        ["1:26 optimizers[0].momentm", "2:20 model.hiden", "3:20 train.batch", "4:27 axes.train.batch_size[0]",
         "4:55 axes.model.hidden[1]", "4:87 axes.optimizers.weight_decay[0]", "4:97 axes.nme"],
    ),
    "axes and a metric": (
        "axes: {train.batch_size: [0], seeds: 3}\nobjective: {metric: val_acuracy}",
        ["1:27 axes.train.batch_size[0]", "1:31 axes.seeds", "1:38 axes.seeds", "2:21 objective.metric"],
    ),
    "axes that are no mapping": (
        "axes: 3\nobjective: {metric: val_acuracy}\nrefined: {sdg: [-1]}",
        ["1:7 axes", "2:21 objective.metric", "3:11 refined.sdg", "3:17 refined.sdg[0]"],
    ),
    "nulls": (
        "task:\noptimizers:\ntrain:\nlr:\nseeds:\nschedule:\nobjective:\naxes:",
        ["1:6 task", "2:12 optimizers", "3:7 train", "4:4 lr", "5:7 seeds", "6:10 schedule", "7:11 objective",
         "8:6 axes"],
    ),
    "lists": (
        "task: [digits]\noptimizers: []\ntrain: [1]\nlr: [0.1, x, 0.1]\nseeds: [a]\nmodel: [mlp]\nname: [a]",
        ["1:7 task", "2:13 optimizers", "3:8 train", "4:11 lr[1]", "4:14 lr[2]", "5:9 seeds[0]", "6:8 model",
         "7:7 name"],
    ),
    "an own optimizer": (
        "optimizers: [{name: own.py:Lion, params: 3, lr: {mn: 3}}, {name: own.py, lr: [0]}]\nname: a/b",
        ["1:34 optimizers[0].params", "1:50 optimizers[0].lr.mn", "1:66 optimizers[1].name", "1:79 optimizers[1].lr[0]",
         "2:7 name"],
    ),
    "what neither a wrong optimizer has nor the right one": (
        "optimizers: [{name: sgd, momentum: 2}, adam, {name: sgd, label: plain, lr: 3}]\n"
        "axes: {optimizers.momentun: [0.1], optimizers.momentum: [0.1], optimizers.eps: [1e-8]}\n"
        "refined: {adm: [0.1], sgd(momentum=0.9): [0.1], plain: [0.1], adam: [0.1]}",
        ["1:36 optimizers[0].momentum", "1:76 optimizers[2].lr", "2:8 axes.optimizers.momentun", "3:11 refined.adm"],
    ),
    "what a misspelt optimizer may have": (
        "optimizers: [sdg, adam, 'own.py']\naxes: {optimizers.momentum: [0.1]}\nrefined: {sgd: [0.1]}",
        ["1:14 optimizers[0]", "1:25 optimizers[2]"],
    ),
    "no label but that of a wrong optimizer": (
        "optimizers: [{name: sgd, label: plain, momentum: 2}]\nrefined: {sgd: [0.1], plain: [0.1]}",
        ["1:50 optimizers[0].momentum", "2:11 refined.sgd"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOGETHER, ids=str)
def test_no_mistake_hides_another(case: str, tmp_path: Path) -> None:
    text, places = TOGETHER[case]
    path, _, _ = written(tmp_path, text)
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    found = [f"{issue.line}:{issue.column} {issue.path}" for issue in caught.value.issues]
    assert found == places


def test_the_labels_of_wrong_optimizers_are_among_those_allowed(tmp_path: Path) -> None:
    text = "optimizers: [{name: sgd, label: plain, lr: 3}, {name: adam, lr: 3}]\nrefined: {adm: [0.1]}"
    with pytest.raises(SpecError) as caught:
        load_spec(written(tmp_path, text)[0])
    assert "(allowed: plain, adam; did you mean adam?)" in caught.value.issues[-1].message


def test_an_override_that_is_wrong_hides_nothing(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, "optimizers: [adm]\ntrain: {batch_size: 0}")
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides=["train.epochs=[", "seeds", "lr={min: x}"])
    found = [(issue.file.partition(" ")[0], issue.path) for issue in caught.value.issues]
    assert found == [
        (str(path), "optimizers[0]"),
        (str(path), "train.batch_size"),
        ("--set", "lr.min"),
        ("--set", "spec"),
        ("--set", "spec"),
    ]


UNSEEN = ["globals()['make'] = 3", "from os import *", "def __getattr__(name): ...", "make: int", "import a as make"]


@pytest.mark.parametrize("text", UNSEEN)
def test_a_name_that_may_come_about_unseen_is_no_mistake(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(text)
    assert load_spec({**DEFAULT_DICT, "task": f"{tmp_path}/own.py:make.inner"}).task.name.endswith("own.py:make.inner")


@pytest.mark.parametrize("key", ["task", "optimizers"])
def test_a_required_key(key: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("".join(f"{other}: {value}\n" for other, value in DEFAULTS.items() if other != key))
    with pytest.raises(SpecError, match=f"^{re.escape(str(path))}:1:1: {key}: is missing"):
        load_spec(path)


# Whole files that are no spec at all.
FILES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ":1:1: spec: the spec is empty"),
    "only a comment": (b"# nothing\n", ":1:1: spec: the spec is empty"),
    "a list": (b"- task: digits\n", ":1:1: spec: the spec is \\["),
    "text": (b"digits\n", ":1:1: spec: the spec is 'digits'"),
    "binary": (bytes(range(256)), "U\\+0000|not UTF-8"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", ":1:1: spec: byte 0x89 is not UTF-8"),
    "latin-1": ("name: café\n".encode("latin-1"), ":1:10: spec: byte 0xe9 is not UTF-8"),
    "tabs": (b"train:\n\tepochs: 1\n", ":2:1: spec: not valid YAML: a tab"),
    "an open bracket": (b"optimizers: [sgd\ntrain: {epochs: 1}\n", "began in line 1"),
    "10 MB": (b"seeds: 3\n" * 1_200_000, "larger than 1000000 bytes"),
    "a tag": (b"task: !!python/object/apply:os.system ['true']\n", ":1:7: task: the tag"),
}


@pytest.mark.parametrize("case", FILES, ids=str)
def test_a_file_that_is_no_spec(case: str, tmp_path: Path) -> None:
    content, message = FILES[case]
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=message):
        load_spec(path)


def test_a_bomb_in_a_spec(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    path = tmp_path / "spec.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(SpecError, match="too large for a spec"):
        load_spec(path)


@pytest.mark.parametrize("name", ["none.yaml", ".", "a/b/c.yaml", "nul\0.yaml"])
def test_a_file_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_spec(tmp_path / name)
    assert not isinstance(caught.value, SpecError)
    assert caught.value.exit_code == 2


def test_a_file_name_that_is_no_name_of_a_sweep(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, "lr: [0.1]")
    odd = path.rename(tmp_path / "my sweep.yaml")
    with pytest.raises(SpecError, match=r"1:1: name: must be one path component.*for example my-sweep"):
        load_spec(odd)


def test_exit_codes() -> None:
    assert SpecError([]).exit_code == 2
    assert issubclass(SpecError, LrsweepError)


# --set: text -> part of the whole message
OVERRIDES: dict[str, str] = {
    "train.epochs": "--set train.epochs: write KEY=VALUE",
    "=3": "write KEY=VALUE",
    "train..epochs=3": "write KEY=VALUE",
    "train.epochs=many": "--set train.epochs=many: must be an integer from 1",
    "name=a\x1b[31m": r"--set name=a\x1b[31m: the character U+001B is not allowed",
    "name=1.10": "not 1.10 (write '1.10' in quotes)",
    "train.epoch=3": "--set train.epoch=3: train has no 'epoch'",
    "optimizers.7.momentum=0.9": "--set optimizers.7.momentum=0.9: optimizers[7]: optimizers has no entry '7'",
    "optimizers.momentum=0.9": "it is a list, entries 0 to 0",
    "seeds.x=1": "it is a single value",
    "lr=[0.1": "--set lr=[0.1: not valid YAML: expected ',' or ']', but got '<stream end>', while",
    "lr=[0.1, -3]": "--set lr=[0.1, -3]: lr[1]: must be a number above 0",
    "train={epochs: 1, epochs: 2}": "}: train.epochs: given twice; remove one of them",
    "name=a\x85b": "b: the character U+0085 would end the line",
    "train.batch_size=": "--set train.batch_size=: must be",
    "model.hiden=[8]": "--set model.hiden=[8]: mlp has no 'hiden'",
    "axes.train.batch_size=[0]": "]: axes.train.batch_size[0]: must be an integer from 1",
}


@pytest.mark.parametrize("text", OVERRIDES, ids=str)
def test_a_wrong_override_names_the_option(text: str, tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, "seeds: 2\nmodel: mlp")
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides=[text])
    assert OVERRIDES[text] in str(caught.value)


def test_a_dict_has_no_lines() -> None:
    with pytest.raises(SpecError, match=r"^optimizers\[0\]: unknown optimizer 'adm'"):
        load_spec({"task": "digits", "optimizers": ["adm"], "train": {"epochs": 1}})


@pytest.mark.parametrize(
    "value", [object(), {1: 2}, {"a"}, b"x", 1j], ids=["object", "int-key", "set", "bytes", "complex"]
)
def test_a_dict_of_other_things(value: object) -> None:
    with pytest.raises(SpecError, match=r"^model"):
        load_spec({"task": "digits", "model": value, "optimizers": ["sgd"], "train": {"epochs": 1}})


def test_a_dict_that_holds_itself() -> None:
    data: dict[str, object] = {}
    data["task"] = data
    with pytest.raises(SpecError, match="a value of type dict is not allowed in a spec"):
        load_spec(data)


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_damaged_spec_is_read_or_refused_but_never_crashes(data: st.DataObject) -> None:
    text = STARTER + "axes: {schedule: [constant, {name: linear}], optimizers.weight_decay: [0, 0.1]}\n"
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        end = start + data.draw(st.integers(0, 4))
        text = text[:start] + data.draw(st.text("[]{}:,-#'\"&*!|> \n\t01e.~ab", max_size=3)) + text[end:]
    with contextlib.suppress(SpecError):
        tree = parse(text, "f")
        if isinstance(tree.data, dict):
            load_spec(tree.data)


VALUES = st.recursive(
    st.sampled_from([None, True, -1, 0, 3, 0.5, 1e400, "", "sgd", "linear", "mlp", "full", "x.py:f", "a:b", "1e-3"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["name", "min", "points", "lr", "end", "momentum", "steps", "label"]), inner)
    ),
    max_leaves=5,
)
HEADS = ["name", "task", "model", "lr", "optimizers", "schedule", "seeds", "train", "objective", "refined"]
AXES = ["schedule", "schedule.end", "model.name", "model", "train.epochs", "optimizers.momentum", "task.n", "a..b", ""]


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(st.sampled_from(HEADS), VALUES, max_size=3),
    st.dictionaries(st.sampled_from(AXES), VALUES | st.lists(VALUES, max_size=3), max_size=2),
)
def test_a_dict_of_anything_is_read_or_refused_but_never_crashes(
    sections: dict[str, Any], axes: dict[str, Any]
) -> None:
    with contextlib.suppress(SpecError):
        made = load_spec(DEFAULT_DICT | sections | {"axes": axes})
        assert load_spec(resolved_dict(made, made.base_dir)) == made


def test_what_an_override_begins_is_its_own_mistake(tmp_path: Path) -> None:
    path, _, _ = written(tmp_path, "name: x")
    with pytest.raises(SpecError) as caught:
        load_spec(path, overrides=["model.hidden=[8]"])
    assert [str(one).partition(": needs")[0] for one in caught.value.issues] == ["--set model.hidden=[8]: model"]
