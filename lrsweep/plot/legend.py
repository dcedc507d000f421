"""What the marks of a U-curve and of an overlay mean: an entry for every mark that is in the picture, and no other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lrsweep.analysis.facts import AgainstAdam, OptimizerFacts
from lrsweep.plot import style, ticks
from lrsweep.plot.rail import Range
from lrsweep.plot.style import GREY, INK, RED, Look
from lrsweep.plot.text import fit
from lrsweep.wording import words

FEW_SEEDS = 5
"""Up to so many seeds the range over them is a thin line at each rate; more have a band between their quartiles."""
UNTRAINED: tuple[int, tuple[int, ...]] = (0, (5, 3))
ADAM: tuple[int, tuple[int, ...]] = (0, (1, 2))
DEFAULT: tuple[int, tuple[int, ...]] = (0, (7, 2, 1, 2))


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


def beside(ax: Axes, key: Sequence[Artist], beyond: float = 0.0, title: str = "") -> None:
    """The legend right of axes of the user's, `beyond` inches further than usual. Labels and `title` are text, `$`
    too."""
    shown = ax.legend(
        handles=list(key), fontsize="small", frameon=False, loc="upper left", title=title or None,
        bbox_to_anchor=(1.02 + beyond / ticks.inches(ax), 1.0),
    )  # fmt: skip
    for text in (*shown.get_texts(), shown.get_title()):
        text.set_parse_math(False)


def leaves(*, up: bool) -> Artist:
    """What the triangles at the border of a panel mean."""
    return mark("^" if up else "v", "goes off scale", size=4.5)


def curves(rows: Sequence[OptimizerFacts], looks: Sequence[Look]) -> list[Artist]:
    """An entry per curve."""
    return [
        line(fit(words.title(row), 5.0, 8), **one.of_line, markersize=4.5, linewidth=1.6)
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


def tries(low: float, high: float) -> list[Artist]:
    """Those of the traditional first tries that lie on an axis of rates from `low` to `high`."""
    around = ticks.air(low, high)
    shown = [f"{rate:g}" for rate in style.TRADITIONAL if low / around <= rate <= high * around]
    name = "traditional default" + "s" * (len(shown) > 1)
    return [mark("^", f"{name} {', '.join(shown)}", color=INK, size=5)] if shown else []


def beyond(*, worse_up: bool, color: str = GREY) -> Artist:
    return mark("^" if worse_up else "v", "off scale (finite)", color=color, size=5, markerfacecolor="none")


def seeds_range(n: int) -> Artist:
    return mark("|", f"range over {words.plural(n, 'seed')}", size=9)


def quartiles(n: int) -> Artist:
    return Patch(color=GREY, alpha=0.3, linewidth=0, label=f"middle half of {words.plural(n, 'seed')} (quartiles)")


def seed_range(n: int) -> list[Artist]:
    """What is drawn of the spread over so many seeds."""
    return [] if n < 2 else [seeds_range(n) if n <= FEW_SEEDS else quartiles(n)]


def star() -> Artist:
    return mark("*", "best learning rate tried", size=10, markeredgecolor=INK)


def good_range() -> Artist:
    return Patch(color=style.GOOD, linewidth=0, label="good range: within 5 % of the improvement")


def of_runs(rows: Sequence[OptimizerFacts], limits: Range, *, default: bool) -> list[Artist]:
    """The marks of panels with the runs of a row each. `default`: torch's default rate is in one of them."""
    hollow = {"markerfacecolor": "none", "markeredgecolor": INK}
    found: list[Artist] = [
        mark("o", "one seed", size=3.4),
        line("median over seeds", linewidth=1.6, marker="o", markersize=4),
        *seed_range(max((row.n_seeds for row in rows), default=1)),
        *untrained(rows),
    ]
    if any(row.trained for row in rows):
        found += [good_range(), star(), mark("o", "recommended", size=10, **hollow)]
    if default:
        found.append(line("default lr", color=INK, linestyle=DEFAULT, linewidth=0.9))
    rates = [point.lr for row in rows for point in row.rates]
    found += tries(min(rates), max(rates)) if rates else []
    if "diverged" in limits.rows:
        found.append(mark("x", "diverged run", color=RED))
    if "failed" in limits.rows:
        found.append(mark("s", "failed run", size=5, **hollow))
    return [*found, *([beyond(worse_up=limits.worse_up)] if "off scale" in limits.rows else [])]
