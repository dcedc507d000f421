"""MLflow runs in a SQLite store: parameters, the curves as metrics, outcomes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from lrsweep.export.runs import ExportedRun, runs_of

if TYPE_CHECKING:
    from lrsweep.results.results import Results

FILE = "mlflow.db"
MOST = 1000
"""Metrics that one call may log."""
LONGEST = 5000
"""Letters of a tag."""


def write(sweep: Results, folder: Path) -> None:
    """An experiment with the name of the sweep, a run per run. The time of a metric is its step, in milliseconds."""
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = f"sqlite:///{folder.absolute() / FILE}"
    client = MlflowClient(tracking_uri=store)
    experiment = client.create_experiment(sweep.spec.name, artifact_location="artifacts")
    for run in runs_of(sweep):
        _log(client, experiment, run)


def _log(client: MlflowClient, experiment: str, run: ExportedRun) -> None:
    found = client.create_run(experiment, start_time=0, run_name=run.name).info.run_id
    tags = [RunTag("lrsweep.run_id", run.run_id), *(RunTag(f"lrsweep.{k}", v[:LONGEST]) for k, v in run.texts.items())]
    params = [Param(_plain(name), str(value)) for name, value in run.params.items()]
    last = max((step for points in run.series.values() for step, _ in points), default=0)
    metrics = [Metric(_plain(k), value, step, step) for k, points in run.series.items() for step, value in points]
    metrics += [Metric(_plain(k), value, last, last) for k, value in run.outcomes.items()]
    client.log_batch(found, params=params, tags=tags)
    for start in range(0, len(metrics), MOST):
        client.log_batch(found, metrics=metrics[start : start + MOST])
    client.set_terminated(found, "FAILED" if run.texts.get("status") == "failed" else "FINISHED", end_time=last)


def _plain(name: str) -> str:
    """A name as MLflow allows it."""
    return "".join(one if one.isalnum() or one in "_-. /" else "_" for one in name)
