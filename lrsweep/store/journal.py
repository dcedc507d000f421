"""The append-only journal of a sweep: the only truth about what was trained.

Every writing process has a file of its own, `journal/<host>-<pid>-<start>.jsonl`, so writing needs no lock and a torn
tail is never appended to. Its header says how many files, and bytes, there were before it: so files count in the order
in which they were begun, whatever the clock says, and one that is gone is missed. records.py says what a line is.

Records, by `kind`: `header` (format, version, host, which file this is), `plan` (the spec as text and what the tables
need besides), `groups` (which runs train together, on which engine), `outcome` (one run; its curve is the last key, so
that replay reads the rest alone), `checkpoint` (a file from which a group goes on). A line that cannot be read is
skipped, copied to `<file>.corrupt` and reported; what it said is trained again. `plan`, `groups` and `void` (results
that were thrown away) are written twice for that reason.

Several writers. Files of two processes, of two machines, or copied here from the journal of another folder, are merged
by what they hold: an outcome belongs to the run whose id it names, wherever it was trained. A run that is there twice
counts once, by the first file in the order above (files with one number: by their clock, then their name) and in it by
the first line, so every reader picks the same one; the other lines stay (results/merging.py
compares them). A failed outcome gives way to any other. Still one process at a time trains in a folder, see lock.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lrsweep import __version__
from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult, Status
from lrsweep.store import atomic, failpoints, records
from lrsweep.store.records import (
    INT_COLUMNS,
    CheckpointRecord,
    DamagedError,
    GroupRecord,
    GroupsRecord,
    Header,
    PlanRecord,
    Told,
    VoidRecord,
    encode,
)

if TYPE_CHECKING:
    from lrsweep.store.tally import Tally

FORMAT = 1
"""A reader refuses files of a larger number; smaller changes add keys and kinds, which older readers pass over."""

FOLDER = "journal"
CHECKPOINTS = "checkpoints"
"""The folder beside it, see checkpoints.py."""

_BINARY = getattr(os, "O_BINARY", 0)  # Windows writes other ends of lines without it
_LONGEST_HEADER = 10_000
"""In bytes; a line that is longer is none."""
_RAISED = "an error in "
"""How such a reason began in journals whose groups have no key `raised`."""
_MOST_OPEN = 32
"""Files of a journal that are open at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Runs that train together. The id is a hash of the content, so a lost record can be recognised when cut again.

    `reason` says why they are not stacked; `raised`, that this is an exception, which a run that raises it alone too
    tells as its failure.
    """

    engine: str
    runs: tuple[str, ...]
    compile: bool = False
    reason: str | None = None
    raised: bool = False

    @property
    def id(self) -> str:
        text = json.dumps([self.engine, self.compile, self.runs], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A file in `checkpoints/` and the SHA-256 of its bytes."""

    file: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A line that could not be read; `line` counts from 1. `tail`: the last one of its file, without its end."""

    file: Path
    line: int
    cause: str
    data: bytes
    tail: bool

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.cause}"


class Entry(NamedTuple):
    """Where a finished run stands in the journal, and what is asked of it often."""

    file: Path
    offset: int
    length: int
    status: Status
    group: str
    worker_died: bool
    columns: tuple[str, ...]
    tests: tuple[str, ...]


@dataclass(kw_only=True)
class Replay:
    """What the journal says. Outcomes stay on disk and are read one at a time.

    `groups` are in the order in which they were last written; `plan` is the last one, `specs` are the texts of all.
    `sizes` are the bytes that were read, by name of the file, `changed` when it had last changed. `distrusted` holds
    the (key of a workload, label or None) whose results were thrown away, and why; `again`, further results of runs
    that have one.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    specs: set[str] = field(default_factory=set)
    damage: list[Damage] = field(default_factory=list)
    sizes: dict[str, int] = field(default_factory=dict)
    changed: dict[str, int] = field(default_factory=dict)
    distrusted: dict[tuple[str, str | None], str] = field(default_factory=dict)
    again: list[tuple[str, Entry]] = field(default_factory=list)
    shared: dict[Any, Any] = field(default_factory=dict)
    last: tuple[Path, Header] | None = None
    """The file that was begun last, by its header."""

    @property
    def lost(self) -> str:
        """What is gone of the files that were there before the last one, in words; "" if nothing is."""
        if self.last is None:
            return ""
        path, header = self.last
        gone = header.bytes_before - sum(size for name, size in self.sizes.items() if name != path.name)
        if gone <= 0:
            return ""
        files = header.files_before - (len(self.sizes) - 1)
        return f"{files} of its {header.files_before + 1} files" if files > 0 else f"{gone} bytes of its files"

    def outcome(self, run_id: str) -> RunResult:
        """The outcome of a finished run. Raises KeyError for any other, StorageError if it cannot be read."""
        return next(self.outcomes([run_id]))

    def outcomes(self, run_ids: Iterable[str]) -> Iterator[RunResult]:
        """Those of many runs, one at a time in this order. Raises as `outcome`."""
        yield from results((run_id, self.entries[run_id]) for run_id in run_ids)


