"""The rows of runs: means of batch losses between rows, evaluations, in the order of the columns of curves.csv.

M runs at once; a run alone is M = 1. Sums are float64 on the device, and nothing non-finite is touched.
"""

# M runs

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from lrsweep.training.workload import LossModule, Workload

Finish = Callable[[torch.Tensor], torch.Tensor]


class MeanMetrics:
    """Weighted means of `loss` and the metrics, for M runs: sums in float64, so that the order of runs is nothing."""

    def __init__(self, names: Sequence[str], members: int, device: torch.device | str = "cpu") -> None:
        """`names`: what is averaged, `loss` first. `members`: M."""
        self.names = tuple(names)
        self.sums = torch.zeros(len(self.names), members, dtype=torch.float64, device=device)
        self._sum_of = dict(zip(self.names, self.sums, strict=True))
        self.weight = 0

    def add(self, values: Mapping[str, torch.Tensor], weight: int = 1, members: torch.Tensor | None = None) -> None:
        """Add one batch: a value [M] (or a scalar for all) per name, `weight` examples.

        `members` [K]: the positions of the runs that the values [K] belong to, if not all of them.
        """
        for name, sums in self._sum_of.items():
            value = values[name].detach().to(sums.device)
            if members is None:
                sums.add_(value, alpha=weight)
            else:
                sums.index_add_(0, members, value.to(sums.dtype).expand(members.shape[0]), alpha=weight)
        self.weight += weight

    def clear(self) -> None:
        self.sums.zero_()
        self.weight = 0

    def values(self, finalize: Mapping[str, Finish]) -> dict[str, list[float]]:
        """The mean of each name for each run, metrics that ask for it finished (perplexity: exp)."""
        means = self.sums / self.weight
        finished = {name: finalize.get(name, _as_is)(row) for name, row in zip(self.names, means, strict=True)}
        return {name: row.tolist() for name, row in finished.items()}


def _as_is(mean: torch.Tensor) -> torch.Tensor:
    return mean


class Recorder:
    """Collects the rows of M runs that make their updates together."""

    def __init__(
        self,
        metrics: Sequence[str],
        *,
        train_metrics: bool,
        finalize: Mapping[str, Finish],
        steps_per_epoch: int,
        members: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        """`metrics`: names in their order. `train_metrics`: record `train_<metric>` too. `finish`: see `Means`."""
        self._metrics = tuple(metrics)
        self._train = ("loss", *(metrics if train_metrics else ()))
        self._finish = finalize
        self._steps_per_epoch = steps_per_epoch
        self.columns = ("step", "epoch", "lr_now", *(f"train_{name}" for name in self._train))
        self.columns += ("val_loss", *(f"val_{name}" for name in self._metrics))
        self._rows: list[dict[str, list[Any]]] = [{column: [] for column in self.columns} for _ in range(members)]
        self._since = MeanMetrics(self._train, members, device)

    def add(self, loss: torch.Tensor, metrics: Mapping[str, torch.Tensor], members: torch.Tensor | None = None) -> None:
        """One batch: `loss` [M], each metric [M] (read only with `train_metrics`). `members`: as in `Means.add`."""
        self._since.add({"loss": loss, **metrics}, members=members)

    def since(self) -> dict[str, list[float]]:
        """The means over the batches since the last row, for all M runs."""
        return self._since.values(self._finish)

    def row(
        self,
        step: int,
        lr_now: Sequence[float],
        val: Mapping[str, Sequence[float]],
        *,
        train: Mapping[str, Sequence[float]] | None = None,
        members: Sequence[int] | None = None,
    ) -> None:
        """Add a row of the runs `members` (default: all); every sequence holds one entry per run of those.

        `train`: an evaluation of the train split (row 0); else the means since the last row are taken. The caller
        calls `restart` when the row was one of all runs.
        """
        chosen = range(len(self._rows)) if members is None else members
        if train is None:
            since = self.since()
            train = {name: [since[name][member] for member in chosen] for name in self._train}
        for position, member in enumerate(chosen):
            rows = self._rows[member]
            rows["step"].append(step)
            rows["epoch"].append(step / self._steps_per_epoch)
            rows["lr_now"].append(float(lr_now[position]))
            for name in self._train:
                rows[f"train_{name}"].append(float(train[name][position]))
            for name in ("loss", *self._metrics):
                rows[f"val_{name}"].append(float(val[name][position]))

    def restart(self) -> None:
        """Begin new means: the batches from here on belong to the next row."""
        self._since.clear()

    def rows(self, member: int = 0) -> dict[str, list[Any]]:
        """The rows of one run so far: a list per column."""
        return self._rows[member]

    def last(self, column: str, member: int = 0) -> float:
        """The value of `column` in the last row of a run."""
        return float(self._rows[member][column][-1])

    def state(self) -> dict[str, Any]:
        """Everything `restore` needs: tensors, numbers, lists, dicts."""
        rows = [{column: list(values) for column, values in run.items()} for run in self._rows]
        return {"rows": rows, "sums": self._since.sums.clone(), "weight": self._since.weight}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state()` of a recorder of the same runs."""
        self._rows = [{column: list(values) for column, values in run.items()} for run in state["rows"]]
        self._since.sums.copy_(state["sums"])
        self._since.weight = int(state["weight"])


Values = Mapping[str, float]
Forward = Callable[..., tuple[torch.Tensor, dict[str, torch.Tensor]]]

_UNTRAINED: weakref.WeakKeyDictionary[Workload, dict[int, dict[str, Values]]] = weakref.WeakKeyDictionary()


@torch.no_grad()
def means_over(forward: Forward, workload: Workload, split: str, seed: int, step: int) -> dict[str, float]:
    """Per-example means over a split, after `step` updates, of the loss and metrics that `forward(*batch)` gives."""
    means = MeanMetrics(("loss", *workload.metric_names), 1, workload.device)
    workload.seed_step(seed, step)
    for batch, size in workload.eval_batches(split, seed, step):
        loss, metrics = forward(*batch)
        means.add({"loss": loss, **metrics}, weight=size)
    return {name: value for name, (value,) in means.values(workload.finalize).items()}


def evaluate(module: LossModule, workload: Workload, split: str, seed: int, step: int) -> dict[str, float]:
    """`means_over` the module in evaluation mode."""
    training = module.training
    module.eval()
    found = means_over(module, workload, split, seed, step)
    module.train(training)
    return found


def untrained(workload: Workload, seed: int, module: LossModule | None = None) -> Mapping[str, Values]:
    """Row 0 of every run of a seed, `train` and `val`: they start from one model, so it is evaluated once.

    `module`: such a model, if there is one already. Only for problems whose functions keep nothing between calls
    (stackable.py finds out).
    """
    known = _UNTRAINED.setdefault(workload, {})
    if seed not in known:
        if module is None:
            module = workload.build_model(seed)
        known[seed] = {split: evaluate(module, workload, split, seed, 0) for split in ("train", "val")}
    return known[seed]
