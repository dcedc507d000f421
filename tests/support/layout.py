"""What is wrong with the texts and axes of a figure, as a reader would see it."""

from __future__ import annotations

import itertools
import re
import warnings

from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from lrsweep.plot import style

LONG_NAME = re.compile(r"sgd with|Nester|adam\(|decoup|weight_dec|ams\)")
"""What is in the labels of 60 characters, which may be shortened."""
OVERLAP = 2.0
"""Pixels by which two boxes may overlap: they are a little larger than the letters in them."""


Shown = list[tuple[str, Bbox]]
"""Texts, and where they are in pixels."""


def texts_of(figure: Figure) -> Shown:
    """Every text that is there."""
    with style.styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.draw_without_rendering()
        renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
        texts = [one for one in figure.findobj(Text) if one.get_visible() and one.get_text().strip()]  # type: ignore[attr-defined]
        shown = [(one.get_text(), one.get_window_extent(renderer)) for one in texts]  # type: ignore[attr-defined]
    return [(text, _ink(text, box)) for text, box in shown if box.width > 0]


def _ink(text: str, box: Bbox) -> Bbox:
    """Without the empty line at the top of a text that stands on the second one."""
    if not text.startswith("\n"):
        return box
    lines = text.count("\n") + 1
    return Bbox.from_extents(box.x0, box.y0, box.x1, box.y1 - box.height / lines)


def faults(figure: Figure) -> dict[str, object]:
    """All that is wrong, by kind."""
    texts = texts_of(figure)
    found = {
        "outside": outside(figure, texts),
        "overlaps": overlaps(texts),
        "cut": cut(texts),
        "repeated ticks": repeated_ticks(figure),
        "nameless axes": nameless_axes(figure),
    }
    return {kind: some for kind, some in found.items() if some}


def outside(figure: Figure, texts: Shown) -> list[str]:
    """Texts that stick out of the figure."""
    page = figure.bbox.padded(1)
    return [text for text, box in texts if not (page.contains(*box.p0) and page.contains(*box.p1))]


def overlaps(texts: Shown) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other."""
    inner = [(text, box.padded(-OVERLAP / 2)) for text, box in texts]
    return [(one, other) for (one, a), (other, b) in itertools.combinations(inner, 2) if a.width > 0 and a.overlaps(b)]


def cut(texts: Shown) -> list[str]:
    """Numbers that were cut: an ellipsis beside a digit, except in long names."""
    return [text for text, _ in texts if re.search(r"\d…|…\d", text) and not LONG_NAME.search(text)]


def repeated_ticks(figure: Figure) -> list[str]:
    """Names that stand at two ticks of one axis."""
    found = []
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            names = [label.get_text() for label in axis.get_majorticklabels() if label.get_text()]
            found += [name for name in names if names.count(name) > 1]
    return found


def nameless_axes(figure: Figure) -> list[str]:
    """Axes with fewer than two ticks that have a name, though they show more than one value."""
    found = []
    for number, ax in enumerate(figure.axes):
        names = [label.get_text() for label in ax.xaxis.get_majorticklabels() if label.get_text()]
        found += [f"x of panel {number}: {names}"] * (len(ax.get_xticks()) > 1 and len(names) < 2)
        names = [label.get_text() for label in ax.yaxis.get_majorticklabels() if label.get_text()]
        ticks = [tick for tick in ax.get_yticks() if ax.get_ylim()[0] <= tick <= ax.get_ylim()[1]]
        found += [f"y of panel {number}: {ticks}"] * (len(ticks) < 2 and bool(names))
    return found
