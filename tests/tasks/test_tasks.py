"""Built-in tasks: their data, splits and scaling, held against scikit-learn and the published set-up (B1)."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import sklearn.datasets
import torch
from sklearn.preprocessing import StandardScaler

import lrsweep.tasks.bundled
from lrsweep.errors import UsageError
from lrsweep.tasks import DEFAULT_MODELS, METRICS, TASKS, shapes_of
from lrsweep.tasks.splits import Cut
from lrsweep.tasks.synthetic import blob_points, moon_points, quadratic_loss

LOADERS = {
    "digits": sklearn.datasets.load_digits,
    "breast_cancer": sklearn.datasets.load_breast_cancer,
    "wine": sklearn.datasets.load_wine,
    "iris": sklearn.datasets.load_iris,
    "diabetes": sklearn.datasets.load_diabetes,
}
OF_THE_USER = ("csv", "npz", "image_folder", "hf_dataset", "openml")
BUILT_IN = [name for name in TASKS if name not in OF_THE_USER]


def flat(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.reshape(len(tensor), -1).numpy()


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# The data themselves


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("missing", [False, True], ids=["file", "loader"])
def test_bundled_data_are_scikit_learns(name, missing, monkeypatch, tmp_path):
    if missing:
        monkeypatch.setattr(lrsweep.tasks.bundled, "_folder", lambda: tmp_path)
    inputs, target = lrsweep.tasks.bundled.bundled(name)
    expected, labels = LOADERS[name](return_X_y=True)
    assert np.abs(inputs - expected).max() < 1e-15 * max(1, np.abs(expected).max())
    assert np.array_equal(target, labels)


def test_a_data_file_that_looks_different_is_not_trusted(monkeypatch, tmp_path):
    (tmp_path / "iris.csv").write_text("150,4,a,b,c\n1,2,3,4,0\n5,6,7,8,1\n")
    monkeypatch.setattr(lrsweep.tasks.bundled, "_folder", lambda: tmp_path)
    assert lrsweep.tasks.bundled.bundled("iris")[0].shape == (150, 4)


@pytest.mark.parametrize(("n", "features", "centers", "std", "seed"), [(1000, 2, 3, 2.0, 2), (101, 5, 4, 0.5, 0)])
def test_blobs_are_scikit_learns(n, features, centers, std, seed):
    ours = blob_points(n, features, centers, std, seed)
    theirs = sklearn.datasets.make_blobs(
        n_samples=n, n_features=features, centers=centers, cluster_std=std, random_state=seed, return_centers=True
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert np.array_equal(mine, other)


@pytest.mark.parametrize(("n", "noise", "seed"), [(200, 0.2, 42), (101, 0.0, 0)])
def test_moons_are_scikit_learns(n, noise, seed):
    points, classes = moon_points(n, noise, seed)
    expected, labels = sklearn.datasets.make_moons(n_samples=n, noise=noise, random_state=seed)
    assert np.array_equal(points, expected)
    assert np.array_equal(classes, labels)


def test_blobs_of_the_published_experiment():
    task = TASKS["blobs"](
        n=1000, features=2, centers=3, std=2, data_seed=2, split="stored", val=500, test=0, scale="none"
    )
    inputs, labels = sklearn.datasets.make_blobs(n_samples=1000, centers=3, n_features=2, cluster_std=2, random_state=2)
    assert task.test is None
    assert np.array_equal(task.train[0].numpy(), inputs[:500].astype(np.float32))
    assert np.array_equal(task.val[1].numpy(), labels[500:])
    shares = [(part[1].bincount() / 500).tolist() for part in (task.train, task.val)]
    assert np.allclose(shares, [[0.342, 0.324, 0.334], [0.326, 0.342, 0.332]], atol=1e-6)  # studies of B1
    centers = torch.from_numpy(blob_points(1000, 2, 3, 2.0, 2)[2]).float()
    right = [(torch.cdist(x, centers).argmin(1) == y).float().mean().item() for x, y in (task.train, task.val)]
    assert right == pytest.approx([0.824, 0.840], abs=5e-4)
    assert task.notes["warnings"] == []


def test_spirals_are_what_the_formula_says():
    x, y = TASKS["spirals"](noise=0.0, scale="none", turns=0.5, classes=3, split="stored").train
    radius = x.norm(dim=1)
    angle = torch.atan2(x[:, 1], x[:, 0])
    expected = 2 * torch.pi * (0.5 * radius + y / 3)
    assert torch.allclose(torch.cos(angle - expected), torch.ones(len(y)), atol=1e-5)
    assert y.bincount().tolist() == pytest.approx([200, 200, 200], abs=25)


@pytest.mark.parametrize("ratio", [1.0, 30.0])
def test_regression_scale_ratio_moves_the_largest_eigenvalue_as_its_square(ratio, float64):
    task = TASKS["regression"](features=2, noise=0.0, scale_ratio=ratio, scale="none", n=4000, val=0.1, test=0)
    x, y = task.train
    lam_max = torch.linalg.eigvalsh(x.T @ x / len(x)).max().item()
    assert lam_max == pytest.approx(ratio**2, rel=0.1)
    residual = torch.linalg.lstsq(x, y).solution
    assert (x @ residual - y).abs().max() < 1e-10
    assert y.var().item() == pytest.approx(1.0, rel=0.1)


# Splits


@pytest.mark.parametrize("name", [*LOADERS, "blobs", "moons", "spirals", "regression", "char_lm"])
def test_splits_share_no_row_and_lose_none(name):
    raw = {} if name == "char_lm" else {"scale": "none"}
    raw |= {"target_scale": "none"} if name == "diabetes" else {}
    task = TASKS[name](val=0.3, test=0.1, **raw)
    stored = TASKS[name](val=0.3, test=0.1, split="stored", **raw)
    rows = [np.hstack([flat(x), flat(y)]) for x, y in (task.train, task.val, task.test)]
    whole = np.vstack([np.hstack([flat(x), flat(y)]) for x, y in (stored.train, stored.val, stored.test)])
    assert [len(part) for part in rows] == [task.notes[part] for part in ("train", "val", "test")]
    order = np.lexsort(whole.T)
    mixed = np.vstack(rows)
    assert not np.array_equal(mixed, whole)
    assert np.array_equal(mixed[np.lexsort(mixed.T)], whole[order])


def test_split_sizes_of_digits():
    notes = TASKS["digits"]().notes
    assert (notes["train"], notes["val"], notes["test"]) == (1077, 360, 360)


@pytest.mark.parametrize(
    ("count", "val", "test", "sizes"),
    [
        (1797, 0.2, 0.2, (1077, 360, 360)),
        (30, 0.1, 0.1, (24, 3, 3)),
        (10, 3, 0, (7, 3, 0)),
        (10, 0.5, 2.0, (3, 5, 2)),
        (100, 0.07, 0, (93, 7, 0)),
    ],
)
def test_parts_are_shares_or_counts(count, val, test, sizes):
    parts = Cut(split="shuffled", split_seed=1, val=val, test=test).indices(count)
    assert tuple(len(parts[name]) for name in ("train", "val", "test")) == sizes
    assert sorted(np.concatenate(list(parts.values()))) == list(range(count))


def test_stored_keeps_the_order_and_seeds_shuffle():
    stored = Cut(split="stored", split_seed=3, val=2, test=1).indices(6)
    assert [stored[name].tolist() for name in ("train", "val", "test")] == [[0, 1, 2], [3, 4], [5]]
    first, second, again = (Cut(split="shuffled", split_seed=s, val=0.5, test=0).indices(50) for s in (0, 1, 0))
    assert first["train"].tolist() == again["train"].tolist() != second["train"].tolist()
    # A frozen stream: this very order, in every release of numpy.
    assert Cut(split="shuffled", split_seed=0, val=1, test=0).indices(6)["train"].tolist() == [5, 2, 1, 3, 0]


@pytest.mark.parametrize(
    ("val", "test", "message"),
    [(0, 0, "no rows"), (0.5, 0.5, "leaving none for train"), (8, 3, "8 \\+ 3 of 10"), (2.5, 0, "2.5 is neither")],
)
def test_parts_that_cannot_be(val, test, message):
    with pytest.raises(UsageError, match=message):
        Cut(split="stored", split_seed=0, val=val, test=test).indices(10)


# Scaling


@pytest.mark.parametrize("name", [*LOADERS, "blobs", "moons", "spirals", "regression"])
def test_inputs_are_standardised_by_the_train_split_alone(name, float64):
    task, raw = TASKS[name](split_seed=5), TASKS[name](split_seed=5, scale="none")
    scaler = StandardScaler().fit(flat(raw.train[0]))
    for part in ("train", "val", "test"):
        ours, theirs = flat(getattr(task, part)[0]), scaler.transform(flat(getattr(raw, part)[0]))
        assert np.abs(ours - theirs).max() < 1e-10 * max(1, np.abs(theirs).max())
        assert torch.isfinite(getattr(task, part)[0]).all()
    constant = flat(raw.train[0]).std(axis=0) == 0
    assert constant.sum() == (3 if name == "digits" else 0) or name == "digits"
    assert (flat(task.train[0])[:, constant] == 0).all()


def test_the_target_of_diabetes_is_standardised_unless_told_otherwise(float64):
    task, raw = TASKS["diabetes"](), TASKS["diabetes"](target_scale="none")
    assert task.train[1].mean().item() == pytest.approx(0, abs=1e-12)
    assert task.train[1].std(correction=0).item() == pytest.approx(1)
    mean, sd = raw.train[1].mean(), raw.train[1].std(correction=0)
    assert torch.allclose(task.val[1], (raw.val[1] - mean) / sd)
    assert (raw.train[1].min(), raw.train[1].max()) >= (25, 25)
    assert task.notes["target_scale"] == "standard"


@pytest.mark.parametrize(
    ("name", "warned"),
    [("digits", True), ("breast_cancer", True), ("wine", True), ("diabetes", True), ("iris", False), ("moons", False)],
)
def test_raw_inputs_far_from_unit_scale_are_warned_about_once(name, warned):
    assert len(TASKS[name](scale="none").notes["warnings"]) == warned
    assert TASKS[name]().notes["warnings"] == []


def test_tensors_have_the_default_dtype(float64):
    assert TASKS["digits"]().train[0].dtype == TASKS["regression"]().val[1].dtype == torch.float64


# What every task promises


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_task_is_the_same_every_time_and_complete(name):
    task, again = TASKS[name](), TASKS[name]()
    for part in ("train", "val", "test"):
        if getattr(task, part) is None:
            continue
        for mine, other in zip(getattr(task, part), getattr(again, part), strict=True):
            assert torch.equal(mine, other)
            assert mine.dtype in (torch.float32, torch.int64) or name == "quadratic"
    assert {"train", "val", "test", "kind", "warnings"} <= task.notes.keys()
    assert "split_seed" in inspect.signature(TASKS[name]).parameters
    shapes = shapes_of(task)
    assert shapes.num_outputs == {
        "digits": 10, "breast_cancer": 2, "wine": 3, "iris": 3, "diabetes": 1, "blobs": 3, "moons": 2, "spirals": 3,
        "regression": 1, "quadratic": 10, "char_lm": len(task.notes.get("alphabet", "")),
    }[name]  # fmt: skip
    kinds = {"classification": ["accuracy"], "regression": ["mse"], "language": ["perplexity"], "quadratic": []}
    assert list(task.metrics) == list(METRICS[name]) == kinds[task.notes["kind"]]
    assert (name in DEFAULT_MODELS) == (task.model is None)


@pytest.mark.parametrize("name", TASKS)
def test_arguments_can_be_checked_by_their_annotations(name):
    for argument, parameter in inspect.signature(TASKS[name], eval_str=True).parameters.items():
        assert parameter.kind is parameter.KEYWORD_ONLY
        check = pydantic.TypeAdapter(parameter.annotation)
        if parameter.default is not parameter.empty:
            assert check.validate_python(parameter.default) == parameter.default
        if argument in ("val", "test"):
            assert type(check.validate_python(360)) is int
            assert type(check.validate_python(0.5)) is float
        if argument in ("val", "test", "n", "split_seed", "data_seed"):
            with pytest.raises(pydantic.ValidationError):
                check.validate_python(-1)


def test_the_tasks_of_a_user_know_their_model_and_how_they_are_split():
    for name in OF_THE_USER:
        assert name in DEFAULT_MODELS
        assert {"split", "split_seed", "val", "test", "scale"} < inspect.signature(TASKS[name]).parameters.keys()


def test_metrics_are_what_they_say():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]])
    labels = torch.tensor([0, 1, 1])
    accuracy = TASKS["iris"]().metrics["accuracy"]
    assert accuracy(logits, labels).item() == pytest.approx(2 / 3)
    many = torch.zeros(1000, 2, dtype=torch.bfloat16)
    assert accuracy(many, (torch.arange(1000) < 1).long()).item() == pytest.approx(0.999)
    output, target = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [1.0]])
    assert TASKS["regression"]().metrics["mse"](output, target).item() == pytest.approx(2.5)


def test_losses_and_metrics_can_be_stacked():
    for name in ("iris", "diabetes", "char_lm"):
        task = TASKS[name]()
        target = task.train[-1][:8]
        shape = target.shape[:2] if name == "char_lm" else target.shape[:1]
        outputs = torch.randn(3, *shape, shapes_of(task).num_outputs)
        for function in (task.loss, *task.metrics.values()):
            stacked = torch.vmap(function, in_dims=(0, None))(outputs, target)
            assert torch.allclose(stacked, torch.stack([function(output, target) for output in outputs]))


# The quadratic


def test_gradient_descent_on_the_quadratic_follows_the_closed_form():
    task = TASKS["quadratic"](eigenvalues=[0.5, 2.0, 7.0], b=[1.0, -1.0, 3.0], start=[2.0, 0.0, -1.0])
    assert len(task.train) == 1
    model, (target,) = task.model(), task.train
    lam, b = np.array([0.5, 2.0, 7.0]), np.array([1.0, -1.0, 3.0])
    best = b / lam
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for step in range(100):
        loss = task.loss(model(), target)
        expected = best + (1 - 0.2 * lam) ** step * (np.array([2.0, 0.0, -1.0]) - best)
        value = 0.5 * (lam * expected**2).sum() - (b * expected).sum()
        assert loss.item() == pytest.approx(value, rel=1e-10)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_quadratic_arguments():
    lam = TASKS["quadratic"](dim=5, lam_min=0.01, lam_max=100.0).notes["eigenvalues"]
    assert lam == pytest.approx([0.01, 0.1, 1, 10, 100])
    first, second = TASKS["quadratic"](start=3.0).model(), TASKS["quadratic"](start=3.0).model()
    assert first().tolist() == [3.0] * 10
    assert first.w is not second.w
    with pytest.raises(UsageError, match="start has 2 numbers for 3"):
        TASKS["quadratic"](eigenvalues=[1.0, 2.0, 3.0], start=[1.0, 2.0])
    with pytest.raises(UsageError, match="eigenvalues"):
        TASKS["quadratic"](eigenvalues=[])


def test_quadratic_loss_is_a_mean_over_rows():
    w = torch.tensor([1.0, 2.0])
    rows = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[3.0, 3.0], [0.0, 1.0]]])
    assert quadratic_loss(w, rows).item() == pytest.approx((2.5 + 7.5 - 2.0) / 2)


def test_building_a_task_does_not_import_scikit_learn():
    program = (
        "import sys; from lrsweep.tasks import TASKS as t; t['digits'](); t['moons'](); print('sklearn' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert shown.stdout.strip() == "False"
