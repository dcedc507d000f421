"""What `lrsweep export` writes, read back with the reader of each format."""

from __future__ import annotations

import functools
import importlib.util
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import lrsweep
from lrsweep.errors import UsageError
from lrsweep.export import FORMATS, MARK, export
from lrsweep.export.latex import escaped, number
from lrsweep.export.runs import runs_of
from lrsweep.results.results import Results
from lrsweep.system import child
from tests.support import tables as fabricate

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.process]  # warnings are the libraries' own


def apart(*libraries: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Run a test, where the libraries are installed, in a copy of this process: the threads that they start would
    forbid forks afterwards."""

    def of(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def run(**given: Any) -> None:
            for library in (*libraries, *filter(None, [FORMATS[given["to"]].library] if "to" in given else [])):
                if importlib.util.find_spec(library) is None:
                    pytest.skip(f"needs {library}")
            child.call(lambda: test(**given))

        return run

    return of


RATES = (1e-4, 1e-3, 1e-2)
AXES: dict[str, list[Any]] = {"model.activation": ["relu", "tanh"]}


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Two optimizers, two activations, three rates and seeds; one run failed, some diverged."""
    root = tmp_path_factory.mktemp("export")
    settings: dict[str, Any] = {"optimizers": ("sgd", "adam"), "rates": RATES, "seeds": 3, "axes": AXES, "failed": (2,)}
    folder = fabricate.folder(root, **settings)
    runs = pd.read_csv(folder / "runs.csv", keep_default_na=False, na_values=["nan"])
    runs.loc[[0, 1], ["final_val_loss", "objective"]] = [math.nan, math.inf]
    runs.loc[[0, 1], "status"] = "diverged"
    runs.loc[[0, 1], "diverged_step"] = 5.0
    runs.to_csv(folder / "runs.csv", index=False, na_rep="nan")
    return lrsweep.load(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of a W&B file: LevelDB's log format, in blocks of 32 KiB, after 7 bytes that say what it is."""
    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def float32(value: float) -> float:
    return float(np.float32(value))


@pytest.mark.parametrize("to", ["tensorboard", "parquet", "latex"])
@apart()
def test_a_repeated_export_is_the_same_to_the_byte_and_reads_only(sweep: Results, tmp_path: Path, to: str) -> None:
    before = contents(sweep.path)
    first = contents(export(sweep, to, tmp_path / "out"))
    (tmp_path / "out" / "left behind").write_text("by an older export")
    assert contents(export(sweep, to, tmp_path / "out")) == first
    assert contents(sweep.path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_of_somebody_else_is_never_replaced(sweep: Results, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    for out in ("mine", "link", "mine/thesis.tex"):
        with pytest.raises(UsageError, match="choose another name"):
            export(sweep, "latex", tmp_path / out)
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
    with pytest.raises(UsageError, match="no format 'excel'"):
        export(sweep, "excel", tmp_path / "new")


def test_a_library_that_is_missing_is_named_with_the_extra_that_installs_it(
    sweep: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'pip install "lrsweep\[mlflow\]"'):
        export(sweep, "mlflow", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_carry_the_values_of_the_tables(sweep: Results) -> None:
    found = list(runs_of(sweep))
    assert [run.run_id for run in found] == list(sweep.runs["run_id"])
    assert len({run.name for run in found}) == len(found)
    for run, (_, row) in zip(found, sweep.runs.iterrows(), strict=True):
        assert run.params["lr"] == row["lr"]
        assert run.params["model.activation"] == row["model.activation"]
        assert run.texts["status"] == row["status"]
        rows = sweep.curves[sweep.curves["run_id"] == row["run_id"]]
        assert [step for step, _ in run.series.get("val_loss", [])] == list(rows["step"])
        assert ("diverged_step" in run.outcomes) == (row["status"] == "diverged")
        assert ("objective" in run.outcomes) == (row["status"] != "failed")
    assert found[0].outcomes["objective"] == math.inf
    assert math.isnan(found[0].outcomes["final_val_loss"])


@apart("pyarrow")
def test_parquet_holds_the_tables_to_the_bit(sweep: Results, tmp_path: Path) -> None:
    folder = export(sweep, "parquet", tmp_path / "out")
    for name in ("runs", "curves", "summary"):
        pd.testing.assert_frame_equal(
            pd.read_parquet(folder / f"{name}.parquet"), getattr(sweep, name), check_exact=True, check_dtype=False
        )


@apart("tensorboard")
def test_tensorboard_reads_curves_parameters_and_outcomes(sweep: Results, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    folder = export(sweep, "tensorboard", tmp_path / "out")
    for run in runs_of(sweep):
        read = EventAccumulator(str(folder / run.name), size_guidance={"scalars": 0})
        read.Reload()
        for name, points in run.series.items():
            seen = [(event.step, event.value) for event in read.Scalars(name)]
            assert str(seen) == str([(step, float32(value)) for step, value in points])
        for name, value in run.outcomes.items():
            assert str(read.Scalars(f"outcome/{name}")[0].value) == str(float32(value))
        start = HParamsPluginData.FromString(
            read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        ).session_start_info
        assert start.hparams["lr"].number_value == run.params["lr"], "a double"
        assert start.hparams["optimizer"].string_value == run.params["optimizer"]
        assert start.hparams["model.activation"].string_value == run.params["model.activation"]


@apart("mlflow", "sqlalchemy")
def test_mlflow_reads_curves_parameters_and_outcomes(sweep: Results, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    folder = export(sweep, "mlflow", tmp_path / "out")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name(sweep.spec.name)
    found = {run.data.tags["lrsweep.run_id"]: run for run in client.search_runs([experiment.experiment_id])}
    for run in runs_of(sweep):
        read = found.pop(run.run_id)
        assert {name: str(value) for name, value in run.params.items()} == read.data.params
        history = client.get_metric_history(read.info.run_id, "val_loss")
        seen = sorted((metric.step, metric.value) for metric in history)
        assert seen == sorted(run.series.get("val_loss", []))
        assert (read.info.status == "FAILED") == (run.texts["status"] == "failed")
    assert not found


@apart("wandb")
def test_wandb_reads_curves_and_parameters(sweep: Results, tmp_path: Path) -> None:
    from wandb.proto import wandb_internal_pb2

    folder = export(sweep, "wandb", tmp_path / "out")
    wanted = {run.run_id: run for run in runs_of(sweep)}
    for path in folder.glob("wandb/offline-run-*/*.wandb"):
        seen: list[tuple[int, float]] = []
        run_id = ""
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            if record.WhichOneof("record_type") == "run":
                run_id = record.run.run_id
            if record.WhichOneof("record_type") == "history":
                items = {one.key or one.nested_key[0]: one.value_json for one in record.history.item}
                if "val_loss" in items:
                    seen.append((record.history.step.num, float(items["val_loss"].strip('"'))))
        assert str(seen) == str(wanted.pop(run_id).series.get("val_loss", []))
    assert not wanted


def test_the_latex_table_has_a_line_per_setting_and_compiles_in_form(sweep: Results, tmp_path: Path) -> None:
    text = (export(sweep, "latex", tmp_path / "out") / "summary.tex").read_text()
    lines = [line for line in text.split("\n") if line.endswith("\\\\")]
    assert len(lines) == 1 + len(sweep.summary)
    assert len({line.count("&") for line in lines}) == 1
    columns = text.split("{tabular}{")[1].split("}")[0]
    assert len(columns) == lines[0].count("&") + 1
    for line, row in zip(lines[1:], sweep.summary.itertuples(), strict=True):
        assert line.startswith(f"{row.optimizer} & ")


def test_latex_reads_names_as_they_are_written() -> None:
    assert escaped("50%_of {a}&b\\c~d^e#$") == (
        r"50\%\_of \{a\}\&b\textbackslash{}c\textasciitilde{}d\textasciicircum{}e\#\$"
    )
    assert [number(text) for text in ("0.01", "1e-05", "3.16e-05", "-47.2")] == [
        "0.01", "$10^{-5}$", "$3.16 \\cdot 10^{-5}$", "$-47.2$",
    ]  # fmt: skip


def test_every_exported_folder_is_marked(sweep: Results, tmp_path: Path) -> None:
    folder = export(sweep, "latex", tmp_path / "deep" / "out")
    assert (folder / MARK).read_text() == "latex\n"
