"""Finished pictures and a finished report, as bytes and text, and how they get into the folder of their sweep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrsweep.results import manifest
from lrsweep.store import atomic

REPORT = "report.html"

CAPTIONS = {
    "u_curve": (
        "Objective against learning rate: one dot per seed, the line is the median. Crosses along "
        "the edge are diverged runs."
    ),
    "u_curve_overlay": "The median curves on one axis; the dotted line is Adam at its default learning rate.",
    "u_curve_aligned": "The same curves against lr / best lr: how costly is a 3x error?",
    "loss_curves": (
        "Every run; color is the learning rate, a black edge marks the best one, a cross marks where a run diverged."
    ),
    "loss_curves_zoom": (
        "The best learning rate and those closest to 2, 5 and 10 times it; dotted lines are the training loss."
    ),
    "sensitivity": (
        "Sensitivity, width of the good range, and the cost of the default, median and worst learning rate of the grid."
    ),
    "time_to_target": (
        "Final objective, steps to target and performance profile: larger learning rates get "
        "there sooner, smaller ones may end lower."
    ),
    "best_lr_drift": "How the best learning rate moves with the budget or an axis, in decades of lr per decade.",
    "heatmap": "Learning rate against the axis; the line joins the best learning rates.",
}
"""By name of the picture; those of heatmaps go on with their axis."""


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A picture as the bytes of files, by format: the stem of their name, a caption, and what it shows for those who
    cannot see it."""

    name: str
    caption: str
    alt: str
    files: dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Report:
    """`report.html` and the pictures in it."""

    text: str
    pictures: list[Rendered]


def save(
    pictures: Sequence[Rendered], folder: Path, formats: Sequence[str], shows: dict[str, str] | None = None
) -> list[Path]:
    """Write all pictures of a sweep and return their paths; one that the sweep no longer has is removed.

    `shows` (metric, at, mode) is what pngs show if it is not the objective; the manifest keeps it, see `show_another`.

    Raises StorageError.
    """
    paths = {folder / f"{one.name}.{kind}": one.files[kind] for one in pictures for kind in formats}
    if "png" in formats and shows is not None:
        manifest.note_figures(folder, shows)
    for path, data in paths.items():
        atomic.replace(path, data)
    for path in folder.glob("*.*"):
        if path.suffix[1:] in formats and path not in paths and _is_ours(path.stem):
            with atomic.storage_errors(path, "remove"):
                path.unlink(missing_ok=True)
    if "png" in formats and shows is None:
        manifest.note_figures(folder, None)  # last: after a crash the pngs are drawn again
    return list(paths)


def show_another(folder: Path) -> bool:
    """Whether pngs of the sweep in `folder` show something else than its objective (`lrsweep plot --metric`)."""
    return "figures" in manifest.read(folder)


def save_report(report: Report, folder: Path, formats: Sequence[str]) -> Path:
    """Write the report, and its pictures as files of these formats beside it. Raises StorageError."""
    save(report.pictures, folder, formats)
    atomic.replace(folder / REPORT, report.text)
    return folder / REPORT


def _is_ours(name: str) -> bool:
    return name in CAPTIONS or re.match(r"heatmap_(task|model|optimizers|schedule|train)\b", name) is not None
