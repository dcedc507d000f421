"""The rows of runs: means of batch losses between rows, evaluations, in the order of the columns of curves.csv.

M runs at once; a run alone is M = 1. Sums are float64 on the device, and nothing non-finite is touched.
"""

# M runs

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lrsweep.training.audit import AuditFailedError
from lrsweep.training.loss_module import LossModule
from lrsweep.training.workload import Workload

Finalize = Mapping[str, Callable[[torch.Tensor], torch.Tensor]]
Forward = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]
Evaluation = Mapping[str, Sequence[float]]  # `loss` and each metric: a value per run


class MeanMetrics:
    """Weighted means of `loss` and the metrics, for M runs: sums in float64, so that the order of runs is nothing."""

    def __init__(self, names: Sequence[str], runs: int, device: torch.device | str = "cpu") -> None:
        """`names`: what is averaged, `loss` first. `runs`: M."""
        self._names = tuple(names)
        self._sums = torch.zeros(len(self._names), runs, dtype=torch.float64, device=device)
        self._sum_of = dict(zip(self._names, self._sums, strict=True))
        self._one: float | None = None  # the first sum, of `add_one`
        self.weight = 0

    def add(self, values: Mapping[str, torch.Tensor], weight: int = 1, runs: torch.Tensor | None = None) -> None:
        """Add one batch: a value [M] (or a scalar for all) per name, `weight` examples.

        `runs` [K]: the indices of the runs that the values [K] belong to, if not all of them.
        """
        for name, sums in self._sum_of.items():
            value = values[name].detach().to(sums.device)
            if runs is None:
                sums.add_(value, alpha=weight)
            else:
                sums.index_add_(0, runs, value.to(sums.dtype).expand(runs.shape[0]), alpha=weight)
        self.weight += weight

    def add_one(self, value: float) -> None:
        """As `add` of the first name alone, for one run, whose value is known: 15 microseconds less (2026-11)."""
        self._one = (float(self._sums[0, 0]) if self._one is None else self._one) + value
        self.weight += 1

    @property
    def sums(self) -> torch.Tensor:
        """[names, M]"""
        if self._one is not None:
            self._sums[0, 0] = self._one
        return self._sums

    def restore(self, sums: torch.Tensor, weight: int) -> None:
        self._sums.copy_(sums)
        self._one, self.weight = None, weight

    def clear(self) -> None:
        self._sums.zero_()
        self._one, self.weight = None, 0

    def values(self, finalize: Finalize, weight: int | None = None) -> dict[str, list[float]]:
        """The mean of each name for each run, with `finalize` of a metric that has one (perplexity: exp).

        `weight`: of the runs that are asked about, if it is another.
        """
        means = dict(zip(self._names, self.sums / (self.weight if weight is None else weight), strict=True))
        return {name: (finalize[name](mean) if name in finalize else mean).tolist() for name, mean in means.items()}


