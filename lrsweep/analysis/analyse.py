"""Statistics of a sweep: pure functions from the tables to frozen facts."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lrsweep.analysis import advice
from lrsweep.analysis.baseline import adam_label, against_adam
from lrsweep.analysis.cells import AnalysisConfig, Cell, Frames, Track, cells_of, config_of, tracks_of
from lrsweep.analysis.drift import axis_drifts, best_lrs, budget_drift, rate_ratios
from lrsweep.analysis.facts import Drift, SweepFacts
from lrsweep.analysis.stats import resampled_medians
from lrsweep.analysis.summary import middle_of, row_of, summary_frame, summary_rows
from lrsweep.analysis.targets import target_of, times
from lrsweep.objective import uncost

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["analyse", "facts_of", "summary_frame", "summary_rows"]


def analyse(
    runs: pd.DataFrame, curves: Frames, spec: Any, default_lrs: Mapping[str, float],
    *, metric: str | None = None, at: str | None = None,
) -> SweepFacts:  # fmt: skip
    """Everything a sweep shows.

    `runs` has the columns of runs.csv, `curves` those of curves.csv: one frame or frames in any cut, of which only the
    objective's metric is kept, or None (then times to target, budget drift and the start of metrics other than losses
    are not known). `default_lrs` gives torch's default rate by label or optimizer name. `metric` and `at` look at
    another objective than the spec's, read off the curves.
    """
    setup = config_of(spec, default_lrs, metric, at)
    tracks = tracks_of(curves, setup.metric)
    if (setup.metric, setup.at) != (spec.objective.metric, spec.objective.at):
        runs = runs.drop(columns="objective")
    return facts_of(runs, tracks, setup)


def facts_of(runs: pd.DataFrame, tracks: Mapping[str, Track], setup: AnalysisConfig) -> SweepFacts:
    """`analyse` after its inputs were read."""
    cells = cells_of(runs, tracks, setup)
    middles = [middle_of(cell) for cell in cells]
    target = target_of([middle.start for middle in middles], [middle.least for middle in middles])
    rows, drawn_bests = [], []
    for cell, middle in zip(cells, middles, strict=True):
        drawn = resampled_medians(cell.cost)
        drawn_bests.append(best_lrs(cell.lrs, drawn))
        rows.append(row_of(cell, middle, drawn, times(cell, tracks, target, setup.mode), target, setup))
    drifts = _drifts(cells, tracks, setup)
    facts = SweepFacts(
        name=setup.name,
        metric=setup.metric,
        at=setup.at,
        mode=setup.mode,
        budget=setup.budget,
        axes=tuple(setup.axes),
        n_runs=len(runs),
        n_diverged=int((runs["status"] == "diverged").sum()),
        n_failed=int((runs["status"] == "failed").sum()),
        seeds=tuple(int(seed) for seed in np.unique(runs["seed"].to_numpy(dtype=np.int64))),
        target=uncost(target, setup.mode),
        rows=tuple(rows),
        drifts=drifts,
        adam=adam_label(setup),
        against_adam=against_adam(cells, setup),
        ratios=tuple(rate_ratios(cells, drawn_bests)),
        headline=advice.headline(rows, setup.budget),
        notes=advice.notes_of(rows, drifts, setup),
        warnings=(),
    )
    return dataclasses.replace(facts, warnings=advice.sweep_warnings(facts))


def _drifts(cells: list[Cell], tracks: Mapping[str, Track], setup: AnalysisConfig) -> tuple[Drift, ...]:
    from_rows = (budget_drift(cell, tracks, setup) for cell in cells)
    along = axis_drifts(cells, tuple(setup.axes))
    return tuple(itertools.chain((drift for drift in from_rows if drift is not None), along))
