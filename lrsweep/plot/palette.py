"""Drawings with few colours: a quarter of the size, and no difference to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]
COMMON = 40
"""So many of the colours that cover most stay as they are: fills, lines, text."""
SAMPLE = 40_000
"""Of at least half as many and at most so many places the other colours are chosen; the choice takes longest of all."""
PART = 256
"""Colours in one product of matrices: a large one starts threads that wait busily, on cores that have pictures to draw.
"""


def reduced(pixels: Pixels, kept: Sequence[str]) -> Image.Image:
    """RGBA `pixels` (height, width, 4), none of them transparent, as an image of 256 colours at most, each pixel in the
    nearest of them.

    The colours `kept` (`#C1121F`) are among them, or a few red crosses among thousands of other dots lose their red.
    """
    packed = np.ascontiguousarray(pixels).view("<u4").ravel()
    starts = np.flatnonzero(np.concatenate([[True], packed[1:] != packed[:-1]]))  # a drawing is long runs of one colour
    lengths = np.diff(starts, append=len(packed))
    colors, places = np.unique(packed[starts], return_inverse=True)
    rgb = np.stack([colors & 255, colors >> 8 & 255, colors >> 16 & 255], axis=1).astype(np.int32)
    fixed = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in kept])
    common = np.argsort(-np.bincount(places, weights=lengths), kind="stable")[:COMMON]
    rest = np.ones(len(rgb), dtype=bool)
    rest[common] = False
    # Of each run one pixel: many a colour of a thin line's edge would go under beside the large areas.
    others = rgb[places[rest[places]]].astype(np.uint8)
    table = np.concatenate([fixed, rgb[common], _median_cut(others, 256 - len(kept) - len(common))])
    nearest = np.concatenate([_nearest(part, table) for part in np.split(rgb, range(PART, len(rgb), PART))])
    image = Image.fromarray(np.repeat(nearest[places], lengths).reshape(pixels.shape[:2]), mode="P")
    image.putpalette(table.astype(np.uint8).tobytes())
    return image


def _nearest(colors: npt.NDArray[np.int32], table: npt.NDArray[np.int_]) -> Pixels:
    """The place in `table` of the colour next to each of `colors`, at most PART of them."""
    # |a - b|^2 less |a|^2, which is the same for every b; whole numbers below 2^24, so float32 is exact.
    products: npt.NDArray[np.float32] = colors.astype(np.float32) @ table.T.astype(np.float32)
    places: npt.NDArray[np.int_] = ((table**2).sum(axis=1).astype(np.float32) - 2 * products).argmin(axis=1)
    return places.astype(np.uint8)


def _median_cut(colors: Pixels, count: int) -> npt.NDArray[np.int_]:
    """`count` colours at most for `colors` (places, 3)."""
    sample = colors[:: len(colors) // SAMPLE + 1]
    if not len(sample):
        return np.empty((0, 3), dtype=int)
    found = Image.fromarray(sample[None]).quantize(count, method=Image.Quantize.MEDIANCUT).getpalette() or []
    return np.array(found, dtype=int).reshape(-1, 3)[:count]
