"""TensorBoard event files: the curves as scalars, and a line per run in its HParams tab."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    NULL_TENSOR,
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
    SESSION_END_INFO_TAG,
    SESSION_START_INFO_TAG,
)
from tensorboard.summary.writer.record_writer import RecordWriter

from lrsweep.export.runs import ExportedRun, runs_of

if TYPE_CHECKING:
    from lrsweep.results.results import Results

FILE = "events.out.tfevents.0.lrsweep"
OUTCOME = "outcome/"
"""Before the names of the numbers of runs.csv, which are scalars at the last step."""


def write(sweep: Results, folder: Path) -> None:
    """A folder per run. TensorBoard keeps scalars in float32; learning rates and other parameters are doubles.

    The tables hold no clock, so that the time of an event is its step, in seconds.
    """
    runs = list(runs_of(sweep))
    axes = list(sweep.spec.axes)
    with open(folder / FILE, "wb") as file:
        _write(file, [_event(0, _plugin(EXPERIMENT_TAG, experiment=_experiment(runs, axes)))])
    for run in runs:
        place = folder / run.name
        place.mkdir()
        with open(place / FILE, "wb") as file:
            _write(file, _events(run))


def _experiment(runs: list[ExportedRun], axes: list[str]) -> Any:
    kinds = {"lr": api_pb2.DATA_TYPE_FLOAT64, "seed": api_pb2.DATA_TYPE_FLOAT64}
    metrics = dict.fromkeys(name for run in runs for name in run.outcomes)
    return api_pb2.Experiment(
        hparam_infos=[
            api_pb2.HParamInfo(name=name, type=kinds.get(name, api_pb2.DATA_TYPE_STRING))
            for name in ("optimizer", "lr", "seed", *axes)
        ],
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=f"{OUTCOME}{name}")) for name in metrics],
    )


def _events(run: ExportedRun) -> list[Any]:
    steps = {step for points in run.series.values() for step, _ in points}
    last = max(steps, default=0)
    start = plugin_data_pb2.SessionStartInfo(group_name=run.run_id, start_time_secs=0.0)
    for name, value in run.params.items():
        if name in ("lr", "seed"):
            start.hparams[name].number_value = value
        else:
            start.hparams[name].string_value = str(value)
    status = api_pb2.STATUS_FAILURE if run.texts.get("status") == "failed" else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=float(last))
    at: dict[int, list[Any]] = {}
    for name, points in run.series.items():
        for step, value in points:
            at.setdefault(step, []).append(Summary.Value(tag=name, simple_value=_float32(value)))
    values = [
        Summary.Value(tag=f"{OUTCOME}{name}", simple_value=_float32(value)) for name, value in run.outcomes.items()
    ]
    return [
        _event(0, _plugin(SESSION_START_INFO_TAG, session_start_info=start)),
        *(_event(step, Summary(value=found)) for step, found in sorted(at.items())),
        _event(last, Summary(value=values)),
        _event(last, _plugin(SESSION_END_INFO_TAG, session_end_info=end)),
    ]


def _float32(value: float) -> float:
    """What float32 cannot hold is infinite in it."""
    return math.copysign(math.inf, value) if math.isfinite(value) and abs(value) > 3.4028235e38 else value


def _plugin(tag: str, **content: Any) -> Any:
    data = plugin_data_pb2.HParamsPluginData(version=PLUGIN_DATA_VERSION, **content)
    about = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(
            plugin_name=PLUGIN_NAME, content=data.SerializeToString(deterministic=True)
        )
    )
    return Summary(value=[Summary.Value(tag=tag, metadata=about, tensor=NULL_TENSOR)])


def _event(step: int, summary: Any) -> Any:
    return Event(wall_time=float(step), step=step, summary=summary)


def _write(file: Any, events: list[Any]) -> None:
    writer = RecordWriter(file)
    for event in (Event(wall_time=0.0, file_version="brain.Event:2"), *events):
        writer.write(event.SerializeToString(deterministic=True))
