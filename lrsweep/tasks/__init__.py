"""The built-in tasks by name, and the model each is trained with unless the spec names one.

To add a task: a function that returns a `Task`, or a `Table` under `splits.table_task`; a line in each of the tables
below; a line in the table of tests/tasks/test_tasks.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lrsweep.tasks.base import Shapes, Task, describe, shapes_of
from lrsweep.tasks.bundled import breast_cancer, diabetes, digits, iris, wine
from lrsweep.tasks.char_lm import char_lm
from lrsweep.tasks.hf_dataset import hf_dataset
from lrsweep.tasks.image_folder import image_folder
from lrsweep.tasks.openml import openml
from lrsweep.tasks.synthetic import blobs, moons, quadratic, regression, spirals
from lrsweep.tasks.user_files import csv, npz

__all__ = ["DEFAULT_MODELS", "METRICS", "TASKS", "Shapes", "Task", "describe", "shapes_of"]

TASKS: dict[str, Callable[..., Task]] = {
    "digits": digits,
    "breast_cancer": breast_cancer,
    "wine": wine,
    "iris": iris,
    "diabetes": diabetes,
    "blobs": blobs,
    "moons": moons,
    "spirals": spirals,
    "regression": regression,
    "quadratic": quadratic,
    "char_lm": char_lm,
    "csv": csv,
    "npz": npz,
    "image_folder": image_folder,
    "hf_dataset": hf_dataset,
    "openml": openml,
}

# The metrics of each task, known without its data. Those of `csv`, `npz`, `hf_dataset` and `openml` depend on it.
METRICS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("digits", "breast_cancer", "wine", "iris", "blobs", "moons", "spirals", "image_folder"), ("accuracy",)
    ),
    **dict.fromkeys(("diabetes", "regression"), ("mse",)),
    "quadratic": (),
    "char_lm": ("perplexity",),
}

# `quadratic` is absent: its weights are its model.
DEFAULT_MODELS: dict[str, dict[str, Any]] = {
    "digits": {"name": "mlp", "hidden": [128, 128]},
    "breast_cancer": {"name": "mlp", "hidden": [32]},
    "wine": {"name": "mlp", "hidden": [32]},
    "iris": {"name": "mlp", "hidden": [32]},
    "diabetes": {"name": "mlp", "hidden": [32]},
    "blobs": {"name": "mlp", "hidden": [50]},
    "moons": {"name": "mlp", "hidden": [32, 32]},
    "spirals": {"name": "mlp", "hidden": [64, 64]},
    "regression": {"name": "linear"},
    "char_lm": {"name": "transformer", "dim": 64, "layers": 2, "heads": 4},
    "csv": {"name": "mlp", "hidden": [64, 64]},
    "npz": {"name": "mlp", "hidden": [64, 64]},
    "image_folder": {"name": "cnn", "channels": [16, 32]},
    "hf_dataset": {"name": "mlp", "hidden": [64, 64]},
    "openml": {"name": "mlp", "hidden": [64, 64]},
}
