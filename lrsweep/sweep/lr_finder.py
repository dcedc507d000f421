"""`lrsweep range-test`: the one-ramp finder on every optimizer of a spec, held against the sweep where there is one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lrsweep import plan
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.results import tables
from lrsweep.results.run_tables import axis_text
from lrsweep.spec import axes as axis_rules
from lrsweep.spec.load import load_spec
from lrsweep.spec.model import Spec, canonical
from lrsweep.spec.resolved import located
from lrsweep.store import atomic
from lrsweep.training import lr_ramp
from lrsweep.training.lr_ramp import Ramp
from lrsweep.workers import worker

PICTURE, TABLE = "range_test.png", "range_test.csv"


@dataclass(frozen=True, kw_only=True)
class AxisValue:
    """The value of an axis that the ramps are made at, and those that the spec lists, as texts of the tables."""

    axis: str
    value: str
    listed: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Line:
    """One optimizer. `rules` holds (rule, suggested rate, regret on the U-curve); regret is nan where unknown.
    `unmoved` are the rules that point to where the loss has not fallen yet: warnings, as `per_unit` always is."""

    label: str
    ramp: Ramp
    smooth: tuple[float, ...]
    rules: tuple[tuple[str, float, float], ...]
    unmoved: frozenset[str]
    spread: float
    best_lr: float
    row: OptimizerFacts | None


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """What a range test found; `facts` are those of the sweep, None where there is none to compare with."""

    name: str
    low: float
    high: float
    steps: int
    seed: int
    axes: tuple[AxisValue, ...]
    lines: tuple[Line, ...]
    facts: SweepFacts | None
    files: tuple[Path, ...]

    @property
    def has_sweep(self) -> bool:
        return self.facts is not None


def run(
    config: Path | str,
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
    lr_ramp.rates(low, high, steps)
    spec = load_spec(Path(config), overrides=overrides, choose=True)
    axes = _axes(spec, Path(config), overrides)
    folder = Path(results) / spec.name
    planned = plan.build(spec, plan.fingerprints(spec))
    first = {run.label: run for run in reversed(planned.runs) if run.workload_spec is planned.runs[0].workload_spec}
    facts = _facts(folder)
    with located(spec):
        workload = worker.workloads().get(planned.runs[0].workload_spec, worker.device_of(device))
    lines = []
    for optimizer in spec.optimizers:
        run_of = first[optimizer.label]
        ramp = lr_ramp.ramp(workload, run_of.setting, seed, low=low, high=high, steps=steps)
        lines.append(line(optimizer.label, ramp, _row(facts, optimizer.label, axes)))
    found = RangeTest(
        name=spec.name,
        low=low,
        high=high,
        steps=steps,
        seed=seed,
        axes=axes,
        lines=tuple(lines),
        facts=facts,
        files=(folder / PICTURE, folder / TABLE),
    )
    _write(found, folder)
    return found


def _facts(folder: Path) -> SweepFacts | None:
    """What the sweep in `folder` shows, if one was run there."""
    if not tables.is_sweep(folder):
        return None
    from lrsweep.results.results import load

    return load(folder).facts()


def _axes(spec: Spec, config: Path, overrides: Sequence[str]) -> tuple[AxisValue, ...]:
    """What `spec`, where overrides have chosen axis values, has of those of the spec without these."""
    if not spec.axes:
        return ()
    others = [text for text in overrides if text.partition("=")[0].strip() not in spec.axes]
    found = []
    for axis, values in load_spec(config, overrides=others).axes.items():
        value = spec.axes[axis][0]
        new = canonical(value) not in map(canonical, values)
        cells = axis_rules.cells(axis, [*values, value] if new else values)
        texts = {key: axis_text(cell) for key, cell in cells.items()}
        listed = tuple(texts[canonical(one)] for one in values)
        found.append(AxisValue(axis=axis, value=texts[canonical(value)], listed=listed))
    return tuple(found)


def _row(facts: SweepFacts | None, label: str, axes: Sequence[AxisValue]) -> OptimizerFacts | None:
    at = {one.axis: one.value for one in axes}
    rows = () if facts is None else facts.rows
    return next((row for row in rows if row.optimizer == label and row.axes == at), None)


def line(label: str, ramp: Ramp, row: OptimizerFacts | None) -> Line:
    """What the rules read off a ramp, held against the sweep's `row`."""
    smooth = lr_ramp.smoothed(ramp.losses)
    read = lr_ramp.suggestions(ramp.lrs, smooth)
    noise = lr_ramp.noise_of(ramp.losses)
    return Line(
        label=label,
        ramp=ramp,
        smooth=tuple(float(value) for value in smooth),
        rules=tuple(
            (rule, rate, math.nan if row is None else regret(row, rate)) for rule, rate in asdict(read).items()
        ),
        unmoved=frozenset(
            rule
            for rule, rate in asdict(read).items()
            if math.isfinite(rate) and not lr_ramp.has_fallen(ramp.lrs, smooth, noise, rate)
        ),
        spread=read.spread,
        best_lr=math.nan if row is None else row.best_lr.value,
        row=row,
    )


def regret(row: OptimizerFacts, rate: float) -> float:
    """Cost on the U-curve at `rate`, interpolated linearly in log rate, less the best: inf beside a diverged
    neighbour, nan outside the grid or where nothing trained."""
    lrs = np.array([point.lr for point in row.rates])
    inside = math.isfinite(rate) and row.trained and lrs[0] * (1 - 1e-9) <= rate <= lrs[-1] * (1 + 1e-9)
    if not inside:
        return math.nan
    sign = -1.0 if row.best_objective > row.initial_objective else 1.0
    costs = np.array([sign * point.objective for point in row.rates])
    value = float(np.interp(math.log10(rate), np.log10(lrs), costs))
    return value - sign * row.best_objective if math.isfinite(value) else math.inf


def _write(found: RangeTest, folder: Path) -> None:
    from lrsweep.plot import lr_finder as drawing
    from lrsweep.plot import style

    atomic.make_folder(folder)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("optimizer", "step", "lr", "train_loss"))
    for line in found.lines:
        for step, (lr, loss) in enumerate(zip(line.ramp.lrs, line.ramp.losses, strict=True), start=1):
            writer.writerow((line.label, step, repr(float(lr)), repr(float(loss))))
    atomic.replace(folder / TABLE, text.getvalue())
    with style.styled():
        atomic.replace(folder / PICTURE, style.rendered(drawing.range_test(found), "png"))