def results(entries: Iterable[tuple[str, Entry]]) -> Iterator[RunResult]:
    """The results at these places, of runs by their ids, one at a time. Raises StorageError if one cannot be read."""
    with ExitStack() as files:
        streams: dict[Path, BinaryIO] = {}
        for run_id, entry in entries:
            with atomic.storage_errors(entry.file, "read"):
                if entry.file not in streams:
                    if len(streams) == _MOST_OPEN:
                        files.close()
                        streams.clear()
                    streams[entry.file] = files.enter_context(entry.file.open("rb"))
                streams[entry.file].seek(entry.offset)
                line = streams[entry.file].read(entry.length)
            try:
                yield records.decode_outcome(line)
            except DamagedError as error:
                raise StorageError(
                    f"{entry.file}: cannot read the result of run {run_id}: {error}; restore the file from a "
                    "copy, or rerun with --fresh, which sets the journal aside"
                ) from error


class Journal:
    """The file of this process; opened by the first record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._descriptor: int | None = None
        self._digest = hashlib.sha256()
        self.path: Path | None = None
        self.size = 0
        self.tally: Tally | None = None
        """Is told of every record, if there is one."""

    def sha256(self) -> str:
        """Of all that was written."""
        return self._digest.hexdigest()

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write the records in one go; they are durable when this returns. Raises StorageError."""
        records = list(records)
        data = b"".join(encode(record) for record in records)
        if not data:
            return
        with atomic.storage_errors(self.path or self._folder):
            if self._descriptor is None:
                data = encode(_header(self._folder)) + data
                self._open()
            assert self._descriptor is not None
            failpoints.point("journal.write")
            atomic.write_all(self._descriptor, data)
            failpoints.point("journal.fsync")
            os.fsync(self._descriptor)
            failpoints.point("journal.synced")
        self._digest.update(data)
        self.size += len(data)
        if self.tally is not None:
            self.tally.take(records, self)

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9._]", "_", socket.gethostname())[:64] or "host"
        self.path = self._folder / f"{host}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _BINARY, 0o666)
        failpoints.point("journal.open")
        atomic.sync_folder(self._folder)
        atomic.sync_folder(self._folder.parent)

    def close(self) -> None:
        if self.tally is not None:
            self.tally.save(self)
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def outcome_record(outcome: RunResult, group: str, *, worker_died: bool = False) -> dict[str, Any]:
    """The record of a finished run; numbers become plain ints and floats."""
    return {
        "kind": "outcome",
        "run": outcome.run_id,
        "status": outcome.status,
        "group": group,
        "worker_died": worker_died,
        "diverged_step": outcome.diverged_step,
        "steps": int(outcome.steps),
        "error": outcome.error,
        "columns": list(outcome.history),
        "test": {name: float(value) for name, value in outcome.test.items()},
        "weights_hash": outcome.weights_hash,
        "batches_hash": outcome.batches_hash,
        "rows": {
            name: [int(value) for value in values] if name in INT_COLUMNS else [float(value) for value in values]
            for name, values in outcome.history.items()
        },
    }


def groups_record(groups: Iterable[Group]) -> dict[str, Any]:
    return {
        "kind": "groups",
        "groups": [asdict(group) for group in groups],
    }


def void_record(workload: str, label: str | None, reason: str, runs: Iterable[str]) -> dict[str, Any]:
    """The record that throws results away."""
    return {"kind": "void", "workload": workload, "label": label, "reason": reason, "runs": list(runs)}


def checkpoint_record(group: str, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"kind": "checkpoint", "group": group, "file": checkpoint.file, "sha256": checkpoint.sha256}


def exists(folder: Path) -> bool:
    """Whether the sweep in `folder` has a journal; one behind a link is none."""
    return not (folder / FOLDER).is_symlink() and any((folder / FOLDER).glob("*.jsonl"))


def sizes(folder: Path) -> dict[str, int]:
    """The bytes of the journal's files, by name."""
    return {path.name: path.stat().st_size for path in sorted((folder / FOLDER).glob("*.jsonl"))}


