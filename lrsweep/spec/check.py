"""Values checked against annotations, with messages that say what is allowed. The one place that knows pydantic."""

from __future__ import annotations

import functools
import re
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import annotated_types as at
from pydantic import ConfigDict, TypeAdapter, ValidationError

from lrsweep.errors import did_you_mean
from lrsweep.grids import MAX_PER_DECADE, MAX_RATES
from lrsweep.registry import REQUIRED, Argument, signature
from lrsweep.spec.model import Count, ObjectiveSpec, Rate, TrainSpec
from lrsweep.spec.yaml_tree import Keys

MISSING = object()
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

NotNegative = Annotated[float, at.Ge(0)]
Seed = Annotated[int, at.Interval(ge=0, lt=2**32)]


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something wrong at `path`; `key` if it is the key that is wrong, not its value."""

    path: Keys
    message: str
    key: bool = False


@dataclass
class Mistakes:
    """Everything wrong so far. `texts` has numbers as they are written in the spec."""

    found: dict[Note, None] = field(default_factory=dict)  # an ordered set
    texts: Mapping[Keys, str] = field(default_factory=dict)

    def add(self, path: Keys, message: str, *, key: bool = False) -> None:
        self.found[Note(path=path, message=message, key=key)] = None

    def quoted(self, path: Keys, value: Any) -> str:
        """The value at `path` as it is written there, shortened; text in quotes."""
        return _shortened(self.texts.get(path) or repr_value(value))


# A mapping for `eval_every` is checked against EVERY instead.
TRAIN = {**signature(TrainSpec), "eval_every": Argument(annotation=Count, default=1)}
EVERY: dict[str, Argument] = {"steps": Argument(annotation=Count)}
# The direction follows the metric unless it is given.
OBJECTIVE = {**signature(ObjectiveSpec), "mode": Argument(annotation=Literal["min", "max"] | None, default=None)}
GRID: dict[str, Argument] = {
    "min": Argument(annotation=Rate, default=MISSING),
    "max": Argument(annotation=Rate, default=MISSING),
    "per_decade": Argument(annotation=Annotated[int, at.Interval(ge=1, le=MAX_PER_DECADE)], default=MISSING),
    "points": Argument(annotation=Annotated[int, at.Interval(ge=2, le=MAX_RATES)], default=MISSING),
}


def arguments(
    table: Mapping[str, Argument], given: Mapping[str, Any], path: Keys, notes: Mistakes, what: str
) -> dict[str, Any]:
    """The values of `given`, coerced, and the defaults of the rest, in the order of `table`.

    What is wrong goes to `notes`, and such a key is left out. `what` owns the keys, in messages.
    """
    misspelt = ""
    for key in given:
        if key not in table:
            notes.add((*path, key), unknown_key(key, table, what), key=True)
            misspelt += did_you_mean(key, table)
    full = {}
    for name, argument in table.items():
        if name in given:
            value, ok = check_value(argument.annotation, given[name], (*path, name), notes)
        elif argument.default is REQUIRED:
            if f" {name}?" not in misspelt:
                notes.add((*path, name), f"is missing; {what} needs it ({expected(argument.annotation)})")
            continue
        else:
            value, ok = _coerced(argument), argument.default is not MISSING
        if ok:
            full[name] = value
    return full


def _coerced(argument: Argument) -> Any:
    try:
        return plain(_adapter(argument.annotation).validate_python(argument.default))
    except ValidationError:
        return plain(argument.default)


def plain(value: Any) -> Any:
    """Tuples as lists, as YAML has them."""
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value


def check_value(annotation: Any, value: Any, path: Keys, notes: Mistakes) -> tuple[Any, bool]:
    """The value coerced to its annotation (an integer to a float where one is asked for), and whether it fits."""
    try:
        return plain(_adapter(annotation).validate_python(value)), True
    except ValidationError as error:
        origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
        places = {item["loc"][0] for item in error.errors(include_url=False) if item["loc"]}
        if origin is list and isinstance(value, list) and places and all(isinstance(p, int) for p in places):
            for place in sorted(p for p in places if isinstance(p, int)):
                inside = (*path, place)
                notes.add(inside, type_error_text(inner[0], value[place], notes.quoted(inside, value[place])))
        else:
            notes.add(path, type_error_text(annotation, value, notes.quoted(path, value)))
        return None, False


@functools.lru_cache(maxsize=1024)
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def type_error_text(annotation: Any, value: Any, quoted: str = "") -> str:
    """`must be an integer from 1, not 'abc'`, and how to correct it if that can be guessed.

    `quoted` is the value as it is shown, by default as YAML writes it.
    """
    wanted, quoted = expected(annotation), quoted or repr_value(value)
    text = f"must be {wanted}, not {quoted}"
    if wanted == "text":
        return with_hint(text, in_quotes(value, quoted))
    if isinstance(value, str):
        return with_hint(text, hint(annotation, value))
    if isinstance(value, float) and value.is_integer() and "an integer" in text:
        return with_hint(text, f"write {int(value)}")
    return text


def in_quotes(value: Any, quoted: str) -> str:
    """How to write a number or a boolean, shown as `quoted`, where a text is wanted; "" for any other value."""
    return f"write '{quoted}' in quotes" if isinstance(value, bool | int | float) else ""


def with_hint(what: str, *hints: str) -> str:
    """`what is wrong (what is allowed; did you mean ...)`, without the hints that are empty."""
    text = "; ".join(hint for hint in hints if hint)
    return f"{what} ({text})" if text else what


def hint(annotation: Any, text: str) -> str:
    """What a text in the place of another value was probably meant to be."""
    wanted = expected(annotation)
    digits = text.strip().replace("_", "").replace(",", ".")
    if ("number" in wanted or "integer" in wanted) and NUMBER.fullmatch(digits):
        return f"that is text: write {digits}" + (" without quotes" if digits == text else "")
    if "true or false" in wanted and text.lower() in ("yes", "on", "y", "no", "off", "n", "true", "false"):
        return f"write {'true' if text.lower() in ('yes', 'on', 'y', 'true') else 'false'}"
    return did_you_mean(text, _literals(annotation))


def _literals(annotation: Any) -> list[str]:
    if typing.get_origin(annotation) is Literal:
        return [item for item in typing.get_args(annotation) if isinstance(item, str)]
    return [name for inner in typing.get_args(annotation) for name in _literals(inner)]


def repr_value(value: Any) -> str:
    """A value as YAML writes it, shortened."""
    text = {None: "null", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
    return _shortened(text or ("a mapping" if isinstance(value, dict) else repr(value)))


def _shortened(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def unknown_key(key: str, allowed: Iterable[str], what: str) -> str:
    """`train has no 'epoch' (allowed: epochs, steps, ...; did you mean epochs?)`."""
    names = list(allowed)
    listed = f"allowed: {', '.join(names)}" if names else "it takes no arguments"
    return with_hint(f"{what} has no {key!r}", listed, did_you_mean(key, names))


def expected(annotation: Any) -> str:
    """What an annotation allows, in words: `an integer from 1 or 'full'`."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        if told := [item.documentation for item in inner[1:] if isinstance(item, at.DocInfo)]:
            return str(told[0])
        return expected(inner[0]) + _bounds(inner[1:])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(expected(item) for item in inner)
    if origin is Literal:
        names = [item if isinstance(item, str) else repr_value(item) for item in inner]
        return names[0] if len(names) == 1 else f"one of {', '.join(names)}"
    if origin in (list, tuple):
        return f"a list (each {expected(inner[0])})" if inner else "a list"
    plain_names = {int: "an integer", float: "a number", bool: "true or false", str: "text", type(None): "null"}
    plain_names |= {list: "a list", dict: "a mapping"}
    return plain_names.get(annotation) or plain_names.get(origin or annotation, "a value")


def _bounds(metadata: tuple[Any, ...]) -> str:
    limits: dict[str, Any] = {}
    for item in metadata:
        for part in item if isinstance(item, at.GroupedMetadata) else [item]:
            for name in ("ge", "gt", "le", "lt", "min_length", "max_length"):
                if (value := getattr(part, name, None)) is not None:
                    limits[name] = value
    ge, gt, le, lt = (limits.get(name) for name in ("ge", "gt", "le", "lt"))
    if ge is not None and le is not None:
        return f" from {ge} to {le}"
    alone = le is None and lt is None
    low = [] if ge is None else [f"from {ge}" if alone else f"at least {ge}"]
    low += [] if gt is None else [f"above {gt}"]
    high = [f"at most {le}"] if le is not None else [f"below {lt}"] if lt is not None else []
    many = [f"of at least {limits['min_length']}"] if limits.get("min_length") else []
    return "".join(f" {part}" for part in [" and ".join(low + high), *many] if part)


def json_type(argument: Argument) -> dict[str, Any]:
    """The JSON Schema of one key, with its default."""
    schema = _adapter(argument.annotation).json_schema()
    if argument.default is not REQUIRED and argument.default is not MISSING:
        schema = {**schema, "default": plain(argument.default)}
    return schema
