"""What the files of several writers say of the same runs, beyond which result counts (store/journal.py)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

from lrsweep.store import journal
from lrsweep.store.journal import Entry, Group, Replay
from lrsweep.wording.words import plural

if TYPE_CHECKING:
    from lrsweep.plan import Run
    from lrsweep.run_result import RunResult

Place: TypeAlias = tuple[str, str | None]
"""A key of `Replay.distrusted`: a workload, and the label of an optimizer or None for all."""


def disbelieve(runs: Iterable[Run], replay: Replay) -> list[dict[str, Any]]:
    """Take from `replay` the results of `runs` that were trained together although another writer has thrown such
    results away, because the user's code may have given them other numbers than alone.

    Where a run was trained alone as well, that result counts; all others are to be trained alone. Returns the records
    that say so to later readers.
    """
    if not replay.distrusted:
        return []
    alone = {run_id: entry for run_id, entry in reversed(replay.again) if _is_alone(entry, replay)}
    taken: dict[Place, list[str]] = {}
    for run in runs:
        entry = replay.entries.get(run.run_id)
        if entry is None or entry.status == "failed" or _is_alone(entry, replay):
            continue
        places = ((run.workload_spec.key, None), (run.workload_spec.key, run.label))
        place = next((place for place in places if place in replay.distrusted), None)
        if place is None:
            continue
        if run.run_id in alone:
            replay.entries[run.run_id] = alone[run.run_id]
        else:
            del replay.entries[run.run_id]
            taken.setdefault(place, []).append(run.run_id)
    groups = [
        Group(engine="single", runs=(run_id,), reason=replay.distrusted[place])
        for place, ids in taken.items()
        for run_id in ids
    ]
    for group in groups:
        replay.groups.pop(group.id, None)
        replay.groups[group.id] = group  # the last one holds
    voids = [journal.void_record(*place, replay.distrusted[place], ids) for place, ids in taken.items()]
    return [*voids, *voids, *[journal.groups_record(groups)] * 2] if groups else []


def _is_alone(entry: Entry, replay: Replay) -> bool:
    group = replay.groups.get(entry.group)
    return group is not None and group.engine == "single"


def differing(replay: Replay) -> str | None:
    """That runs were trained twice with results that are not equal to the bit, in words; None if there are none.

    Raises StorageError if a result cannot be read.
    """
    pairs = [(replay.entries[run_id], entry, run_id) for run_id, entry in replay.again if run_id in replay.entries]
    results = journal.results((run_id, entry) for *both, run_id in pairs for entry in both)
    count, example = 0, ""
    for one, other, run_id in pairs:
        first, second = next(results), next(results)
        if repr(first) != repr(second):  # nan is equal to nan
            count += 1
            example = example or f"{_difference(first, second)} in {one.file.name} and {other.file.name} (run {run_id})"
    if not count:
        return None
    runs = plural(len(pairs), "run")
    return (
        f"of {runs} that some process trained a second time, {count} came out differently: {example}; "
        "the file that was begun first counts. Other processors or versions of torch change the last digits; where "
        "more has changed, the code depends on something else than the seed"
    )


def _difference(first: RunResult, second: RunResult) -> str:
    """The first number, or whatever else, in which the results differ."""
    if first.status != second.status:
        return f"{first.status} and {second.status}"
    columns = zip(first.history.items(), second.history.items(), strict=False)
    for (name, values), (other, others) in columns:
        for row, (one, two) in enumerate(zip(values, others, strict=False)):
            if name == other and repr(one) != repr(two):
                return f"{name} {one!r} and {two!r} at step {first.history['step'][row]}"
    for name, value in first.test.items():
        if repr(value) != repr(second.test.get(name)):
            return f"{name} {value!r} and {second.test.get(name)!r}"
    return f"{first.steps} and {second.steps} steps" if first.steps != second.steps else "not the same columns"
