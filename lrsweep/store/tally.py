"""Which runs of a large sweep have a result, written down now and then while its journal grows: so that `status` of a
sweep that runs, or was killed, need not read the whole journal.

A cache and nothing else. It says which files of the journal it is of and up to where: the file that was being written
by the SHA-256 of its bytes so far, those before it by their size and the time of their last change, as in tables.json.
What was written since then is read from the journal. Where anything is not as it says, or not whole, it is passed over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

from lrsweep import __version__
from lrsweep.errors import StorageError
from lrsweep.run_result import Status
from lrsweep.store import atomic, journal, records
from lrsweep.store.records import DamagedError, PlanRecord, Told, VoidRecord

if TYPE_CHECKING:
    from lrsweep.store.journal import Journal, Replay

FILE = "tally.json"
"""In the journal's folder."""
LEAST_RUNS = 20_000
"""Results that are worth it; it is written anew after as many more, or a twentieth of all where that is more."""
_PART = 20
_ID = 16
"""Characters of the id of a run."""
_RUNS = re.compile(f"(?:[0-9a-f]{{{_ID}}})*")
_STATES = ("", *get_args(Status))
"""Of a run of the plan; "" without a result."""


class _UnfitError(Exception):
    """A tally is of another version, another journal or another state of it."""


class Tally:
    """That of the sweep which this process trains, of the plan with these `runs`."""

    def __init__(self, folder: Path, name: str, runs: Iterable[str], replay: Replay) -> None:
        """`replay` is of the journal as it was before any of them was trained."""
        self._path = folder / journal.FOLDER / FILE
        self._name = name
        self._states = {run: replay.entries[run].status if run in replay.entries else "" for run in runs}
        self._outside = replay.entries.keys() - self._states.keys()
        self._before = {file: [size, replay.changed[file]] for file, size in replay.sizes.items()}
        # Where results were thrown away, it takes the whole journal to know what another process may have kept of them.
        self._sound = not (replay.damage or replay.lost or replay.distrusted)
        self._count = sum(map(bool, self._states.values()))
        self._news = 0

    def take(self, records: Iterable[dict[str, Any]], writer: Journal) -> None:
        """Count what `writer` has just written."""
        for record in records:
            if record["kind"] == "outcome":
                self._news += 1
                if self._states.get(record["run"]) in ("", "failed"):
                    self._states[record["run"]] = record["status"]
            elif record["kind"] == "void":
                self._sound = False
        if self._news >= max(LEAST_RUNS, self._count // _PART):
            self.save(writer)

    def save(self, writer: Journal) -> None:
        """Write down what was counted, if there is enough of it. What hinders that costs time later, and no result."""
        if not self._news or not self._sound or writer.path is None:
            return
        self._count, self._news = sum(map(bool, self._states.values())), 0
        if self._count < LEAST_RUNS:
            return
        runs: dict[str, list[str]] = {state: [] for state in _STATES}
        for run, state in self._states.items():
            runs[state].append(run)
        content = {
            "lrsweep": __version__,
            "name": self._name,
            "before": {file: state for file, state in self._before.items() if file != writer.path.name},
            "file": writer.path.name,
            "size": writer.size,
            "sha256": writer.sha256(),
            "outside": len(self._outside),
            "runs": {state: "".join(some) for state, some in runs.items()},
        }
        line = json.dumps(content).encode()
        with suppress(StorageError):
            atomic.replace(self._path, line + b"\n" + hashlib.sha256(line).hexdigest().encode())


def counts(folder: Path, *, running: bool) -> tuple[str, dict[str, int]] | None:
    """The name of the sweep in `folder` and the runs of its plan by status, with their `total`, and those `outside` of
    it; None where only the journal can tell. `running`: a line at its end may not be whole yet.

    Raises StorageError for a journal that cannot be read.
    """
    try:
        found = _read(folder / journal.FOLDER / FILE)
        news = _since(folder, found, running=running)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, _UnfitError):
        return None
    texts: dict[str, str] = found["runs"]
    number = Counter({state: len(texts[state]) // _ID for state in _STATES})
    if news:
        if not news.keys() <= {run for text in texts.values() for run in _ids(text)}:
            return None
        unsettled = {run: state for state in ("", "failed") for run in _ids(texts[state]) if run in news}
        number.subtract(unsettled.values())
        number.update(news[run] for run in unsettled)
    by_status = {status: number[status] for status in get_args(Status)}
    return found["name"], {"total": number.total(), **by_status, "outside": found["outside"]}


def _read(path: Path) -> dict[str, Any]:
    """What `save` wrote. Raises what comes of reading anything else."""
    line, _, digest = path.read_bytes().partition(b"\n")
    if digest != hashlib.sha256(line).hexdigest().encode():
        raise _UnfitError
    found: dict[str, Any] = json.loads(line)
    types = {"name": str, "before": dict, "file": str, "size": int, "sha256": str, "outside": int, "runs": dict}
    if found["lrsweep"] != __version__ or any(type(found[key]) is not kind for key, kind in types.items()):
        raise _UnfitError
    if found["runs"].keys() != set(_STATES) or not all(map(_RUNS.fullmatch, found["runs"].values())):
        raise _UnfitError
    return found


def _ids(text: str) -> Iterator[str]:
    return (text[first : first + _ID] for first in range(0, len(text), _ID))


def _since(folder: Path, found: dict[str, Any], *, running: bool) -> dict[str, Status]:
    """The results in the journal that the tally does not know of. Raises _UnfitError where it is not of this journal,
    or what was written since then changes more than the results of runs."""
    paths = journal.paths(folder)
    known = [*found["before"], found["file"]]
    if {path.name for path in paths[: len(known)]} != set(known) or paths[len(known) - 1].name != found["file"]:
        raise _UnfitError
    for path in paths[: len(known) - 1]:
        stat = path.stat()
        if [stat.st_size, stat.st_mtime_ns] != found["before"][path.name]:
            raise _UnfitError
    news: dict[str, Status] = {}
    for path in paths[len(known) - 1 :]:
        with path.open("rb") as stream:
            if path.name == found["file"]:
                _check_begin(stream, found["size"], found["sha256"])
            for line in stream:
                if running and not line.endswith(b"\n"):
                    break
                _take(news, line)
    return news


def _check_begin(stream: BinaryIO, size: int, sha256: str) -> None:
    """Go to the end of what is known of a file. Raises _UnfitError where it was changed."""
    digest, left = hashlib.sha256(), size
    while left and (data := stream.read(min(left, 1 << 20))):
        digest.update(data)
        left -= len(data)
    if left or digest.hexdigest() != sha256:
        raise _UnfitError


def _take(news: dict[str, Status], line: bytes) -> None:
    """Raises _UnfitError."""
    try:
        record = records.decode(line)
    except DamagedError as error:
        raise _UnfitError from error
    if isinstance(record, PlanRecord | VoidRecord):
        raise _UnfitError
    if isinstance(record, Told) and news.get(record.run, "failed") == "failed":
        news[record.run] = record.status
