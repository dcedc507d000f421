"""Real data that scikit-learn ships.

The files are read with numpy from scikit-learn's folder, since importing sklearn.datasets takes about 1.3 s and
reading a file 2-7 ms (measured with scikit-learn 1.9.1); names and layout have not changed for years. If one is missing
or looks different, scikit-learn's own loader is used instead; tests compare the two.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np

from lrsweep.errors import UsageError
from lrsweep.tasks.splits import Array, Table, table_task


def _folder() -> Path:
    """Where scikit-learn keeps its data, found without importing it."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise UsageError("this task's data comes with scikit-learn, which is not installed (pip install scikit-learn)")
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data"


def _read_digits(folder: Path) -> tuple[Array, Array]:
    rows = np.loadtxt(folder / "digits.csv.gz", delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(np.int64)


def _read_labelled(file: str) -> Callable[[Path], tuple[Array, Array]]:
    def read(folder: Path) -> tuple[Array, Array]:
        rows = np.loadtxt(folder / file, delimiter=",", skiprows=1)
        return rows[:, :-1], rows[:, -1].astype(np.int64)

    return read


def _read_diabetes(folder: Path) -> tuple[Array, Array]:
    """Columns with mean 0 and sum of squares 1, as load_diabetes gives them."""
    raw = np.loadtxt(folder / "diabetes_data_raw.csv.gz")
    centred = raw - raw.mean(axis=0)
    return centred / (centred.std(axis=0) * len(raw) ** 0.5), np.loadtxt(folder / "diabetes_target.csv.gz")


# name: (how the file is read, the shape of its inputs)
FILES: dict[str, tuple[Callable[[Path], tuple[Array, Array]], tuple[int, int]]] = {
    "digits": (_read_digits, (1797, 64)),
    "breast_cancer": (_read_labelled("breast_cancer.csv"), (569, 30)),
    "wine": (_read_labelled("wine_data.csv"), (178, 13)),
    "iris": (_read_labelled("iris.csv"), (150, 4)),
    "diabetes": (_read_diabetes, (442, 10)),
}


def bundled(name: str) -> tuple[Array, Array]:
    """Inputs (rows, features) in float64 and targets (rows,) of one of scikit-learn's data sets."""
    read, shape = FILES[name]
    try:
        inputs, target = read(_folder())
    except (OSError, ValueError, IndexError):
        return loaded(name)
    return (inputs, target) if inputs.shape == shape and target.shape == shape[:1] else loaded(name)


def loaded(name: str) -> tuple[Array, Array]:
    """The same through scikit-learn's loader."""
    inputs, target = getattr(importlib.import_module("sklearn.datasets"), f"load_{name}")(return_X_y=True)
    return np.asarray(inputs), np.asarray(target)


def _classification(name: str) -> Table:
    inputs, target = bundled(name)
    return Table(inputs=inputs, target=target, kind="classification")


@table_task()
def digits() -> Table:
    """1797 handwritten digits as 1x8x8 images, ten classes (scikit-learn's load_digits)."""
    inputs, target = bundled("digits")
    return Table(inputs=inputs.reshape(-1, 1, 8, 8), target=target, kind="classification")


@table_task()
def breast_cancer() -> Table:
    """569 tumours, 30 measurements, malignant or benign: two classes (scikit-learn's load_breast_cancer)."""
    return _classification("breast_cancer")


@table_task()
def wine() -> Table:
    """178 wines, 13 measurements, three growers (scikit-learn's load_wine)."""
    return _classification("wine")


@table_task()
def iris() -> Table:
    """150 flowers, four measurements, three species (scikit-learn's load_iris)."""
    return _classification("iris")


@table_task(scales_target=True)
def diabetes() -> Table:
    """442 patients, ten measurements, progression of the disease a year later (scikit-learn's load_diabetes).

    The target runs from 25 to 346, so it is standardised too (train statistics); `target_scale: none` keeps its unit.
    """
    inputs, target = bundled("diabetes")
    return Table(inputs=inputs, target=target[:, None], kind="regression")
