"""The append-only journal of a sweep: the only truth about what was trained.

Every writing process has a file of its own, `journal/<host>-<pid>-<start>.jsonl`, so writing needs no lock and a torn
tail is never appended to. A line is the CRC-32 of the JSON in 8 hex digits, a space, the JSON, a newline. JSON has no
nan and no infinity: they stand as the texts "nan", "inf", "-inf".

Records, by `kind`: `header` (format, version, host), `plan` (the spec as text and what the tables need besides),
`groups` (which runs train together, on which engine), `outcome` (one run; its curve is the last key, so that replay
reads the rest alone), `checkpoint` (a file from which a group goes on). A line that cannot be read is skipped, copied
to `<file>.corrupt` and reported; what it said is trained again. `plan` and `groups` are written twice for that reason.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import socket
import time
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from lrsweep import __version__
from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult, Status
from lrsweep.store import atomic, failpoints

FORMAT = 1
"""A reader refuses files of a larger number; smaller changes add keys and kinds, which older readers pass over."""

FOLDER = "journal"
_ROWS = b',"rows":'
_RAISED = "an error in "
"""How such a reason began in journals whose groups have no key `raised`."""
_INT_COLUMNS = frozenset({"step"})


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
    """A line that could not be read; `line` counts from 1."""

    file: Path
    line: int
    cause: str
    data: bytes

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}: {self.cause}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
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
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    checkpoints: dict[str, Checkpoint] = field(default_factory=dict)
    plan: dict[str, Any] | None = None
    specs: set[str] = field(default_factory=set)
    damage: list[Damage] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    shared: dict[tuple[str, ...], tuple[str, ...]] = field(default_factory=dict)

    def outcome(self, run_id: str) -> RunResult:
        """The outcome of a finished run. Raises KeyError for any other, StorageError if the file changed meanwhile."""
        entry = self.entries[run_id]
        with atomic.storage_errors(entry.file, "read"), entry.file.open("rb") as stream:
            stream.seek(entry.offset)
            line = stream.read(entry.length)
        record = _checked(line)
        if isinstance(record, str):
            raise StorageError(f"{entry.file} changed while it was being read ({record}); rerun the command")
        return outcome_of(json.loads(record))


class Journal:
    """The file of this process; opened by the first record."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._descriptor: int | None = None
        self.path: Path | None = None

    def append(self, records: Iterable[dict[str, Any]]) -> None:
        """Write the records in one go; they are durable when this returns. Raises StorageError."""
        data = b"".join(encode(record) for record in records)
        if not data:
            return
        with atomic.storage_errors(self.path or self._folder):
            if self._descriptor is None:
                data = encode(_header()) + data
                self._open()
            assert self._descriptor is not None
            failpoints.point("journal.write")
            atomic.write_all(self._descriptor, data)
            failpoints.point("journal.fsync")
            os.fsync(self._descriptor)
            failpoints.point("journal.synced")

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9._]", "_", socket.gethostname())[:64] or "host"
        self.path = self._folder / f"{host}-{os.getpid()}-{time.time_ns()}.jsonl"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
        failpoints.point("journal.open")
        atomic.sync_folder(self._folder)
        atomic.sync_folder(self._folder.parent)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def encode(record: dict[str, Any]) -> bytes:
    """The line of a record."""
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_texts(record), separators=(",", ":"), allow_nan=False)
    data = text.encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(data), data)


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
            name: [int(value) for value in values] if name in _INT_COLUMNS else [float(value) for value in values]
            for name, values in outcome.history.items()
        },
    }


def outcome_of(record: dict[str, Any]) -> RunResult:
    """The run that a record of kind `outcome` tells of."""
    return RunResult(
        run_id=record["run"],
        status=record["status"],
        diverged_step=record["diverged_step"],
        steps=record["steps"],
        error=record["error"],
        history={
            name: values if name in _INT_COLUMNS else [float(value) for value in values]
            for name, values in record["rows"].items()
        },
        test={name: float(value) for name, value in record["test"].items()},
        weights_hash=record["weights_hash"],
        batches_hash=record["batches_hash"],
    )


def groups_record(groups: Iterable[Group]) -> dict[str, Any]:
    return {
        "kind": "groups",
        "groups": [asdict(group) for group in groups],
    }


def checkpoint_record(group: str, checkpoint: Checkpoint) -> dict[str, Any]:
    return {"kind": "checkpoint", "group": group, "file": checkpoint.file, "sha256": checkpoint.sha256}


