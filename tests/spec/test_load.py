"""What a right spec resolves to, and that the resolved file says the same."""

from __future__ import annotations

import copy
import functools
import inspect
import json
import math
import operator
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lrsweep import grids
from lrsweep.errors import SpecError
from lrsweep.registry import Known, known
from lrsweep.spec.load import load_spec, read_resolved
from lrsweep.spec.model import Spec
from lrsweep.spec.resolved import changed_keys, dump_resolved, resolved_dict
from lrsweep.spec.schema import json_schema
from lrsweep.wording import advice
from tests.support import tables as fabricate

STARTER = (files("lrsweep.cli") / "starter.yaml").read_text(encoding="utf-8")
CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def spec(**sections: Any) -> Spec:
    return load_spec({"task": "digits", "optimizers": ["sgd"], "train": {"epochs": 1}} | sections)


# --- defaults -------------------------------------------------------------------------------------------------------


def test_the_defaults_of_the_contract() -> None:
    made = spec()
    assert made.lr.written == {"min": 1e-6, "max": 1.0, "per_decade": 2}
    assert made.seeds == [0, 1, 2, 3, 4]
    assert made.schedule.name == "constant"
    assert (made.train.batch_size, made.train.shuffle, made.train.drop_last) == (64, True, False)
    assert (made.train.dtype, made.train.metrics, made.train.clip_norm) == ("float32", False, None)
    assert (made.train.eval_every, made.train.steps) == (1, None)
    assert (made.objective.metric, made.objective.at, made.objective.mode) == ("val_loss", "final", "min")
    assert made.axes == {}
    assert made.warnings == []


def test_the_name_is_the_stem_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "my-sweep.v2.yaml"
    path.write_text("task: digits\noptimizers: [sgd]\ntrain: {epochs: 1}\n")
    assert load_spec(path).name == "my-sweep.v2"
    assert load_spec(str(path)).name == "my-sweep.v2"
    assert load_spec(path, overrides=["name=other"]).name == "other"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [("val_loss", "min"), ("train_loss", "min"), ("val_accuracy", "max")],
)
def test_the_direction_follows_the_metric(metric: str, mode: str) -> None:
    assert spec(objective={"metric": metric}).objective.mode == mode
    assert spec(objective={"metric": metric, "mode": "min"}).objective.mode == "min"


def test_the_model_of_the_task_unless_one_is_given() -> None:
    assert (spec().model.name, spec().model.args["hidden"]) == ("mlp", [128, 128])  # type: ignore[union-attr]
    assert spec(model="linear").model.name == "linear"  # type: ignore[union-attr]
    assert spec(task="quadratic").model is None


# --- rates ----------------------------------------------------------------------------------------------------------


def test_grids_are_exact_decimals() -> None:
    assert spec(lr={"per_decade": 1}).lr.rates == (1e-06, 1e-05, 0.0001, 0.001, 0.01, 0.1, 1.0)
    half = (1e-06, 3.16228e-06, 1e-05, 3.16228e-05, 0.0001, 0.000316228, 0.001, 0.00316228, 0.01, 0.0316228, 0.1)
    assert spec().lr.rates == (*half, 0.316228, 1.0)
    assert spec(lr={"min": 0.001, "max": 1, "points": 3}).lr.rates == (0.001, 0.0316228, 1.0)
    assert spec(lr={"min": 0.1, "max": 1, "points": 2}).lr.rates == (0.1, 1.0)


def test_listed_rates_stay_as_written() -> None:
    assert spec(lr=[0.1, 0.123456789, 1]).lr.rates == (0.1, 0.123456789, 1.0)


def test_the_last_gap_is_shorter_where_the_range_is_no_whole_number_of_steps() -> None:
    assert spec(lr={"min": 0.01, "max": 0.3, "per_decade": 1}).lr.rates == (0.01, 0.1, 0.3)
    assert spec(lr={"min": 0.01, "max": 0.316, "per_decade": 2}).lr.rates == (0.01, 0.0316228, 0.1, 0.316)
    assert spec(lr={"min": 0.01, "max": 0.317, "per_decade": 2}).lr.rates == (0.01, 0.0316228, 0.1, 0.317)


rates = st.floats(min_value=1e-12, max_value=1e6)


