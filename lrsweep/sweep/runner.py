"""One sweep being run by this process: what is missing is trained, then tables, pictures and report are written.

Resumed, extended and repeated sweeps are the same thing: the plan less what the journal holds.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep import plan as planning
from lrsweep import tasks
from lrsweep.compiler import onednn
from lrsweep.errors import LrsweepError, StoppedError
from lrsweep.results import manifest, tables
from lrsweep.results.figures import REPORT, objective_text, other_than
from lrsweep.results.status import stored_of, with_refined
from lrsweep.spec.model import Spec
from lrsweep.store import atomic, checkpoints, failpoints, journal, lock, plan_record
from lrsweep.store.journal import Group, Journal, Replay
from lrsweep.sweep import dry_run as estimate
from lrsweep.sweep import pending, preflight
from lrsweep.sweep.background import LocalRenderer
from lrsweep.sweep.dry_run import Estimate
from lrsweep.sweep.pending import Pending
from lrsweep.sweep.progress import Reporter, Start
from lrsweep.sweep.supervisor import Supervisor
from lrsweep.system.machine import this_machine
from lrsweep.system.signals import Stopping
from lrsweep.training import grouping
from lrsweep.workers import executors, worker
from lrsweep.workers.messages import Job, WorkerConfig

if TYPE_CHECKING:
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.plan import Plan, Run, WorkloadSpec
    from lrsweep.training.workload import Workload

CHECKPOINT_SECONDS = 20.0
"""The least time between two checkpoints of a group; costly ones come more rarely, see worker.py."""


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a sweep came to; counts are runs of the plan. `facts` are there if the tables were written anew; `estimate`
    stands alone after a dry run."""

    path: Path
    total: int = 0
    trained: int = 0
    diverged: int = 0
    failed: int = 0
    facts: SweepFacts | None = None
    estimate: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run: nothing of this changes what a run is."""

    device: str
    workers: int
    executor: str
    compile: str

    @classmethod
    def of(cls, *, device: str, workers: int | str, executor: str, compile: str) -> Options:
        """Resolve `auto`, and leave this process one thread: workers are forked from it. Raises UsageError."""
        worker.prepare()
        count = this_machine().cores if workers == "auto" else int(workers)
        return cls(device=worker.device_of(device), workers=count, executor=executor, compile=compile)


class Sweep:
    """One sweep being run by this process."""

    def __init__(
        self,
        folder: Path,
        options: Options,
        reporter: Reporter,
        stopping: Stopping,
        renderer: LocalRenderer | None = None,
    ) -> None:
        self.folder, self._options = folder, options
        self._reporter, self._stopping, self._renderer = reporter, stopping, renderer or LocalRenderer()
        self._writer = Journal(folder)
        self._replay = Replay()
        self._task_notes: dict[str, Any] = {}
        self._tasks: dict[str, Any] = {}
        self._said: set[str] = set()
        self._trained = 0
        self._seconds = 0.0

    def run(self, spec: Spec, *, refine: bool, fresh: bool) -> Finished:
        """Train, write tables, pictures, report and manifest."""
        begun = time.time()
        if not self.folder.exists():
            _check(planning.build(spec, planning.fingerprints(spec)).runs)
        atomic.make_folder(self.folder)
        with lock.hold(self.folder):
            self._tidy(fresh)
            spec = with_refined(spec, self.folder, fresh)
            try:
                planned = self._advance(spec)
                if refine and not self._stopping.requested():
                    planned = self._refine(planned)
            finally:
                self._writer.close()
            return self._finish(planned, begun)

    def _tidy(self, fresh: bool) -> None:
        atomic.remove_leftovers(self.folder)
        atomic.remove_leftovers(self.folder / journal.FOLDER)
        atomic.remove_leftovers(self.folder / checkpoints.FOLDER)
        if fresh and (self.folder / journal.FOLDER).exists():
            number = 1
            while (aside := self.folder / f"journal.old-{number}").exists():
                number += 1
            with atomic.storage_errors(aside, "create"):
                failpoints.point("journal.aside")
                (self.folder / journal.FOLDER).rename(aside)
                atomic.sync_folder(self.folder)
        elif (self.folder / tables.RUNS).is_file() and not journal.exists(self.folder):
            self._reporter.note(
                f"{self.folder} holds tables without a journal (a published copy); they are replaced when this run ends"
            )

    def _advance(self, spec: Spec, *, again: bool = False) -> Plan:
        """Train what the spec asks for and the journal lacks; `again` in this command: failed runs had their turn."""
        planned = planning.build(spec, planning.fingerprints(spec))
        replay = self._replay = journal.replay(self.folder)
        for line in journal.damaged_lines(journal.keep_damaged(replay)):
            self._reporter.note(line)
        left = pending.pending(planned, replay)
        if again:
            left = dataclasses.replace(left, retry=())
        if replay.plan is not None and (note := plan_record.note(replay.plan, planned, replay, self.folder)):
            self._reporter.note(note)
        work = self._work(left, replay)
        jobs = self._jobs(work, planned)
        self._drop_checkpoints(work)
        self._record(plan_record.plan_record(planned, self.folder, replay.plan), work, replay)
        if jobs:
            self._tell_reasons(work)
            for warning in (text for notes in self._tasks.values() for text in notes.get("warnings", ())):
                self._say_once(warning, f"warning: {warning}")
            self._train(jobs, planned, replay)
        return planned

    def _work(self, left: Pending, replay: Replay) -> list[Job]:
        """The groups to train. Raises UsageError if the user's code cannot be used."""
        if not left.runs:
            return []
        if again := len(left.retry):
            self._reporter.note(f"{again} failed run{'s are' if again > 1 else ' is'} tried again")
        _check(left.runs)
        return pending.jobs(left, replay, self._cut)

    def _drop_checkpoints(self, work: Sequence[Job]) -> None:
        checkpoints.delete_all_but(self.folder, [job.resume for job in work if job.resume is not None])

    def _record(self, record: dict[str, Any], work: Sequence[Job], replay: Replay) -> None:
        """Write down what is about to be trained, and how it is grouped, before it is. Twice: see journal.py."""
        records: list[dict[str, Any]] = []
        if not plan_record.same(replay.plan, record):
            records += [record, record]
        groups = [task.group for task in work if task.group.id not in replay.groups]
        if groups:
            records += [journal.groups_record(groups)] * 2
        self._writer.append(records)

    def _cut(self, runs: Sequence[Run]) -> list[Group]:
        """Cut runs into groups, recipe by recipe. Raises UsageError if a task cannot be built."""
        workload_specs: dict[str, list[Run]] = {}
        for run in runs:
            workload_specs.setdefault(run.workload_spec.key, []).append(run)
        groups = []
        for members in workload_specs.values():
            workload = worker.workloads().get(members[0].workload_spec, "cpu")
            groups += grouping.cut(members, workload, this_machine(), self._options.workers, self._options.compile)
        return groups

    def _jobs(self, work: Sequence[Job], planned: Plan) -> list[Job]:
        """Raises UsageError if a task cannot be built or does not record what the spec asks for."""
        steps: dict[str, int] = {}
        required_metrics = pending.required_metrics(
            (run for job in work for run in job.runs), planned.spec.objective.metric
        )
        jobs = []
        for task in work:
            workload_spec = task.runs[0].workload_spec
            if workload_spec.key not in steps:
                workload = worker.workloads().get(workload_spec, "cpu")
                preflight.metrics(workload, required_metrics[workload_spec.key])
                steps[workload_spec.key] = workload.total_steps
                self._task_notes[workload_spec.key] = {"task": workload_spec.task, **workload.task.notes}
                self._tasks[f"{workload_spec.task['name']}: {tasks.describe(workload.task)}"] = workload.task.notes
                alike = [run for one in work for run in one.runs if run.workload_spec.key == workload_spec.key]
                for remark in (*preflight.of_labels(planned.spec), *preflight.of_runs(alike, workload)):
                    self._say_once(remark, f"warning: {remark}")
            jobs.append(dataclasses.replace(task, run_steps=steps[workload_spec.key] * len(task.runs)))
        return jobs

    def _train(self, jobs: Sequence[Job], planned: Plan, replay: Replay) -> None:
        count = 1 if self._options.device == "cuda" else min(self._options.workers, len(jobs))
        setup = WorkerConfig(
            folder=str(self.folder.absolute()),
            device=self._options.device,
            parent=os.getpid(),
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        executor = executors.EXECUTORS[self._options.executor](setup, count)
        training = Supervisor(
            folder=self.folder,
            writer=self._writer,
            replay=replay,
            reporter=self._reporter,
            wanted=frozenset(run.run_id for run in planned.runs),
            told=self._said,
        )
        begun = time.monotonic()
        with self._stopping.graceful():
            try:
                executor.start()
                self._reporter.start(self._start(jobs, planned, replay, count))
                training.run(jobs, executor, self._stopping.requested, self._renderer.load)
            finally:
                executor.close()
                self._reporter.finish()
                self._seconds += time.monotonic() - begun
                self._trained += training.trained

    def _start(self, jobs: Sequence[Job], planned: Plan, replay: Replay, count: int) -> Start:
        statuses = (replay.entries[run.run_id].status for run in planned.runs if run.run_id in replay.entries)
        done = sum(status != "failed" for status in statuses)
        return Start(
            name=planned.spec.name,
            folder=str(self.folder),
            tasks=tuple(self._tasks),
            total=len(planned.runs),
            done_before=done,
            groups=len(jobs),
            workers=count,
            device=self._options.device,
            run_steps=sum(job.run_steps for job in jobs),
        )

    def _tell_reasons(self, work: Sequence[Job]) -> None:
        """Why runs are trained one at a time: once for each reason. Those that raised something: see training.py."""
        alone = (task.group for task in work if task.group.engine != "stacked" and not task.group.raised)
        reasons = Counter(group.reason for group in alone if group.reason)
        for reason, count in reasons.items():
            self._say_once(reason, f"{count} run{'s' * (count > 1)} trained one at a time: {reason}")

    def _say_once(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            self._reporter.note(text)

    def _refine(self, planned: Plan) -> Plan:
        """Train the rates that the summary asks for, until it asks for none."""
        from lrsweep.analysis.suggest import ROUNDS, refine
        from lrsweep.wording.advice import nothing_added

        for rounds in range(ROUNDS + 1):
            facts = self._tables(planned).facts
            added = refine(facts)
            if not added:
                self._reporter.note(nothing_added(facts))
                break
            if rounds == ROUNDS:
                self._reporter.note(f"rates are missing after {ROUNDS} rounds of --refine; the same command goes on")
                break
            text = "; ".join(f"{label}: {', '.join(map(repr, rates))}" for label, rates in added.items())
            self._reporter.note(f"rates added by --refine: {text}")
            planned = self._advance(planned.spec.with_rates(added), again=True)
            if self._stopping.requested():
                break
        return planned

    def _tables(self, planned: Plan, summarise: tables.Summarise = tables.summarise) -> tables.Written:
        with lock.tables(self.folder):
            self._replay = journal.replay(self.folder)
            record = plan_record.plan_record(planned, self.folder, self._replay.plan)
            return tables.write(self.folder, planned, self._replay, record, summarise)

    def _finish(self, planned: Plan, begun: float) -> Finished:
        """Derived files; after a stop the tables and the manifest alone."""
        facts: SweepFacts | None = None
        if self._trained or not tables.current(self.folder) or not (self.folder / REPORT).is_file():
            with self._stopping.graceful():
                written = self._tables(planned, self._renderer.summarise)
            facts = written.facts
            options = dataclasses.asdict(self._options)
            session = manifest.session(
                begun=begun, ended=time.time(), training_seconds=self._seconds, trained=self._trained,
                products=onednn.library(), **options,
            )  # fmt: skip
            manifest.write(
                self.folder, planned, self._replay, session=session,
                hashes=written.hashes, sha256=written.sha256, tasks=self._task_notes,
            )  # fmt: skip
            if not self._stopping.requested():
                self._draw()  # after the manifest, which the report reads
        elif not self._stopping.requested() and other_than(_objective(planned.spec), self.folder):
            self._draw()
        stored = stored_of(self.folder, planned, self._replay)
        if self._stopping.exit_code is not None:
            raise StoppedError(
                f"stopped: {stored.done} of {stored.total} runs are done and in the tables of {self.folder}; "
                "the same command goes on from there",
                self._stopping.exit_code,
            )
        return Finished(
            path=self.folder, total=stored.total, trained=self._trained, diverged=stored.diverged,
            failed=stored.failed, facts=facts,
        )  # fmt: skip

    def _draw(self) -> None:
        """Pictures and report. What goes wrong in them is told and loses nothing: they can be drawn again."""
        try:
            self._renderer.report(self.folder)
        except LrsweepError:
            raise
        except Exception as error:  # noqa: BLE001 - the results are safe; a picture must not cost them
            self._reporter.note(f"the report could not be made ({type(error).__name__}: {error}); see lrsweep report")

    def dry_run(self, spec: Spec, fresh: bool) -> Finished:
        """Count and time what a run would do; writes nothing."""
        planned = planning.build(spec, planning.fingerprints(spec))
        replay = journal.Replay() if fresh else journal.replay(self.folder)
        left = pending.pending(planned, replay)
        work = self._work(left, replay)
        jobs = self._jobs(work, planned)
        workers = 1 if self._options.device == "cuda" else min(self._options.workers, max(len(jobs), 1))

        def workload_of(workload_spec: WorkloadSpec) -> Workload:
            return worker.workloads().get(workload_spec, self._options.device)

        to_do = sum(run.run_id not in replay.entries or replay.entries[run.run_id].status == "failed"
                    for run in planned.runs)  # fmt: skip
        engines: Counter[str] = Counter()
        for job in jobs:
            engines[job.group.engine] += len(job.runs)
        facts = Estimate(
            name=spec.name,
            path=str(self.folder),
            runs=len(planned.runs),
            done=len(planned.runs) - to_do,
            to_do=to_do,
            groups=len(jobs),
            run_steps=sum(job.run_steps for job in jobs),
            seconds=estimate.seconds_of(jobs, workload_of, workers),
            bytes=estimate.bytes_of(planned.runs, len(planned.axis_names), workload_of) if jobs else 0,
            workers=workers,
            device=self._options.device,
            engines=dict(engines),
            reasons=tuple(dict.fromkeys(job.group.reason for job in jobs if job.group.reason)),
        )
        return Finished(path=self.folder, total=len(planned.runs), estimate=facts)


def _objective(spec: Spec) -> str:
    return objective_text(spec.objective.metric, spec.objective.at, spec.objective.mode)


def _check(runs: Sequence[Run]) -> None:
    """Build the user's task before the first file is written, so that a mistake in it leaves nothing behind."""
    preflight.user_code(runs, lambda workload_spec: worker.workloads().get(workload_spec, "cpu"))
