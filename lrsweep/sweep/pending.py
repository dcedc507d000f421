"""What is left to train: the plan less the journal.

A group that was written down and not finished is repeated as a whole, so that its runs come out to the bit as in a
sweep that was never stopped. Runs in no group are cut anew. A failed run is tried again alone, by the engine of its
group; a group all of whose runs failed since its worker died, as a whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lrsweep.errors import StorageError
from lrsweep.store.journal import Group, Replay
from lrsweep.workers.messages import Job

if TYPE_CHECKING:
    from lrsweep.plan import Plan, Run

    Cut = Callable[[Sequence[Run]], list[Group]]  # cuts runs of any workloads into groups


@dataclass(frozen=True, kw_only=True)
class Pending:
    """`repeat`: groups of the journal. `retry`: those with failed runs. `uncut`: runs in no group, of which `new` are
    to be trained (all of `uncut`, unless the record of a group was lost)."""

    repeat: tuple[Job, ...]
    retry: tuple[Job, ...]
    uncut: tuple[Run, ...]
    new: frozenset[str]

    @property
    def runs(self) -> list[Run]:
        """Those that will be trained."""
        again = [run for job in (*self.repeat, *self.retry) for run in job.runs]
        return again + [run for run in self.uncut if run.run_id in self.new]


def pending(plan: Plan, replay: Replay) -> Pending:
    """Compare the plan with the journal."""
    by_id = {run.run_id: run for run in plan.runs}
    current = {run_id: group for group in replay.groups.values() for run_id in group.runs}
    entries = replay.entries
    repeated: dict[str, Group] = {}
    failed, new = [], []
    for run in plan.runs:
        if run.run_id in entries:
            if entries[run.run_id].status == "failed":
                failed.append(run)
        elif run.run_id in current:
            repeated[current[run.run_id].id] = current[run.run_id]
        else:
            new.append(run.run_id)
    repeat = []
    for group in repeated.values():
        members = tuple(by_id[run_id] for run_id in group.runs if run_id in by_id and current[run_id] is group)
        repeat.append(_repeated(group, members, replay))
    again = {run.run_id for job in repeat for run in job.runs}
    return Pending(
        repeat=tuple(repeat),
        retry=_retries([run for run in failed if run.run_id not in again], current, replay),
        uncut=tuple(run for run in plan.runs if run.run_id not in current) if new else (),
        new=frozenset(new),
    )


def _repeated(group: Group, members: tuple[Run, ...], replay: Replay) -> Job:
    ids = tuple(run.run_id for run in members)
    if ids == group.runs:
        return Job(group=group, runs=members, resume=replay.checkpoints.get(group.id))
    # The spec has shrunk: a checkpoint of the whole group fits no part of it.
    return Job(group=replace(group, runs=ids), runs=members)


def _retries(failed: Sequence[Run], current: Mapping[str, Group], replay: Replay) -> tuple[Job, ...]:
    died = [run for run in failed if replay.entries[run.run_id].worker_died and run.run_id in current]
    count = Counter(current[run.run_id].id for run in died)
    whole: dict[str, list[Run]] = {}
    alone = []
    for run in failed:
        group = current.get(run.run_id)
        if group is not None and count[group.id] == len(group.runs):
            whole.setdefault(group.id, []).append(run)
        else:
            again = replace(group, runs=(run.run_id,)) if group else Group(engine="single", runs=(run.run_id,))
            alone.append(Job(group=again, runs=(run,)))
    groups = [replay.groups[number] for number in whole]
    by_id = {run.run_id: run for run in failed}
    return *(Job(group=group, runs=tuple(by_id[run] for run in group.runs)) for group in groups), *alone


def jobs(left: Pending, replay: Replay, cut: Cut) -> list[Job]:
    """Everything to train. `cut` gets all runs that are in no group of the journal, finished ones too.

    Raises StorageError if the record of a group is lost and cutting anew does not give that group again: its other
    runs could then come out with other last digits.
    """
    if not left.new:
        return [*left.repeat, *left.retry]
    by_id = {run.run_id: run for run in left.uncut}
    lost = {replay.entries[run_id].group for run_id in by_id if run_id in replay.entries}
    fresh = []
    for group in cut(left.uncut):
        if not left.new.intersection(group.runs):
            continue
        if group.id not in lost and any(run_id in replay.entries for run_id in group.runs):
            raise StorageError(
                "the journal is damaged: it lost the record of which runs were trained together, so the "
                "rest cannot be reproduced exactly; rerun with --fresh, which sets the journal aside"
            )
        runs = tuple(by_id[run_id] for run_id in group.runs)
        fresh.append(Job(group=group, runs=runs, resume=replay.checkpoints.get(group.id)))
    return [*left.repeat, *left.retry, *fresh]


def required_metrics(runs: Iterable[Run], objective: str) -> dict[str, dict[str, str]]:
    """The columns of curves.csv that runs are judged by, by workload: {column: the key of the spec that names it}.

    They are the objective's metric and those that `plateau` schedules watch.
    """
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        columns = found.setdefault(run.workload_spec.key, {objective: "objective.metric"})
        if run.setting.schedule["name"] == "plateau":
            columns.setdefault(run.setting.schedule["metric"], "schedule.metric")
    return found