@given(rates, rates, st.integers(1, 12))
def test_grids_by_decade(one: float, other: float, per_decade: int) -> None:
    low, high = sorted((one, other))
    if math.log10(high / low) < 0.01:
        return
    made = grids.generate(low, high, per_decade=per_decade)
    _check_grid(made, low, high)
    for k, rate in enumerate(made[:-1]):
        assert rate == pytest.approx(low * 10 ** (k / per_decade), rel=1e-5)
    assert 0 < math.log10(made[-1] / made[-2]) < 1.02 / per_decade + 1e-5


@given(rates, rates, st.integers(2, 60))
def test_grids_by_points(one: float, other: float, points: int) -> None:
    low, high = sorted((one, other))
    if math.log10(high / low) < 0.01:
        return
    made = grids.generate(low, high, points=points)
    assert len(made) == points
    _check_grid(made, low, high)
    for k, rate in enumerate(made):
        assert rate == pytest.approx(low * (high / low) ** (k / (points - 1)), rel=1e-5)


def _check_grid(made: tuple[float, ...], low: float, high: float) -> None:
    assert made[0] == low
    assert made[-1] == high
    assert list(made) == sorted(set(made))
    for rate in made[1:-1]:
        assert len(Decimal(repr(rate)).normalize().as_tuple().digits) <= 6


@given(st.integers(-9, -4), st.integers(0, 3), st.integers(1, 8), st.integers(1, 3), st.integers(1, 3))
def test_a_grid_that_is_widened_by_decades_keeps_its_rates(
    low: int, high: int, per_decade: int, lower: int, higher: int
) -> None:
    narrow = grids.generate(float(f"1e{low}"), float(f"1e{high}"), per_decade=per_decade)
    wide = grids.generate(float(f"1e{low - lower}"), float(f"1e{high + higher}"), per_decade=per_decade)
    assert set(narrow) <= set(wide)
    assert len(wide) == len(narrow) + (lower + higher) * per_decade


def test_a_rate_above_one_is_a_warning() -> None:
    made = spec(lr=[0.1, 10], optimizers=["sgd", {"name": "adadelta", "lr": {"min": 0.1, "max": 100}}])
    assert [warning.split(":")[0] for warning in made.warnings] == ["lr", "optimizers[1].lr"]
    assert made.lr.rates == (0.1, 10.0)


def test_the_note_on_rates_above_one_does_not_contradict_a_summary_that_asks_for_them() -> None:
    row = fabricate.facts_of_medians([0.01, 0.1, 1.0], {"sgd": [2.0, 1.0, 0.5]}, start=2.3).rows[0]
    (asked,) = (text for _, text in advice.warnings(row) if "max: 10.0" in text)
    made = spec(lr=yaml.safe_load(re.search(r"`lr: (.*)`", asked)[1]))  # type: ignore[index]
    (note,) = made.warnings
    assert note == "lr: 1 learning rate is above 1 (up to 10.0); trained as written"


# --- optimizers -----------------------------------------------------------------------------------------------------


def test_labels() -> None:
    made = spec(
        optimizers=[
            "SGD",
            {"name": "sgd", "momentum": 0.9},
            {"name": "sgd", "nesterov": True, "momentum": 0.5},
            {"name": "adam", "betas": [0.9, 0.99]},
            {"name": "adam", "label": "mine", "eps": 1e-6},
            {"name": "rmsprop", "lr": [0.1], "schedule": "cosine"},
            {"name": "pytorch_optimizer:Lion", "weight_decay": 1e-2},
        ]
    )
    assert [optimizer.label for optimizer in made.optimizers] == [
        "sgd",
        "sgd(momentum=0.9)",
        "sgd(nesterov=True, momentum=0.5)",
        "adam(betas=[0.9, 0.99])",
        "mine",
        "rmsprop",
        "Lion(weight_decay=0.01)",
    ]


@pytest.mark.parametrize("cls", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop])
def test_every_default_of_torch_is_written_out(cls: type[torch.optim.Optimizer]) -> None:
    ours = spec(optimizers=[cls.__name__]).optimizers[0].args
    parameters = inspect.signature(cls).parameters
    left_out = {"params", "lr", "foreach", "capturable", "differentiable", "fused"}
    torchs = {name: p.default for name, p in parameters.items() if name not in left_out}
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in ours.items()} == torchs


