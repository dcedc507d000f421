"""Finished pictures and a finished report, as bytes and text, and how they get into the folder of their sweep.

Each carries a mark: a hash of the tables it was made from and of what it shows of them. One with another mark is
outdated, however it came to be left: a process that was killed, a full disk, a slower one that came late.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lrsweep.store import atomic, foreign

REPORT = "report.html"
FORMATS = ("png", "svg", "pdf")
OBJECTIVE = "objective"
_MARK = re.compile(rb"lrsweep-tables-([0-9a-f]{64})-(objective|[0-9a-f]{16})")

CAPTIONS = {
    "u_curve": (
        "Objective against learning rate: the line is the median over seeds. What diverged, "
        "failed or lies off the scale stands on rows of its own beyond the worse end of the axis."
    ),
    "u_curve_overlay": "The median curves together.",
    "u_curve_aligned": "The same curves against lr / best lr: how costly is a 3x error?",
    "loss_curves": (
        "Loss during training at up to seven learning rates with their names, the others faint; a cross marks where a "
        "run diverged. Dashed: the training loss at the best learning rate."
    ),
    "sensitivity": "Sensitivity with its interval, the good range, and the cost of the default learning rate.",
    "time_to_target": "Steps to the target: large learning rates get there sooner, small ones may end lower.",
    "best_lr_drift": "How the best learning rate moves with the budget or an axis, in decades of lr per decade.",
    "by_axis": (
        "The metric, the curves during training, the steps to the target and the spread over seeds against the axis."
    ),
    "lr_schedule": "The learning rate in use during training, at the best learning rate.",
    "heatmap": "Learning rate against the axis; stars are the best learning rates, outlines the good ranges.",
}
"""By name of the picture; those of heatmaps go on with their axis."""
SUFFIX = "__"
"""Begins what follows the name of a picture in that of a file which shows something else than the objective."""
FORMER = ("loss_curves_zoom",)
"""Pictures of earlier versions, which are removed."""


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


def mark(fingerprint: str, shows: Mapping[str, str] | None = None) -> str:
    """What a figure of the tables with this `fingerprint` carries; `shows` (metric, at, mode) is what it shows if that
    is not the objective."""
    what = hashlib.sha256(json.dumps(shows, sort_keys=True).encode()).hexdigest()[:16] if shows else OBJECTIVE
    return f"lrsweep-tables-{fingerprint}-{what}"


def save(
    pictures: Sequence[Rendered], folder: Path, formats: Sequence[str], *, suffix: str = "", some: bool = False
) -> list[Path]:
    """Write all pictures of a sweep and return their paths; one that the sweep no longer has is removed.

    `suffix` ends the names of files that show something else than the whole sweep by its objective; these, and `some`
    pictures alone, remove none. Raises StorageError.
    """
    paths = {folder / f"{one.name}{suffix}.{kind}": one.files[kind] for one in pictures for kind in formats}
    for path, data in paths.items():
        atomic.replace(path, data)
    for path in _pictures(folder, formats):
        if path not in paths and not suffix and not some:
            with atomic.storage_errors(path, "remove"):
                path.unlink(missing_ok=True)
    return list(paths)


def outdated(folder: Path, fingerprint: str) -> tuple[str, ...]:
    """The formats in which a picture of the sweep in `folder` is of other tables than those with this fingerprint.

    A png that shows something else than the objective is outdated too: `run` draws those. Raises StorageError.
    """
    found = {path: _mark(path) for path in _pictures(folder, FORMATS)}
    wanted = {kind: (fingerprint, OBJECTIVE) if kind == "png" else (fingerprint,) for kind in FORMATS}
    return tuple(
        kind
        for kind, parts in wanted.items()
        if any(path.suffix[1:] == kind and found[path][: len(parts)] != parts for path in found)
    )


def outdated_variants(folder: Path, fingerprint: str) -> dict[str, list[tuple[str, str]]]:
    """Name and format of each plot that shows something else than the objective, by its suffix, if it is of other
    tables than those with this fingerprint. Files without our mark are the user's. Raises StorageError."""
    found: dict[str, list[tuple[str, str]]] = {}
    for path in sorted(folder.glob(f"*{SUFFIX}*.*")):
        name, between, rest = path.stem.partition(SUFFIX)
        kind, suffix = path.suffix[1:], between + rest
        if kind in FORMATS and _is_ours(name):
            parts = _mark(path)
            if parts and parts[0] != fingerprint and mark(parts[0], {"as": suffix}).endswith(parts[1]):
                found.setdefault(suffix, []).append((name, kind))
    return found


def report_is_current(folder: Path, fingerprint: str) -> bool:
    """Whether there is a report of the tables with this fingerprint. Raises StorageError."""
    return _mark(folder / REPORT) == (fingerprint, OBJECTIVE)


def _pictures(folder: Path, formats: Sequence[str]) -> list[Path]:
    return [path for path in folder.glob("*.*") if path.suffix[1:] in formats and _is_ours(path.stem)]


def _mark(path: Path) -> tuple[str, ...]:
    """Fingerprint and what is shown, by the first mark in the file: the pictures in a report carry theirs too."""
    if path.is_symlink() or not path.is_file():
        return ()
    with atomic.storage_errors(path, "read"):
        found = _MARK.search(path.read_bytes())
    return tuple(part.decode() for part in found.groups()) if found else ()


def save_report(report: Report, folder: Path, formats: Sequence[str]) -> Path:
    """Write the report, and its pictures as files of these formats beside it. Raises StorageError."""
    save(report.pictures, folder, formats)
    foreign.keep(folder / REPORT, lambda head: b"lrsweep" in head or b"learning-rate sensitivity</title>" in head)
    atomic.replace(folder / REPORT, report.text)
    return folder / REPORT


def _is_ours(name: str) -> bool:
    if SUFFIX in name:
        return False  # it was asked for by name, and is the user's to keep
    return (
        name in CAPTIONS
        or name in FORMER
        or re.match(r"(heatmap|by)_(task|model|optimizers|schedule|train)\b", name) is not None
    )
