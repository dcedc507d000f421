"""One sweep, from its spec to its tables: what is pending -> preflight -> training -> what is published.

Resumed, extended and repeated sweeps are the same thing: the plan less what the journal holds. Each stage takes values
and returns values; the journal is what they share.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING, Any

from lrsweep import plan as planning
from lrsweep.errors import UsageError
from lrsweep.results import merging, tables
from lrsweep.results.status import with_refined
from lrsweep.store import atomic, checkpoints, journal, lock, plan_record
from lrsweep.store import fresh as fresh_start
from lrsweep.store.journal import Group, Journal, Replay
from lrsweep.store.tally import Tally
from lrsweep.sweep import pending, preflight, publish
from lrsweep.sweep.context import Context
from lrsweep.sweep.preflight import Work
from lrsweep.sweep.progress import Notes, Start
from lrsweep.sweep.publish import Finished, Round
from lrsweep.sweep.supervisor import Supervisor
from lrsweep.user_imports import current_versions, one_version
from lrsweep.wording.words import plural
from lrsweep.workers.messages import Job, WorkerConfig

if TYPE_CHECKING:
    from lrsweep.plan import Plan
    from lrsweep.spec.model import Spec

CHECKPOINT_SECONDS = 20.0
"""The least time between two checkpoints of a group; costly ones come more rarely, see worker.py."""


def run_sweep(spec: Spec, context: Context, *, refine: bool, fresh: bool) -> Finished:
    """Train what is missing, write tables, pictures, report and manifest.

    Raises UsageError if the user's code cannot be used, StorageError, BusyError, StoppedError.
    """
    with one_version():
        return _run_sweep(spec, context, refine=refine, fresh=fresh)


def _run_sweep(spec: Spec, context: Context, *, refine: bool, fresh: bool) -> Finished:
    begun, folder = time.time(), context.folder
    new = not folder.exists()
    if new:
        preflight.user_code(planning.build(spec, planning.fingerprints(spec)).runs)  # a mistake leaves nothing behind
    atomic.make_folder(folder)
    tables.refuse_links(folder)
    with lock.hold(folder):
        over = _tidy(context, fresh)
        with closing(Journal(folder)) as writer:
            try:
                rounds = [train_missing(with_refined(spec, folder, over), context, writer, over=over)]
            except UsageError:
                if new:
                    lock.forget(folder)
                raise
            if refine and not context.stopping.requested():
                rounds += _refined(rounds[0], context, writer)
        context.place.end()
        finished = publish.publish(rounds, context, begun)
        fresh_start.end(folder)
        return finished


def _tidy(context: Context, fresh: bool) -> bool:
    """Remove what killed processes left behind, say what will be overwritten; returns whether everything is trained."""
    folder, notes = context.folder, context.notes
    for part in (folder, folder / journal.FOLDER, folder / journal.CHECKPOINTS):
        atomic.remove_leftovers(part)
    over = fresh_start.starts_over(folder, fresh)
    if fresh and not over:
        notes.note("resuming the --fresh run that was interrupted")
    if tables.is_published(folder) and not fresh_start.underway(folder):
        notes.note(
            f"{context.shown} contains results without a journal (a published copy); they will be "
            "overwritten when this run finishes"
        )
    return over


def train_missing(spec: Spec, context: Context, writer: Journal, *, retry: bool = True, over: bool = False) -> Round:
    """Train what the spec asks for and the journal lacks; `retry` failed runs too. `over`: the journal is set aside."""
    folder, notes = context.folder, context.notes
    plan = planning.build(spec, planning.fingerprints(spec))
    before, replay = ({}, Replay()) if over else (tables.stamped(folder), journal.replay(folder))
    gone = tables.lost(before, replay)
    if gone:
        notes.once(f"{folder / journal.FOLDER}: {gone}; what is missing is trained again")
    for line in journal.damaged_lines(journal.keep_damaged(replay)):
        notes.note(line)
    thrown = merging.disbelieve(plan.runs, replay)
    left = pending.pending(plan, replay)
    if not retry:
        left = dataclasses.replace(left, retry=())
    work = preflight.prepare(left, plan, replay, context.options)
    if replay.plan is not None and (changed := plan_record.note(replay.plan, plan, replay, folder)):
        notes.note(changed)  # only now: what is wrong with the user's code leaves nothing to train again
    for text in work.remarks:
        notes.once(text)
    if over:
        fresh_start.begin(folder)  # only now: what is wrong with the user's code leaves everything as it was
    checkpoints.delete_all_but(folder, [job.resume for job in work.jobs if job.resume is not None])
    record = plan_record.plan_record(plan, folder, replay.plan)
    # A new file says what there is of the journal now: from then on what was lost is missed no longer.
    writer.append([*thrown, *_records(record, work.jobs, replay)] or ([record] if gone else []))
    if not work.jobs:
        return Round(plan=plan, replay=replay, settled=sum(run.run_id in replay.entries for run in plan.runs))
    _tell_reasons([job.group for job in work.jobs], notes)
    for text in (*work.warnings, *work.company):
        notes.once(text)
    return _train(work, plan, replay, context, writer)


def _records(record: dict[str, Any], jobs: Iterable[Job], replay: Replay) -> list[dict[str, Any]]:
    """What is about to be trained, and how it is grouped, to be written down before it is. Twice: see journal.py."""
    records = [] if plan_record.same(replay.plan, record) else [record, record]
    if groups := [job.group for job in jobs if job.group.id not in replay.groups]:
        records += [journal.groups_record(groups)] * 2
    return records


def _tell_reasons(groups: Iterable[Group], notes: Notes) -> None:
    """Why runs are trained one at a time. The supervisor tells of those that raised something, once it knows more."""
    alone = (group.reason for group in groups if group.engine != "stacked" and not group.raised)
    for reason, count in Counter(filter(None, alone)).items():
        notes.once(f"{plural(count, 'run')} trained one at a time: {reason}", reason)


def _train(work: Work, plan: Plan, replay: Replay, context: Context, writer: Journal) -> Round:
    count = work.workers
    config = WorkerConfig(
        folder=str(context.folder),
        device=context.options.device,
        parent=os.getpid(),
        checkpoint_seconds=CHECKPOINT_SECONDS,
        threads=context.options.threads,
        verify=context.options.verify,
        versions=current_versions(),
    )
    executor = context.place.executor(config, count)
    writer.tally = Tally(context.folder, plan.spec.name, plan.by_id, replay)
    supervisor = Supervisor(
        folder=context.folder,
        writer=writer,
        replay=replay,
        notes=context.notes,
        runs=plan.by_id,
    )
    start = Start(
        name=plan.spec.name,
        folder=str(context.shown),
        tasks=work.descriptions,
        total=len(plan.runs),
        done_before=supervisor.counts.done,
        groups=len(work.jobs),
        workers=count,
        device=context.options.device,
        run_steps=sum(job.run_steps for job in work.jobs),
    )
    begun = time.monotonic()
    with context.stopping.graceful():
        try:
            executor.start()
            context.reporter.start(start)
            supervisor.run(work.jobs, executor, context.stopping.requested, context.renderer.load)
        finally:
            executor.close()
            context.reporter.finish()
    seconds = time.monotonic() - begun
    if context.options.verify and not context.stopping.requested():
        context.notes.note(_verified(supervisor.audits.verified))
    return Round(
        plan=plan,
        replay=replay,
        trained=supervisor.trained,
        settled=supervisor.counts.done,
        seconds=seconds,
        task_notes=work.task_notes,
        audits=supervisor.audits,
        throughput=supervisor.meter.found(),
        company=work.company,
    )


def _verified(count: int) -> str:
    if not count:
        return "--verify: every run was trained alone in plain torch; nothing to compare"
    return (
        f"--verify: the first run of {plural(count, 'group')} was trained alone in plain torch, too; "
        "the results agree to rounding"
    )


def _refined(first: Round, context: Context, writer: Journal) -> list[Round]:
    """Train the rates that the summary asks for, until it asks for none."""
    from lrsweep.analysis.suggest import ROUNDS, refine
    from lrsweep.wording.advice import nothing_added

    rounds: list[Round] = []
    last = first
    while not context.stopping.requested():
        facts = publish.write_tables(last, context).facts
        added = refine(facts)
        if not added:
            context.notes.note(nothing_added(facts))
            break
        if len(rounds) == ROUNDS:
            context.notes.note(f"--refine stopped after {ROUNDS} rounds; rerun to continue")
            break
        text = "; ".join(f"{label}: {', '.join(map(repr, rates))}" for label, rates in added.items())
        context.notes.note(f"learning rates added by --refine: {text}")
        last = train_missing(last.plan.spec.with_rates(added), context, writer, retry=False)
        rounds.append(last)
    return rounds
