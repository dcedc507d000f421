"""Fewer colours: large areas as they are, the rest near, and each pixel in the nearest colour of the table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from lrsweep.plot.palette import COMMON, reduced

KEPT = ("#C1121F", "#0072B2")


def drawing(white: float) -> npt.NDArray[np.uint8]:
    """Noise of several thousand colours under a share of white paper."""
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (120, 150, 4), dtype=np.uint8)
    pixels[draws.random((120, 150)) < white] = 255
    pixels[:, :, 3] = 255
    return pixels


@pytest.mark.parametrize("white", [0.0, 0.3, 0.95, 0.99, 1.0])
def test_each_pixel_has_the_nearest_colour_of_a_table_with_those_that_are_kept(white: float) -> None:
    pixels = drawing(white)
    image = reduced(pixels, KEPT)
    table = np.reshape(image.getpalette() or [], (-1, 3))
    assert len(table) <= 256
    assert table[:2].tolist() == [[0xC1, 0x12, 0x1F], [0x00, 0x72, 0xB2]]
    distances = ((pixels[:, :, None, :3].astype(int) - table) ** 2).sum(axis=3)
    assert np.array_equal(np.asarray(image), distances.argmin(axis=2))
    # A ball of noise around each of 256 colours has a radius of 25, and no cut is as good.
    assert np.sqrt(distances.min(axis=2)).mean() < 35


def test_large_areas_keep_their_colour_beside_any_noise() -> None:
    pixels = drawing(0.5)
    areas = [(240, 240, 240 - number) for number in range(COMMON - 1)]  # hardly to be told apart
    for number, color in enumerate(areas):
        pixels[3 * number : 3 * number + 3, :30, :3] = color
    seen = np.asarray(reduced(pixels, KEPT).convert("RGB"))
    assert all((seen[3 * number, :30] == color).all() for number, color in enumerate(areas))


def test_few_colours_stay_as_they_are() -> None:
    pixels = drawing(1.0)
    pixels[:, :, 0] = np.arange(150)
    assert np.array_equal(np.asarray(reduced(pixels, KEPT).convert("RGB")), pixels[:, :, :3])
