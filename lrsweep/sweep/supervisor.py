"""Groups through an executor into the journal: what is written when, and what happens to a group that goes wrong.

User code that fails an audit, or whose untrained losses differ between runs of one seed: all that was trained together
of that workload is thrown away and trained again one at a time. A worker that dies (noticed in workers/): its group is
retried up to TRIES times in all, then split in two until the run that kills it is alone, which is tried once more in
plain torch and then recorded as failed. Where its machine is lost, it is retried LOSSES times before that begins. Once
HOPELESS runs of a recipe have failed like that and none was ever trained, the others of the recipe fail untried; the
next command tries them again. Out of memory: split at once. An engine that raises: its runs are trained one at a time,
and the reason is reported once one of them succeeds; otherwise their failures say it.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult, Status
from lrsweep.store import checkpoints, journal
from lrsweep.store.journal import Checkpoint, Group, Journal, Replay
from lrsweep.sweep.progress import Notes, Update
from lrsweep.sweep.throughput import Meter, Throughput
from lrsweep.training import reasons
from lrsweep.wording import words
from lrsweep.wording.words import plural
from lrsweep.workers.executors import Event, Executor
from lrsweep.workers.messages import (
    AuditFailed,
    Died,
    Ended,
    Job,
    Lost,
    OutOfMemory,
    Quiet,
    Raised,
    Saved,
    Ticked,
    Trained,
    Unwritable,
    Warned,
)

if TYPE_CHECKING:
    from lrsweep.plan import Run

TRIES = 3
LOSSES = 5
HOPELESS = 3
UNTRAINED = ("train_loss", "val_loss")
UNTRAINED_TOLERANCE = {"float64": 1e-9, "float32": 1e-5, "bfloat16": 1e-2}

Trouble: TypeAlias = Died | OutOfMemory | Raised


@dataclass(kw_only=True)
class _Counts:
    """For the reporter: runs, and updates summed over runs."""

    total: int
    done: int
    diverged: int
    failed: int = 0
    run_steps_total: int = 0
    _finished: int = 0
    _running: Counter[str] = field(default_factory=Counter)

    def tick(self, job: Job, steps: int) -> None:
        self._running[job.group.id] = min(self._running[job.group.id] + steps, job.run_steps)

    def end(self, job: Job) -> None:
        """A group is done; runs that diverged never make the updates they were planned for."""
        del self._running[job.group.id]
        self._finished += job.run_steps

    def drop(self, job: Job) -> None:
        self._running.pop(job.group.id, None)

    def update(self, throughput: tuple[Throughput, ...] = ()) -> Update:
        return Update(
            done=self.done,
            total=self.total,
            diverged=self.diverged,
            failed=self.failed,
            run_steps=self._finished + sum(self._running.values()),
            run_steps_total=self.run_steps_total,
            throughput=throughput,
        )


@dataclass
class Audits:
    """How often user code was computed alone for comparison, and what the failed ones say. `verified`: how many runs
    were trained alone in full, for --verify."""

    count: int = 0
    verified: int = 0
    failed: list[str] = field(default_factory=list)


class Supervisor:
    """Runs jobs until none is left or the sweep is stopped. Only this writes the journal while it lasts."""

    def __init__(
        self,
        *,
        folder: Path,
        writer: Journal,
        replay: Replay,
        notes: Notes,
        runs: Mapping[str, Run],
    ) -> None:
        """`runs` are those of the plan; what a repeated group gives of others is not written."""
        self._folder = folder
        self._writer, self._notes, self._runs, self._replay = writer, notes, runs, replay
        self._trained: set[str] = set()
        wanted = runs.keys()
        entries = {run: entry.status for run, entry in replay.entries.items() if run in wanted}
        self._settled: dict[str, Status] = {run: status for run, status in entries.items() if status != "failed"}
        self._saved: dict[str, Checkpoint] = dict(replay.checkpoints)
        self._tries: Counter[str] = Counter()
        self._losses: Counter[str] = Counter()  # groups whose machine was lost
        self._queue: deque[Job] = deque()
        self._killed: Counter[str] = Counter()  # runs that ended their workers alone, by recipe
        self._trainable = {runs[run].workload_spec.key for run in self._settled}  # recipes with a run that was trained
        self._raised: Counter[str] = Counter()  # runs by the exception that they are trained one at a time for
        self._distrusted = dict(replay.distrusted)
        self._engines = {
            run: replay.groups[entry.group].engine
            for run, entry in replay.entries.items()
            if entry.group in replay.groups
        }
        # Row 0 by recipe and seed, of the first run that was seen, with its engine; and a stored run of each.
        self._untrained: dict[tuple[str, int], tuple[str, tuple[float, ...]]] = {}
        self._stored = {_place(runs[run]): run for run in self._settled}
        self.audits = Audits()
        self.meter = Meter()
        self.counts = _Counts(
            total=len(wanted),
            done=len(self._settled),
            diverged=sum(status == "diverged" for status in self._settled.values()),
        )

    @property
    def trained(self) -> int:
        """How many runs have a result of this supervisor."""
        return len(self._trained)

    def run(
        self, jobs: Sequence[Job], executor: Executor, stopping: Callable[[], bool], meanwhile: Callable[[], None]
    ) -> None:
        """Train `jobs` in their order; `meanwhile` is called once, when the workers have something to do.

        Raises StorageError; when `stopping()` turns true the workers save and this returns.
        """
        self._queue.extend(jobs)
        self._of_recipe = {job.runs[0].workload_spec.key: job for job in jobs}
        self._raised.update(job.group.reason for job in jobs if job.group.raised and job.group.reason)
        self.counts.run_steps_total = sum(job.run_steps for job in jobs)
        once = [meanwhile]

        def take(events: list[Event]) -> None:
            for job, message in events:
                self.meter.hear(job, message)
            events = [(job, message) for job, message in events if not self._thrown_away(job, message)]
            self._write(events)
            for job, message in events:
                self._take(job, message)
            if stopping():
                executor.stop()
            self._notes.reporter.update(self.counts.update(self.meter.found()))
            while once:
                once.pop()()

        executor.run(self._queue, take)

    def _write(self, events: Iterable[Event]) -> None:
        """One write for all that came together; then it may be reported as done."""
        records = []
        for job, message in events:
            if isinstance(message, Trained) and self._is_news(message.outcome):
                records.append(journal.outcome_record(message.outcome, job.group.id))
                self._count(message.outcome, job)
                self._tell_raised(job.group, message.outcome)
            elif isinstance(message, Saved):
                records.append(journal.checkpoint_record(job.group.id, message.checkpoint))
        self._writer.append(records)

    def _is_news(self, outcome: RunResult) -> bool:
        return outcome.run_id in self._runs and outcome.run_id not in self._settled

    def _count(self, outcome: RunResult, job: Job) -> None:
        self._settled[outcome.run_id] = outcome.status
        if outcome.status != "failed":
            self._trainable.add(self._runs[outcome.run_id].workload_spec.key)
        self._engines[outcome.run_id] = job.group.engine
        self._trained.add(outcome.run_id)
        self.counts.done += 1
        self.counts.diverged += outcome.status == "diverged"
        self.counts.failed += outcome.status == "failed"

    def _tell_raised(self, group: Group, outcome: RunResult) -> None:
        """Why runs are trained one at a time that raised something together, unless it fails them alone too."""
        reason = group.reason
        if reason is not None and group.raised and outcome.status != "failed":
            count = self._raised[reason]
            self._notes.once(f"at least {plural(count, 'run')} trained one at a time: {reason}", reason)

    def _take(self, job: Job, message: object) -> None:
        if isinstance(message, Ticked):
            self.counts.tick(job, message.run_steps)
        elif isinstance(message, Saved):
            self._forget(job.group)
            self._saved[job.group.id] = message.checkpoint
        elif isinstance(message, Trained):
            self._compare_untrained(job, message.outcome)
        elif isinstance(message, Warned):
            self._notes.once(message.text, message.key)
        elif isinstance(message, Quiet):
            self._notes.note(_no_word(job, message.seconds))
        elif isinstance(message, Ended):
            self.audits.count += message.audits
            self.audits.verified += message.verified
            self.counts.end(job)
            self._forget(job.group)
        elif isinstance(message, AuditFailed):
            self.audits.failed.append(message.text)
            self._distrust(job, message.label, f"an audit failed at {message.text}")
            self._alone(job)
        elif isinstance(message, Unwritable):
            raise StorageError(message.text)
        elif isinstance(message, Lost):
            self.counts.drop(job)
            self._losses[job.group.id] += 1
            if self._losses[job.group.id] > LOSSES:
                self._recover(job, Died(message.text))
            else:
                self._notes.once(f"{message.text}; what it trained is trained elsewhere, from its last checkpoint")
                self._queue.appendleft(replace(job, resume=self._saved.get(job.group.id)))
        elif isinstance(message, Died | OutOfMemory | Raised):
            self.counts.drop(job)
            self._recover(job, message)

    def _thrown_away(self, job: Job, message: object) -> bool:
        """Is this about results that are no longer believed? Then the job's runs are trained again."""
        if job.group.engine == "single" or self._reason_of(job) is None:
            return False
        if isinstance(message, Ended):
            self._alone(job)
        return isinstance(message, Trained | Ended | Saved)

    def _reason(self, run: Run) -> str | None:
        """Why runs like this one are trained one at a time since an audit failed; None if they need not be."""
        key = run.workload_spec.key
        return self._distrusted.get((key, None)) or self._distrusted.get((key, run.label))

    def _reason_of(self, job: Job) -> str | None:
        """The same of a job, one of whose runs is enough: what its class keeps may have reached the others."""
        return next(filter(None, map(self._reason, job.runs)), None)

    def _distrust(self, job: Job, label: str | None, reason: str) -> None:
        """Throw away what was trained together of the workload of `job`, or of it and an optimizer."""
        key = job.runs[0].workload_spec.key
        if (key, label) in self._distrusted:
            return
        self._distrusted[key, label] = reason
        concerned = [one for one in self._runs.values() if one.workload_spec.key == key and label in (None, one.label)]
        void = [
            one for one in concerned
            if self._settled.get(one.run_id, "failed") != "failed" and self._engines.get(one.run_id) != "single"
        ]  # fmt: skip
        record = journal.void_record(key, label, reason, [one.run_id for one in void])
        self._writer.append([record, record])
        for one in void:
            self.counts.diverged -= self._settled.pop(one.run_id) == "diverged"
            self.counts.done -= 1
            self.counts.run_steps_total += self._steps_of(one)
            self._trained.discard(one.run_id)
        waiting = [job for job in self._queue if job.group.engine != "single" and self._reason_of(job)]
        for job in waiting:
            self._queue.remove(job)
        again = {one.run_id: one for one in (*void, *(one for job in waiting for one in job.runs))}
        self._train_alone(list(again.values()), reason)
        affected = {one.run_id for one in (*concerned, *again.values(), *job.runs)}
        self._notes.once(f"{plural(len(affected), 'run')} trained one at a time: {reason}", reason)

    def _alone(self, job: Job) -> None:
        """Train what is left of a group one at a time."""
        self.counts.drop(job)
        self._forget(job.group)
        left = [run for run in job.runs if run.run_id not in self._settled]
        self._train_alone(left, self._reason_of(job) or "")

    def _steps_of(self, run: Run) -> int:
        job = self._of_recipe.get(run.workload_spec.key)
        return 0 if job is None else job.run_steps // max(len(job.runs), 1)

    def _train_alone(self, runs: Sequence[Run], reason: str) -> None:
        groups = [Group(engine="single", runs=(run.run_id,), reason=reason) for run in runs]
        for group, run in zip(groups, runs, strict=True):
            like = self._of_recipe.get(run.workload_spec.key)
            self._queue.append(
                Job(
                    group=group,
                    runs=(run,),
                    run_steps=self._steps_of(run),
                    probed=None if like is None else like.probed,
                    unused_worker=True,
                )
            )
        if groups:
            record = journal.groups_record(groups)
            self._writer.append([record, record])

    def _compare_untrained(self, job: Job, outcome: RunResult) -> None:
        """Row 0 is the same for all rates and optimizers of a seed, or something is kept between runs."""
        run = job.runs[[one.run_id for one in job.runs].index(outcome.run_id)]
        losses, place = _untrained_losses(outcome), _place(run)
        if outcome.status == "failed" or not losses:
            return
        if place not in self._untrained:
            self._untrained[place] = self._stored_losses(place) or (job.group.engine, losses)
        engine, before = self._untrained[place]
        if all(_near(one, other, run) for one, other in zip(losses, before, strict=True)):
            return
        text = (
            f"the untrained losses of seed {run.seed} differ between runs ({before[0]!r} and {losses[0]!r}): the task "
            "or model keeps something between calls, or draws numbers that do not come from the seed"
        )
        if run.built_in or (engine, job.group.engine) == ("single", "single"):
            self._notes.once(f"warning: {text}; these results cannot be repeated", place[0])
            return
        self.audits.failed.append(text)
        del self._untrained[place]
        self._distrust(job, None, text)

    def _stored_losses(self, place: tuple[str, int]) -> tuple[str, tuple[float, ...]] | None:
        """Those of a run of an earlier command, None if there is none."""
        run = self._stored.get(place)
        if run is None or run in self._trained or run not in self._settled:
            return None
        losses = _untrained_losses(self._replay.outcome(run))
        return (self._engines.get(run, "single"), losses) if losses else None

    def _forget(self, group: Group) -> None:
        """Delete the group's checkpoint: a newer one is in the journal, or the group is done."""
        checkpoint = self._saved.pop(group.id, None)
        if checkpoint is not None:
            checkpoints.delete(self._folder, checkpoint)

    def _recover(self, job: Job, message: Trouble) -> None:
        self._tries[job.group.id] += 1
        if isinstance(message, Died) and self._hopeless(job):
            self._fail(job, message)
            return
        if isinstance(message, Died) and self._tries[job.group.id] < TRIES:
            what = f"{len(job.runs)} runs are" if len(job.runs) > 1 else "run is"
            self._notes.once(f"{message.text}; its {what} tried again")
            self._queue.appendleft(replace(job, resume=self._saved.get(job.group.id)))
            return
        left = [run for run in job.runs if run.run_id not in self._settled]
        alone = isinstance(message, OutOfMemory) or job.group.engine == "single"
        if not left or (len(left) == 1 and alone):
            self._fail(job, message)
            if isinstance(message, Died) and len(job.runs) == 1:
                self._killed[job.runs[0].workload_spec.key] += 1
                self._give_up(job, message)
            return
        self._forget(job.group)
        labels = list(dict.fromkeys(run.label for run in left))
        if isinstance(message, Raised) and job.group.engine == "stacked" and len(labels) > 1:
            first = labels[: len(labels) // 2]  # one class may be to blame
            parts = [[run for run in left if (run.label in first) is one] for one in (True, False)]
            self._requeue(job, parts, "stacked", None, unused_worker=True)
        elif isinstance(message, Died) and len(left) == 1:
            reason = reasons.short(message.text)
            self._raised[reason] += 1
            self._requeue(job, [left], "single", reason, raised=True, worker_died=True, unused_worker=True)
            self._queue.rotate()  # before all others: it may be the third that is hopeless
        elif isinstance(message, Raised):
            what = "a recorded step" if job.group.engine == "recorded" else "training them together"
            reason = reasons.short(f"an error in {what}: {message.text}")
            self._raised[reason] += len(left)
            self._requeue(job, [[run] for run in left], "single", reason, raised=True, unused_worker=True)
        else:
            why = "out of memory" if isinstance(message, OutOfMemory) else message.text
            self._notes.once(f"{why}: splitting a group of {len(left)} runs in two")
            halves = [left[: len(left) // 2], left[len(left) // 2 :]]
            self._requeue(
                job, halves, job.group.engine, reasons.short(message.text), worker_died=isinstance(message, Died)
            )

    def _requeue(
        self,
        job: Job,
        parts: Sequence[Sequence[Run]],
        engine: str,
        reason: str | None,
        *,
        raised: bool = False,
        worker_died: bool = False,
        unused_worker: bool = False,
    ) -> None:
        """Train the parts in place of the group; a resumed sweep will find them in the journal.

        `unused_worker`: what the group has left in its worker must not reach them.
        """
        each = job.run_steps // max(len(job.runs), 1)
        compiled = job.group.compile and engine == job.group.engine
        groups = []
        for runs in parts:
            ids = tuple(run.run_id for run in runs)
            group = Group(engine=engine, runs=ids, compile=compiled, reason=reason, raised=raised)
            groups.append(group)
            if worker_died:
                self._tries[group.id] = TRIES - 1  # the whole was tried often enough
            self._queue.append(
                Job(
                    group=group,
                    runs=tuple(runs),
                    run_steps=each * len(runs),
                    probed=job.probed,
                    unused_worker=unused_worker,
                )
            )
        record = journal.groups_record(groups)
        self._writer.append([record, record])

    def _hopeless(self, job: Job) -> bool:
        """Has the recipe of `job` only ever ended its workers?"""
        key = job.runs[0].workload_spec.key
        return self._killed[key] >= HOPELESS and key not in self._trainable

    def _give_up(self, job: Job, message: Died) -> None:
        """Fail what waits of the recipe of `job`, if that is hopeless."""
        if not self._hopeless(job):
            return
        key = job.runs[0].workload_spec.key
        waiting = [one for one in self._queue if one.runs[0].workload_spec.key == key]
        untried = [one for one in waiting if not self._tries[one.group.id]]
        for one in waiting:
            self._queue.remove(one)
            why = f"; not tried: the first {HOPELESS} runs ended like this" if one in untried else ""
            self._fail(one, Died(message.text), why)
        if count := sum(len(one.runs) for one in untried):
            runs = f"{plural(count, 'run')} of the same task and settings"
            self._notes.note(f"{message.text}: the first {HOPELESS} runs ended like this; not tried: {runs}")

    def _fail(self, job: Job, message: Trouble, why: str = "") -> None:
        """Record what is left of a group as failed."""
        self._forget(job.group)
        died = isinstance(message, Died)
        like = self._of_recipe.get(job.runs[0].workload_spec.key)
        place = words.made_at(like.made_at) if died and like is not None else ""
        records = []
        for run in job.runs:
            if run.run_id in self._runs and run.run_id not in self._settled:
                outcome = RunResult(run_id=run.run_id, status="failed", error=f"{message.text}{place}{why}")
                records.append(journal.outcome_record(outcome, job.group.id, worker_died=died))
                self._count(outcome, job)
        self._writer.append(records)
        self.counts.end(job)


def _place(run: Run) -> tuple[str, int]:
    return run.workload_spec.key, run.seed


def _untrained_losses(outcome: RunResult) -> tuple[float, ...]:
    return tuple(float(outcome.history[name][0]) for name in UNTRAINED if outcome.history.get(name))


def _near(one: float, other: float, run: Run) -> bool:
    if one == other or (math.isnan(one) and math.isnan(other)):
        return True
    tolerance = UNTRAINED_TOLERANCE[run.workload_spec.train["dtype"]]
    return abs(one - other) <= tolerance * max(abs(one), abs(other))


def _no_word(job: Job, seconds: float) -> str:
    run, more = job.runs[0], len(job.runs) - 1
    others = f" and {plural(more, 'more run')}" if more else ""
    return (
        f"no word for {seconds:.0f} s from the worker that trains {run.label}, lr {run.lr!r}, seed {run.seed}{others}"
    )
