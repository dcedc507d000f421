"""Fewer colours: those of Pillow's median cut over the whole picture, and each pixel the nearest of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from lrsweep.plot.palette import reduced

KEPT = ("#C1121F", "#0072B2")


def drawing(white: float) -> npt.NDArray[np.uint8]:
    """Noise of several thousand colours under a share of white paper, the corner white as in every picture."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (120, 150, 3), dtype=np.uint8)
    pixels[draws.random((120, 150)) < white] = 255
    pixels[0, 0] = 255
    return pixels


@pytest.mark.parametrize("white", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_colours_are_those_of_the_whole_picture(white: float) -> None:
    pixels = drawing(white)
    image = reduced(pixels, KEPT)
    cut = Image.fromarray(pixels).quantize(256 - len(KEPT), method=Image.Quantize.MEDIANCUT).getpalette()
    assert cut is not None
    table = np.array([[0xC1, 0x12, 0x1F], [0x00, 0x72, 0xB2], *np.reshape(cut, (-1, 3))])[:256]
    assert image.getpalette() == table.ravel().tolist()
    distances = ((pixels[:, :, None, :].astype(int) - table) ** 2).sum(axis=3)
    assert np.array_equal(np.asarray(image), distances.argmin(axis=2))
