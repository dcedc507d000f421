"""Texts in figures: how wide they are, and how they are wrapped or shortened so that none is cut."""

from __future__ import annotations

import bisect
import re
from functools import lru_cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ft2font import FT2Font

from lrsweep.errors import printable

_BREAKS = re.compile(r"(?<=[(,=_/])")
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
    """The text in lines of `room` inches, at most so many. It is broken at ` · ` where its parts fit a line each, else
    at spaces, and a word that fits no line behind its punctuation; only what is longer still is shortened."""

    def fits(some: str) -> bool:
        return width_of(some, size, bold=bold) <= room

    text = " ".join(printable(text).split())
    if not text:
        return []
    parts = [f"{part} ·" for part in text.split(" · ")]
    parts[-1] = parts[-1].removesuffix(" ·")
    words = parts if all(map(fits, parts)) else text.split()
    pieces: list[tuple[str, str]] = []  # what stands before each in a line, and itself
    for word in words:
        broken = [word] if fits(word) else [one for one in _BREAKS.split(word) if one]
        pieces += [("" if number else " ", fit(one, room, size, bold=bold)) for number, one in enumerate(broken)]
    lines: list[str] = []
    for number, (space, piece) in enumerate(pieces):
        longer = f"{lines[-1]}{space}{piece}" if lines else piece
        if lines and fits(longer):
            lines[-1] = longer
        elif len(lines) == most:
            rest = "".join(f"{before}{one}" for before, one in pieces[number:])
            lines[-1] = fit(lines[-1] + rest, room, size, bold=bold)
            break
        else:
            lines.append(piece)
    return [line.removesuffix(" ·") for line in lines]
