"""Runs and their ids: what enters an id, what does not, and that ids never move."""

from __future__ import annotations

import dataclasses
import itertools
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrsweep import plan
from lrsweep.errors import UsageError
from lrsweep.plan import Plan
from lrsweep.spec.load import load_spec, read_resolved
from lrsweep.spec.model import Spec
from lrsweep.spec.resolved import dump_resolved

BASE: dict[str, Any] = {"task": "digits", "optimizers": ["sgd", "adam"], "lr": [0.1, 0.01], "train": {"epochs": 1}}


def planned(**sections: Any) -> Plan:
    return of(load_spec(BASE | sections))


def of(spec: Spec) -> Plan:
    return plan.build(spec, plan.fingerprints(spec))


def ids(made: Plan, **where: Any) -> list[str]:
    return [run.run_id for run in made.runs if all(getattr(run, key) == value for key, value in where.items())]


def test_the_runs_of_a_plan_and_their_order() -> None:
    made = planned(lr=[0.1, 0.01], seeds=[4, 2], axes={"train.batch_size": [16, "full"], "train.clip_norm": [None, 1]})
    rows = [(*run.axes, run.label, run.lr, run.seed) for run in made.runs]
    assert rows == list(itertools.product([16, "full"], [None, 1.0], ["sgd", "adam"], [0.01, 0.1], [4, 2]))
    assert made.axis_names == ("train.batch_size", "train.clip_norm")
    assert {run.workload_spec.train["batch_size"] for run in made.runs if run.axes[0] == 16} == {16}
    assert len(made.by_id) == len(made.runs)
    assert made.by_id[made.runs[5].run_id] is made.runs[5]


def test_recipes_and_settings_are_shared_and_can_be_pickled() -> None:
    made = planned(seeds=5, axes={"train.batch_size": [16, 32]})
    assert len({id(run.workload_spec) for run in made.runs}) == 2
    assert len({id(run.setting) for run in made.runs}) == 2
    assert pickle.loads(pickle.dumps(made.runs[3])) == made.runs[3]


def test_ids_are_what_they_were() -> None:
    """If this fails, every user's finished sweep is trained again. Change these ids only with the format of results."""
    text = (
        "name: pinned\n"
        "task: {name: digits, split_seed: 0}\n"
        "model: {name: mlp, hidden: [8]}\n"
        "lr: {min: 0.01, max: 0.1, per_decade: 1}\n"
        "optimizers:\n- {name: sgd, label: a, momentum: 0.9, independent_weight_decay: null}\n"
        "schedule: {name: linear, end: 0.0, until: 1.0, warmup: 0}\n"
        "seeds: [0]\n"
        "train: {epochs: 1, steps: null, batch_size: 64, shuffle: true, drop_last: false, dtype: float32,\n"
        "  metrics: false, clip_norm: null, eval_every: 1}\n"
        "objective: {metric: val_loss, at: final, mode: min}\n"
    )
    assert ids(of(read_resolved(text))) == ["1bc0a8b654ffd9a6", "ede7c1f00d24984b"]


@pytest.mark.parametrize(
    "grown",
    [
        {"lr": [1.0, 0.1, 0.03, 0.01]},
        {"lr": {"min": 0.001, "max": 0.1, "per_decade": 1}},
        {"seeds": 5},
        {"optimizers": ["adagrad", "adam", "sgd", {"name": "sgd", "momentum": 0.9}]},
        {"refined": {"sgd": [0.05]}},
        {"name": "other"},
        {"objective": {"metric": "val_accuracy", "at": "best"}},
        {"optimizers": [{"name": "adam", "label": "x"}, {"name": "sgd", "label": "y"}]},
        {"axes": {"train.batch_size": [16, 64]}},
        {"axes": {"train.eval_batch_size": [None, 16]}},
        {"axes": {"train.tf32": [False, True]}},
        {"train": {"epochs": 1, "tf32": False}},
        {"axes": {"schedule": ["cosine", "constant"], "model.hidden": [[8], [128, 128]]}},
        {"axes": {"task": ["digits"], "train.epochs": [1, 2]}},
    ],
    ids=str,
)
def test_runs_keep_their_ids_when_a_sweep_grows(grown: dict[str, Any]) -> None:
    assert set(ids(planned())) <= set(ids(planned(**grown)))


