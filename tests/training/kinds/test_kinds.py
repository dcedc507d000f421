"""Every kind of user code in this folder trains as it does in plain torch (tests/support/plain_loop.py).

The default tier trains some of each family; the slow tier all of them, with one seed and with three, by one worker and
by two.
"""

from __future__ import annotations

import ast
import functools
import itertools
import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from lrsweep.training.audit import Auditor
from tests.support import plain_loop, sweeps

HERE = Path(__file__).parent
STEPS, BATCH = 48, 16
TOLERANCE = 1e-8
SHARED = ("kinds_common.py", "kinds_counter.py", "kinds_made.py")
SCHEDULE = {"name": "linear", "end": 0.1}


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What is trained: a task of one of the files, and an optimizer of optimizers.py or of torch's."""

    name: str
    task: str = "kinds_common.py:smooth"
    task_args: Mapping[str, Any] = field(default_factory=dict)
    optimizer: str = "sgd"
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    lr: tuple[float, float] = (0.02, 0.1)
    batch_size: int = BATCH
    shuffle: bool = True
    scheduled: bool = False
    clip_norm: float | None = None
    neighbours: tuple[float, ...] = ()  # more rates, whose runs diverge and are not compared
    constant: float = 0.0  # a part of the loss that says nothing

    def spec(self, folder: Path, seeds: int | list[int]) -> dict[str, Any]:
        """`folder`: see `write`."""
        own = ":" in self.optimizer
        return {
            "name": "kind",
            "task": {"name": f"{folder}/{self.task}", **self.task_args},
            "lr": [*self.lr, *self.neighbours],
            "optimizers": [
                {"name": f"{folder}/{self.optimizer}" if own else self.optimizer, "label": "it", **self.optimizer_args}
            ],
            "seeds": seeds,
            "schedule": SCHEDULE if self.scheduled else "constant",
            "train": {
                "steps": STEPS,
                "batch_size": self.batch_size,
                "shuffle": self.shuffle,
                "dtype": "float64",
                "clip_norm": self.clip_norm,
            },
        }

    def write(self, folder: Path) -> None:
        """The files of this kind alone, as its user has them: what others of its family keep is not in them."""
        folder.mkdir()
        for file in SHARED:
            shutil.copy(HERE / file, folder)
        needed = {value for value in self.task_args.values() if isinstance(value, str)}
        for place in (self.task, self.optimizer):
            file, _, name = place.partition(":")
            if name and file not in SHARED:
                (folder / file).write_text(cut((HERE / file).read_text(), needed | {name}))

    def recipe(self) -> plain_loop.Recipe:
        own = ":" in self.optimizer
        return plain_loop.Recipe(
            task=f"{HERE}/{self.task}",
            optimizer=f"{HERE}/{self.optimizer}" if own else TORCHS[self.optimizer],
            task_args=self.task_args,
            optimizer_args=self.optimizer_args,
            steps=STEPS,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            factor=_factor if self.scheduled else None,
            clip_norm=self.clip_norm,
        )


def cut(source: str, wanted: set[str]) -> str:
    """Only those top-level statements of a file that `wanted` names need."""
    statements = ast.parse(source).body
    defined = [_defines(statement) for statement in statements]
    used = [{node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} for statement in statements]
    kept: set[int] = set()
    while grown := {i for i, names in enumerate(defined) if i not in kept and names & wanted}:
        kept |= grown
        wanted = wanted.union(*(used[i] for i in grown))
        kept |= {i for i, names in enumerate(defined) if not names and used[i] & wanted & set().union(*defined)}
    return "\n\n\n".join(ast.unparse(statements[i]) for i in sorted(kept))


def _defines(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.ClassDef | ast.FunctionDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _factor(step: int) -> float:
    return 1 + (SCHEDULE["end"] - 1) * step / STEPS


TORCHS = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "asgd": torch.optim.ASGD}
ADAM = {"optimizer": "adam", "lr": (0.001, 0.01)}
MOMENTUM = {"optimizer_args": {"momentum": 0.9, "weight_decay": 0.01}, "lr": (0.005, 0.02)}
GROWING = {"lr": (0.1, 0.12)}  # all runs grow past what unseen.py compares with, and stay there


