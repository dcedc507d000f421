"""What the studies of `configs/studies` claim, and whether a run of them shows it.

`python -m tests.support.studies RESULTS` prints the table of results/README.md, with the exact answers of theory.py at
its end. Expected numbers are published or derived by hand; what is measured is read from the tables of a results folder
with pandas alone.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.support import theory

POST = "the post"


@dataclass(frozen=True)
class Study:
    """The tables of one results folder."""

    folder: Path

    @cached_property
    def curves(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "curves.csv")

    @cached_property
    def runs(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "runs.csv")

    @cached_property
    def summary(self) -> pd.DataFrame:
        return pd.read_csv(self.folder / "summary.csv")

    def last_ten(self, column: str, by: str) -> pd.Series[float]:
        """Median over seeds of the mean of the last 10 epochs, by learning rate, optimizer or the value of an axis."""
        rows = self.curves[self.curves.epoch > self.curves.epoch.max() - 10]
        return rows.groupby([by, "seed"])[column].mean().groupby(by).median()

    def spread(self, by: str, after: float) -> pd.Series[float]:
        """Median over seeds of the standard deviation of val_accuracy after an epoch."""
        rows = self.curves[self.curves.epoch > after]
        return rows.groupby([by, "seed"]).val_accuracy.std().groupby(by).median()

    def reaches(self, accuracy: float, by: str) -> pd.Series[float]:
        """Median over seeds of the first epoch at which the mean of 10 epochs of val_accuracy is this high."""

        def first(run: pd.DataFrame) -> float:
            means = run.val_accuracy[run.step > 0].rolling(10).mean()
            found = np.flatnonzero(means >= accuracy)
            return float(found[0]) + 1 if len(found) else math.inf

        return self.curves.groupby([by, "seed"]).apply(first).groupby(by).median()

    def first_cut(self) -> pd.Series[float]:
        """Median over seeds of the epoch after which the rate of a plateau schedule first fell, by patience."""

        def first(run: pd.DataFrame) -> float:
            cut = run.epoch[run.lr_now < run.lr.iloc[0] * 0.99]
            return float(cut.min()) - 1 if len(cut) else math.inf

        return self.curves.groupby(["schedule.patience", "seed"]).apply(first).groupby("schedule.patience").median()

    def row(self, **wanted: Any) -> pd.Series[Any]:
        """The only row of the summary with these values."""
        found = self.summary
        for column, value in wanted.items():
            found = found[found[column.replace("__", ".")] == value]
        (row,) = [row for _, row in found.iterrows()]
        return row


Measured = tuple[str, bool | None]
"""What was measured, as text, and whether it is as expected; None for what is shown and not claimed."""
VERDICTS = {True: "holds", False: "**does not hold**", None: "shown"}


@dataclass(frozen=True)
class Claim:
    """`beside`: another study whose results `measure` reads, too, from the folder next to that of its own."""

    study: str
    claim: str
    source: str
    expected: str
    measure: Callable[[Study], Measured]
    beside: str = ""

    @property
    def id(self) -> str:
        """What the study repeats. B: the post; E: the edge of stability; L: batch size, epochs, width."""
        return IDS.get(self.study, "")


IDS = {
    "01_learning_rate": "B1",
    "02_momentum": "B2",
    "03_decay": "B3",
    "04_plateau": "B4",
    "05_optimizers": "B5",
    "07_batch_size": "L1",
    "08_epochs": "L2",
    "12_width": "L3",
    "15_edge_of_stability": "E1",
    "19_adam_at_the_edge": "E2",
    "20_width_and_stability": "L4",
}


def within(values: Any, low: float, high: float) -> bool:
    return bool(np.all((np.asarray(values) >= low) & (np.asarray(values) <= high)))


def numbers(values: Sequence[float] | Any, digits: int = 3) -> str:
    return " / ".join("never" if math.isinf(value) else f"{value:.{digits}g}" for value in values)


def rising(values: Any) -> bool:
    return bool(np.all(np.diff(np.asarray(values, dtype=float)) > 0))


def _good_rates(study: Study) -> Measured:
    found = study.last_ten("val_accuracy", "lr")[[0.1, 0.01]]
    return numbers(found), within(found, 0.80, 0.845)


def _slow_rates(study: Study) -> Measured:
    found = study.last_ten("val_accuracy", "lr")[[0.001, 1e-4]]
    return numbers(found), within(found[0.001], 0.70, 0.78) and within(found[1e-4], 0.60, 0.71)


def _large_rate(study: Study) -> Measured:
    level, spread = study.last_ten("val_accuracy", "lr")[1.0], study.spread("lr", 150)
    text = f"{level:.3g}; {spread[1.0]:.2g} against {spread[0.1]:.2g}"
    return text, level < 0.70 and spread[1.0] > 0.04 and spread[0.1] < 0.02


def _frozen_rates(study: Study) -> Measured:
    ends = [study.curves[study.curves.epoch == epoch] for epoch in (1, 200)]
    first, last = (rows.set_index(["lr", "seed"]).val_accuracy for rows in ends)
    moved = (last - first).abs().groupby("lr").median()[[1e-6, 1e-7]]
    return numbers(moved, 2), moved[1e-6] < 0.11 and moved[1e-7] < 0.03


def _u_shape(study: Study) -> Measured:
    order = [0.1, 0.01, 0.001, 1e-4, 1e-5, 1e-6]
    losses = study.last_ten("train_loss", "lr")
    return numbers(losses[[*order, 1.0]]), rising(losses[order]) and losses[1.0] > losses[0.001]


def _best_rate(study: Study) -> Measured:
    best = study.last_ten("train_loss", "lr").idxmin()
    return f"{best:g}", best == 0.1


def _finite(study: Study) -> Measured:
    found = list(study.runs[study.runs.lr == 1].status)
    return f"{found.count('ok')} of {len(found)} ok", set(found) == {"ok"}


def _tie(study: Study) -> Measured:
    losses = study.curves[study.curves.epoch == study.curves.epoch.max()].groupby("lr").val_loss.median()
    return numbers(losses[[0.1, 0.01]]), None


def _largest_over_best(runs: pd.DataFrame, summary: pd.DataFrame, by: str) -> Measured:
    """The largest rate at which most seeds did not diverge, over the best."""
    best, texts = summary.set_index(by).best_lr, []
    for value, some in runs.groupby(by):
        calm = (some.status == "ok").groupby(some.lr).mean() > 0.5
        largest = calm[calm].index.max()
        bound = ">= " if largest == some.lr.max() else ""
        texts.append(f"{bound}{largest / best[value]:.2g}")
    return " / ".join(texts), None


def _largest(study: Study) -> Measured:
    return _largest_over_best(study.runs, study.summary, "optimizer")


def _largest_by_batch(study: Study) -> Measured:
    sgd = [frame[frame.optimizer == "sgd"] for frame in (study.runs, study.summary)]
    return _largest_over_best(*sgd, "train.batch_size")


def _ceiling(study: Study) -> Measured:
    highest = study.last_ten("val_accuracy", "lr").max()
    return f"{highest:.3g}", highest < 0.86


def _momentum_speed(study: Study) -> Measured:
    found = study.reaches(0.80, "optimizers.momentum")
    fits = found[0.0] > found[0.5] > found[0.9] and found[0.9] <= 35 and found[0.0] >= 55 and found[0.99] < found[0.5]
    return numbers(found), bool(fits)


def _momentum_steadier(study: Study) -> Measured:
    found = study.spread("optimizers.momentum", 10)
    return numbers(found, 2), bool(found[0.9] < found[0.0] / 2)


def _decays(study: Study) -> Measured:
    found = study.last_ten("train_accuracy", "schedule.decay").sort_index(ascending=False)
    return numbers(found), bool(np.all(np.abs(found.to_numpy() - [0.640, 0.703, 0.797, 0.815]) <= 0.03))


def _decays_tested(study: Study) -> Measured:
    found = study.last_ten("val_accuracy", "schedule.decay").sort_index(ascending=False)
    return numbers(found), bool(np.all(np.abs(found.to_numpy() - [0.680, 0.744, 0.826, 0.828]) <= 0.03))


def _decayed_rates(study: Study) -> Measured:
    last = study.curves[study.curves.step == study.curves.step.max()]
    found = last.groupby("schedule.decay").lr_now.first().sort_index(ascending=False)
    exact = [0.01 / (1 + decay * 3199) for decay in found.index]
    return numbers(found, 4), bool(np.allclose(found, exact, rtol=1e-12))


def _patience(study: Study) -> Measured:
    found = study.last_ten("train_accuracy", "schedule.patience")
    fits = within(found[2], 0.60, 0.70) and within(found[5], 0.66, 0.79) and found[10] > 0.79 and found[15] > 0.79
    return numbers(found), bool(fits)


def _cuts(study: Study) -> Measured:
    found = study.first_cut()
    return numbers(found), found.is_monotonic_increasing and found.is_unique and found[2] <= 12


def _adaptive(study: Study) -> Measured:
    names = _by_name(study)
    found = study.reaches(0.80, "optimizer")[names]
    return numbers(found), bool(np.all(found.to_numpy()[1:] < found.to_numpy()[0] * 0.75))


def _adaptive_trained(study: Study) -> Measured:
    found = study.last_ten("train_accuracy", "optimizer")[_by_name(study)]
    return numbers(found), bool(np.all(np.abs(found.to_numpy() - [0.815, 0.829, 0.817, 0.833]) <= 0.02))


def _rate_or_momentum(study: Study) -> Measured:
    """Ten times the rate of study 01, or momentum 0.9."""
    rate = Study(study.folder.parent / "01_learning_rate").last_ten("train_loss", "lr")[0.1]
    momentum = study.last_ten("train_loss", "optimizers.momentum")[0.9]
    return numbers([rate, momentum]), abs(rate - momentum) <= 0.01


def _adaptive_level(study: Study) -> Measured:
    found = study.last_ten("val_accuracy", "optimizer")[_by_name(study)]
    return numbers(found), bool(np.all(np.abs(found.to_numpy() - [0.824, 0.825, 0.834, 0.827]) <= 0.02))


def _adaptive_steadier(study: Study) -> Measured:
    found = study.spread("optimizer", 150)[_by_name(study)]
    return numbers(found, 2), bool(np.all(found.to_numpy()[1:] < found.to_numpy()[0] / 3))


def _by_name(study: Study) -> list[str]:
    names = list(study.summary.optimizer)
    return [next(name for name in names if name.startswith(start)) for start in ("sgd", "rmsprop", "adagrad", "adam(")]


def _one_minus_momentum(study: Study) -> Measured:
    highest = study.summary.set_index("optimizer").basin_high
    lowest = study.summary.set_index("optimizer").basin_low
    scaled = [
        math.sqrt(lowest[name] * highest[name]) / (1 - momentum)
        for name, momentum in (("momentum 0", 0), ("momentum 0.5", 0.5), ("momentum 0.9", 0.9), ("momentum 0.99", 0.99))
    ]
    return numbers(scaled, 2), max(scaled) / min(scaled) < 4


def _pair(study: Study) -> Measured:
    runs = study.runs.groupby(["optimizer", "lr"]).objective.median()
    pair = runs["momentum 0", 0.1], runs["momentum 0.9", 0.01]
    return numbers(pair), abs(pair[0] - pair[1]) < 0.03


def _low_ends(study: Study, axis: str, optimizer: str = "sgd") -> pd.Series[float]:
    rows = study.summary[study.summary.optimizer == optimizer]
    return rows.set_index(axis).basin_low.sort_index()


def _batches(study: Study) -> Measured:
    low = _low_ends(study, "train.batch_size")
    return numbers(low, 2), rising(low)


def _batches_top(study: Study) -> Measured:
    rows = study.summary[study.summary.optimizer == "sgd"].set_index("train.batch_size").unusable_from.sort_index()
    return numbers(rows, 3), bool(rows.iloc[-1] / rows.iloc[0] < 1024 / 16 / 4 and rows.iloc[-1] == rows.iloc[-2])


def _linear_rule(study: Study) -> Measured:
    """On the left arm, far below the limit, the loss after B, lr and that after 4 B, 4 lr."""
    losses = study.runs[study.runs.optimizer == "sgd"].groupby(["train.batch_size", "lr"]).objective.median()
    rates = sorted(study.runs.lr.unique())
    pairs = []
    for small, large in ((16, 64), (64, 256)):
        for lr in rates:
            other = min(rates, key=lambda rate: abs(math.log(rate / (4 * lr))))
            if 3e-4 <= lr <= 1e-2:
                pairs.append(losses[large, other] / losses[small, lr] - 1)
    worst = max(map(abs, pairs))
    return f"{worst:.0%} at most", worst < 0.2


def _batches_adam(study: Study) -> Measured:
    return numbers(_low_ends(study, "train.batch_size", "adam"), 2), None


def _budget(study: Study) -> Measured:
    low = _low_ends(study, "train.epochs")
    losses = study.runs.groupby(["lr", "train.epochs"]).objective.median().unstack()
    small = losses[losses.index <= 0.01]
    return numbers(low, 2), bool(rising(-low) and np.all(np.diff(small.to_numpy(), axis=1) < 0))


def _budget_top(study: Study) -> Measured:
    high = study.summary.set_index("train.epochs").basin_high.sort_index()
    return numbers(high, 2), high.max() / high.min() < 1.8


def _schedules(study: Study) -> Measured:
    found = study.summary.set_index("optimizer")
    best = found.best_lr.drop("constant") / found.best_lr["constant"]
    return "best lr times " + numbers(best, 2), bool(np.all(best >= 1))


def _schedules_width(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").basin_decades
    wider = found.drop("constant") - found["constant"]
    return numbers(wider, 2) + " decades", bool(np.any(wider > 0.1))


def _warmup(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").sensitivity[["warmup 1 %", "warmup 10 %", "warmup 30 %"]]
    return numbers(found), rising(-found)


def _decoupled(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").basin_decades[["adam", "decoupled 0.1", "decoupled 1"]]
    return numbers(found, 2) + " decades", rising(found)


def minima(study: Study, mup: bool) -> list[float]:
    """The best rate of each width: a parabola through the lowest median and its neighbors, in log lr."""
    runs = study.runs[study.runs["task.mup"] == mup]
    found = []
    for _, rows in runs.groupby("task.width"):
        losses = rows.groupby("lr").objective.median()
        x, y = np.log2(losses.index.to_numpy()), np.log(losses.to_numpy())
        place = int(np.clip(np.argmin(y), 1, len(y) - 2))
        a, b, _ = np.polyfit(x[place - 1 : place + 2], y[place - 1 : place + 2], 2)
        found.append(float(2 ** np.clip(-b / (2 * a), x[0], x[-1])))
    return found


def _width(study: Study) -> Measured:
    found = minima(study, mup=False)
    return numbers(found, 2), found[-1] < found[0] / 2


def _mup(study: Study) -> Measured:
    found = minima(study, mup=True)
    return numbers(found, 2), found[-1] > found[0] / 2


def _power_of_width(study: Study, column: str) -> Measured:
    """A rate of the summary by width, and the exponent of the width in it: a line through the logarithms."""
    rates = study.summary.set_index("model.hidden")[column]
    widths = [int(name.strip("[]")) for name in rates.index]
    slope = float(np.polyfit(np.log(widths), np.log(rates), 1)[0])
    return f"{numbers(rates, 2)}; {slope:.2f}", widths == sorted(widths) and -1.25 <= slope <= -0.75


def _diverging_by_width(study: Study) -> Measured:
    return _power_of_width(study, "diverges_from")


def _safe_by_width(study: Study) -> Measured:
    return _power_of_width(study, "largest_safe_lr")


def _limits(study: Study) -> Measured:
    rates = sorted(study.runs.lr.unique())
    held, texts = True, []
    for name, momentum in (("momentum 0", 0.0), ("momentum 0.5", 0.5), ("momentum 0.9", 0.9), ("momentum 0.99", 0.99)):
        runs = study.runs[study.runs.optimizer == name].set_index("lr")
        falls = runs.final_train_loss < runs.initial_train_loss
        limit = (2 + 2 * momentum) / 10
        held &= all(bool(falls[lr]) == (lr < limit) for lr in rates)
        texts.append(f"{max(lr for lr in rates if falls[lr]):g} .. {min(lr for lr in rates if not falls[lr]):g}")
    return ", ".join(texts), bool(held)


def _best_quadratic(study: Study) -> Measured:
    """1/2 sum lam (1 - lr lam)^(2 t) after 1000 steps from w - w* = 1 has its minimum where the run has."""
    rates = np.array(sorted(study.runs.lr.unique()))
    curvatures = np.geomspace(0.1, 10, 10)
    with np.errstate(over="ignore"):
        losses = [float(np.sum(curvatures * (1 - lr * curvatures) ** 2000)) for lr in rates]
    best = study.row(optimizer="momentum 0").best_lr
    return f"{best:g}", bool(best == rates[int(np.argmin(losses))])


def _depth(study: Study) -> Measured:
    texts, held = [], True
    for depth, runs in study.runs.groupby("task.depth"):
        reached = runs[(runs.final_train_loss < 1e-12) & (runs.status == "ok")].lr
        above = runs[runs.lr > reached.max()].lr.min()
        limit = 2 / (depth * 4 ** (2 - 2 / depth))
        held &= reached.max() <= limit * 1.0001 and above >= limit
        texts.append(f"{reached.max():.3g} .. {above:.3g}")
    return ", ".join(texts), bool(held)


def _last_third(study: Study) -> pd.DataFrame:
    return study.curves[study.curves.step > study.curves.step.max() * 2 / 3]


def _edge(study: Study) -> Measured:
    rows = _last_third(study)
    ok = study.runs[study.runs.status == "ok"].run_id
    rows = rows[rows.run_id.isin(ok) & (rows.lr < 1)]
    products = (rows.val_sharpness * rows.lr / 2).groupby(rows.lr).mean()
    return numbers(products), within(products, 0.90, 1.15) and list(products.index) == [0.2, 0.4, 0.8]


def _adams_edge(study: Study) -> Measured:
    """Means of the product of rate and scaled sharpness over its limit, 38 of Adam and 2 of RMSprop."""
    rows = _last_third(study)
    limit = rows.optimizer.map({"adam": 38, "rmsprop": 2})
    found = (rows.val_sharpness * rows.lr / limit).groupby([rows.optimizer, rows.lr]).mean()
    return numbers(found), within(found, 0.85, 1.10) and len(found) == 3


def _rises(study: Study) -> tuple[pd.Series[float], bool]:
    """Medians of the number of evaluations with a higher loss than the one before, by optimizer and rate, and whether
    all runs end lower than they began."""
    rows, runs = study.curves[study.curves.lr < 1], study.runs[study.runs.lr < 1]
    by = ["optimizer", "lr"]
    found = rows.groupby([*by, "seed"]).val_loss.apply(lambda loss: (loss.diff() > 0).sum()).groupby(by).median()
    return found, bool((runs.status == "ok").all() and (runs.final_train_loss < runs.initial_train_loss).all())


def _not_monotone(study: Study) -> Measured:
    found, lower = _rises(study)
    return numbers(found, 2) + (", all lower" if lower else ""), bool(lower and found.min() > 0)


def _adam_not_monotone(study: Study) -> Measured:
    found, lower = _rises(study)
    return numbers(found, 2) + (", all lower" if lower else ""), bool(lower and found["adam"].min() > 0)


def _edge_diverges(study: Study) -> Measured:
    found = study.runs[study.runs.lr == 1.5].status.value_counts().to_dict()
    return ", ".join(f"{count} {status}" for status, count in found.items()), set(found) == {"diverged"}


def _scales(study: Study) -> Measured:
    """The ratio of the largest curvatures is 30 ** 2, since inputs have unit variance before they are scaled."""
    limits = []
    for scale in ("none", "standard"):
        runs = study.runs[(study.runs.optimizer == "sgd") & (study.runs["task.scale"] == scale)]
        falls = runs[(runs.status == "ok") & (runs.final_train_loss < runs.initial_train_loss)]
        limits.append(falls.lr.max())
    ratio = limits[1] / limits[0]
    return f"{ratio:.3g}", 900 / 1.8 <= ratio <= 900 * 1.8


def _raw_cost(study: Study) -> Measured:
    losses = [study.row(optimizer="sgd", task__scale=scale).best_objective for scale in ("none", "standard")]
    return numbers(losses), bool(losses[0] > losses[1])


def _defaults(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").default_regret
    sgd, adam = found["sgd"], found["adam"]
    return numbers([sgd, adam], 2), bool(sgd > 10 * max(adam, 1e-3))


def _tuned(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").best_objective
    pair = found["sgd(momentum=0.9)"], found["adam"]
    return numbers(pair), bool(pair[0] < pair[1] * 1.25)


def _adam_range(study: Study) -> Measured:
    found = study.summary.set_index("optimizer").basin_decades
    pair = found["sgd(momentum=0.9)"], found["adam"]
    return numbers(pair, 2) + " decades", bool(pair[1] > pair[0])


def _chosen(study: Study, size: int) -> tuple[float, float]:
    """Over the groups of so many seeds and both optimizers: how often the lowest median is at another rate than that of
    all seeds, and by how much of the improvement the chosen rate is worse by all seeds, at most."""
    others, worst = [], 0.0
    for _, runs in study.runs.groupby("optimizer"):
        table = runs.pivot(index="lr", columns="seed", values="objective")
        whole, untrained = table.median(axis=1), runs.initial_val_loss.median()
        for first in range(0, table.shape[1], size):
            chosen = table.iloc[:, first : first + size].median(axis=1).idxmin()
            others.append(chosen != whole.idxmin())
            worst = max(worst, float((whole[chosen] - whole.min()) / (untrained - whole.min())))
    return float(np.mean(others)), worst


def _decades(medians: pd.Series[float], untrained: float) -> float:
    """Width of the range that keeps 95 % of the improvement, by straight lines between rates in log lr."""
    x, y = np.log10(medians.index.to_numpy()), medians.to_numpy()
    level, place = y.min() + 0.05 * (untrained - y.min()), int(np.argmin(y))
    left = max(k for k in range(place) if y[k] > level)
    right = min(k for k in range(place + 1, len(y)) if y[k] > level)

    def crossing(low: int, high: int) -> float:
        return float(x[low] + (x[high] - x[low]) * (level - y[low]) / (y[high] - y[low]))

    return crossing(right - 1, right) - crossing(left, left + 1)


def _width_by_five(study: Study) -> Measured:
    worst = 0.0
    for _, runs in study.runs.groupby("optimizer"):
        table = runs[runs.status == "ok"].pivot(index="lr", columns="seed", values="objective")
        table, untrained = table.dropna(), runs.initial_val_loss.median()
        whole = _decades(table.median(axis=1), untrained)
        fives = [_decades(table.iloc[:, at : at + 5].median(axis=1), untrained) for at in range(0, table.shape[1], 5)]
        worst = max(worst, *(abs(one - whole) for one in fives))
    return f"{worst:.2f} decades", worst < 0.2


def _one_seed(study: Study) -> Measured:
    missed = [_chosen(study, size)[0] for size in (1, 5, 10)]
    return " / ".join(f"{share:.0%}" for share in missed), missed[0] > 0.5 and missed[0] > missed[-1]


def _harmless(study: Study) -> Measured:
    lost = [_chosen(study, size)[1] for size in (1, 5, 10)]
    return " / ".join(f"{share:.1%}" for share in lost), max(lost) < 0.05


COHEN, YANG, GOYAL, BENGIO = "Cohen et al. 2021", "Yang et al. 2022", "Goyal et al. 2017", "Bengio 2012"
HAAS, SLOPE = "Haas et al. 2025", "-1 (0.25 off)"
RISES = "some, yet all lower at the end"
LARGEST = "largest rate at which most runs do not diverge, over the best"


def _claims(study: str, *rows: tuple[Any, ...]) -> list[Claim]:
    return [Claim(study, *row) for row in rows]


CLAIMS = [
    *_claims(
        "01_learning_rate",
        ("accuracy on the test half at 0.1 / 0.01: they get there", POST, "0.80 to 0.845", _good_rates),
        ("at 1e-3 / 1e-4: on their way", POST, "0.70 to 0.78 / 0.60 to 0.71", _slow_rates),
        (
            "at 1: it oscillates (deviation, and that of 0.1)",
            POST,
            "below 0.70; above 0.04",
            _large_rate,
        ),
        ("at 1: runs that stay finite", POST, "all", _finite),
        ("at 1e-6 / 1e-7: change of the accuracy", POST, "below 0.11 / 0.03", _frozen_rates),
        ("training loss at 0.1, 0.01, ... 1e-6, and at 1: a U", POST, "rising; 1 above 1e-3", _u_shape),
        ("the best rate by training loss", POST, "0.1", _best_rate),
        ("loss on the test half at 0.1 / 0.01 in the end", "measured before: 0.434 / 0.435", "a tie", _tie),
        (LARGEST, BENGIO, "about 2", _largest),
        ("no accuracy above that of the true centers", "the overlap of the blobs", "below 0.86", _ceiling),
    ),
    *_claims(
        "02_momentum",
        (
            "epochs to 80 % at 0 / 0.5 / 0.9 / 0.99",
            POST,
            "from 55 or more to 35 or less",
            _momentum_speed,
        ),
        ("deviation of the accuracy after epoch 10", POST, "0.9: below half of 0", _momentum_steadier),
        (
            "training loss: study 01 at ten times the rate / here at momentum 0.9",
            "lr / (1 - momentum)",
            "0.01 apart at most",
            _rate_or_momentum,
            "01_learning_rate",
        ),
    ),
    *_claims(
        "03_decay",
        (
            "training accuracy at 0.1 / 0.01 / 1e-3 / 1e-4",
            POST,
            "0.640 / 0.703 / 0.797 / 0.815 (0.03 off)",
            _decays,
        ),
        (
            "accuracy on the test half",
            POST,
            "0.680 / 0.744 / 0.826 / 0.828 (0.03 off)",
            _decays_tested,
        ),
        ("the last rate", "lr / (1 + 3199 decay)", "3.116e-05 / 0.0003031 / 0.002382 / 0.007576", _decayed_rates),
    ),
    *_claims(
        "04_plateau",
        (
            "training accuracy at 2 / 5 / 10 / 15",
            POST,
            "0.60 to 0.70 / 0.66 to 0.79 / 0.79 / 0.79 or more",
            _patience,
        ),
        ("epoch of the first cut", POST, "rising; the first by 12", _cuts),
    ),
    *_claims(
        "05_optimizers",
        ("epochs to 80 % accuracy: SGD / RMSProp / Adagrad / Adam", POST, "adaptive ones first", _adaptive),
        ("accuracy on the test half at the end", POST, "0.824 / 0.825 / 0.834 / 0.827 (0.02 off)", _adaptive_level),
        ("training accuracy at the end", POST, "0.815 / 0.829 / 0.817 / 0.833 (0.02 off)", _adaptive_trained),
        ("deviation over the last 50 epochs", POST, "adaptive ones below a third of SGD", _adaptive_steadier),
    ),
    *_claims(
        "06_momentum_and_rate",
        (
            "middle of the good range / (1 - momentum)",
            "the update",
            "within a factor of 4",
            _one_minus_momentum,
        ),
        ("training loss at 0.1 without / 0.01 with momentum 0.9", POST, "0.03 apart at most", _pair),
    ),
    *_claims(
        "07_batch_size",
        ("SGD: low end of the good range at 16 / 64 / 256 / 1024", GOYAL, "rising", _batches),
        ("SGD: unusable from", "stability", "stops following", _batches_top),
        (
            "Adam: low end of the good range at 16 / 64 / 256 / 1024",
            "Malladi et al. 2022",
            "times 2 from one to the next",
            _batches_adam,
        ),
        (f"SGD: {LARGEST}", BENGIO, "about 2", _largest_by_batch),
        ("small rates: loss at 4 B, 4 lr over that at B, lr, less 1", GOYAL, "20 % at most", _linear_rule),
    ),
    *_claims(
        "08_epochs",
        ("low end of the good range after 3 / 10 / 30 / 100 epochs", BENGIO, "falling", _budget),
        ("high end", "stability", "within a grid step", _budget_top),
    ),
    *_claims(
        "09_schedules",
        ("best rate over that of constant: linear / cosine / onecycle / step", "folklore", "1 or more", _schedules),
        ("good range, less that of constant", "folklore", "0.1 decades or more for one", _schedules_width),
    ),
    *_claims("10_warmup", ("S at a warmup of 1 / 10 / 30 % of the steps", "Wortsman et al. 2023", "falling", _warmup)),
    *_claims(
        "11_weight_decay",
        ("good range at decoupled decay 0 / 0.1 / 1", "Loshchilov & Hutter 2019", "rising", _decoupled),
    ),
    *_claims(
        "12_width",
        ("best rate of Adam at width 16 / 64 / 256", YANG, "falls by more than half", _width),
        ("the same in muP", YANG, "does not", _mup),
    ),
    *_claims(
        "13_quadratic",
        ("stable below (2 + 2 momentum) / 10 = 0.2, 0.3, 0.38, 0.398", theory.GOH, "between", _limits),
        ("best rate tried without momentum", "closed form", "0.18, next to the 0.198 of theory", _best_quadratic),
    ),
    *_claims(
        "14_deep_linear",
        ("stable below 2, 0.25, 0.105, 0.0625 for 1 to 4 layers", "the Hessian, by hand", "between", _depth),
    ),
    *_claims(
        "15_edge_of_stability",
        ("sharpness times lr / 2 at 0.2 / 0.4 / 0.8, last third", COHEN, "0.90 to 1.15", _edge),
        (
            "evaluations (of 30) with a higher loss than the one before",
            COHEN,
            RISES,
            _not_monotone,
        ),
        ("at 1.5", COHEN, "diverged", _edge_diverges),
    ),
    *_claims(
        "16_standardization",
        ("largest stable rate, standardized over raw", "2 / curvature", "900, within a grid step", _scales),
        ("lowest loss of SGD: raw / standardized", "LeCun et al. 1998", "raw higher", _raw_cost),
    ),
    *_claims(
        "17_adam_and_tuned_sgd",
        ("loss at the default rate, less the lowest: SGD / Adam", "Choi et al. 2019", "SGD far larger", _defaults),
        ("lowest loss: SGD with momentum / Adam", "Wilson et al. 2017", "at most 25 % higher", _tuned),
        ("good range: SGD with momentum / Adam", "folklore", "Adam wider", _adam_range),
        (f"{LARGEST}: Adam / SGD / with momentum / with Nesterov", BENGIO, "about 2", _largest),
    ),
    *_claims(
        "18_seeds",
        ("1 / 5 / 10 seeds name another best rate than 20", "Bouthillier et al. 2021", "most, then fewer", _one_seed),
        ("improvement lost by that, at most", "a flat valley", "below 5 %", _harmless),
        ("width of the good range from 5 seeds, off by at most", "a flat valley", "0.2 decades", _width_by_five),
    ),
    *_claims(
        "19_adam_at_the_edge",
        (
            "sharpness after scaling, over 38 / lr: Adam at 0.003 / 0.01; over 2 / lr: RMSprop; last third",
            "Cohen et al. 2022",
            "0.85 to 1.10",
            _adams_edge,
        ),
        (
            "evaluations (of 30) with a higher loss than the one before",
            "Cohen et al. 2022",
            "some with Adam, yet all lower at the end",
            _adam_not_monotone,
        ),
    ),
    *_claims(
        "20_width_and_stability",
        (
            "most runs diverge from, at width 32 / 128 / 512 / 2048; power of the width",
            HAAS,
            SLOPE,
            _diverging_by_width,
        ),
        ("largest rate at which no run loses half of the improvement", HAAS, SLOPE, _safe_by_width),
    ),
]


def table(results: Path) -> str:
    """The claims as a Markdown table."""
    lines = ["| id | study | claim | source | expected | measured | verdict |", "|---|---|---|---|---|---|---|"]
    studies: dict[str, Study] = {}
    for claim in CLAIMS:
        study = studies.setdefault(claim.study, Study(results / claim.study))
        measured, held = claim.measure(study)
        lines.append(_row(claim.id, claim.study, claim.claim, claim.source, claim.expected, measured, held))
    for exact in theory.CLAIMS:
        measured, held = exact.measure()
        lines.append(_row(exact.id, "exact answers", exact.claim, exact.source, exact.expected, measured, held))
    return "\n".join(lines)


def _row(*cells: Any) -> str:
    return f"| {' | '.join((*cells[:-1], VERDICTS[cells[-1]]))} |"


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
