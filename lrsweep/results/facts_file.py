"""The facts of a large sweep, kept beside its journal so that plots and report need not analyse its tables again.

A cache and nothing else: a file that is missing, damaged, from another version or of other tables is passed over, and
the tables are analysed. It is JSON whose every value is checked against the types in facts.py, for results folders come
from anywhere: the fingerprint of the tables, then the facts without their rows, then each row, then the SHA-256 of
these lines. nan and infinities are written so. Facts that do not give `summary.csv` again were altered.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import BinaryIO

from pydantic import ConfigDict, TypeAdapter, ValidationError

from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
from lrsweep.analysis.summary import summary_rows
from lrsweep.errors import StorageError
from lrsweep.results import run_tables, tables
from lrsweep.store import atomic, journal
from lrsweep.system.digests import of_file

FILE = "facts.json"
"""In the journal's folder."""
LEAST_RUNS = 5000
"""Of a sweep that is worth it: the analysis of fewer runs takes a second or two."""
_LONGEST_LINE = 1 << 30
"""In bytes; no row of a million runs is longer."""


def write(folder: Path, fingerprint: str, facts: SweepFacts) -> None:
    """Keep the facts of the tables with this fingerprint, where there are enough runs; what is there of others goes."""
    path = folder / journal.FOLDER / FILE
    if facts.n_runs < LEAST_RUNS:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        return
    with suppress(StorageError), atomic.replacing(path) as stream:
        digest = hashlib.sha256()
        for line in _lines(fingerprint, facts):
            digest.update(line)
            stream.write(line)
        stream.write(digest.hexdigest().encode())


def read(folder: Path, fingerprint: str) -> SweepFacts | None:
    """The facts of the tables with this fingerprint; None if they were not kept, or not whole."""
    with suppress(OSError, ValidationError, ValueError), (folder / journal.FOLDER / FILE).open("rb") as stream:
        facts = _read(stream, fingerprint)
        return facts if facts is not None and _gives(facts, folder / tables.SUMMARY) else None
    return None


def _gives(facts: SweepFacts, summary: Path) -> bool:
    """Do the facts give this table to the byte?"""
    digest = hashlib.sha256()
    for line in run_tables.frame_lines(*summary_rows(facts)):
        digest.update(line.encode())
    return digest.hexdigest() == of_file(summary)


def _lines(fingerprint: str, facts: SweepFacts) -> Iterator[bytes]:
    yield fingerprint.encode() + b"\n"
    yield _sweeps().dump_json((replace(facts, rows=()),)) + b"\n"
    for row in facts.rows:
        yield _rows().dump_json((row,)) + b"\n"


def _read(stream: BinaryIO, fingerprint: str) -> SweepFacts | None:
    """Raises ValidationError or ValueError for what is no such file."""
    first = stream.readline(_LONGEST_LINE)
    if first != fingerprint.encode() + b"\n":
        return None
    digest = hashlib.sha256(first)
    facts: SweepFacts | None = None
    rows: list[OptimizerFacts] = []
    while (line := stream.readline(_LONGEST_LINE)).endswith(b"\n"):
        digest.update(line)
        if facts is None:
            (facts,) = _sweeps().validate_json(line)
        else:
            rows += _rows().validate_json(line)
    if facts is None or line != digest.hexdigest().encode():
        return None
    return replace(facts, rows=tuple(rows))


_EXACT = ConfigDict(strict=True, extra="forbid", ser_json_inf_nan="constants")


@cache
def _sweeps() -> TypeAdapter[tuple[SweepFacts]]:
    """Of a tuple, since the config of a lone dataclass cannot be given here."""
    return TypeAdapter(tuple[SweepFacts], config=_EXACT)


@cache
def _rows() -> TypeAdapter[tuple[OptimizerFacts]]:
    return TypeAdapter(tuple[OptimizerFacts], config=_EXACT)
