"""Drawings with few colours: a quarter of the size, and no difference to be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image


def reduced(pixels: npt.NDArray[np.uint8], kept: Sequence[str]) -> Image.Image:
    """RGB `pixels` (height, width, 3) as an image of 256 colours at most, each pixel in the nearest of them.

    The colours `kept` (`#C1121F`) are among them, or a few red crosses among thousands of other dots lose their red.
    """
    fixed = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in kept])
    found = Image.fromarray(pixels).quantize(256 - len(kept), method=Image.Quantize.MEDIANCUT).getpalette() or []
    table = np.concatenate([fixed, np.array(found, dtype=int).reshape(-1, 3)])[:256]
    packed = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    colors, places = np.unique(packed.ravel(), return_inverse=True)
    rgb = np.stack([colors >> 16, colors >> 8 & 255, colors & 255], axis=1)
    # |a - b|^2 less |a|^2, which is the same for every b
    nearest = np.argmin((table**2).sum(axis=1) - 2 * (rgb @ table.T), axis=1).astype(np.uint8)
    image = Image.fromarray(nearest[places].reshape(packed.shape), mode="P")
    image.putpalette(table.astype(np.uint8).tobytes())
    return image
