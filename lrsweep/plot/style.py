"""How every figure looks: colours, markers, the grid of panels and what stands above them, deterministic files."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lrsweep.plot.text import width_of, wrap

# Okabe and Ito's palette without its yellow (unreadable on white), darkest first.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
LineStyle: TypeAlias = Literal["-", "--", "-."] | tuple[int, tuple[float, ...]]
# No dotted one: dotted is what leads to divergence, and the training loss.
LINES: tuple[LineStyle, ...] = ("-", "--", "-.", (0, (4, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
RED, INK, GREY, PALE = "#C1121F", "#222222", "#6B6B6B", "#E4E4E4"
TRADITIONAL = (0.01, 0.1)
"""The rates that are tried first by habit (Bengio 2012; Goodfellow et al. 2016); marked on the axis of U-curves."""
GOOD = "#DDEBC6"
"""Of the good range; no curve has this hue."""

Ints: TypeAlias = npt.NDArray[np.int_]
DPI = 100
LINE_POINTS = 11.5
"""Between two lines above a panel."""
NOTE = 7.8
"""Points of what is written above a panel below its name."""
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
    "svg.fonttype": "none",  # text as text: it can be searched, edited and read aloud
    "pdf.fonttype": 42,  # TrueType; journals refuse Type 3
    "ps.fonttype": 42,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
}
# No date and no version: two drawings of the same files are the same bytes.
METADATA: dict[str, dict[str, str | None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

FAMILIES = b"font-family: 'DejaVu Sans', Verdana, sans-serif"
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


# --- panels -------------------------------------------------------------------------------------------------------


def note(ax: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], **more: Any) -> None:
    """A text that is `offset` points away from a place in data coordinates (or `xycoords`), inside the axes or not."""
    ax.annotate(text, at, xytext=offset, textcoords="offset points", annotation_clip=False, **more)


def light_grid(ax: Axes) -> None:
    ax.grid(True, color=PALE, linewidth=0.6)
    ax.tick_params(length=3, width=0.7)


# --- figures ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What a figure is for. `setting`: what all of it holds for; `width`: inches of the whole figure, as a paper asks
    for, or None for what reads well on a screen; `titled`: with a title and the setting above the panels."""

    setting: str = ""
    width: float | None = None
    titled: bool = True


SCREEN = Sheet()


@dataclass(frozen=True, kw_only=True)
class Head:
    """What stands above a panel: its name, what was found (a line or more) and what is wrong. At the right end of the
    first line stands `aside`, or room for something else, `reserved` inches wide."""

    title: str
    facts: str = ""
    warning: str = ""
    aside: str = ""
    reserved: float = 0.0

    def lines(self, room: float) -> list[tuple[str, float, bool, str]]:
        """Text, size, bold and colour of its lines of at most `room` inches."""
        first = room - (width_of(self.aside, NOTE) + 0.15 if self.aside else self.reserved)
        names = [(line, 9.5, True, INK) for line in wrap(self.title, first, 9.5, bold=True)]
        facts = [line for text in self.facts.split("\n") for line in wrap(text, room, NOTE)]
        found = [(line, NOTE, False, GREY) for line in facts]
        return [*names, *found, *((line, NOTE, False, RED) for line in wrap(self.warning, room, NOTE))]