@pytest.mark.parametrize(
    "changed",
    [
        {"task": {"name": "digits", "split_seed": 1}},
        {"task": "iris", "model": {"name": "mlp"}},
        {"model": {"name": "mlp", "hidden": [128]}},
        {"model": {"name": "mlp", "init": "he_normal"}},
        {"schedule": "cosine"},
        {"schedule": {"name": "constant", "warmup": 1}},
        {"seeds": [10, 11]},
        {"lr": [0.2, 0.02]},
        {"optimizers": [{"name": "sgd", "momentum": 0.9}, {"name": "adam", "eps": 1e-5}]},
        {"optimizers": [{"name": "sgd", "independent_weight_decay": 0}]},
        {"train": {"epochs": 2}},
        {"train": {"steps": 1}},
        {"train": {"epochs": 1, "batch_size": 32}},
        {"train": {"epochs": 1, "eval_batch_size": 64}},
        {"train": {"epochs": 1, "shuffle": False}},
        {"train": {"epochs": 1, "drop_last": True}},
        {"train": {"epochs": 1, "dtype": "float64"}},
        {"train": {"epochs": 1, "metrics": True}},
        {"train": {"epochs": 1, "tf32": True}},
        {"train": {"epochs": 1, "clip_norm": 1}},
        {"train": {"epochs": 1, "eval_every": {"steps": 1}}},
    ],
    ids=str,
)
def test_what_a_run_is_decides_its_id(changed: dict[str, Any]) -> None:
    assert not set(ids(planned())) & set(ids(planned(**changed)))


def test_spelling_does_not_matter() -> None:
    one = planned(
        optimizers=[{"name": "SGD", "weight_decay": 1, "label": "a"}, {"name": "adam", "betas": [0, 0.9]}],
        schedule={"name": "linear", "end": 0},
        train={"epochs": 1, "clip_norm": 2},
        lr=[1, 0.1],
        task={"name": "blobs", "std": 2},
    )
    other = planned(
        optimizers=[
            {"weight_decay": 1.0, "name": "sgd", "momentum": 0.0},
            {"name": "adam", "betas": [0.0, 0.9], "eps": 1e-8},
        ],
        schedule={"end": 0.0, "until": 1, "name": "linear", "warmup": 0},
        train={"clip_norm": 2.0, "epochs": 1, "batch_size": 64},
        lr={"min": 0.1, "max": 1.0, "points": 2},
        task={"name": "blobs", "n": 1000, "std": 2.0},
    )
    assert sorted(ids(one)) == sorted(ids(other))


# --- axes -----------------------------------------------------------------------------------------------------------

AXES: dict[str, list[Any]] = {
    "train.batch_size": [16, 64, "full"],
    "train.epochs": [1, 3],
    "model.hidden": [[8], [8, 8]],
    "schedule": ["constant", {"name": "linear", "end": 0.5}, "cosine"],
    "schedule.warmup": [0, 3, 0.5],
    "optimizers.weight_decay": [0, 0.1],
    "task.split_seed": [0, 1],
}


@settings(deadline=None, max_examples=30)
@given(st.lists(st.sampled_from(sorted(AXES)), unique=True, max_size=3), st.randoms(use_true_random=False))
def test_a_run_on_an_axis_is_the_run_with_that_value_written_down(names: list[str], random: Any) -> None:
    axes = {name: AXES[name] for name in names}
    swept = planned(axes=axes, model="mlp")
    places = {name: random.randrange(len(AXES[name])) for name in names}
    sections: dict[str, Any] = {"model": {"name": "mlp"}, "task": {"name": "digits"}, "train": {"epochs": 1}}
    sections["schedule"] = {"name": "constant"}
    sections["optimizers"] = [{"name": "sgd"}, {"name": "adam"}]
    for name in sorted(names, key=len):
        value, (head, *below) = AXES[name][places[name]], name.split(".")
        for entry in sections["optimizers"] if head == "optimizers" else [sections[head]]:
            if below:
                entry[below[0]] = value
        if not below:
            sections[head] = dict(value) if isinstance(value, dict) else {"name": value}
    single = planned(**sections)
    cells = {run.axes for run in swept.runs}
    assert len(cells) == len(list(itertools.product(*axes.values())))
    assert set(ids(single)) <= set(ids(swept))
    assert len(swept.by_id) == len(swept.runs) == len(single.runs) * len(cells)


