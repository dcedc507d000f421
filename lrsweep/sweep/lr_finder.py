"""`lrsweep range-test`: the one-ramp finder on every optimizer of a spec, beside its sweep where there is one."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lrsweep import plan
from lrsweep.analysis.cells import axis_text
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.analysis.lr_finder import AxisValue, Floats, Ramp, RampResult, RangeTest, ramp_lrs
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.results import tables
from lrsweep.spec import axes as axis_rules
from lrsweep.spec.load import load_spec
from lrsweep.spec.model import Spec, canonical
from lrsweep.spec.resolved import located
from lrsweep.store import atomic
from lrsweep.sweep import trial
from lrsweep.system import warned
from lrsweep.system.folders import absolute, given
from lrsweep.training import param_groups, ramp
from lrsweep.training.workload import Workload
from lrsweep.workers import worker

Config: TypeAlias = Path | str | Mapping[str, Any] | Spec

_log = logging.getLogger("lrsweep")

PICTURE, TABLE = "range_test.png", "range_test.csv"


def run(
    config: Config,
    *,
    results: Path | str,
    device: str,
    overrides: Sequence[str],
    low: float,
    high: float,
    steps: int,
    seed: int,
) -> RangeTest:
    """One ramp per optimizer of the spec; writes `range_test.png` and `.csv`.

    It is made at the first value of each axis, or at the one that an override of its key names, listed or not.

    Raises SpecError, UsageError, StorageError.
    """
    lrs = ramp_lrs(low, high, steps)
    spec = load_spec(config, overrides=overrides, choose=True)
    axes = _axes(spec, config, overrides)
    shown = given(results) / spec.name
    folder = absolute(shown)
    planned = plan.build(spec, plan.fingerprints(spec))
    first = {run.label: run for run in reversed(planned.runs) if run.workload_spec is planned.runs[0].workload_spec}
    facts = _facts(folder)
    warnings = warned.Waiting()
    with located(spec), warned.told(warnings.add):
        workload = trial.built(planned.runs[0].workload_spec, worker.device_of(device))
        settings = [first[optimizer.label].setting for optimizer in spec.optimizers]

        def ramped() -> list[Ramp]:
            param_groups.check_arguments(workload, settings, seed)
            return [_ramp(first[optimizer.label], workload, seed, lrs) for optimizer in spec.optimizers]

        ramps = trial.in_a_copy(
            ramped, planned.runs[0], worker.device_of(device), meanwhile="it was trained for the range test"
        )
    for text, _ in warnings.taken():
        _log.warning("%s", text)
    labels = [optimizer.label for optimizer in spec.optimizers]
    ramp_results = (
        RampResult(label=label, ramp=ramp, row=_row(facts, label, axes))
        for label, ramp in zip(labels, ramps, strict=True)
    )
    range_test = RangeTest(
        name=spec.name,
        low=low,
        high=high,
        steps=steps,
        seed=seed,
        axes=axes,
        results=tuple(ramp_results),
        facts=facts,
        files=(shown / PICTURE, shown / TABLE),
    )
    _write(range_test, folder)
    return range_test


def _ramp(run: plan.Run, workload: Workload, seed: int, lrs: Floats) -> Ramp:
    """Raises WrongInSpec, at the optimizer for whatever its ramp raised that has no other place."""
    try:
        return ramp.train(run.setting, workload, seed, lrs)
    except WrongInSpec:
        raise
    except UsageError as error:
        raise WrongInSpec((("optimizers", run.label), str(error))) from error


def _facts(folder: Path) -> SweepFacts | None:
    """What the sweep in `folder` shows, if one was run there."""
    if not tables.is_sweep(folder):
        return None
    from lrsweep.results.results import load

    return load(folder).facts()


def _axes(spec: Spec, config: Config, overrides: Sequence[str]) -> tuple[AxisValue, ...]:
    """What `spec`, where overrides have chosen axis values, has of those of the spec without these."""
    if not spec.axes:
        return ()
    others = [text for text in overrides if text.partition("=")[0].strip() not in spec.axes]
    used = []
    for axis, values in load_spec(config, overrides=others).axes.items():
        value = spec.axes[axis][0]
        new = canonical(value) not in map(canonical, values)
        cells = axis_rules.cells(axis, [*values, value] if new else values)
        texts = {key: axis_text(cell) for key, cell in cells.items()}
        listed = tuple(texts[canonical(one)] for one in values)
        used.append(AxisValue(axis=axis, value=texts[canonical(value)], listed=listed))
    return tuple(used)


def _row(facts: SweepFacts | None, label: str, axes: Sequence[AxisValue]) -> OptimizerFacts | None:
    at = {one.axis: one.value for one in axes}
    rows = () if facts is None else facts.rows
    return next((row for row in rows if row.optimizer == label and row.axes == at), None)


def _write(range_test: RangeTest, folder: Path) -> None:
    from lrsweep.plot import lr_finder as plot
    from lrsweep.plot import style

    atomic.make_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("optimizer", "step", "lr", "train_loss"))
    for one in range_test.results:
        for step, (lr, loss) in enumerate(zip(one.ramp.lrs, one.ramp.losses, strict=True), start=1):
            writer.writerow((one.label, step, repr(float(lr)), repr(float(loss))))
    atomic.replace(folder / TABLE, text.getvalue())
    with style.styled():
        atomic.replace(folder / PICTURE, style.rendered(plot.range_test(range_test), "png"))
