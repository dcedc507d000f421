"""The records of the journal: what each kind holds, how it becomes a line, and how a line is checked.

A line is the CRC-32 of the JSON in 8 hex digits, a space, the JSON, a newline. JSON has no nan and no infinity: they
are the texts "nan", "inf", "-inf". A line with the right checksum may still hold anything (another tool wrote it, the
folder comes from elsewhere), so every record is checked against its model. Keys and kinds that are not known here are
passed over: a later version may add some.
"""

from __future__ import annotations

import json
import math
import re
import textwrap
import zlib
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lrsweep.run_result import Status

ROWS = b',"rows":'
"""What comes before the last key of an outcome, its curve, which replay does not read."""

CHECKPOINT_NAME = r"[0-9A-Za-z_]{1,64}-[0-9]{1,32}\.pt"
"""Of the files in the folder of checkpoints: the group and the time in nanoseconds."""

T = TypeVar("T")
Whole: TypeAlias = Annotated[int, Field(ge=0, lt=2**63)]
Number: TypeAlias = Annotated[float | Literal["nan", "inf", "-inf"], Field(union_mode="left_to_right")]


class Record(BaseModel):
    """Values have exactly the types that are written here."""

    model_config = ConfigDict(strict=True, frozen=True)


class Header(Record):
    """The first lines of a file. `number` counts the files of a journal from 1 in the order in which they were begun;
    `files_before` and `bytes_before` are what there was of it then. Older versions wrote none of the three (0)."""

    kind: Literal["header"]
    format: Whole
    lrsweep: str = "of an unknown version"
    number: Whole = 0
    files_before: Whole = 0
    bytes_before: Whole = 0


class PlanRecord(Record):
    """The resolved spec as text, the hashes of the user's files by role, torch's default rates by label."""

    kind: Literal["plan"]
    spec: str
    fingerprints: dict[str, str]
    default_lr: dict[str, Number]


class GroupRecord(Record):
    """One of the groups of a `groups` record; older versions wrote no `raised`."""

    engine: str
    runs: tuple[str, ...]
    compile: bool
    reason: str | None
    raised: bool | None = None


class GroupsRecord(Record):
    kind: Literal["groups"]
    groups: tuple[GroupRecord, ...]


class CheckpointRecord(Record):
    """`file` is a name in the folder of checkpoints."""

    kind: Literal["checkpoint"]
    group: str
    file: Annotated[str, Field(pattern=f"^{CHECKPOINT_NAME}$")]
    sha256: str


class OutcomeRecord(Record):
    """A finished run, without its curve."""

    kind: Literal["outcome"]
    run: str
    status: Status
    group: str
    worker_died: bool
    diverged_step: Whole | None
    steps: Whole
    error: str | None
    columns: tuple[str, ...]
    test: dict[str, Number]
    weights_hash: str
    batches_hash: str


class WholeOutcomeRecord(OutcomeRecord):
    """A finished run with its curve: equally long columns."""

    rows: dict[str, tuple[Number, ...]]

    @model_validator(mode="after")
    def _fits(self) -> WholeOutcomeRecord:
        if tuple(self.rows) != self.columns:
            raise ValueError("the columns of its curve are not those it names")
        if len({len(values) for values in self.rows.values()}) > 1:
            raise ValueError("the columns of its curve are not equally long")
        if not all(isinstance(value, float) and value.is_integer() for value in self.rows.get("step", ())):
            raise ValueError("its steps are not whole numbers")
        if any(self.rows.values()) and "step" not in self.rows:
            raise ValueError("its curve has no steps")
        if "val_loss" in self.rows and "epoch" not in self.rows:
            raise ValueError("its curve has no epochs")
        return self


class VoidRecord(Record):
    """Results that were thrown away: trained together, these `runs` of a workload may have been given other numbers
    than alone. From here on its runs train one at a time; with `label`, only those of that optimizer."""

    kind: Literal["void"]
    workload: str
    label: str | None
    reason: str
    runs: tuple[str, ...]


AnyRecord: TypeAlias = VoidRecord | Header | PlanRecord | GroupsRecord | CheckpointRecord | OutcomeRecord

_ANY: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])
_WHOLE_OUTCOME = TypeAdapter(WholeOutcomeRecord)
_SURROGATE = re.compile("[\ud800-\udfff]")


class DamagedError(Exception):
    """A line is not what lrsweep writes; the text says why."""


def encode(record: dict[str, Any]) -> bytes:
    """The line of a record."""
    try:
        text = json.dumps(record, separators=(",", ":"), allow_nan=False)
    except ValueError:
        text = json.dumps(_texts(record), separators=(",", ":"), allow_nan=False)
    data = text.encode("ascii")
    return b"%08x %b\n" % (zlib.crc32(data), data)


def decode(line: bytes) -> AnyRecord | None:
    """The record of a line, an outcome without its curve; None for a kind that is not known. Raises DamagedError."""
    head, separator, _ = _content(line).partition(ROWS)
    return _validated(_ANY, head + b"}" if separator else head)


def decode_outcome(line: bytes) -> WholeOutcomeRecord:
    """The outcome of a line, with its curve. Raises DamagedError."""
    record = _validated(_WHOLE_OUTCOME, _content(line))
    if record is None:
        raise DamagedError("not an outcome")
    return record


def _content(line: bytes) -> bytes:
    """The JSON of a line."""
    if not line.endswith(b"\n"):
        raise DamagedError("incomplete (the writer was stopped while writing it)")
    if len(line) < 11 or line[8:9] != b" ":
        raise DamagedError("not a journal line")
    data = line[9:-1]
    if line[:8] != b"%08x" % zlib.crc32(data):
        raise DamagedError("the checksum does not fit the content")
    return data


def _validated(model: TypeAdapter[T], data: bytes) -> T | None:
    try:
        return model.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid" and (readable := _without_surrogates(data)) is not None:
            return _validated(model, readable)
        if first["type"] == "union_tag_invalid" and isinstance(json.loads(data)["kind"], str):
            return None
        raise DamagedError(f"not a valid record ({_cause(dict(first))})") from None


def _without_surrogates(data: bytes) -> bytes | None:
    """The JSON with lone surrogates, which Python writes and pydantic does not read, as escapes; None without any."""
    try:
        text = json.dumps(json.loads(data), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    readable = _SURROGATE.sub(lambda found: f"\\\\u{ord(found[0]):04x}", text)
    return readable.encode() if readable != text else None


def _cause(error: dict[str, Any]) -> str:
    """What is wrong, in ASCII: keys and values may come from anywhere."""
    if error["type"].startswith("union_tag"):
        return "it has no kind"
    place = ".".join(str(part) for part in error["loc"][:3])
    return textwrap.shorten(ascii(f"{place}: {error['msg']}" if place else error["msg"])[1:-1], 200)


def _texts(value: Any) -> Any:
    """`value` with every non-finite float as text."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, dict):
        return {key: _texts(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    return value