def test_an_axis_that_changes_nothing_for_an_optimizer_still_gives_a_row_each() -> None:
    made = planned(
        optimizers=["sgd", "adam", {"name": "rmsprop", "schedule": "cosine"}],
        axes={"optimizers.dampening": [0, 0.5], "schedule": ["constant", "linear"]},
    )
    assert len(made.by_id) == len(made.runs) == 3 * 2 * 2 * 2 * 5
    adam = [run for run in made.runs if run.label == "adam" and run.axes[1].startswith("constant")]
    assert len({run.run_id for run in adam}) == len(adam)
    assert len({str(run.setting.args) for run in adam}) == 1
    cosine = [run for run in made.runs if run.label == "rmsprop"]
    assert {run.setting.schedule["name"] for run in cosine} == {"cosine"}


def test_cells_of_axes_are_never_nested() -> None:
    made = planned(
        model="mlp",
        axes={
            "schedule": ["constant", {"name": "linear", "end": 0.01}],
            "model.hidden": [[64], [8, 8]],
            "train.clip_norm": [None, 2],
            "train.shuffle": [True, False],
        },
    )
    columns = [list(dict.fromkeys(column)) for column in zip(*(run.axes for run in made.runs), strict=True)]
    assert columns == [
        ["constant", "linear"],
        ["[64]", "[8, 8]"],
        [None, 2.0],
        [True, False],
    ]


def test_an_axis_of_independent_weight_decay() -> None:
    made = planned(
        optimizers=[{"name": "adamw", "independent_weight_decay": 0.1, "label": "own"}, "adamw"],
        axes={"optimizers.independent_weight_decay": [0.1, 0.2], "optimizers.weight_decay": [0, 0.3]},
    )
    found = {(run.label, *run.axes): run.setting for run in made.runs}
    assert {key: (s.independent_weight_decay, s.args["weight_decay"]) for key, s in found.items()} == {
        ("own", 0.1, 0): (0.1, 0.0),
        ("own", 0.2, 0): (0.2, 0.0),
        ("own", 0.1, 0.3): (0.1, 0.0),
        ("own", 0.2, 0.3): (0.2, 0.0),
        ("adamw", 0.1, 0): (None, 0.0),
        ("adamw", 0.2, 0): (None, 0.0),
        ("adamw", 0.1, 0.3): (None, 0.3),
        ("adamw", 0.2, 0.3): (None, 0.3),
    }
    assert len(made.by_id) == len(made.runs)


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "own.py").write_text("Net = Lion = rate = other = None\n")
    (home / "d.csv").write_text("x,y\n1,2\n")
    return home


def own(folder: Path, prefix: str = "") -> Spec:
    path = folder / "spec.yaml"
    path.write_text(
        f"task: {{name: csv, path: '{prefix}d.csv', target: y}}\n"
        f"model: {prefix}own.py:Net\n"
        f"optimizers: ['{prefix}own.py:Lion', {{name: sgd, schedule: '{prefix}own.py:rate'}}]\n"
        f"axes: {{schedule: [constant, '{prefix}own.py:other']}}\n"
        "train: {epochs: 1}\n"
    )
    return load_spec(path)


def test_spelling_a_path_differently_changes_no_id(folder: Path) -> None:
    expected = ids(of(own(folder)))
    (folder / "sub").mkdir()
    assert ids(of(own(folder, "./"))) == expected
    assert ids(of(own(folder, "sub/../"))) == expected
    assert ids(of(own(folder, f"{folder}/"))) == expected


def test_moving_the_files_changes_no_id(folder: Path, tmp_path: Path) -> None:
    expected = ids(of(own(folder)))
    moved = tmp_path / "elsewhere" / "deep"
    moved.parent.mkdir()
    shutil.move(folder, moved)
    assert ids(of(load_spec(moved / "spec.yaml"))) == expected