def test_independent_weight_decay_takes_the_place_of_weight_decay() -> None:
    made = spec(optimizers=[{"name": "adamw", "independent_weight_decay": 1}]).optimizers[0]
    assert (made.independent_weight_decay, made.args["weight_decay"]) == (1.0, 0.0)
    assert spec(optimizers=["adamw"]).optimizers[0].args["weight_decay"] == 0.01


def test_own_rates_and_schedule_of_an_optimizer() -> None:
    made = spec(optimizers=["sgd", {"name": "adam", "lr": [0.1], "schedule": {"name": "linear", "end": 0}}])
    assert made.optimizers[0].lr is None
    assert made.optimizers[0].schedule is None
    assert made.rates(made.optimizers[1]) == [0.1]
    assert made.optimizers[1].schedule.args == {"end": 0.0, "until": 1.0, "warmup": 0}  # type: ignore[union-attr]


def test_refined_rates_count_as_part_of_the_grid() -> None:
    made = spec(lr=[0.1, 0.01], refined={"sgd": [0.03, 0.1]})
    assert made.rates(made.optimizers[0]) == [0.01, 0.03, 0.1]


def test_import_paths_are_looked_at_but_never_imported(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("make = Net = Lion = rate = None\nraise RuntimeError('imported')\n")
    (tmp_path / "spec.yaml").write_text(
        "task: own.py:make\n"
        "model: own.py:Net\n"
        "optimizers: ['own.py:Lion', {name: sgd, schedule: 'own.py:rate'}, 'no_such_package.opt:Sophia']\n"
        "train: {steps: 10}\n"
    )
    made = load_spec(tmp_path / "spec.yaml")
    assert made.task.name == "own.py:make"
    assert made.base_dir == tmp_path
    assert [optimizer.label for optimizer in made.optimizers] == ["Lion", "sgd", "Sophia"]


# --- axes -----------------------------------------------------------------------------------------------------------


def test_axis_values_are_resolved() -> None:
    made = spec(
        axes={
            "train.clip_norm": [None, 1],
            "schedule": ["constant", {"name": "linear", "end": 0}],
            "optimizers.momentum": [0, 0.9],
            "model.hidden": [[8], [8, 8]],
            "train.eval_every.steps": [10],
        }
    )
    assert made.axes["train.clip_norm"] == [None, 1.0]
    assert made.axes["schedule"] == [
        {"name": "constant", "warmup": 0},
        {"name": "linear", "end": 0.0, "until": 1.0, "warmup": 0},
    ]
    assert list(made.axes) == [
        "train.clip_norm",
        "schedule",
        "optimizers.momentum",
        "model.hidden",
        "train.eval_every.steps",
    ]


def test_an_axis_may_give_what_the_spec_leaves_open() -> None:
    made = spec(train={}, axes={"train.epochs": [1, 2]})
    assert (made.train.epochs, made.train.steps) == (None, None)
    made = spec(schedule="constant", axes={"schedule": ["exponential"], "schedule.gamma": [0.9, 0.99]})
    assert made.axes["schedule"] == [{"name": "exponential", "warmup": 0}]


def test_axes_are_checked_in_combination() -> None:
    with pytest.raises(SpecError, match=r"axes.schedule.end: constant has no 'end'"):
        spec(axes={"schedule": ["linear", "constant"], "schedule.end": [0, 0.1]})
    assert spec(axes={"schedule": ["linear", "cosine"], "schedule.end": [0, 0.1]}).axes["schedule.end"] == [0.0, 0.1]


def test_axes_of_optimizers_are_checked_in_combination() -> None:
    both = {"optimizers.nesterov": [True, False], "optimizers.momentum": [0.5, 0.9]}
    assert spec(axes=both).axes == both
    with pytest.raises(SpecError, match=r"nesterov\[0\]: needs momentum above 0 and dampening 0 \(for sgd\)"):
        spec(axes=both | {"optimizers.momentum": [0.0, 0.9]})


def test_an_axis_of_names() -> None:
    made = spec(model="mlp", axes={"model.name": ["mlp", "logistic"], "task.name": ["digits"]})
    assert [value["name"] for value in made.axes["model.name"]] == ["mlp", "logistic"]


def test_a_task_axis_with_one_default_model() -> None:
    made = spec(task="iris", axes={"task": ["iris", "wine"]})
    assert made.model is not None
    assert made.model.args["hidden"] == [32]


# --- other sources --------------------------------------------------------------------------------------------------


def test_overrides() -> None:
    base = {"task": "digits", "model": "mlp", "optimizers": ["sgd", "adam"], "train": {"epochs": 1}}
    made = load_spec(
        base,
        overrides=[
            "train.epochs=5",
            "train.batch_size=full",
            "lr.max=1e-1",
            "seeds=[7, 8]",
            "model.hidden=[4]",
            "optimizers.0.momentum=0.9",
            "axes.train.clip_norm=[1, 2]",
            "objective.at=last_3",
            "schedule={name: linear, end: 0.1}",
        ],
    )
    assert (made.train.epochs, made.train.batch_size) == (5, "full")
    assert made.lr.written == {"min": 1e-6, "max": 0.1, "per_decade": 2}
    assert made.seeds == [7, 8]
    assert made.model is not None
    assert made.model.args["hidden"] == [4]
    assert made.optimizers[0].label == "sgd(momentum=0.9)"
    assert made.axes == {"train.clip_norm": [1.0, 2.0]}
    assert made.objective.at == "last_3"
    assert made.schedule.args["end"] == 0.1
    assert base["train"] == {"epochs": 1}


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("optimizers[0].momentum=0.5", lambda made: made.optimizers[0].args["momentum"] == 0.5),
        ("axes.train.batch_size[1]=128", lambda made: made.axes["train.batch_size"] == [32, 128]),
        ("model.hidden[0]=4", lambda made: made.model.args["hidden"] == [4, 8]),
    ],
)
def test_an_override_may_number_the_entries_of_lists_in_brackets(text: str, got: Callable[[Spec], bool]) -> None:
    base = {
        "task": "digits",
        "model": {"name": "mlp", "hidden": [8, 8]},
        "optimizers": ["sgd"],
        "train": {"epochs": 1},
        "axes": {"train.batch_size": [32, 64]},
    }
    assert got(load_spec(base, overrides=[text]))
    with pytest.raises(SpecError, match="has no entry '7'"):
        load_spec(base, overrides=[re.sub(r"\[\d\]", "[7]", text)])


