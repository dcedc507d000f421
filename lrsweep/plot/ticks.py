"""Axes of learning rates and of values: which ticks they have, and what is written at them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter

from lrsweep.plot.style import INK, TRADITIONAL
from lrsweep.plot.text import power, width_of
from lrsweep.wording import words

SIZE = 8.0
"""Points of the numbers at ticks."""
BETWEEN = 0.07
"""Inches between two of them at least."""
MARK = 0.04
"""Inches between two ticks without a name at least."""
LINE = 0.13
"""Inches between the middles of two of them, one above the other, at least."""
MOST_DIGITS = 1e4
"""Where values are as many times their spacing, a common offset is taken out of them."""
PLAIN = (1e-2, 1e4)
"""Numbers from the first and below the second are written out; all others of a linear axis share a power of ten."""


def air(low: float, high: float) -> float:
    """The factor by which an axis of rates from `low` to `high` goes beyond both."""
    return 10 ** max(0.05 * math.log10(high / low), 0.08) if high > low else 2.0


def rate_axis(ax: Axes, low: float, high: float, *, label: str | None = "learning rate") -> None:
    """A log axis of rates from `low` to `high` with a little air; a tick at every decade, a name at as many as fit."""
    around = air(low, high)
    ax.set_xlim(low / around, high * around)  # before the scale, which would fit what is drawn: that may be one place
    ax.set_xscale("log")
    log_names(ax, low / around, high * around, alone=low if low == high else None)
    if label:
        ax.set_xlabel(label)


def mark_traditional(ax: Axes) -> None:
    """Triangles on a rate axis at the rates that are tried by habit."""
    low, high = ax.get_xlim()
    marked = [rate for rate in TRADITIONAL if low <= rate <= high]
    ax.plot(
        marked, [0.0] * len(marked), transform=ax.get_xaxis_transform(), linestyle="", marker="^", markersize=5,
        color=INK, clip_on=False, zorder=9,
    )  # fmt: skip


def log_names(ax: Axes, low: float, high: float, *, alone: float | None = None) -> None:
    """Ticks and names along a log x axis from `low` to `high`; `alone` is the only value there is."""
    if alone is not None:
        name_ticks(ax.xaxis, [alone], [words.compact(alone)])
        return
    ticks, named = log_ticks(low, high, most=40), log_ticks(low, high)
    texts = [text if tick in named else "" for tick, text in zip(ticks, log_texts(ticks), strict=True)]
    room = inches(ax) / math.log10(high / low)
    name_ticks(
        ax.xaxis, ticks, apart([math.log10(tick) * room for tick in ticks], texts), minor=between(low, high, room)
    )


def inches(ax: Axes, *, upright: bool = False) -> float:
    """The width of a panel, or its height."""
    return float((ax.bbox.height if upright else ax.bbox.width) / ax.figure.dpi)


def apart(places: Sequence[float], texts: Sequence[str], size: float = SIZE) -> list[str]:
    """The texts at these `places` (inches) that can be written side by side; "" in the place of the others."""
    kept: list[str] = []
    end = -math.inf
    for place, text in zip(places, texts, strict=True):
        half = width_of(text, size) / 2
        shown = bool(text) and place - half >= end
        kept.append(text if shown else "")
        end = place + half + BETWEEN if shown else end
    return kept


def log_ticks(low: float, high: float, *, most: int = 8) -> list[float]:
    """Round numbers on a log axis: decades, thinned if there are many, halves of them if there are few."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    decades = list(range(first, last + 1))
    if len(decades) >= 3:
        step = max(1, math.ceil(len(decades) / most))
        return [float(f"1e{k}") for k in decades if k % step == 0]
    ticks: list[float] = []
    for marks in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)):
        ticks = [float(f"{m}e{k}") for k in range(first - 1, last + 1) for m in marks]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 3:
            break
    return ticks or [float(f"{math.sqrt(low * high):.2g}")]


def log_texts(ticks: Sequence[float]) -> list[str]:
    """Names of `log_ticks`: powers of ten where all of them are, else numbers written out where they are short."""
    parts = [f"{tick:e}".split("e") for tick in ticks]
    mantissas, exponents = [float(one) for one, _ in parts], [int(one) for _, one in parts]
    if any(mantissa != 1 for mantissa in mantissas) and all(-3 <= exponent < 4 for exponent in exponents):
        return [f"{tick:g}" for tick in ticks]
    return [power(exponent, mantissa) for mantissa, exponent in zip(mantissas, exponents, strict=True)]


def between(low: float, high: float, room: float) -> list[float]:
    """Minor ticks of a log axis with `room` inches for a decade: 2 to 9 of each, or 2 and 5, or none: as many as can be
    told apart. (With 2 to 9 everywhere, plots and report of the quickstart take 7.4 million Python calls, not 5.9.)
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    kinds = ((2, 3, 4, 5, 6, 7, 8, 9), (2, 5))
    numbers = next((kind for kind in kinds if room * math.log10(10 / kind[-1]) >= MARK), ())
    marks = [float(f"{number}e{k}") for k in range(first, last) for number in numbers]
    return [mark for mark in marks if low <= mark <= high]


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis of values from `low` to `high`: its ticks and their names, which are (tick - offset) / 10^exponent."""

    low: float
    high: float
    log: bool
    ticks: tuple[float, ...]
    texts: tuple[str, ...]
    offset: float = 0.0
    exponent: int = 0

    @property
    def width(self) -> float:
        """Inches that the names at the ticks take."""
        return max((width_of(text, SIZE) for text in self.texts), default=0.0)

    def label(self, name: str) -> str:
        """What stands beside the axis: `val_loss`, `val_loss / 10⁹`, `val_loss - 1000000`."""
        if self.offset:
            name = f"{name} {'-' if self.offset > 0 else '+'} {abs(self.offset):.15g}"
        if not self.exponent:
            return name
        return f"({name}) / {power(self.exponent)}" if self.offset else f"{name} / {power(self.exponent)}"