@dataclass(frozen=True, kw_only=True)
class Page:
    """A figure cut into panels; all lengths in inches, so nothing has to be measured to fit."""

    figure: Figure
    panels: list[Axes]
    columns: int
    size: tuple[float, float]
    head: list[float]

    def title_height(self, index: int) -> float:
        """Points above a panel of the middle of its title."""
        return self.head[index // self.columns] * 72 - LINE_POINTS + 4.5

    def bottom_row(self, index: int) -> bool:
        return index + self.columns >= len(self.panels)

    def left_column(self, index: int) -> bool:
        return index % self.columns == 0


Y_LABEL = 8.5
"""Points of what stands along y."""


def left_room(numbers: float, label: str) -> float:
    """Inches left of a panel for numbers at ticks that are so many inches wide, and for a label, which may take two
    lines."""
    lines = 2 if width_of(label, Y_LABEL) > SHORTEST else 1
    return 0.2 + numbers + 0.155 * lines


def y_label(ax: Axes, text: str, height: float, *, beyond: float = 0.0) -> None:
    """Name what is shown along y, in two lines or smaller letters where one would be longer than the panel; `beyond`
    inches further to the left than the numbers at the ticks ask for."""
    lines = wrap(text, height, Y_LABEL, most=2)
    size = Y_LABEL
    if "…" in "".join(lines):
        lines = [text]
        size = max(Y_LABEL * height / width_of(text, Y_LABEL), 5.0)
    ax.set_ylabel("\n".join(lines), fontsize=size, linespacing=1.1, labelpad=4 + 72 * max(beyond, 0.0))


SHORTEST = 1.3
"""Inches: no panel is lower."""
NARROWEST = 1.5
"""Inches of a panel in a figure whose width is given; there are fewer columns where they would be narrower."""


def page(
    heads: Sequence[Head],
    title: str,
    subtitle: str,
    sheet: Sheet,
    *,
    columns: int,
    panel: tuple[float, float] = (3.3, 2.35),
    legend: Sequence[Artist] = (),
    left: float = 0.62,
    right: float = 0.2,
    gap: tuple[float, float] = (0.55, 0.36),
    below: float = 0.0,
    tall: bool = False,
) -> Page:
    """A panel per head in rows of `columns` below a title and `subtitle`, which is wrapped.

    `left` and `right` are the room beside the panels, `gap` that between them, `below` more room for names at the ticks
    below each. Where the width of the sheet is given
    the panels are narrowed to it and keep their shape, or with `tall` their height.
    """
    if sheet.width is not None:
        widths = {n: (sheet.width - left - right - (n - 1) * gap[0]) / n for n in range(1, columns + 1)}
        columns = max((n for n, width in widths.items() if width >= NARROWEST), default=1)
        wide = max(widths[columns], 0.5)
        panel = (wide, panel[1] if tall else max(min(panel[1], wide * panel[1] / panel[0]), SHORTEST))
    rows = math.ceil(len(heads) / columns)
    width = left + columns * panel[0] + (columns - 1) * gap[0] + right
    above = [head.lines(panel[0] + 0.1) for head in heads]
    counts = [max(map(len, above[row * columns : (row + 1) * columns])) for row in range(rows)]
    head = [0.08 + count * LINE_POINTS / 72 for count in counts]  # names of one row stand equally high
    # Long enough to tell dashed from dotted on both sides of a marker.
    handle = 4.6 if any(_marked_dashes(one) for one in legend) else 2.8
    legend = _wrapped(legend, width, handle)
    across, down = _legend_grid(legend, width, handle)
    title_lines, subtitle_lines = _heading_lines(title, subtitle, width - 0.4) if sheet.titled else ([], [])
    top = _heading_height(title_lines, subtitle_lines)
    bottom = 0.55 + below + 0.19 * down
    gap = (gap[0], gap[1] + below)
    height = top + sum(head) + rows * panel[1] + (rows - 1) * gap[1] + bottom
    figure = Drawing(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    panels = []
    for index, lines in enumerate(above):
        row, column = divmod(index, columns)
        x = left + column * (panel[0] + gap[0])
        y = height - top - sum(head[: row + 1]) - (row + 1) * panel[1] - row * gap[1]
        ax = figure.add_axes((x / width, y / height, panel[0] / width, panel[1] / height))
        light_grid(ax)
        panels.append(ax)
        _write(ax, lines, heads[index].aside, head[row])
    if legend:
        corner = (0.12 / width, 0.02 / height)
        figure.legend(
            handles=list(legend), loc="lower left", bbox_to_anchor=corner, ncols=across, columnspacing=1.4,
            handlelength=handle,
        )  # fmt: skip
    _heading(figure, title_lines, subtitle_lines)
    return Page(figure=figure, panels=panels, columns=columns, size=panel, head=head)


def _write(ax: Axes, lines: Sequence[tuple[str, float, bool, str]], aside: str, head: float) -> None:
    """The lines of a head, from the top of its room down, so that the names of all panels stand equally high."""
    top = head * 72 - LINE_POINTS + 1
    if aside:
        note(ax, aside, (1, 1), (0, top), xycoords="axes fraction", size=NOTE, color=GREY, ha="right")
    for number, (text, size, bold, ink) in enumerate(lines):
        lift, weight = (0, top - LINE_POINTS * number), "bold" if bold else "normal"
        note(ax, text, (0, 1), lift, xycoords="axes fraction", size=size, weight=weight, color=ink)


def _marked_dashes(handle: Artist) -> bool:
    return isinstance(handle, Line2D) and handle.get_marker() != "None" and handle.get_linestyle() not in ("-", "None")


def _wrapped(handles: Sequence[Artist], width: float, handle: float) -> list[Artist]:
    """The entries of a legend, with labels that fit a figure `width` inches wide."""
    room = width - 0.45 - handle * 8 / 72
    for one in handles:
        one.set_label("\n".join(wrap(str(one.get_label()), room, 8, most=2)))
    return list(handles)


def _legend_grid(handles: Sequence[Artist], width: float, handle: float) -> tuple[int, int]:
    """Columns of a legend below a figure `width` inches wide and lines of text in the longest one; what it draws of
    lines is `handle` letters long."""
    if not handles:
        return 0, 0
    longest = max(width_of(str(one.get_label()), 8) for one in handles) + 0.31 + handle * 8 / 72
    across = max(1, min(len(handles), int((width - 0.3) / longest)))
    lines = [str(one.get_label()).count("\n") + 1 for one in handles]
    return across, max(int(sum(column)) for column in np.array_split(lines, across))


def columns_for(count: int, widest: int = 4) -> int:
    """1, 2, 3 or 4 columns: as square as reads well."""
    return min(widest, count if count <= 3 else 2 if count == 4 else 3 if count <= 9 else 4)


def _heading_lines(title: str, subtitle: str, room: float) -> tuple[list[str], list[str]]:
    return wrap(title, room, 12, bold=True, most=2), [
        line for text in subtitle.split("\n") for line in wrap(text, room, 8.5)
    ]


def _heading_height(title: Sequence[str], subtitle: Sequence[str]) -> float:
    """Inches from the upper edge of a figure to the heads of its panels."""
    return 0.14 + 0.25 * len(title) + 0.165 * len(subtitle) + 0.05 * bool(title)


def _heading(figure: Figure, title: Sequence[str], subtitle: Sequence[str], *, left: float = 0.2) -> None:
    """Title and budget line at the top left."""
    width, height = figure.get_size_inches()
    for number, line in enumerate(title):
        figure.text(left / width, 1 - (0.14 + 0.25 * number) / height, line, size=12, weight="bold", va="top")
    for number, line in enumerate(subtitle):
        y = 1 - (0.14 + 0.25 * len(title) + 0.165 * number) / height
        figure.text(left / width, y, line, size=8.5, color=GREY, va="top")


def empty(title: str, subtitle: str) -> Figure:
    """A figure that only says why there is nothing to see."""
    figure = Drawing(figsize=(6.4, 1.2), dpi=DPI)
    FigureCanvasAgg(figure)
    _heading(figure, *_heading_lines(title, subtitle, 6.0))
    return figure


class Drawing(Figure):
    """A Figure that a notebook shows although pyplot, which would see to that, was not imported."""

    def _repr_png_(self) -> bytes:
        return rendered(self, "png")


def rendered(figure: Figure, kind: str, mark: str = "") -> bytes:
    """The figure as the bytes of a png, svg or pdf file, with `mark` in its metadata; the same for the same figure."""
    buffer = io.BytesIO()
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box is drawn in its place
        figure.savefig(buffer, format=kind, metadata={**METADATA[kind], **({MARKED_AS[kind]: mark} if mark else {})})
    data = buffer.getvalue()
    # Where the font is missing, one as wide: text in an SVG is text.
    return data.replace(b"font-family: 'DejaVu Sans'", FAMILIES) if kind == "svg" else data
