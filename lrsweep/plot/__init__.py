"""Pictures of a sweep, drawn from facts with matplotlib's Agg; pyplot is never imported and no window ever opens."""

from __future__ import annotations

from lrsweep.plot.draw import (
    Picture,
    SweepFigures,
    draw_all,
    draw_sweep,
    figure,
    head,
    load,
    loss_curve,
    loss_curve_on,
    names,
    nothing,
    pictures,
    rehearse,
    rendered,
    sweep_from,
    sweep_of,
    time_to_target_on,
    u_curve,
    u_curve_on,
)
from lrsweep.plot.variants import redraw
from lrsweep.results.figures import Rendered, save

__all__ = [
    "Picture",
    "Rendered",
    "SweepFigures",
    "draw_all",
    "draw_sweep",
    "figure",
    "head",
    "load",
    "loss_curve",
    "loss_curve_on",
    "names",
    "nothing",
    "pictures",
    "redraw",
    "rehearse",
    "rendered",
    "save",
    "sweep_from",
    "sweep_of",
    "time_to_target_on",
    "u_curve",
    "u_curve_on",
]