def _family(
    file: str, argument: str, names: str, changed: Mapping[str, dict[str, Any]], function: str = "make"
) -> list[Kind]:
    """A kind for each of the `names` that a file holds; `changed`: what is special about some."""
    found = list(plain_loop.load(f"{HERE / file}:{names}"))
    assert changed.keys() <= set(found)
    family, task = file.removesuffix(".py"), f"{file}:{function}"
    given = [{"name": f"{family}-{name}", "task": task, "task_args": {argument: name}} for name in found]
    return [Kind(**one | changed.get(name, {})) for name, one in zip(found, given, strict=True)]


def _optimizers(changed: Mapping[str, dict[str, Any]]) -> list[Kind]:
    found = plain_loop.load(f"{HERE}/optimizers.py:OPTIMIZERS")
    assert changed.keys() <= set(found)
    given = {name: {"name": f"optimizers-{name}", "optimizer": f"optimizers.py:{name}"} for name in found}
    return [Kind(**one | changed.get(name, {})) for name, one in given.items()]


KINDS = [
    *_family("python_values.py", "model", "MODELS", {"Attribute": ADAM, "Deque": MOMENTUM}),
    *_family(
        "parameters.py",
        "model",
        "MODELS",
        {
            "LateLayer": {"task": "parameters.py:make_late", "shuffle": False, **ADAM},
            "InTurn": MOMENTUM,
            "ByData": ADAM,
            "SomeEpochs": ADAM,
            "Frozen": MOMENTUM,
            "FrozenLater": MOMENTUM,
            "FrozenFirst": ADAM,
            "Unused": MOMENTUM,
            "Zero": MOMENTUM,
            "Tied": ADAM,
            "OwnParameters": MOMENTUM,
            "Multiplied": {"optimizer": "optimizers.py:ReadsAttribute"},
            "NoGrad": MOMENTUM,
            "LastEvaluation": {"neighbours": (1e150,)},
            "ReadsMomentum": {"optimizer": "optimizers.py:KeptOnParameters"},
        },
    ),
    *_family("operations.py", "model", "TEXTS", {"PaddingIndex": ADAM, "SparseEmbedding": {}}, "make_words"),
    *_family("operations.py", "loss", "LOSSES", {}, "make_classes"),
    *_family(
        "operations.py",
        "model",
        "MODELS",
        {
            "BatchNorm": {"batch_size": 20},
            "CumulativeBatchNorm": MOMENTUM,
            "FunctionalGradient": ADAM,
            "ByBatchSize": {"batch_size": 24},
        },
    ),
    *_family(
        "steps.py",
        "kind",
        "TASKS",
        {
            "annealed": ADAM,
            "queue": ADAM,
            "late_penalty": ADAM,
            "constant_million": {"constant": 1e6},
            "constant_negative": {"constant": -1e6},
            "tiny": {"lr": (1e10, 1e11)},
            "data_written_by_model": {"batch_size": 1},
            "ready_batches": {"batch_size": 1},
        },
    ),
    *_family("shared.py", "kind", "TASKS", {"gradient_transposed": ADAM, "gradient_expanded": ADAM}),
    *_family(
        "unseen.py",
        "model",
        "MODELS",
        {
            "Printed": GROWING,
            "InTraining": GROWING,
            "InEvaluation": GROWING,
            "Recorded": {"optimizer": "asgd", **GROWING},
        },
    ),
    *_optimizers(
        {
            "ClipsLarge": {"task_args": {"scale": 100.0}},
            "KeptData": {"neighbours": (1e200, 1e250)},
            "GoesOnFromMean": {"neighbours": (1e150,)},
            "ReplacesStep": {"task": "python_values.py:make", "task_args": {"model": "WeightBranch"}},
        }
    ),
    *(
        Kind(name=f"scheduled-{name}", optimizer=f"optimizers.py:{name}", scheduled=True)
        for name in ("SelfHalving", "BuildRate", "Inner", "TwoGroups", "Quadratic", "Lookahead", "Averaged")
    ),
    Kind(name="clipped-KeepsGradients", optimizer="optimizers.py:KeepsGradients", clip_norm=0.2),
    Kind(name="scheduled-steps", task="steps.py:make", task_args={"kind": "annealed"}, scheduled=True),
]
BY_NAME = {kind.name: kind for kind in KINDS}
assert len(BY_NAME) == len(KINDS)


