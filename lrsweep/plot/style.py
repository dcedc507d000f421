"""How every picture looks: colours, markers, tick labels, the grid of panels, deterministic files."""

from __future__ import annotations

import bisect
import io
import itertools
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullFormatter, NullLocator

from lrsweep.errors import printable
from lrsweep.wording import words

# Okabe and Ito's palette without its yellow (unreadable on white), darkest first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
LineStyle: TypeAlias = Literal["-", "--", "-."] | tuple[int, tuple[float, ...]]
# No dotted one: dotted is what leads to divergence, and the training loss.
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
RED, INK, GREY, PALE = "#C1121F", "#222222", "#6B6B6B", "#E4E4E4"
TRADITIONAL = (0.01, 0.1)
"""The rates that are tried first by habit (Bengio 2012; Goodfellow et al. 2016); marked on every rate axis."""

Ints: TypeAlias = npt.NDArray[np.int_]
DPI = 100
LINE_POINTS = 11.5
"""Between two lines above a panel."""
STYLE: dict[Any, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,  # a label such as `$x$` is text, not mathematics
    "text.hinting": "none",  # letters as wide as `width_of` says, and drawn sooner
    "axes.edgecolor": "#8A8A8A",
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "axes.formatter.useoffset": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "lrsweep",
    "svg.fonttype": "path",
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}
# No date and no version: two drawings of the same files are the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

MARKED_AS = {"png": "Source", "svg": "Source", "pdf": "Keywords"}


@contextmanager
def styled() -> Iterator[None]:
    """Our style on top of matplotlib's own defaults, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@dataclass(frozen=True, kw_only=True)
class Look:
    """How the curve number `index` of the spec is drawn wherever it appears."""

    color: str
    line: LineStyle
    marker: str

    @property
    def of_line(self) -> dict[str, Any]:
        """For `Axes.plot`."""
        return {"color": self.color, "linestyle": self.line, "marker": self.marker}

    @property
    def of_marks(self) -> dict[str, Any]:
        """For `Axes.plot`, without a line between them."""
        return {"color": self.color, "linestyle": "", "marker": self.marker}


def look(index: int) -> Look:
    """Colour, line and marker by place in the spec; all three together stay distinct up to 77 curves."""
    return Look(
        color=COLORS[index % len(COLORS)],
        line=LINES[index // len(COLORS) % len(LINES)],
        marker=MARKERS[index % len(MARKERS)],
    )


def looks(optimizers: Sequence[str], labels: Sequence[str]) -> list[Look]:
    """The look of each of several curves, which belong to these `optimizers`; `labels` are those of the spec.

    Where an optimizer has more than one curve, colour says the optimizer, line and marker which of its curves it is; if
    the spec has one optimizer only, each curve has its colour.
    """
    several = len(set(optimizers)) < len(optimizers)
    seen: dict[str, int] = {}
    found = []
    for label in optimizers:
        number = seen[label] = seen.get(label, -1) + 1
        own = look(labels.index(label) if label in labels else len(labels))
        if several:
            one = look(number)
            own = one if len(labels) == 1 else replace(one, color=own.color, line=LINES[number % len(LINES)])
        found.append(own)
    return found


# --- text ---------------------------------------------------------------------------------------------------------


def _font(bold: bool) -> FT2Font:
    # Not kept here: forked copies of a font read its file through one shared position, and get wrong glyphs or errors.
    # What matplotlib keeps, it drops when it is forked.
    return get_font(findfont(FontProperties(family="DejaVu Sans", weight="bold" if bold else "normal")))


@lru_cache(maxsize=4096)
def _advance(character: str, bold: bool) -> float:
    """Width of a character in units of the font size."""
    font = _font(bold)
    if not font.get_char_index(ord(character)):
        return 1.0  # a box is drawn in its place
    font.set_size(100.0, 72)
    return float(font.load_char(ord(character)).linearHoriAdvance) / 65536 / 100


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """Width in inches of one line of text at `size` points."""
    return sum(_advance(character, bold) for character in text) * size / 72


def fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text if it fits `room` inches, else cut in the middle: the ends of a label tell labels apart."""
    text = " ".join(printable(text).split())
    if width_of(text, size, bold=bold) <= room:
        return text

    def cut(keep: int) -> str:
        head = keep * 2 // 3
        return f"{text[:head]}…{text[len(text) - (keep - head) :]}"

    # How many characters fit, by halves: a wider cut is never narrower.
    most = bisect.bisect_right(range(2, len(text)), room, key=lambda keep: width_of(cut(keep), size, bold=bold))
    return cut(most + 1) if most else "…"


