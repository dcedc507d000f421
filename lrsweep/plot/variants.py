"""Plots that were asked for with options (another metric, one optimizer, a width), drawn again when the tables changed:
the names of their files say what they show."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from lrsweep.errors import UsageError, printable
from lrsweep.plot import draw
from lrsweep.results import figures, tables
from lrsweep.results.figures import SUFFIX
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import Spec

AT = re.compile(r"final|best|mean|last_[1-9]\d*")
WIDTH = re.compile(r"(\d+(?:\.\d+)?)in")


def redraw(folder: Path, tell: Callable[[str], None]) -> list[Path]:
    """Draw again what is of older tables and return the paths; `tell` of files that the sweep no longer has a plot for.

    Raises StorageError.
    """
    paths: list[Path] = []
    stale = figures.outdated_variants(folder, tables.digest_of(folder))
    spec = read_resolved(folder / tables.SPEC) if stale else None
    columns = [str(name) for name in tables.read_curves(folder).columns] if stale else []
    for suffix, files in stale.items():
        sweep = _load(folder, suffix, spec, columns) if spec else None
        there = draw.names(sweep) if sweep and not draw.nothing(sweep.facts) else []
        for kind in sorted({kind for _, kind in files}):
            names = [name for name, its_kind in files if its_kind == kind and name in there]
            if sweep and names:
                paths += draw.draw_sweep(sweep, folder, (kind,), names)
        for name, kind in files:
            if name not in there:
                file = printable(f"{name}{suffix}.{kind}")
                tell(f"{file} is outdated, and this sweep no longer has that plot; delete it")
    return paths


def _load(folder: Path, suffix: str, spec: Spec, columns: list[str]) -> draw.SweepFigures | None:
    """The sweep as the files with this suffix show it; None where it has no such column or optimizer."""
    parts = suffix.split(SUFFIX)[1:]
    titled = parts[-1] != draw.UNTITLED
    parts = parts if titled else parts[:-1]
    size = WIDTH.fullmatch(parts[-1]) if parts else None
    parts = parts[:-1] if size else parts
    by_name = {draw.of_a_file(column): column for column in columns}
    metric = by_name.get(parts[0]) if parts else None
    parts = parts[1:] if metric else parts
    at = parts[0] if parts and AT.fullmatch(parts[0]) else None
    parts = parts[1:] if at else parts
    labels = {draw.of_a_file(optimizer.label): optimizer.label for optimizer in spec.optimizers}
    if not all(part in labels for part in parts):
        return None
    optimizers, width = [labels[part] for part in parts], float(size[1]) if size else None
    try:
        found = draw.load(folder, metric=metric, at=at, optimizers=optimizers, width=width, titled=titled)
    except UsageError:
        return None
    return found if found.suffix == suffix else None
