"""Groups through an executor into the journal: what is written when, and what happens to a group that goes wrong.

A worker that dies (noticed in workers/executors.py): its group is retried up to TRIES times in all, then split in two
until the run that kills it is alone and recorded as failed. Out of memory: split at once. An engine that raises: its
runs are trained one at a time, and the reason is reported once one of them succeeds; otherwise their failures say it.
"""

from __future__ import annotations

import textwrap
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from lrsweep.errors import StorageError
from lrsweep.run_result import RunResult, Status
from lrsweep.store import checkpoints, journal
from lrsweep.store.journal import Checkpoint, Group, Journal, Replay
from lrsweep.sweep.progress import Notes, Update
from lrsweep.wording.words import plural
from lrsweep.workers.executors import Event, Executor
from lrsweep.workers.messages import Died, Ended, Job, OutOfMemory, Raised, Saved, Ticked, Trained, Unwritable

if TYPE_CHECKING:
    from lrsweep.plan import Run

TRIES = 3
LONGEST_REASON = 300

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

    def update(self) -> Update:
        return Update(
            done=self.done,
            total=self.total,
            diverged=self.diverged,
            failed=self.failed,
            run_steps=self._finished + sum(self._running.values()),
            run_steps_total=self.run_steps_total,
        )


class Supervisor:
    """Runs jobs until none is left or the sweep is stopped. Only this writes the journal while it lasts."""

    def __init__(
        self,
        *,
        folder: Path,
        writer: Journal,
        replay: Replay,
        notes: Notes,
        wanted: frozenset[str],
    ) -> None:
        """`wanted` are the runs of the plan; what a repeated group gives of others is not written."""
        self._folder = folder
        self._writer, self._notes, self._wanted = writer, notes, wanted
        entries = {run: entry.status for run, entry in replay.entries.items() if run in wanted}
        self._settled: dict[str, Status] = {run: status for run, status in entries.items() if status != "failed"}
        self._saved: dict[str, Checkpoint] = dict(replay.checkpoints)
        self._tries: Counter[str] = Counter()
        self._queue: deque[Job] = deque()
        self._raised: Counter[str] = Counter()  # runs by the exception that they are trained one at a time for
        self.trained = 0
        self.counts = _Counts(
            total=len(wanted),
            done=len(self._settled),
            diverged=sum(status == "diverged" for status in self._settled.values()),
        )

    def run(
        self, jobs: Sequence[Job], executor: Executor, stopping: Callable[[], bool], meanwhile: Callable[[], None]
    ) -> None:
        """Train `jobs`; `meanwhile` is called once, when the workers have something to do.

        Raises StorageError; when `stopping()` turns true the workers save and this returns.
        """
        # The longest first: a long group that starts last would keep one core busy and the others idle.
        self._queue.extend(sorted(jobs, key=lambda job: -job.run_steps))
        self._raised.update(job.group.reason for job in jobs if job.group.raised and job.group.reason)
        self.counts.run_steps_total = sum(job.run_steps for job in jobs)
        for events in executor.events(self._queue):
            self._write(events)
            for job, message in events:
                self._take(job, message)
            if stopping():
                executor.stop()
            self._notes.reporter.update(self.counts.update())
            meanwhile()
            meanwhile = _nothing

    def _write(self, events: Iterable[Event]) -> None:
        """One write for all that came together; then it may be reported as done."""
        records = []
        for job, message in events:
            if isinstance(message, Trained) and self._is_news(message.outcome):
                records.append(journal.outcome_record(message.outcome, job.group.id))
                self._count(message.outcome)
                self._tell_raised(job.group, message.outcome)
            elif isinstance(message, Saved):
                records.append(journal.checkpoint_record(job.group.id, message.checkpoint))
        self._writer.append(records)

    def _is_news(self, outcome: RunResult) -> bool:
        return outcome.run_id in self._wanted and outcome.run_id not in self._settled

    def _count(self, outcome: RunResult) -> None:
        self._settled[outcome.run_id] = outcome.status
        self.trained += 1
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
        elif isinstance(message, Ended):
            self.counts.end(job)
            self._forget(job.group)
        elif isinstance(message, Unwritable):
            raise StorageError(message.text)
        elif isinstance(message, Died | OutOfMemory | Raised):
            self.counts.drop(job)
            self._recover(job, message)

    def _forget(self, group: Group) -> None:
        """Delete the group's checkpoint: a newer one is in the journal, or the group is done."""
        checkpoint = self._saved.pop(group.id, None)
        if checkpoint is not None:
            checkpoints.delete(self._folder, checkpoint)

    def _recover(self, job: Job, message: Trouble) -> None:
        self._tries[job.group.id] += 1
        if isinstance(message, Died) and self._tries[job.group.id] < TRIES:
            what = f"{len(job.runs)} runs are" if len(job.runs) > 1 else "run is"
            self._notes.once(f"{message.text}; its {what} tried again")
            self._queue.appendleft(replace(job, resume=self._saved.get(job.group.id)))
            return
        self._forget(job.group)
        left = [run for run in job.runs if run.run_id not in self._settled]
        if len(left) <= 1 and not (isinstance(message, Raised) and job.group.engine != "single"):
            for run in left:
                self._fail(job, run.run_id, message)
            return
        if isinstance(message, Raised):
            what = "a recorded step" if job.group.engine == "recorded" else "training them together"
            reason = f"an error in {what}: " + textwrap.shorten(message.text, LONGEST_REASON, placeholder=" ...")
            self._raised[reason] += len(left)
            self._requeue(job, [[run] for run in left], "single", reason, raised=True)
        else:
            why = "out of memory" if isinstance(message, OutOfMemory) else message.text
            self._notes.once(f"{why}: splitting a group of {len(left)} runs in two")
            halves = [left[: len(left) // 2], left[len(left) // 2 :]]
            self._requeue(job, halves, job.group.engine, message.text, worker_died=isinstance(message, Died))

    def _requeue(
        self,
        job: Job,
        parts: Sequence[Sequence[Run]],
        engine: str,
        reason: str,
        *,
        raised: bool = False,
        worker_died: bool = False,
    ) -> None:
        """Train the parts in place of the group; a resumed sweep will find them in the journal."""
        each = job.run_steps // max(len(job.runs), 1)
        compiled = job.group.compile and engine == job.group.engine
        groups = []
        for runs in parts:
            ids = tuple(run.run_id for run in runs)
            group = Group(engine=engine, runs=ids, compile=compiled, reason=reason, raised=raised)
            groups.append(group)
            if worker_died:
                self._tries[group.id] = TRIES - 1  # the whole was tried often enough
            self._queue.append(Job(group=group, runs=tuple(runs), run_steps=each * len(runs)))
        record = journal.groups_record(groups)
        self._writer.append([record, record])

    def _fail(self, job: Job, run_id: str, message: Trouble) -> None:
        outcome = RunResult(run_id=run_id, status="failed", error=message.text)
        if run_id in self._wanted:
            died = isinstance(message, Died)
            self._writer.append([journal.outcome_record(outcome, job.group.id, worker_died=died)])
            self._count(outcome)
        self.counts.end(job)


def _nothing() -> None:
    pass