# --- axes ---------------------------------------------------------------------------------------------------------


def air(low: float, high: float) -> float:
    """The factor by which an axis of rates from `low` to `high` goes beyond both."""
    return 10 ** max(0.05 * math.log10(high / low), 0.08) if high > low else 2.0


def rate_axis(ax: Axes, low: float, high: float, *, label: str | None = "learning rate") -> None:
    """A log axis of rates from `low` to `high` with a little air; a tick at every decade, a name at as many as fit."""
    around = air(low, high)
    ax.set_xlim(low / around, high * around)  # before the scale, which would fit what is drawn: that may be one place
    ax.set_xscale("log")
    ticks, named = log_ticks(low / around, high * around, most=40), log_ticks(low / around, high * around)
    name_ticks(ax.xaxis, ticks, [words.compact(tick) if tick in named else "" for tick in ticks])
    marked = [rate for rate in TRADITIONAL if low / around <= rate <= high * around]
    ax.plot(
        marked, [0.0] * len(marked), transform=ax.get_xaxis_transform(), linestyle="", marker="^", markersize=5,
        color=INK, clip_on=False, zorder=9,
    )  # fmt: skip
    if label:
        ax.set_xlabel(label)


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


def value_axis(ax: Axes, low: float, high: float, *, log: bool, show: tuple[float, float] | None = None) -> None:
    """The axis of a loss or metric, with plain numbers at the ticks that lie within `show`."""
    first, last = show or (low, high)
    ax.set_yscale("log" if log else "linear")
    ax.set_ylim(low, high)
    ticks = log_ticks(first, last, most=6) if log else [float(t) for t in MaxNLocator(5).tick_values(first, last)]
    slack = 1e-9 * abs(last - first)
    ticks = [tick for tick in ticks if first - slack <= tick <= last + slack]
    name_ticks(ax.yaxis, ticks, tick_texts(ticks))


def plain_axis(ax: Axes, low: float, high: float) -> None:
    """Round numbers along x."""
    ticks = [float(t) for t in MaxNLocator(5).tick_values(low, high) if low <= t <= high]
    name_ticks(ax.xaxis, ticks, tick_texts(ticks))


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


def name_ticks(axis: Axis, places: Sequence[float], names: Sequence[str]) -> None:
    """Ticks with these names, and no others."""
    axis.set_major_locator(FixedLocator(list(places)))
    axis.set_major_formatter(FixedFormatter(list(names)))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def note(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **more: Any) -> None:
    """A text that is `offset` points away from a place in data coordinates (or `xycoords`), inside the axes or not."""
    ax.annotate(text, at, xytext=offset, textcoords="offset points", annotation_clip=False, **more)


def light_grid(ax: Axes) -> None:
    ax.grid(True, color=PALE, linewidth=0.6)
    ax.tick_params(length=3, width=0.7)


# --- figures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Page:
    """A figure cut into panels; all lengths in inches, so nothing has to be measured to fit."""

    figure: Figure
    panels: list[Axes]
    columns: int

    def bottom_row(self, index: int) -> bool:
        return index + self.columns >= len(self.panels)

    def left_column(self, index: int) -> bool:
        return index % self.columns == 0

    def label(self, index: int, x: str, y: str) -> None:
        """Names the axes of a panel, where it stands at the lower or the left border."""
        if self.left_column(index):
            self.panels[index].set_ylabel(printable(y))
        if self.bottom_row(index):
            self.panels[index].set_xlabel(printable(x))


