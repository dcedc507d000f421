"""`image_folder`: a folder of images for each class, read with Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from lrsweep.errors import WrongInSpec
from lrsweep.system.digests import files_below
from lrsweep.tasks.columns import abridged, listed
from lrsweep.tasks.images import SHOWN_NAMES, Size, stacked
from lrsweep.tasks.splits import SPLITS, Array, Table, table_task

ENDINGS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Those of torchvision's ImageFolder."""


@table_task()
def image_folder(
    *,
    path: str,
    size: Size | None = None,
    grayscale: bool = False,
) -> Table:
    """A folder of images per class, as for torchvision's ImageFolder: path/cat/1.png, path/dog/a/2.jpg.

    Folders below `path` are the classes, in sorted order; their images (bmp, jpg, pgm, png, ppm, tif, webp) are read in
    sorted order, those in folders below too. Hidden files and folders do not count.
    Where `path` holds nothing but the folders train, val (or valid, validation) and test, with the classes below each,
    these are the splits; without val/ a share of train is taken for it. Classes are those of train.
    `size: 32` or `size: [height, width]` cuts each image to that shape around its center and resizes it; without it all
    must be of one size. Pixels are RGB from 0 to 1, or gray with `grayscale: true`, and standardized per channel.
    As in torchvision, the orientation that EXIF data give is not applied.
    """
    root = Path(path)
    splits = _split_folders(root)
    classes = _classes(splits["train"])
    files: list[tuple[Path, int]] = []
    rows: dict[str, Array] = {}
    found: list[str] = []
    left_out: list[Path] = []
    for name, folder in splits.items():
        start = len(files)
        for label in _classes(folder):
            images, others = _images(folder / label)
            left_out += others
            if label not in classes:
                found.append(f"{folder / label}: there is no class {label!r} in {splits['train']}")
            elif not images:
                found.append(f"{folder / label}: holds no images ({', '.join(ENDINGS)})")
            files += [(image, classes.index(label)) for image in images if label in classes]
        rows[name] = np.arange(start, len(files))
        left_out += [entry for entry in _visible(folder) if not entry.is_dir()]
    if len(classes) < 2:
        there = f"only {classes[0]}" if classes else "none"
        found.append(f"{splits['train']}: a folder for each class is needed; there is {there}")
    if found:
        raise WrongInSpec(*abridged([(("task", "path"), text) for text in found]))
    pixels = stacked([str(file) for file, _ in files], lambda i: Image.open(files[i][0]), size, grayscale=grayscale)
    unused = []
    if left_out:
        which = (
            "1 file that is not an image is" if len(left_out) == 1 else f"{len(left_out)} files that are not images are"
        )
        unused = [f"{which} not used: {listed(map(str, left_out), SHOWN_NAMES)}"]
    return Table(
        inputs=pixels,
        target=np.array([label for _, label in files]),
        kind="classification",
        classes=len(classes),
        splits=None if splits["train"] == root else rows,
        notes={"classes": classes, "warnings": unused},
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _classes(folder: Path) -> list[str]:
    return [entry.name for entry in _visible(folder) if entry.is_dir()]


def _split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split, or of all data under `train`."""
    names = _classes(root)
    if not names:
        raise WrongInSpec((("task", "path"), f"{root}: holds no folders; one for each class is needed"))
    if "train" not in names or not set(names) <= SPLITS.keys():
        return {"train": root}
    found: dict[str, Path] = {}
    for name in sorted(names, key=list(SPLITS).index):
        if SPLITS[name] in found:
            wrong = f"{root}: both {found[SPLITS[name]].name}/ and {name}/ are the {SPLITS[name]} split; remove one"
            raise WrongInSpec((("task", "path"), wrong))
        found[SPLITS[name]] = root / name
    return found


def _images(folder: Path) -> tuple[list[Path], list[Path]]:
    """The images below a folder, folder by folder in sorted order, and the files that are none."""
    files = sorted(files_below(folder), key=lambda file: (str(file.parent), file.name))
    images = [file for file in files if file.name.lower().endswith(ENDINGS)]
    return images, [file for file in files if not file.name.lower().endswith(ENDINGS)]