class Recorder:
    """Collects the rows of M runs that make their steps together."""

    def __init__(self, workload: Workload, runs: int = 1) -> None:
        """`runs`: M."""
        self._metrics = tuple(workload.metric_names)
        self._train = ("loss", *(self._metrics if workload.train_metrics else ()))
        self._finalize = workload.finalize
        self._steps_per_epoch = workload.steps_per_epoch
        self.columns = ("step", "epoch", "lr_now", *(f"train_{name}" for name in self._train))
        self.columns += ("val_loss", *(f"val_{name}" for name in self._metrics))
        self._rows: list[dict[str, list[Any]]] = [{column: [] for column in self.columns} for _ in range(runs)]
        self._since = MeanMetrics(self._train, runs, workload.device)

    def add(self, loss: torch.Tensor, metrics: Mapping[str, torch.Tensor], runs: torch.Tensor | None = None) -> None:
        """One batch: `loss` [M], each metric [M] (read only with `train_metrics`). `runs`: see `MeanMetrics.add`."""
        self._since.add({"loss": loss, **metrics}, runs=runs)

    def add_alone(self, loss: float) -> None:
        """One batch of the one run that there is, without metrics."""
        self._since.add_one(loss)

    def since(self, without: int = 0) -> dict[str, list[float]]:
        """The means over the batches since the last row, for all M runs; `without` the last ones, which were 0."""
        return self._since.values(self._finalize, self._since.weight - without)

    def row(
        self,
        step: int,
        lr_now: Sequence[float],
        val: Evaluation,
        *,
        train: Evaluation | None = None,
        runs: Sequence[int] | None = None,
        without: int = 0,
    ) -> None:
        """Add a row of the runs with these indices (default: all); every sequence holds one entry per run of those.

        `train`: an evaluation of the train split (row 0); else the means since the last row are taken, `without` the
        last batches. The caller calls `restart` when the row was one of all runs.
        """
        indices = range(len(self._rows)) if runs is None else runs
        if train is None:
            since = self.since(without)
            train = {name: [since[name][index] for index in indices] for name in self._train}
        for entry, index in enumerate(indices):
            rows = self._rows[index]
            rows["step"].append(step)
            rows["epoch"].append(step / self._steps_per_epoch)
            rows["lr_now"].append(float(lr_now[entry]))
            for name in self._train:
                rows[f"train_{name}"].append(float(train[name][entry]))
            for name in ("loss", *self._metrics):
                rows[f"val_{name}"].append(float(val[name][entry]))

    def restart(self) -> None:
        """Begin new means: the batches from here on belong to the next row."""
        self._since.clear()

    def rows(self, run: int = 0) -> dict[str, list[Any]]:
        """The rows of one run so far: a list per column."""
        return self._rows[run]

    def last(self, column: str, run: int = 0) -> float:
        """The value of `column` in the last row of a run."""
        return float(self._rows[run][column][-1])

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs: tensors, numbers, lists, dicts."""
        rows = [{column: list(values) for column, values in run.items()} for run in self._rows]
        return {"rows": rows, "sums": self._since.sums.clone(), "weight": self._since.weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()` of a recorder of the same runs."""
        self._rows = [{column: list(values) for column, values in run.items()} for run in state["rows"]]
        self._since.restore(state["sums"], int(state["weight"]))


@torch.no_grad()
def means_over(forward: Forward, workload: Workload, split: str, seed: int, step: int, runs: int = 1) -> Evaluation:
    """Per-example means over a split, after `step` steps, of the losses and metrics that `forward(*batch)` gives."""
    means = MeanMetrics(("loss", *workload.metric_names), runs, workload.device)
    workload.seed_step(seed, step)
    for batch, size in workload.eval_batches(split, seed, step):
        losses, metrics = forward(*batch)
        means.add({"loss": losses, **metrics}, weight=size)
    return means.values(workload.finalize)


def evaluate(module: LossModule, workload: Workload, split: str, seed: int, step: int) -> Evaluation:
    """`means_over` the module in evaluation mode."""
    training = module.training
    module.steps_made = step
    module.eval()
    values = means_over(module, workload, split, seed, step)
    module.train(training)
    return values


def untrained(workload: Workload, seed: int, module: LossModule | None = None) -> dict[str, Evaluation]:
    """Row 0 of every run of a seed, `train` and `val`: they start from one model, so it is evaluated once.

    `module`: such a model, if there is one already. Only for workloads whose functions keep nothing between calls
    (stackable.py finds out). Where the evaluation writes into a parameter or buffer, the module of every run is
    evaluated; without one, raises AuditFailedError.
    """
    made_now = []

    def evaluations(model: LossModule) -> dict[str, Evaluation]:
        return {split: evaluate(model, workload, split, seed, 0) for split in ("train", "val")}

    def first() -> tuple[dict[str, Evaluation], bool]:
        made_now.append(True)
        model = workload.build_model(seed) if module is None else module
        before = versions(model.tensors().values())
        return evaluations(model), versions(model.tensors().values()) != before

    found, writes = workload.once(("untrained", seed), first)
    if writes and module is None:
        raise AuditFailedError("the evaluation of the untrained model: it writes into a parameter or a buffer")
    return evaluations(module) if writes and module is not None and not made_now else found


def versions(tensors: Iterable[Tensor]) -> int:
    """A number that grows when something is written into one of them, whatever it is."""
    return sum(tensor._version for tensor in tensors)
