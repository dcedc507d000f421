"""Images as bytes (images, channels, height, width), all of one size."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Len, doc
from PIL import Image, ImageOps

from lrsweep.errors import WrongInSpec
from lrsweep.tasks import room
from lrsweep.tasks.columns import listed
from lrsweep.tasks.splits import Array

Pixels = Annotated[int, Ge(1)]
Size = Annotated[Pixels | Annotated[list[Pixels], Len(2, 2)], doc("an integer from 1, [height, width]")]

EIGHT_BITS = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or broken ones."""
SHOWN_NAMES = 5
"""How many images a message lists."""


def stacked(names: Sequence[str], opened: Callable[[int], Image.Image], size: Size | None, *, grayscale: bool) -> Array:
    """All images as RGB or gray levels; `opened(i)` gives the one that messages call `names[i]`.

    With `size`, each is cut to that shape around its center and resized (bilinear, averaging where it shrinks). Raises
    WrongInSpec with all that is wrong: images that cannot be read, with more than 8 bits, of different sizes.
    """
    height_width = None if size is None else (size, size) if isinstance(size, int) else (size[0], size[1])
    channels, made = 1 if grayscale else 3, None
    broken: list[str] = []
    deep: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    first: dict[tuple[int, int], str] = {}
    for i, name in enumerate(names):
        try:
            with warnings.catch_warnings(action="ignore"), opened(i) as read:  # of odd, but readable images
                if read.mode not in EIGHT_BITS:
                    deep.append(name)
                    continue
                image = read.convert("L" if grayscale else "RGB")
        except UNREADABLE:
            broken.append(name)
            continue
        shape = (image.height, image.width)
        sizes[shape] += 1
        first.setdefault(shape, name)
        if height_width is not None and shape != height_width:
            image = ImageOps.fit(image, height_width[::-1], method=Image.Resampling.BILINEAR)
            shape = height_width
        if made is None:
            _check_fits(len(names), channels, *shape)
            made = np.empty((len(names), channels, *shape), dtype=np.uint8)
        if shape == made.shape[2:]:
            made[i] = np.asarray(image).reshape(*shape, channels).transpose(2, 0, 1)
    wrong = [f"{_which(broken, 'cannot be read')}; repair or remove {_them(broken)}"] if broken else []
    if deep:
        more = "has more than 8 bits in a pixel" if len(deep) == 1 else "have more than 8 bits in a pixel"
        wrong.append(f"{_which(deep, more)}; convert {_them(deep)} to 8 bits")
    found = [(("task", "path"), text) for text in wrong]
    if height_width is None and len(sizes) > 1:
        two = " and ".join(f"{h}x{w} ({first[h, w]})" for (h, w), _ in sizes.most_common(2))
        usual = max(sizes, key=lambda shape: (sizes[shape], shape))[0]
        text = f"images of {len(sizes)} sizes, such as {two}; write size: {usual}, or size: [height, width]"
        found.append((("task", "size"), text))
    if found or made is None:
        raise WrongInSpec(*found)
    return made


def _which(names: Sequence[str], what: str) -> str:
    return f"{len(names)} image{'s' * (len(names) > 1)} {what}: {listed(names, SHOWN_NAMES)}"


def _them(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"


def _check_fits(count: int, channels: int, height: int, width: int) -> None:
    """Bytes of all images, and their numbers twice: together, and in splits."""
    each = channels * height * width * (2 + 2 * torch.get_default_dtype().itemsize)
    what = f"{count:,} images of {channels}x{height}x{width}"
    room.check("size", count * each, what, "use a smaller size, or fewer images")