def page(
    count: int,
    title: str,
    subtitle: str,
    *,
    columns: int,
    panel: tuple[float, float] = (3.3, 2.35),
    legend: Sequence[Artist] = (),
    left: float = 0.62,
    right: float = 0.2,
    top: float = 0.62,
    gap: tuple[float, float] = (0.55, 0.36),
    head: float = 0.5,
) -> Page:
    """`count` panels in rows of `columns` below a title. `head` is the room above every panel for its own title."""
    rows = math.ceil(count / columns)
    width = left + columns * panel[0] + (columns - 1) * gap[0] + right
    # Long enough to tell dashed from dotted on both sides of a marker.
    handle = 4.6 if any(_marked_dashes(one) for one in legend) else 2.8
    across, down = _legend_grid(legend, width, handle)
    bottom = 0.55 + 0.19 * down
    height = top + rows * (head + panel[1]) + (rows - 1) * gap[1] + bottom
    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    panels = []
    for index in range(count):
        row, column = divmod(index, columns)
        x = left + column * (panel[0] + gap[0])
        y = height - top - (row + 1) * (head + panel[1]) - row * gap[1]
        ax = figure.add_axes((x / width, y / height, panel[0] / width, panel[1] / height))
        light_grid(ax)
        panels.append(ax)
    if legend:
        corner = (0.12 / width, 0.02 / height)
        figure.legend(
            handles=list(legend), loc="lower left", bbox_to_anchor=corner, ncols=across, columnspacing=1.4,
            handlelength=handle,
        )  # fmt: skip
    heading(figure, title, subtitle)
    return Page(figure=figure, panels=panels, columns=columns)


def _marked_dashes(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and handle.get_marker() != "None" and handle.get_linestyle() not in ("-", "None")


def _legend_grid(handles: Sequence[Artist], width: float, handle: float) -> tuple[int, int]:
    """Columns and rows of a legend below a figure `width` inches wide; lines in it are `handle` letters long."""
    if not handles:
        return 0, 0
    longest = max(width_of(str(one.get_label()), 8) for one in handles) + 0.31 + handle * 8 / 72
    across = max(1, min(len(handles), int((width - 0.3) / longest)))
    return across, math.ceil(len(handles) / across)


def columns_for(count: int, widest: int = 4) -> int:
    """1, 2, 3 or 4 columns: as square as reads well."""
    return min(widest, count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4)


def heading(figure: Figure, title: str, subtitle: str, *, left: float = 0.2) -> None:
    """Title and budget line at the top left, cut to the width of the figure."""
    width, height = figure.get_size_inches()
    room = width - 2 * left
    figure.text(left / width, 1 - 0.14 / height, fit(title, room, 12, bold=True), size=12, weight="bold", va="top")
    for number, line in enumerate(subtitle.split("\n")):
        y = 1 - (0.39 + 0.165 * number) / height
        figure.text(left / width, y, fit(line, room, 8.5), size=8.5, color=GREY, va="top")


def panel_title(
    ax: Axes, title: str, facts: str = "", warning: str = "", *, aside: str = "", reserved: float = 0.0
) -> None:
    """Left-aligned lines above a panel: its name, what was found (one or two lines), what is wrong. At the right end
    of the first stands `aside`, or room for something else, `reserved` inches wide."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    room = figure.get_size_inches()[0] * ax.get_position().width + 0.1
    reserved = width_of(aside, 7.8) + 0.15 if aside else reserved
    found = [(text, 7.8, False, GREY) for text in facts.split("\n")]
    lines = [(title, 9.5, True, INK), *found, (warning, 7.8, False, RED)]
    lines = [line for line in lines if line[0]]
    if aside:
        lift = (0, 4 + LINE_POINTS * (len(lines) - 1))
        note(ax, aside, (1, 1), lift, xycoords="axes fraction", size=7.8, color=GREY, ha="right")
    for number, (text, size, bold, ink) in enumerate(reversed(lines)):
        text, weight = fit(text, room - reserved if bold else room, size, bold=bold), "bold" if bold else "normal"
        lift = (0, 4 + LINE_POINTS * number)
        note(ax, text, (0, 1), lift, xycoords="axes fraction", size=size, weight=weight, color=ink)


def empty(title: str, subtitle: str) -> Figure:
    """A figure that only says why there is nothing to see."""
    figure = Figure(figsize=(6.4, 1.2), dpi=DPI)
    FigureCanvasAgg(figure)
    heading(figure, title, subtitle)
    return figure


def rendered(figure: Figure, kind: str, mark: str = "") -> bytes:
    """The figure as the bytes of a png, svg or pdf file, with `mark` in its metadata; the same for the same figure."""
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn in its place
        figure.savefig(buffer, format=kind, metadata={**METADATA[kind], **({MARKED_AS[kind]: mark} if mark else {})})
    return buffer.getvalue()
