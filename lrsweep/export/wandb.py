"""Weights & Biases runs, written offline; `wandb sync` uploads them. A run keeps its id, so that a later upload of the
same run replaces it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import wandb

from lrsweep.export.runs import ExportedRun, runs_of

if TYPE_CHECKING:
    from lrsweep.results.results import Results


def write(sweep: Results, folder: Path) -> None:
    """A project with the name of the sweep, a run per run, grouped by optimizer."""
    for run in runs_of(sweep):
        _log(sweep.spec.name, folder, run)


def _log(project: str, folder: Path, run: ExportedRun) -> None:
    settings = wandb.Settings(
        console="off", silent=True, x_disable_stats=True, x_disable_meta=True, disable_git=True, disable_code=True,
        x_save_requirements=False,
    )  # fmt: skip
    config = {**run.params, **run.texts, "run_id": run.run_id}
    with wandb.init(
        project=project, dir=folder, id=run.run_id, name=run.name, group=str(run.params["optimizer"]),
        mode="offline", config=config, settings=settings,
    ) as found:  # fmt: skip
        at: dict[int, dict[str, float]] = {}
        for name, points in run.series.items():
            for step, value in points:
                at.setdefault(step, {})[name] = value
        for step, values in sorted(at.items()):
            found.log(values, step=step)
        found.summary.update(run.outcomes)