# What the default tier trains: some of each family. The slow tier trains all.
SAMPLE = [
    f"{family}-{name}"
    for family, names in {
        "python_values": "PythonRandom Count Global EvaluationOwnDraws CachedFeatures",
        "parameters": "LateLayer OneSeed GradientMask Tied Multiplied CountsOnWeight",
        "operations": "PaddingIndex Selected CumulativeBatchNorm Dropout TransposedDropout SlowLists",
        "steps": "annealed queue parameter_groups own_generator physics data_own_generator data_augmented_once",
        "optimizers": "DistanceFromStart SelfHalving EditsGradients KeptClass Averaged SwappedMean CachedClock",
        "scheduled": "SelfHalving",
    }.items()
    for name in names.split()
]
APART = [
    "python_values-OwnRandom",
    "operations-Dropout",
    "operations-SlowWeights",
    "optimizers-TorchNoise",
    "optimizers-KeepsGradients",
]
"""Trained by two workers, a run each."""


@functools.cache
def _wanted(name: str, lr: float, seed: int) -> list[plain_loop.Row]:
    return plain_loop.train(BY_NAME[name].recipe(), lr, seed)


def _differences(curves: pd.DataFrame, kind: Kind, runs: Iterable[tuple[float, int]]) -> Iterator[str]:
    """The first row of each of these runs (lr, seed) that is not that of the plain loop."""
    for lr, seed in runs:
        rows = curves[(curves.lr == lr) & (curves.seed == seed)].to_dict("records")
        wanted = _wanted(kind.name, lr, seed)
        if (steps := [row["step"] for row in rows]) != [row["step"] for row in wanted]:
            yield f"lr {lr} seed {seed}: evaluations at {steps}"
            continue
        for mine, right in zip(rows, wanted, strict=True):
            wrong = [name for name, value in right.items() if not _close(mine[name], value, kind.constant)]
            if wrong:
                said = (f"{name} {mine[name]!r}, plain torch {right[name]!r}" for name in wrong)
                yield f"lr {lr} seed {seed} step {right['step']}: {'; '.join(said)}"
                break


def _close(value: float, wanted: float, constant: float) -> bool:
    return abs(value - wanted) <= TOLERANCE * abs(wanted - constant) + 4 * math.ulp(wanted)


def check(
    folder: Path, kind: Kind, *, seeds: int | list[int], workers: int, runs: Sequence[tuple[float, int]]
) -> list[str]:
    """Train a sweep; what is wrong with it."""
    folder.mkdir(exist_ok=True)
    kind.write(folder / "user")
    finished = sweeps.run(folder, kind.spec(folder / "user", seeds), workers=workers)
    table = pd.read_csv(finished.path / "runs.csv")
    if (bad := table[(table.status != "ok") & ~table.lr.isin(kind.neighbours)]).size:
        return [f"{bad.status.iloc[0]}: {bad.error.iloc[0]}"]
    curves = pd.read_csv(finished.path / "curves.csv")
    return [f"seeds {seeds}, workers {workers}: {text}" for text in _differences(curves, kind, runs)]


@pytest.mark.process
@pytest.mark.parametrize("name", SAMPLE)
def test_trains_as_in_plain_torch(tmp_path: Path, name: str) -> None:
    kind = BY_NAME[name]
    wrong = check(tmp_path, kind, seeds=2, workers=1, runs=[(kind.lr[0], 1), (kind.lr[1], 0)])
    assert not wrong, "\n".join(wrong)


@pytest.mark.process
@pytest.mark.parametrize("name", APART)
def test_trains_as_in_plain_torch_by_two_workers(tmp_path: Path, name: str) -> None:
    kind = BY_NAME[name]
    wrong = check(tmp_path, kind, seeds=1, workers=2, runs=[(lr, 0) for lr in kind.lr])
    assert not wrong, "\n".join(wrong)


@pytest.mark.process
def test_a_value_that_few_seeds_draw_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial sees seeds 0 and 1, and audits may look at other runs than those of seed 40: here they look at none."""
    monkeypatch.setattr(Auditor, "due", lambda *_: False)
    monkeypatch.setattr(Auditor, "row_due", lambda *_: False)
    kind = BY_NAME["python_values-SeedValue"]
    wrong = check(tmp_path, kind, seeds=[0, 1, 40], workers=1, runs=list(itertools.product(kind.lr, (1, 40))))
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("name", BY_NAME)
def test_trains_as_in_plain_torch_in_any_company(tmp_path: Path, name: str) -> None:
    """One seed and three, by one worker and by two."""
    wrong = []
    for seeds, workers in itertools.product((1, 3), (1, 2)):
        kind = BY_NAME[name]
        runs = list(itertools.product(kind.lr, range(seeds)))
        wrong += check(tmp_path / f"{seeds}-{workers}", kind, seeds=seeds, workers=workers, runs=runs)
    assert not wrong, "\n".join(wrong)