def value_scale(low: float, high: float, *, log: bool) -> Scale:
    """An axis of a loss or metric."""
    slack = 1e-9 * abs(high - low)
    if log:
        ticks = [tick for tick in log_ticks(low, high, most=6) if low - slack <= tick <= high + slack]
        plain = all(1e-3 <= tick < MOST_DIGITS for tick in ticks)
        names = tick_texts(ticks) if plain else log_texts(ticks)
        return Scale(low=low, high=high, log=True, ticks=tuple(ticks), texts=tuple(names))
    places = (float(t) for t in MaxNLocator(5).tick_values(low, high))
    ticks = [tick for tick in places if low - slack <= tick <= high + slack]
    offset, exponent = _offset(ticks), 0
    left = [tick - offset for tick in ticks]
    largest = max(map(abs, left), default=1.0)
    if largest > 0 and not PLAIN[0] <= largest < PLAIN[1]:
        exponent = 3 * math.floor(math.log10(largest) / 3)
        left = [value / 10.0**exponent if exponent < 300 else value * 10.0**-exponent for value in left]
    texts = tuple(tick_texts(left))
    return Scale(low=low, high=high, log=False, ticks=tuple(ticks), texts=texts, offset=offset, exponent=exponent)


def _offset(ticks: Sequence[float]) -> float:
    """What all ticks have in common, a round number, where they are too long to be written out."""
    if len(ticks) < 2:
        return 0.0
    spacing, largest = ticks[1] - ticks[0], max(map(abs, ticks))
    if largest < MOST_DIGITS * spacing:
        return 0.0
    round_to = 10.0 ** math.ceil(math.log10(ticks[-1] - ticks[0]) + 1e-9)
    return math.floor(ticks[0] / round_to) * round_to


def value_axis(ax: Axes, scale: Scale, *, low: float | None = None, high: float | None = None) -> None:
    """Give a panel this y axis. `low` and `high`: where it goes further than its values do."""
    ax.set_yscale("log" if scale.log else "linear")
    bounds = (scale.low if low is None else low, scale.high if high is None else high)
    ax.set_ylim(*bounds)
    room = inches(ax, upright=True) / math.log10(bounds[1] / bounds[0]) if scale.log else 0.0
    minor = between(scale.low, scale.high, room) if scale.log else []
    heights = ax.transData.transform([(ax.get_xlim()[1], tick) for tick in scale.ticks])[:, 1] if scale.ticks else ()
    texts, below = [], -math.inf
    for height, text in zip(heights, scale.texts, strict=True):  # in a low panel not all names have room
        clear = (height - below) / ax.figure.dpi >= LINE
        texts.append(text if clear else "")
        below = height if clear else below
    name_ticks(ax.yaxis, scale.ticks, texts, minor=[one for one in minor if one not in scale.ticks])


def plain_axis(ax: Axes, low: float, high: float, *, whole: bool = False) -> None:
    """Round numbers along x, as many as fit side by side; `whole`: of epochs or steps, which are not halved."""
    locator = MaxNLocator(5, integer=whole and high >= 2)
    ticks = [float(t) for t in locator.tick_values(low, high) if low <= t <= high]
    room = inches(ax) / ((high - low) or 1.0)
    name_ticks(ax.xaxis, ticks, apart([tick * room for tick in ticks], tick_texts(ticks)))


def tick_texts(ticks: Sequence[float]) -> list[str]:
    """Plain numbers with as many digits as tell neighbours apart and say where they are: to a twentieth of the way to
    the next one."""
    largest = max((abs(tick) for tick in ticks), default=1.0)
    plain = [0.0 if abs(tick) < 1e-12 * largest else tick for tick in ticks]
    apart = min((b - a for a, b in itertools.pairwise(sorted(plain))), default=largest)
    allowed = min(1e-3 * largest / max(len(plain), 1), apart / 20)
    for digits in range(3, 17):
        texts = [f"{float(f'{tick:.{digits}g}'):.15g}".replace("e-0", "e-") for tick in plain]
        near = (abs(float(text) - tick) <= allowed for text, tick in zip(texts, plain, strict=True))
        if len(set(texts)) == len(texts) and all(near):
            return texts
    return [repr(tick) for tick in plain]


def name_ticks(axis: Axis, places: Sequence[float], names: Sequence[str], minor: Sequence[float] = ()) -> None:
    """Ticks with these names, and `minor` ones without."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(FixedLocator([one for one in minor if one not in set(places)]))
    axis.set_minor_formatter(NullFormatter())
