"""Extra axes: other values of the spec, by dotted path.

A resolved axis of a whole `task`, `model` or `schedule` (or of its `.name`) holds a mapping per value, any other axis
plain values. `optimizers.<argument>` sets that argument for every optimizer that has it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from typing import Any

from lrsweep.errors import did_you_mean
from lrsweep.spec import check, sections
from lrsweep.spec.check import Mistakes, Note
from lrsweep.spec.model import Named, OptimizerSpec, Spec, TrainSpec, call_text, canonical, value_text
from lrsweep.spec.sections import SectionContext
from lrsweep.spec.yaml_tree import Keys

NAMED = ("task", "model", "schedule")
HEADS = (*NAMED, "train", "optimizers")
MAX_POINTS = 100_000
BARRED = ("name", "lr", "optimizers", "seeds", "axes", "objective", "refined")


def parts(axis: str) -> tuple[str, ...]:
    return tuple(axis.split("."))


def is_whole(axis: str) -> bool:
    """Whether the axis replaces a whole task, model or schedule."""
    head, *below = parts(axis)
    return head in NAMED and below in ([], ["name"])


def applied(base: Any, head: str, chosen: Mapping[str, Any]) -> Any:
    """A section with the axes of `head` in `chosen` set; whole sections first, then single values in them."""
    mine = sorted((axis for axis in chosen if parts(axis)[0] == head), key=lambda axis: len(parts(axis)))
    section = {"name": base} if isinstance(base, str) else base
    for axis in mine:
        value = chosen[axis]
        if not is_whole(axis):
            section = put(section, parts(axis)[1:], value)
        elif isinstance(value, str) and axis.endswith(".name"):
            section = {**(section or {}), "name": value}
        else:
            section = {"name": value} if isinstance(value, str) else value
    return section


def put(section: Any, below: tuple[str, ...], value: Any) -> Any:
    """A copy of `section` with `value` at the path `below`."""
    if not below:
        return value
    old = section if isinstance(section, dict) else {}
    return {**old, below[0]: put(old.get(below[0]), below[1:], value)}


def get(section: Any, below: tuple[str, ...]) -> Any:
    """The value at the path `below`; `MISSING` if there is none."""
    for part in below:
        if not isinstance(section, dict) or part not in section:
            return check.MISSING
        section = section[part]
    return section


def has(optimizer: OptimizerSpec, below: tuple[str, ...]) -> bool:
    """Whether an axis `optimizers.<below>` sets something of this optimizer."""
    if below == ("independent_weight_decay",):
        return optimizer.independent_weight_decay is not None
    if below == ("weight_decay",) and optimizer.independent_weight_decay is not None:
        return False
    return get(optimizer.args, below) is not check.MISSING


def touches(optimizer: OptimizerSpec, axis: str) -> bool:
    """Whether the axis changes runs of this optimizer at all."""
    head, *below = parts(axis)
    if head == "optimizers":
        return has(optimizer, tuple(below))
    return head != "schedule" or optimizer.schedule is None


def setting(spec: Spec, optimizer: OptimizerSpec, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """What one optimizer does at the chosen axis values: name, args, schedule, independent_weight_decay, inert.

    `inert` holds the chosen values of the axes that change nothing for this optimizer.
    """
    args, independent = optimizer.args, optimizer.independent_weight_decay
    inert = {}
    for axis, value in chosen.items():
        head, *below = parts(axis)
        if not touches(optimizer, axis):
            inert[axis] = value
        elif below == ["independent_weight_decay"] and head == "optimizers":
            independent = value
        elif head == "optimizers":
            args = put(args, tuple(below), value)
    own = optimizer.schedule
    schedule = own.as_dict() if own else applied(spec.schedule.as_dict(), "schedule", chosen)
    return {
        "name": optimizer.name,
        "args": args,
        "schedule": schedule,
        "independent_weight_decay": independent,
        "inert": inert,
    }


def products(axes: Mapping[str, list[Any]], heads: Iterable[str] = HEADS) -> Iterator[dict[str, Any]]:
    """Every combination of the values of the axes under `heads`, the last axis fastest."""
    mine = [axis for axis in axes if parts(axis)[0] in heads]
    for values in itertools.product(*(axes[axis] for axis in mine)):
        yield dict(zip(mine, values, strict=True))


def cells(axis: str, values: Sequence[Any]) -> dict[str, Any]:
    """Axis values as cells of a table, never nested, by their canonical text.

    A whole section is shown by its name if that distinguishes the values, else by its name and the arguments that do.
    """
    if not is_whole(axis) or not all(isinstance(value, dict) for value in values):
        return {canonical(v): value_text(v) if isinstance(v, dict | list) else v for v in values}
    return {canonical(value): _section_text(axis, value, values) for value in values}


def _section_text(axis: str, value: Mapping[str, Any], values: Sequence[Mapping[str, Any]]) -> str:
    name = str(value["name"])
    namesakes = [other for other in values if other["name"] == name]
    differ = {key: item for key, item in value.items() if any(other.get(key, ...) != item for other in namesakes)}
    return name if axis.endswith(".name") or not differ else call_text(name, differ)


def twins(spec: Spec) -> list[tuple[int, int, dict[str, Any]]]:
    """Pairs of optimizers that some axis values make the same: (first, second, those values)."""
    pairs: dict[tuple[int, int], dict[str, Any]] = {}
    for chosen in products(spec.axes, ("optimizers", "schedule")):
        seen: dict[str, int] = {}
        for index, optimizer in enumerate(spec.optimizers):
            first = seen.setdefault(canonical(setting(spec, optimizer, chosen)), index)
            if first != index:
                pairs.setdefault((first, index), chosen)
    return [(first, second, chosen) for (first, second), chosen in pairs.items()]


def resolved_axes(
    ctx: SectionContext,
    raw: Any,
    written: Mapping[str, Any],
    wrong: Set[str],
    optimizers: list[OptimizerSpec],
    invalid: Sequence[Any],
    notes: Mistakes,
) -> dict[str, list[Any]]:
    """The axes with every value resolved. `written` holds the sections as the user wrote them.

    Sections in `wrong` have mistakes of their own, noted elsewhere. `optimizers` are the valid ones, and
    `written["optimizers"]` the same as written; `invalid` are the others as written.
    """
    if not isinstance(raw, dict):
        notes.add(("axes",), f"must be a mapping from dotted paths to lists, not {check.repr_value(raw)}")
        return {}
    usable = {axis: values for axis, values in raw.items() if _sound(axis, values, raw, notes)}
    if ctx.known is None:
        for axis in filter(is_whole, usable):
            for i, value in enumerate(usable[axis]):
                if not isinstance(value, dict) or not isinstance(value.get("name"), str):
                    notes.add(("axes", axis, i), f"must be a mapping with a name, not {check.repr_value(value)}")
        return usable if not notes.found else {}
    count = math.prod(len(values) for values in usable.values())
    if count > MAX_POINTS:
        notes.add(("axes",), f"{count} combinations of values are too many (at most {MAX_POINTS})")
        return {}
    resolved_axes: dict[str, list[Any]] = {}
    for head in HEADS:
        mine = {axis: usable[axis] for axis in usable if parts(axis)[0] == head}
        if mine and head == "optimizers" and head in written:
            resolved_axes |= _of_optimizers(ctx, mine, written[head], optimizers, invalid, notes)
        elif mine and head != "optimizers" and (head in written or any(map(is_whole, mine))):
            resolved_axes |= _of_section(ctx, head, mine, written.get(head), notes, wrong=head in wrong)
        elif mine and not notes.found:
            message = f"there is no {head} to set it in: the task uses its own; set one with `{head}:`"
            notes.add(("axes", next(iter(mine))), message, key=True)
    for axis, values in resolved_axes.items():
        seen: set[str] = set()
        for i, value in enumerate(values):
            if (text := canonical(value)) in seen:
                notes.add(("axes", axis, i), f"{value_text(raw[axis][i])} is given twice; remove one of them")
            seen.add(text)
    return {axis: resolved_axes[axis] for axis in raw if axis in resolved_axes}


def _sound(axis: str, values: Any, raw: Mapping[str, Any], notes: Mistakes) -> bool:
    """Whether the path may be an axis and its values are a list."""
    path: Keys = ("axes", axis)
    head, *below = parts(axis)
    before = len(notes.found)
    if head in BARRED and not (head == "optimizers" and below):
        fix = "name an argument: optimizers.momentum" if head == "optimizers" else ""
        allowed = f"allowed: values of {', '.join(HEADS[:-1])}, optimizers.<argument>"
        notes.add(
            path,
            check.with_hint("cannot be an axis", allowed, fix),
            key=True,
        )
    elif head not in HEADS:
        hint = did_you_mean(axis, ["task", "model", "schedule", *(f"train.{key}" for key in check.TRAIN)])
        hint = f"did you mean train.{axis}?" if axis in check.TRAIN else hint
        notes.add(
            path,
            check.with_hint(
                "is not a value of the spec", "task, model, schedule, train.<key>, optimizers.<argument>", hint
            ),
            key=True,
        )
    elif head == "train" and below and below[0] not in check.TRAIN:
        notes.add(path, check.unknown_key(below[0], check.TRAIN, "train"), key=True)
    elif axis == "train" or "" in below:
        notes.add(path, "is not a single value; write for example train.epochs", key=True)
    elif axis.endswith(".name") and is_whole(axis) and head in raw:
        notes.add(path, f"{head} and {axis} set the same thing; keep one of them", key=True)
    if not isinstance(values, list) or not values:
        notes.add(path, f"must be a list of at least one value, not {check.repr_value(values)}")
    return len(notes.found) == before


def _of_section(
    ctx: SectionContext, head: str, mine: dict[str, list[Any]], base: Any, notes: Mistakes, *, wrong: bool
) -> dict[str, list[Any]]:
    def make(section: Any, local: Mistakes) -> Any:
        if head == "train":
            return sections.train(section, (head,), local)
        return sections.named(ctx, head, section, (head,), local)

    return _checked(head, mine, base, make, notes, wrong=wrong)


def _of_optimizers(
    ctx: SectionContext,
    mine: dict[str, list[Any]],
    entries: list[Any],
    optimizers: list[OptimizerSpec],
    invalid: Sequence[Any],
    notes: Mistakes,
) -> dict[str, list[Any]]:
    def make(section: Any, local: Mistakes) -> Any:
        return sections.optimizer(ctx, section, ("optimizers",), local)

    found: dict[str, list[Any]] = {}
    for entry, optimizer in zip(entries, optimizers, strict=True):
        had = {axis: values for axis, values in mine.items() if has(optimizer, parts(axis)[1:])}
        if had:
            found = _checked("optimizers", had, entry, make, notes, who=f" (for {optimizer.label})") | found
    theirs = [_arguments(ctx, entry) for entry in invalid]
    names = {name for known in (*theirs, *(optimizer.args for optimizer in optimizers)) for name in known or ()}
    for axis in mine:
        below = parts(axis)[1:]
        maybe = any(known is None or below[0] in {*known, "independent_weight_decay"} for known in theirs)
        if not maybe and not any(has(optimizer, below) for optimizer in optimizers):
            near = did_you_mean(".".join(below), names)
            wrong = f"no listed optimizer has the argument {'.'.join(below)!r}"
            notes.add(("axes", axis), check.with_hint(wrong, near), key=True)
    return found


def _arguments(ctx: SectionContext, raw: Any) -> Mapping[str, Any] | None:
    """The arguments of the optimizer in an invalid entry; None if it is unknown."""
    return ctx.known.optimizers.get(sections.builtin(ctx, raw)) if ctx.known else None


def _checked(
    head: str,
    mine: dict[str, list[Any]],
    base: Any,
    make: Callable[[Any, Mistakes], Any],
    notes: Mistakes,
    who: str = "",
    wrong: bool = False,
) -> dict[str, list[Any]]:
    """The resolved values of the axes of one section; `make` resolves it for every combination of their values.

    If the section is `wrong` even without its axes, only mistakes at the path of an axis are blamed on the axis.
    """
    found: dict[str, list[Any]] = {axis: [check.MISSING] * len(values) for axis, values in mine.items()}
    before = len(notes.found)
    for places in itertools.product(*(range(len(values)) for values in mine.values())):
        at = dict(zip(mine, places, strict=True))
        texts: dict[Keys, str] = {parts(axis): notes.texts.get(("axes", axis, i), "") for axis, i in at.items()}
        local = Mistakes(texts=texts)
        made = make(applied(base, head, {axis: mine[axis][i] for axis, i in at.items()}), local)
        for note in local.found:
            if wrong and not any(note.path[: len(parts(axis))] == parts(axis) for axis in mine):
                continue
            notes.add(_moved(note, at, mine), note.message + who, key=note.key)
        if made is not None and not local.found:
            for axis, i in at.items():
                if found[axis][i] is check.MISSING:
                    found[axis][i] = _value_in(made, axis, mine)
    return found if len(notes.found) == before and not wrong else {}


def _value_in(made: Named | TrainSpec | OptimizerSpec, axis: str, mine: Iterable[str]) -> Any:
    """The resolved value of one axis; a whole section without what other axes set in it."""
    below = parts(axis)[1:]
    if isinstance(made, Named):
        theirs = {parts(other)[1] for other in mine if not is_whole(other)}
        section = made.as_dict()
        return (
            {key: item for key, item in section.items() if key not in theirs} if is_whole(axis) else get(section, below)
        )
    if isinstance(made, TrainSpec):
        return get({key: getattr(made, key) for key in check.TRAIN}, below)
    return get({"independent_weight_decay": made.independent_weight_decay, **made.args}, below)


def _moved(note: Note, at: Mapping[str, int], mine: Mapping[str, list[Any]]) -> Keys:
    """The path of a note about a section, moved to the axis value that caused it."""
    inside = [axis for axis in at if note.path[: len(parts(axis))] == parts(axis)]
    axis = max(inside or at, key=lambda axis: len(parts(axis)))
    rest = note.path[len(parts(axis)) :] if inside else ()
    if note.key and not rest:
        return ("axes", axis)
    return ("axes", axis, at[axis], *(rest if isinstance(mine[axis][at[axis]], dict) else ()))
