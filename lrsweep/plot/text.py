"""Texts in figures: how wide they are, and how they are wrapped or shortened so that none is cut."""

from __future__ import annotations

import bisect
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

from lrsweep.errors import printable

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power(exponent: int, mantissa: float = 1.0) -> str:
    """`10⁻³`, `2×10⁻³`."""
    raised = f"10{str(exponent).translate(_RAISED)}"
    return raised if mantissa == 1 else f"{mantissa:g}×{raised}"


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
    """Width in inches of the widest line of a text at `size` points."""
    return max(sum(_advance(character, bold) for character in line) for line in text.split("\n")) * size / 72


def fit(text: str, room: float, size: float, *, bold: bool = False) -> str:
    """The text if it fits `room` inches, else without its middle: the ends of a label tell labels apart."""
    text = " ".join(printable(text).split())
    if width_of(text, size, bold=bold) <= room:
        return text

    def cut(keep: int) -> str:
        head = keep * 2 // 3
        return f"{text[:head]}…{text[len(text) - (keep - head) :]}"

    # How many characters fit, by halves: a wider cut is never narrower.
    most = bisect.bisect_right(range(2, len(text)), room, key=lambda keep: width_of(cut(keep), size, bold=bold))
    return cut(most + 1) if most else "…"


def wrap(text: str, room: float, size: float, *, bold: bool = False, most: int = 3) -> list[str]:
    """The text in lines of `room` inches, broken at its spaces, at most so many; only a word that fits no line, and
    what would take more lines, is shortened."""
    words = [fit(word, room, size, bold=bold) for word in printable(text).split()]
    lines: list[str] = []
    for number, word in enumerate(words):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(longer, size, bold=bold) <= room:
            lines[-1] = longer
        elif len(lines) == most:
            lines[-1] = fit(" ".join([lines[-1], *words[number:]]), room, size, bold=bold)
            break
        else:
            lines.append(word)
    return lines
