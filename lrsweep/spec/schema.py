"""JSON Schema of the spec, for editors that complete and check YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lrsweep import grids
from lrsweep.registry import Known, signature
from lrsweep.spec.check import EVERY, GRID, OBJECTIVE, TRAIN, json_type

IMPORT_PATH_TYPE = {
    "type": "string",
    "pattern": ":",
    "description": "file.py:name (relative to the spec) or package.module:name",
}
RATE_TYPE = {"type": "number", "exclusiveMinimum": 0}


def json_schema(known: Known) -> dict[str, Any]:
    """The schema (draft 2020-12). What needs the whole spec (labels, axes, exclusions) is left to `load_spec`."""
    schedule = _named(known.schedules)
    train = {key: json_type(argument) for key, argument in TRAIN.items()}
    every = {
        "type": "object",
        "properties": {"steps": json_type(EVERY["steps"])},
        "required": ["steps"],
        "additionalProperties": False,
    }
    train["eval_every"] = {"anyOf": [train["eval_every"], every], "default": 1}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lrsweep spec",
        "type": "object",
        "additionalProperties": False,
        "required": ["task", "optimizers", "train"],
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"},
            "task": _named(known.tasks),
            "model": {"anyOf": [_named(known.models), {"type": "null"}]},
            "lr": _grid(),
            "optimizers": {"type": "array", "minItems": 1, "items": _optimizer(known, schedule)},
            "schedule": {**schedule, "default": "constant"},
            "seeds": {
                "anyOf": [
                    {"type": "integer", "minimum": 1},
                    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
                ],
                "default": 5,
            },
            "train": _closed(train),
            "objective": _closed({key: json_type(argument) for key, argument in OBJECTIVE.items()}),
            "axes": {"type": "object", "additionalProperties": {"type": "array", "minItems": 1}},
            "refined": {
                "description": "Extra learning rates per optimizer label, added by --refine.",
                "type": "object",
                "additionalProperties": {"type": "array", "items": RATE_TYPE},
            },
        },
    }


def _closed(properties: Mapping[str, Any], required: list[str] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(properties),
        **({"required": required} if required else {}),
    }


def _grid() -> dict[str, Any]:
    keys = {key: json_type(argument) for key, argument in GRID.items()}
    rates = {"type": "array", "minItems": 1, "items": RATE_TYPE}
    return {"anyOf": [rates, _closed(keys)], "default": grids.DEFAULT.written}


def _named(table: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    choices: list[dict[str, Any]] = [{"enum": list(table)}, IMPORT_PATH_TYPE]
    for name, function in table.items():
        arguments = {key: json_type(argument) for key, argument in signature(function).items()}
        choices.append(_closed({"name": {"const": name}, **arguments}, ["name"]))
    choices.append({"type": "object", "properties": {"name": IMPORT_PATH_TYPE}, "required": ["name"]})
    return {"anyOf": choices}


def _optimizer(known: Known, schedule: dict[str, Any]) -> dict[str, Any]:
    ours = {
        "label": {"type": "string"},
        "lr": _grid(),
        "schedule": schedule,
        "independent_weight_decay": {"anyOf": [{"type": "number", "minimum": 0}, {"type": "null"}]},
    }
    choices: list[dict[str, Any]] = [{"enum": list(known.optimizers)}, IMPORT_PATH_TYPE]
    for name, defaults in known.optimizers.items():
        arguments = {key: {"default": value} for key, value in defaults.items()}
        choices.append(_closed({"name": {"const": name}, **ours, **arguments}, ["name"]))
    choices.append({"type": "object", "properties": {"name": IMPORT_PATH_TYPE, **ours}, "required": ["name"]})
    return {"anyOf": choices}