AXES = {"train.batch_size": [32, 64], "model.name": ["mlp", "linear"], "optimizers.momentum": [0.0, 0.9]}


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("train.batch_size=256", "train.batch_size"),
        ("train={epochs: 2, batch_size: 256}", "train.batch_size"),
        ("model=mlp", "model.name"),
        ("model={name: mlp}", "model.name"),
        ("model.name=mlp", "model.name"),
        ("optimizers.0.momentum=0.5", "optimizers.momentum"),
        ("optimizers[0].momentum=0.5", "optimizers.momentum"),
        ("optimizers=[adam, {name: sgd, momentum: 0.5}]", "optimizers.momentum"),
    ],
)
def test_no_override_is_ignored_for_an_axis(text: str, axis: str, tmp_path: Path) -> None:
    """Where an axis decides the value, what was set for it would change nothing."""
    file = tmp_path / "a.yaml"
    train = {"epochs": 1, "batch_size": 16}
    base = {"task": "digits", "model": "mlp", "optimizers": ["sgd"], "train": train, "axes": AXES}
    file.write_text(yaml.safe_dump(base))
    load_spec(file)
    with pytest.raises(SpecError) as caught:
        load_spec(file, overrides=[text])
    (issue,) = caught.value.issues
    assert issue.file == f"--set {text}"
    line = 1 + next(n for n, line in enumerate(file.read_text().splitlines()) if line.startswith(f"  {axis}:"))
    assert f"the axis {axis} ({file}:{line}:" in issue.message
    assert f"--set axes.{axis}=[" in issue.message
    load_spec(file, overrides=[text, "axes={}"])


def test_an_override_beside_an_axis_is_none_of_its_business() -> None:
    base = {"task": "digits", "model": "mlp", "optimizers": ["sgd"], "train": {"epochs": 1, "batch_size": 16}}
    made = load_spec(
        {**base, "axes": {"train.batch_size": [32, 64], "model.hidden": [[4], [8]]}},
        overrides=["train.epochs=2", "model=mlp", "axes.train.batch_size=[256]", "train={steps: 5}"],
    )
    assert made.axes["train.batch_size"] == [256]


