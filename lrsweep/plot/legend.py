"""What the marks of a U-curve and of an overlay mean: an entry for every mark that is in the picture, and no other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts
from lrsweep.plot import style
from lrsweep.plot.style import GREY, INK, RED, Look
from lrsweep.wording import words

UNTRAINED: tuple[int, tuple[int, ...]] = (0, (5, 3))
ADAM: tuple[int, tuple[int, ...]] = (0, (1, 2))
DEFAULT: tuple[int, tuple[int, ...]] = (0, (7, 2, 1, 2))


def head(rows: Sequence[OptimizerFacts], plain: float) -> float:
    """Inches above a panel of one of `rows`: `plain`, and a line more where it names axis values."""
    return plain + style.LINE_POINTS / 72 * any(row.axes for row in rows)


def below_title(row: OptimizerFacts, found: str) -> str:
    """The grey lines below the optimizer's name: its axis values, for which that line is too short, and what was
    found."""
    return f"{words.axes_text(row.axes)}\n{found}" if row.axes else found


def line(label: str, **more: Any) -> Line2D:
    """A grey line, or as Line2D takes `more`."""
    return Line2D([], [], **{"color": GREY, **more}, label=label)


def mark(marker: str, label: str, *, color: str = GREY, size: float = 5.5, **more: Any) -> Line2D:
    """A mark on its own. `more`: as Line2D takes them."""
    return line(label, color=color, marker=marker, markersize=size, linestyle="", **more)


def leaves(*, up: bool) -> Artist:
    """What the triangles at the border of a panel mean."""
    return mark("^" if up else "v", "goes off scale", size=4.5)


def curves(rows: Sequence[OptimizerFacts], looks: Sequence[Look]) -> list[Artist]:
    """An entry per curve."""
    return [
        line(style.fit(words.title(row), 5.0, 8), **one.of_line, markersize=4.5, linewidth=1.6)
        for row, one in zip(rows, looks, strict=True)
    ]


def untrained(rows: Sequence[OptimizerFacts]) -> list[Artist]:
    if not any(math.isfinite(row.initial_objective) for row in rows):
        return []
    return [line("untrained model", linestyle=UNTRAINED, linewidth=1)]


def adam(name: str, against: AgainstAdam) -> Artist:
    """The line to beat."""
    where = f" ({words.axes_text(against.axes)})" if against.axes else ""
    text = f"{name} at its default {words.compact(against.adam_lr)}{where}"
    return line(text, color=INK, linestyle=ADAM, linewidth=1.1)


def tries() -> Artist:
    return mark("^", "traditional defaults 0.01, 0.1", color=INK, size=5)


def beyond(*, worse_up: bool, color: str = GREY) -> Artist:
    return mark("^" if worse_up else "v", "off scale (finite)", color=color, size=5, markerfacecolor="none")


def legend(rows: Sequence[OptimizerFacts], *, worse_up: bool, beyond_axis: bool, default: bool) -> list[Artist]:
    """The marks of a panel with the runs of one row. `default`: torch's default rate is in one of the panels."""
    statuses = {run.status for row in rows for run in row.runs}
    several = any(row.n_seeds > 1 for row in rows)
    hollow = {"markerfacecolor": "none", "markeredgecolor": INK}
    found: list[Artist] = [
        mark("o", "one seed", size=3.4),
        line("median over seeds", linewidth=1.6, marker="o", markersize=4),
    ]
    if several:
        found.append(Patch(color=GREY, alpha=0.3, linewidth=0, label="range over seeds"))
    found += untrained(rows)
    if any(row.trained for row in rows):
        found.append(Patch(color=GREY, alpha=0.14, linewidth=0, label="good range: within 5 % of the improvement"))
    if any(math.isfinite(row.best_objective) for row in rows):
        found.append(mark("*", "best learning rate tried", size=10, markeredgecolor=INK))
    if any(math.isfinite(row.recommended_lr) for row in rows):
        found.append(mark("o", "recommended", size=10, **hollow))
    if default:
        found.append(line("default lr", color=INK, linestyle=DEFAULT, linewidth=0.9))
    found.append(tries())
    if "diverged" in statuses:
        found.append(mark("x", "diverged run", color=RED))
    if "failed" in statuses:
        found.append(mark("s", "failed", size=5, **hollow))
    return [*found, *([beyond(worse_up=worse_up)] if beyond_axis else [])]