def test_a_folder_of_images_is_known_by_what_it_holds(tmp_path: Path) -> None:
    def of_images(path: str) -> list[str]:
        (tmp_path / "spec.yaml").write_text(
            f"task: {{name: image_folder, path: {path}}}\noptimizers: [sgd]\ntrain: {{epochs: 1}}\n"
        )
        return ids(of(load_spec(tmp_path / "spec.yaml")))

    (tmp_path / "images" / "cat").mkdir(parents=True)
    (tmp_path / "images" / "cat" / "1.png").write_bytes(b"one")
    before = of_images("images")
    assert of_images("./images/") == before
    (tmp_path / "images").rename(tmp_path / "moved")
    assert of_images("moved") == before
    (tmp_path / "moved" / "cat" / "1.png").write_bytes(b"two")
    assert not set(of_images("moved")) & set(before)


def test_the_resolved_file_has_the_same_ids(folder: Path, tmp_path: Path) -> None:
    spec = own(folder)
    prints = plan.fingerprints(spec)
    expected = ids(plan.build(spec, prints))
    target = tmp_path / "results" / "spec"
    target.mkdir(parents=True)
    (target / "spec.yaml").write_text(dump_resolved(spec, target))
    assert ids(of(load_spec(target / "spec.yaml"))) == expected
    again = read_resolved(target / "spec.yaml")
    shutil.rmtree(folder)
    assert ids(plan.build(again, prints)) == expected


def test_paths_of_a_recipe_are_absolute(folder: Path) -> None:
    runs = of(own(folder, "./")).runs
    assert runs[0].workload_spec.task["path"] == str(folder / "d.csv")
    assert runs[0].workload_spec.model == {"name": f"{folder / 'own.py'}:Net"}
    assert {run.setting.name for run in runs} == {f"{folder / 'own.py'}:Lion", "sgd"}
    assert f"{folder / 'own.py'}:other" in {run.setting.schedule["name"] for run in runs}
    assert runs[0].workload_spec.base_dir == str(folder)


def test_younger_arguments_of_a_table_change_ids_only_where_they_are_set(folder: Path) -> None:
    """The id was computed by the version before `drop`, `one_hot` and `missing` came."""

    def of_table(more: str) -> list[str]:
        (folder / "spec.yaml").write_text(
            f"task: {{name: csv, path: d.csv, target: y{more}}}\n"
            "optimizers: [sgd]\nlr: [0.1]\nseeds: 1\ntrain: {epochs: 1, batch_size: 2}\n"
        )
        return ids(of(load_spec(folder / "spec.yaml")))

    (folder / "d.csv").write_text("a,b,y\n1,2,x\n3,4,z\n")
    assert of_table("") == of_table(", drop: null, one_hot: null, missing: null") == ["472ee8418887e186"]
    set_ = [", drop: [a]", ", drop: [b]", ", one_hot: text_columns", ", one_hot: [a]", ", missing: mean"]
    assert len({run for more in ["", *set_, ", missing: drop_rows"] for run in of_table(more)}) == 7


@pytest.mark.parametrize("name", ["own.py", "d.csv"])
def test_other_bytes_are_other_runs(folder: Path, name: str) -> None:
    before = ids(of(own(folder)))
    (folder / name).write_text((folder / name).read_text() + "# two\n")
    assert not set(before) & set(ids(of(own(folder))))


def test_another_function_of_the_same_file_is_another_run(folder: Path) -> None:
    spec = own(folder)
    other = dataclasses.replace(spec, model=dataclasses.replace(spec.model, name="own.py:Other"))  # type: ignore[type-var]
    assert not set(ids(of(spec))) & set(ids(of(other)))


def test_a_file_that_vanished(folder: Path) -> None:
    spec = own(folder)
    (folder / "d.csv").unlink()
    with pytest.raises(UsageError, match=r"task.path: cannot read .*d.csv"):
        plan.fingerprints(spec)
    with pytest.raises(UsageError, match="no fingerprint"):
        plan.build(spec, {})


def test_a_hundred_thousand_runs() -> None:
    made = planned(seeds=1000, lr={"points": 50})
    assert len(made.by_id) == len(made.runs) == 100_000