def exists(folder: Path) -> bool:
    """Whether the sweep in `folder` has a journal."""
    return any((folder / FOLDER).glob("*.jsonl"))


def paths(folder: Path) -> list[Path]:
    """The journal's files, oldest first."""

    def key(path: Path) -> tuple[int, str]:
        start = path.stem.rpartition("-")[2]
        return (int(start) if start.isascii() and start.isdigit() else 0, path.name)

    return sorted((folder / FOLDER).glob("*.jsonl"), key=key)


def replay(folder: Path) -> Replay:
    """Read the whole journal of the sweep in `folder`; writes nothing.

    Of several outcomes of one run the first counts; one that failed gives way to any later one.
    Raises StorageError for a file that cannot be read or has a newer format.
    """
    found = Replay(files=paths(folder))
    for path in found.files:
        with atomic.storage_errors(path, "read"), path.open("rb") as stream:
            offset = 0
            for number, line in enumerate(stream, 1):
                data = _checked(line)
                if isinstance(data, str):
                    found.damage.append(Damage(file=path, line=number, cause=data, data=line))
                else:
                    _take(found, path, offset, len(line), data)
                offset += len(line)
    return found


def keep_damaged(found: Replay) -> list[Damage]:
    """Copy the lines that could not be read to `<file>.corrupt`; returns those that were not there before.

    Raises StorageError.
    """
    news: list[Damage] = []
    for path in {damage.file for damage in found.damage}:
        copy = path.with_name(path.name + ".corrupt")
        known = copy.read_bytes() if copy.exists() else b""
        damaged = [damage for damage in found.damage if damage.file == path]
        data = b"".join(damage.data if damage.data.endswith(b"\n") else damage.data + b"\n" for damage in damaged)
        if data != known:
            news += [damage for damage in damaged if damage.data.rstrip(b"\n") not in known or not known]
            atomic.replace(copy, data)
    return news


def _header() -> dict[str, Any]:
    return {
        "kind": "header",
        "format": FORMAT,
        "lrsweep": __version__,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.time(),
    }


def _checked(line: bytes) -> bytes | str:
    """The JSON of a line, or what is wrong with it."""
    if not line.endswith(b"\n"):
        return "incomplete (the writer was stopped while writing it)"
    if len(line) < 11 or line[8:9] != b" ":
        return "not a journal line"
    data = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(data):
        return "the checksum does not fit the content"
    return data


def _take(found: Replay, path: Path, offset: int, length: int, data: bytes) -> None:
    head, separator, _ = data.partition(_ROWS)
    record = json.loads(head + b"}" if separator else data)
    kind = record.get("kind")
    if kind == "outcome":
        _take_outcome(found, record, path, offset, length)
    elif kind == "groups":
        for item in record["groups"]:
            group = Group(
                engine=item["engine"],
                runs=tuple(item["runs"]),
                compile=item["compile"],
                reason=item["reason"],
                raised=item.get("raised", (item["reason"] or "").startswith(_RAISED)),
            )
            found.groups.pop(group.id, None)  # the last record of a run is the one that holds
            found.groups[group.id] = group
    elif kind == "checkpoint":
        found.checkpoints[record["group"]] = Checkpoint(file=record["file"], sha256=record["sha256"])
    elif kind == "plan":
        found.plan = record
        found.specs.add(record["spec"])
    elif kind == "header" and record["format"] > FORMAT:
        raise StorageError(
            f"{path} has journal format {record['format']}, written by lrsweep {record.get('lrsweep')}; "
            f"this version reads format {FORMAT}: upgrade lrsweep, or choose another folder with --results"
        )


def _take_outcome(found: Replay, record: dict[str, Any], path: Path, offset: int, length: int) -> None:
    before = found.entries.get(record["run"])
    if before is not None and before.status != "failed":
        return
    columns, tests = tuple(record["columns"]), tuple(record["test"])
    found.entries[record["run"]] = Entry(
        file=path,
        offset=offset,
        length=length,
        status=cast(Status, record["status"]),
        group=record["group"],
        worker_died=record["worker_died"],
        columns=found.shared.setdefault(columns, columns),  # one tuple for thousands of runs
        tests=found.shared.setdefault(tests, tests),
    )


def _texts(value: Any) -> Any:
    """`value` with every non-finite float as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    return value


def damaged_lines(damage: Iterable[Damage]) -> Iterator[str]:
    """One sentence per damaged line, for the user."""
    for item in damage:
        yield f"{item}; skipped (copied to {item.file.name}.corrupt); affected runs will be retrained if needed"
