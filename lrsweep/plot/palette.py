"""Drawings with few colours: a quarter of the size, and no difference to be seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels: TypeAlias = npt.NDArray[np.uint8]
WHITE = 0xFFFFFF
PART = 256
"""Colours in one product of matrices: a large one starts threads that wait busily, on cores that have pictures to draw.
"""


def reduced(pixels: Pixels, kept: Sequence[str]) -> Image.Image:
    """RGB `pixels` (height, width, 3) as an image of 256 colours at most, each pixel in the nearest of them.

    The colours `kept` (`#C1121F`) are among them, or a few red crosses among thousands of other dots lose their red.
    """
    fixed = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in kept])
    packed = pixels.reshape(-1, 3).astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    table = np.concatenate([fixed, _median_cut(pixels.reshape(-1, 3), packed, 256 - len(kept))])[:256]
    # A drawing is long runs of one colour.
    starts = np.flatnonzero(np.diff(packed, prepend=-1))
    colors, places = np.unique(packed[starts], return_inverse=True)
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1)
    nearest = np.concatenate([_nearest(part, table) for part in np.split(rgb, range(PART, len(rgb), PART))])
    lengths = np.diff(starts, append=len(packed))
    image = Image.fromarray(np.repeat(nearest[places], lengths).reshape(pixels.shape[:2]), mode="P")
    image.putpalette(table.astype(np.uint8).tobytes())
    return image


def _nearest(colors: npt.NDArray[np.int32], table: npt.NDArray[np.int_]) -> Pixels:
    """The place in `table` of the colour next to each of `colors`, at most PART of them."""
    # |a - b|^2 less |a|^2, which is the same for every b; whole numbers below 2^24, so float32 is exact.
    products: npt.NDArray[np.float32] = colors.astype(np.float32) @ table.T.astype(np.float32)
    places: npt.NDArray[np.int_] = ((table**2).sum(axis=1).astype(np.float32) - 2 * products).argmin(axis=1)
    return places.astype(np.uint8)


def _median_cut(pixels: Pixels, packed: npt.NDArray[np.int32], count: int) -> npt.NDArray[np.int_]:
    """`count` colours for `pixels` in a row."""
    paper = packed == WHITE
    rest = pixels[~paper]
    if 2 * len(rest) < len(pixels) and paper[0]:
        # White outweighs all the rest, and so it does with one pixel more than that: the same cuts, made much sooner.
        pixels = np.concatenate([np.full((len(rest) + 1, 3), 255, dtype=np.uint8), rest])
    found = Image.fromarray(pixels[None]).quantize(count, method=Image.Quantize.MEDIANCUT).getpalette() or []
    return np.array(found, dtype=int).reshape(-1, 3)
