"""The records of the journal: what each kind holds, how it becomes a line, and how a line is checked.

A line is the CRC-32 of the JSON in 8 hex digits, a space, the JSON, a newline. JSON has no nan and no infinity: they
are the texts "nan", "inf", "-inf". A line with the right checksum may still hold anything (another tool wrote it, the
folder comes from elsewhere), so every record is checked against its model. Keys and kinds that are not known here are
passed over: a later version may add some.
"""

from __future__ import annotations

import functools
import json
import math
import re
import textwrap
import zlib
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from lrsweep.run_result import RunResult, Status

INT_COLUMNS = frozenset({"step"})
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


_TEXT = rb'"([ !#-\[\]-~]*)"'
_COUNT = rb"(null|0|[1-9][0-9]{0,17})"
_NUMBER = rb'(?:-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:e[-+]?[0-9]+)?|"nan"|"inf"|"-inf")'
_TEST = rb'"[a-z_A-Z0-9]+":' + _NUMBER
_PLAIN = re.compile(
    rb'\{"kind":"outcome","run":%b,"status":"(ok|diverged)","group":%b,"worker_died":(true|false),"diverged_step":%b,'
    rb'"steps":%b,"error":null,"columns":(\["[a-z_A-Z0-9]+"(?:,"[a-z_A-Z0-9]+")*\]),"test":(\{(?:%b(?:,%b)*)?\}),'
    rb'"weights_hash":%b,"batches_hash":%b,"rows":' % (_TEXT, _TEXT, _COUNT, _COUNT, _TEST, _TEST, _TEXT, _TEXT)
)
"""An outcome up to its curve as `encode` writes it, without an error: nearly every line of a large journal. It is taken
apart here in a tenth of the time that a validation takes; any other line is validated."""
_NAMES = re.compile(rb'"([a-z_A-Z0-9]+)":')


class Told(NamedTuple):
    """What replay asks of an outcome."""

    run: str
    status: Status
    group: str
    worker_died: bool
    columns: tuple[str, ...]
    tests: tuple[str, ...]


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


def decode(line: bytes) -> AnyRecord | Told | None:
    """The record of a line; None for a kind that is not known. Raises DamagedError.

    Of an outcome that is what replay asks of it; its curve is not read.
    """
    data = _content(line)
    if plain := _PLAIN.match(data):
        run, status, group, worker_died, _, _, columns, test, _, _ = plain.groups()
        return Told(
            run.decode(), _STATUS[status], group.decode(), worker_died == b"true", _columns(columns), _tests(test)
        )
    head, separator, _ = data.partition(ROWS)
    record = _validated(_ANY, head + b"}" if separator else head)
    if isinstance(record, OutcomeRecord):
        tests = tuple(record.test)
        return Told(record.run, record.status, record.group, record.worker_died, record.columns, tests)
    return record


def decode_outcome(line: bytes) -> RunResult:
    """The outcome of a line, with its curve. Raises DamagedError."""
    data = _content(line)
    if (plain := _PLAIN.match(data)) and (found := _plain_result(plain, data)):
        return found
    record = _validated(_WHOLE_OUTCOME, data)
    if record is None:
        raise DamagedError("not an outcome")
    return RunResult(
        run_id=record.run,
        status=record.status,
        diverged_step=record.diverged_step,
        steps=record.steps,
        error=record.error,
        history={name: list(map(int if name in INT_COLUMNS else float, of)) for name, of in record.rows.items()},
        test={name: float(value) for name, value in record.test.items()},
        weights_hash=record.weights_hash,
        batches_hash=record.batches_hash,
    )


def _plain_result(plain: re.Match[bytes], data: bytes) -> RunResult | None:
    """The same of an outcome with such a head; None if its curve needs a closer look."""
    run, status, _, _, diverged_step, steps, columns, test, weights_hash, batches_hash = plain.groups()
    if steps == b"null":
        return None
    try:
        rows = _JSON.decode(data[plain.end() : -1].decode("ascii"))
        history = {name: _plain_column(values, whole=name in INT_COLUMNS) for name, values in rows.items()}
        tests = {name: _plain_number(value) for name, value in _JSON.decode(test.decode("ascii")).items()}
    except (ValueError, KeyError, AttributeError, TypeError, OverflowError, RecursionError):
        return None
    lengths = {len(values) for values in history.values()}
    if tuple(history) != _columns(columns) or len(lengths) != 1 or not {"step", "epoch"} <= history.keys():
        return None
    return RunResult(
        run_id=run.decode(),
        status=_STATUS[status],
        diverged_step=None if diverged_step == b"null" else int(diverged_step),
        steps=int(steps),
        history=history,
        test=tests,
        weights_hash=weights_hash.decode(),
        batches_hash=batches_hash.decode(),
    )


def _plain_column(values: list[Any], *, whole: bool) -> list[Any]:
    """The numbers of a column. Raises KeyError, TypeError or ValueError for anything else."""
    kinds = set(map(type, values))
    if kinds <= ({int} if whole else {float}):
        return values
    if whole:
        raise ValueError(kinds)
    return list(map(_plain_number, values))


def _plain_number(value: Any) -> float:
    return value if type(value) is float else _NOT_FINITE[value]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


_STATUS: dict[bytes, Status] = {b"ok": "ok", b"diverged": "diverged"}
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_JSON = json.JSONDecoder(parse_constant=_refuse)


@functools.lru_cache
def _columns(text: bytes) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _tests(text: bytes) -> tuple[str, ...]:
    """One tuple for thousands of runs."""
    return _decoded(tuple(_NAMES.findall(text))) if len(text) > 2 else ()


@functools.lru_cache
def _decoded(names: tuple[bytes, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.decode() for name in names))


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