def changed(folder: Path) -> dict[str, int]:
    """When its files last changed, in nanoseconds, by name."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / FOLDER).glob("*.jsonl")}


def paths(folder: Path) -> list[Path]:
    """The journal's files in the order in which they were begun.

    Those of older versions come first, in the order that the clock gave them; so does, among the others, one whose
    header cannot be read.
    """
    found = {path: (_number(path), _start(path)) for path in (folder / FOLDER).glob("*.jsonl")}

    def key(path: Path) -> tuple[int, int, str]:
        number, start = found[path]
        if number is None:
            number = max((other or 0 for other, begun in found.values() if begun <= start), default=0)
        return (number, start, path.name)

    return sorted(found, key=key)


def _start(path: Path) -> int:
    """When the file was begun by the clock, as its name says."""
    text = path.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdigit() and len(text) < 30 else 0


def begun(folder: Path) -> float:
    """When the journal was begun, in seconds since 1970 by the clock of that time; 0 if there is none."""
    return min((_start(path) for path in paths(folder)), default=0) / 1e9


def replay(folder: Path) -> Replay:
    """Read the whole journal of the sweep in `folder`; writes nothing.

    Of several outcomes of one run the first counts; one that failed gives way to any later one.
    Raises StorageError for a file that cannot be read or has a newer format.
    """
    found = Replay()
    for path in paths(folder):
        offset = 0
        with atomic.storage_errors(path, "read"), path.open("rb") as stream:
            found.changed[path.name] = os.fstat(stream.fileno()).st_mtime_ns
            for number, line in enumerate(stream, 1):
                try:
                    record = records.decode(line)
                except DamagedError as error:
                    tail = not line.endswith(b"\n")
                    found.damage.append(Damage(file=path, line=number, cause=str(error), data=line, tail=tail))
                else:
                    _take(found, record, path, offset, len(line))
                offset += len(line)
        found.sizes[path.name] = offset
    return found


def new_damage(found: Replay) -> list[Damage]:
    """The lines that could not be read and are not in `<file>.corrupt` yet. Raises StorageError."""
    known = {path: set(_kept(path).split(b"\n")[:-1]) for path in {damage.file for damage in found.damage}}
    return [damage for damage in found.damage if damage.data.removesuffix(b"\n") not in known[damage.file]]


def keep_damaged(found: Replay) -> list[Damage]:
    """Copy the lines that could not be read to `<file>.corrupt`; returns those that were not there before.

    Raises StorageError.
    """
    news = new_damage(found)
    for path in {damage.file for damage in news}:
        lines = [damage.data.removesuffix(b"\n") + b"\n" for damage in news if damage.file == path]
        atomic.replace(_corrupt(path), b"".join([_kept(path), *lines]))
    return news


def _kept(path: Path) -> bytes:
    with atomic.storage_errors(path, "read"):
        return _corrupt(path).read_bytes() if _corrupt(path).exists() else b""


def _corrupt(path: Path) -> Path:
    return path.with_name(path.name + ".corrupt")


def _header(folder: Path) -> dict[str, Any]:
    """That of the next file in the journal's `folder`."""
    before = {path: path.stat().st_size for path in folder.glob("*.jsonl")}
    return {
        "kind": "header",
        "format": FORMAT,
        "lrsweep": __version__,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.time(),
        "number": max([len(before), *(_number(path) or 0 for path in before)]) + 1,
        "files_before": len(before),
        "bytes_before": sum(before.values()),
    }


def _number(path: Path) -> int | None:
    """Which file of its journal this is, from 1; 0 for those of older versions, None if its header cannot be read."""
    with atomic.storage_errors(path, "read"), path.open("rb") as stream:
        line = stream.readline(_LONGEST_HEADER)
    with suppress(DamagedError):
        record = records.decode(line)
        return record.number if isinstance(record, Header) else None
    return None


def _take(found: Replay, record: records.AnyRecord | Told | None, path: Path, offset: int, length: int) -> None:
    match record:
        case Told():
            _take_outcome(found, record, path, offset, length)
        case GroupsRecord():
            for group in map(_group, record.groups):
                found.groups.pop(group.id, None)  # the last record of a run is the one that holds
                found.groups[group.id] = group
        case VoidRecord():
            for run in record.runs:
                found.entries.pop(run, None)
            if found.again:
                gone = set(record.runs)
                found.again = [(run, entry) for run, entry in found.again if run not in gone]
            found.distrusted[record.workload, record.label] = record.reason
        case CheckpointRecord():
            found.checkpoints[record.group] = Checkpoint(file=record.file, sha256=record.sha256)
        case PlanRecord():
            found.plan = record.model_dump()
            found.specs.add(record.spec)
        case Header():
            _take_header(found, record, path)


def _take_header(found: Replay, record: Header, path: Path) -> None:
    if record.format > FORMAT:
        raise StorageError(
            f"{path} has journal format {record.format}, written by lrsweep {record.lrsweep}; "
            f"this version reads format {FORMAT}: upgrade lrsweep, or choose another folder with --results"
        )
    if record.number:
        found.last = path, record


def _group(record: GroupRecord) -> Group:
    raised = (record.reason or "").startswith(_RAISED) if record.raised is None else record.raised
    return Group(engine=record.engine, runs=record.runs, compile=record.compile, reason=record.reason, raised=raised)


def _take_outcome(found: Replay, record: Told, path: Path, offset: int, length: int) -> None:
    run, status, group, worker_died, columns, tests = record
    before = found.entries.get(run)
    shared = found.shared.setdefault  # one text or tuple for thousands of runs
    entry = Entry(
        path, offset, length, status, shared(group, group), worker_died, shared(columns, columns), shared(tests, tests)
    )
    if before is None or before.status == "failed":
        found.entries[run] = entry
    elif status != "failed":
        found.again.append((run, entry))


def damaged_lines(damage: Iterable[Damage]) -> Iterator[str]:
    """One sentence per damaged line, for the user."""
    for item in damage:
        yield f"{item}; skipped (copied to {item.file.name}.corrupt); affected runs will be retrained if needed"