def test_an_override_may_choose_the_value_of_an_axis() -> None:
    base = {"task": "digits", "model": "mlp", "optimizers": ["sgd"], "train": {"epochs": 1}, "axes": AXES}
    made = load_spec(base, overrides=["train.batch_size=256", "model.name=linear", "train.epochs=3"], choose=True)
    assert (made.axes["train.batch_size"], made.train.epochs) == ([256], 3)
    assert [value["name"] for value in made.axes["model.name"]] == ["linear"]
    assert made.axes["optimizers.momentum"] == [0.0, 0.9]
    with pytest.raises(SpecError, match=r"batch_size\[0\]: must be an integer"):
        load_spec(base, overrides=["train.batch_size=many"], choose=True)


def test_a_spec_is_a_source_too() -> None:
    made = spec(optimizers=[{"name": "sgd", "momentum": 0.9}], refined={"sgd(momentum=0.9)": [0.5]})
    assert load_spec(made) is made
    again = load_spec(made, overrides=["train.epochs=2"])
    assert again.train.epochs == 2
    assert again.refined == made.refined


@pytest.mark.parametrize("character", ["\x85", "\u2028", "\u2029"])
def test_a_character_that_would_silently_become_a_new_line_is_refused(character: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f'task: blobs\naxes: {{task.x: ["a{character}b"]}}\n', encoding="utf-8")
    with pytest.raises(SpecError) as info:
        load_spec(file)
    assert str(info.value).startswith(
        f"{file}:2:19: spec: the character U+{ord(character):04X} would end the line; write"
    )


def test_python_values_in_a_dict(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "t.py").write_text("make = None\n")
    made = load_spec(
        {
            "task": f"{tmp_path / 't.py'}:make",
            "optimizers": ({"name": "adam", "betas": (0.9, 0.99)},),
            "lr": np.array([0.1, 0.01]),
            "seeds": range(2),
            "train": {"steps": np.int64(3), "clip_norm": np.float64(0.5)},
        }
    )
    assert made.lr.rates == (0.1, 0.01)
    assert made.seeds == [0, 1]
    assert (made.train.steps, made.train.clip_norm) == (3, 0.5)


def test_a_stand_in_for_the_tables() -> None:
    def toy(*, size: int = 3) -> None: ...

    tables = Known(
        tasks={"toy": toy},
        models={},
        schedules={"flat": lambda step, total_steps: 1.0},
        optimizers={"hop": {"height": 1.0}},
        default_models={},
        metrics={},
        check_optimizer=lambda name, args: [],
        check_schedule=lambda name, args: [],
        optimizer_args=lambda name, args, independent: {"height": 1.0, **args},
    )
    made = load_spec({"task": "toy", "optimizers": ["hop"], "schedule": "flat", "train": {"steps": 1}}, known=tables)
    assert (made.task.args, made.model, made.optimizers[0].args) == ({"size": 3}, None, {"height": 1.0})


# --- the resolved file ----------------------------------------------------------------------------------------------

WIDE: dict[str, Any] = {
    "name": "wide",
    "task": {"name": "blobs", "std": 1},
    "model": {"name": "mlp", "hidden": [3], "dropout": 0.5},
    "lr": {"min": 1e-5, "max": 0.3, "points": 4},
    "optimizers": [
        "sgd",
        {"name": "muon", "aux": {"weight_decay": 0}},
        {
            "name": "adamw",
            "independent_weight_decay": 1e-4,
            "lr": [1, 0.1],
            "schedule": {"name": "cosine", "warmup": 5},
        },
        {"name": "adafactor", "label": "on"},
    ],
    "schedule": {"name": "plateau", "factor": 0.5, "patience": 2, "metric": "val_accuracy"},
    "seeds": [3, 1],
    "train": {"steps": 10, "batch_size": "full", "eval_every": {"steps": 5}, "clip_norm": 1, "dtype": "float64"},
    "objective": {"metric": "val_accuracy", "at": "last_2"},
    "axes": {
        "schedule": ["constant", {"name": "linear", "warmup": 0.1}],
        "train.batch_size": [16, "full"],
        "optimizers.momentum": [0, 0.5],
        "task.n": [100, 200],
    },
    "refined": {"on": [0.5]},
}


@pytest.mark.parametrize("source", [{}, WIDE, *CONFIGS], ids=str)
def test_the_resolved_file_is_the_same_spec(source: Any, tmp_path: Path) -> None:
    if isinstance(source, Path):  # beside the files that it names
        shutil.copytree(source.parent, tmp_path, dirs_exist_ok=True)
    made = spec(**source) if isinstance(source, dict) else load_spec(tmp_path / source.name)
    text = dump_resolved(made, tmp_path)
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")
    assert read_resolved(path) == made
    assert load_spec(path) == made
    assert dump_resolved(load_spec(path), tmp_path) == text
    assert read_resolved(text, tmp_path).base_dir == tmp_path


def test_the_resolved_file_has_every_default(tmp_path: Path) -> None:
    data = resolved_dict(spec(), tmp_path)
    assert data["train"] == {
        "epochs": 1,
        "steps": None,
        "batch_size": 64,
        "eval_batch_size": None,
        "shuffle": True,
        "drop_last": False,
        "dtype": "float32",
        "tf32": False,
        "metrics": False,
        "clip_norm": None,
        "eval_every": 1,
    }
    assert data["optimizers"][0] == {
        "name": "sgd",
        "label": "sgd",
        "momentum": 0,
        "dampening": 0,
        "weight_decay": 0,
        "nesterov": False,
        "maximize": False,
        "independent_weight_decay": None,
    }
    assert data["objective"] == {"metric": "val_loss", "at": "final", "mode": "min"}
    assert data["schedule"] == {"name": "constant", "warmup": 0}
    assert data["seeds"] == [0, 1, 2, 3, 4]
    assert data["task"]["scale"] == "standard"
    assert data["model"]["activation"] == "relu"


def test_paths_are_rewritten(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, text in {"own.py": "net = Lion = f = None\n", "d.csv": "x,y\n1,2\n", "e.csv": "x,y\n1,2\n"}.items():
        (tmp_path / "a" / name).write_text(text)
    path = tmp_path / "a" / "spec.yaml"
    path.write_text(
        "task: {name: csv, path: d.csv, target: y}\n"
        "model: ../a/own.py:net\n"
        "optimizers: [{name: ./own.py:Lion, schedule: own.py:f}]\n"
        "train: {epochs: 1}\n"
        "axes: {task.path: [d.csv, e.csv]}\n"
    )
    made = load_spec(path)
    target = tmp_path / "results" / "s"
    data = resolved_dict(made, target)
    assert data["task"]["path"] == "../../a/d.csv"
    assert data["model"]["name"] == "../../a/own.py:net"
    assert data["optimizers"][0]["name"] == "../../a/own.py:Lion"
    assert data["optimizers"][0]["schedule"]["name"] == "../../a/own.py:f"
    assert data["axes"]["task.path"] == ["../../a/d.csv", "../../a/e.csv"]
    target.mkdir(parents=True)
    (target / "spec.yaml").write_text(dump_resolved(made, target))
    again = load_spec(target / "spec.yaml")
    assert resolved_dict(again, tmp_path / "a")["task"]["path"] == "d.csv"


def test_reading_a_resolved_file_needs_no_torch(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(dump_resolved(spec(**WIDE), tmp_path))
    code = (
        "import sys, pathlib; from lrsweep.spec.load import read_resolved; from lrsweep import plan;"
        "spec = read_resolved(pathlib.Path(sys.argv[1])); plan.build(spec, {});"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "spec.yaml")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_damaged_resolved_file_is_an_error(tmp_path: Path) -> None:
    text = dump_resolved(spec(), tmp_path)
    with pytest.raises(SpecError):
        read_resolved(text.replace("epochs: 1", "epochs: one"))
    with pytest.raises(SpecError):
        read_resolved(text[: len(text) // 2])


def _places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for key, value in data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ():
        yield (*path, key)
        yield from _places(value, (*path, key))


@pytest.mark.parametrize("odd", [None, "x", 3, math.nan, [], {}, ["a"], {"name": 3}, {1: 2}], ids=repr)
def test_whatever_a_hand_puts_into_a_resolved_file_is_read_or_refused(odd: Any, tmp_path: Path) -> None:
    data = resolved_dict(spec(axes={"schedule.name": ["constant", "cosine"], "task.val": [0.1, 0.2]}), tmp_path)
    refused = 0
    for *above, last in _places(data):
        changed = copy.deepcopy(data)
        functools.reduce(operator.getitem, above, changed)[last] = odd
        try:
            read_resolved(yaml.safe_dump(changed), tmp_path)
        except SpecError:
            refused += 1
    assert refused > 10


# --- what changed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({}, []),
        ({"lr": [0.5], "seeds": 7, "objective": {"at": "best"}, "name": "other"}, []),
        ({"optimizers": ["sgd", "adam", "adagrad"]}, []),
        ({"optimizers": ["adam"]}, []),
        ({"train": {"epochs": 2, "batch_size": 32}}, ["train.epochs", "train.batch_size"]),
        ({"task": {"name": "digits", "split_seed": 1}}, ["task.split_seed"]),
        ({"task": "iris"}, ["task", "model.hidden"]),
        ({"model": "linear"}, ["model"]),
        ({"schedule": {"name": "constant", "warmup": 3}}, ["schedule.warmup"]),
        ({"optimizers": ["sgd", {"name": "adam", "label": "adam", "eps": 1e-4}]}, ["optimizers.adam.eps"]),
        ({"axes": {"train.batch_size": [64]}}, ["axes.train.batch_size"]),
    ],
)
def test_changed_keys(change: dict[str, Any], keys: list[str], tmp_path: Path) -> None:
    old = resolved_dict(spec(optimizers=["sgd", "adam"]), tmp_path)
    new = resolved_dict(spec(**{"optimizers": ["sgd", "adam"]} | change), tmp_path)
    assert changed_keys(old, new) == keys


# --- starter, schema ------------------------------------------------------------------------------------------------


def test_the_starter_is_a_right_spec(tmp_path: Path) -> None:
    path = tmp_path / "lrsweep.yaml"
    path.write_text(STARTER)
    made = load_spec(path)
    assert made.warnings == []
    assert "# lr: [0.1, 0.01, 1e-3, 1e-4, 1e-5]" in STARTER
    book = load_spec(path, overrides=["lr=[0.1, 0.01, 1e-3, 1e-4, 1e-5]"])
    assert book.lr.rates == (0.1, 0.01, 0.001, 0.0001, 0.00001)


def test_the_commented_lines_of_the_starter_are_right_too(tmp_path: Path) -> None:
    (tmp_path / "my_opts.py").write_text("class Lion: ...\n")
    lines = STARTER.splitlines()
    live = [line.replace("# ", "", 1) if line.lstrip().startswith(("# - ", "# clip", "# dtype", "# axes")) else line
            for line in lines]  # fmt: skip
    path = tmp_path / "all.yaml"
    path.write_text("\n".join(live))
    made = load_spec(path)
    assert len(made.optimizers) == 5
    assert made.train.dtype == "float64"
    assert made.axes == {"train.batch_size": [16, 64, 256]}


def test_the_schema_covers_every_key_and_name() -> None:
    tables = known()
    schema = json.loads(json.dumps(json_schema(tables)))
    assert set(schema["properties"]) == {
        *("name", "task", "model", "lr", "optimizers", "schedule", "seeds", "train", "objective", "axes", "refined")
    }
    assert set(schema["properties"]["train"]["properties"]) == set(resolved_dict(spec(), Path())["train"])
    for key, names in (("task", tables.tasks), ("schedule", tables.schedules)):
        consts = [choice["properties"]["name"].get("const") for choice in schema["properties"][key]["anyOf"][2:-1]]
        assert consts == list(names)
    entries = schema["properties"]["optimizers"]["items"]["anyOf"]
    sgd = next(e for e in entries if e.get("properties", {}).get("name", {}).get("const") == "sgd")
    assert {"momentum", "label", "lr", "schedule", "independent_weight_decay"} <= set(sgd["properties"])


def test_one_override_may_be_a_text_of_its_own(tmp_path: Path) -> None:
    base = {"task": "iris", "optimizers": ["sgd"], "train": {"epochs": 1}}
    assert load_spec(base, overrides="train.epochs=3").train.epochs == 3
