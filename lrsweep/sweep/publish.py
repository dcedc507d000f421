"""What a sweep leaves for its readers: tables, manifest, pictures and report, all derived from the journal."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep.compiler import onednn
from lrsweep.errors import LrsweepError, StoppedError, StorageError
from lrsweep.results import figures, manifest, merging, tables
from lrsweep.results.status import stored_of
from lrsweep.spec.resolved import placed
from lrsweep.store import journal, lock, plan_record
from lrsweep.sweep.background import FORMATS
from lrsweep.sweep.supervisor import Audits
from lrsweep.sweep.throughput import Throughput, summed
from lrsweep.system.signals import cause
from lrsweep.wording.words import plural

if TYPE_CHECKING:
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.plan import Plan
    from lrsweep.spec.model import Spec
    from lrsweep.spec.yaml_tree import Keys
    from lrsweep.store.journal import Replay
    from lrsweep.sweep.context import Context


@dataclass(frozen=True, kw_only=True)
class Round:
    """What one pass over a plan came to; `--refine` makes several. `replay` is of its start; so many runs of the plan
    are `settled`, in the journal that is, at its end. `task_notes` go to the manifest, by workload."""

    plan: Plan
    replay: Replay
    settled: int
    trained: int = 0
    seconds: float = 0.0
    task_notes: dict[str, Any] = field(default_factory=dict)
    audits: Audits = field(default_factory=Audits)
    company: tuple[str, ...] = ()
    throughput: tuple[Throughput, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Finished:
    """What a sweep came to; counts are runs of the plan. `shown` is the path as users are told it; `facts` are there if
    the tables were written anew; `place`: where the spec names code of the user's."""

    path: Path
    shown: Path
    total: int
    trained: int
    diverged: int
    failed: int
    facts: SweepFacts | None
    place: str = ""


def write_tables(last: Round, context: Context, summarise: tables.Summarise = tables.summarise) -> tables.Written:
    """The tables of the last pass over the plan. Raises StorageError, also if the journal lost a run meanwhile."""
    folder, plan = context.folder, last.plan
    with lock.tables(folder):
        replay = journal.replay(folder)
        held = sum(run.run_id in replay.entries for run in plan.runs)
        wanted = last.settled if context.stopping.requested() else len(plan.runs)
        if held < wanted:
            raise StorageError(
                f"{folder / journal.FOLDER}: the journal holds only {held} of {plural(wanted, 'finished run')}: it was "
                "deleted or cut while the sweep ran; the tables were not touched; rerun the command to train the rest"
            )
        if merging.disbelieve(plan.runs, replay):
            raise StorageError(
                f"{folder / journal.FOLDER}: another process trains in this folder, and what was trained together of "
                "this sweep was thrown away; the tables were not touched; rerun the command to train the rest"
            )
        if text := merging.differing(replay):
            context.notes.once(f"warning: {folder / journal.FOLDER}: {text}")
        record = plan_record.plan_record(plan, folder, replay.plan)
        return tables.write(folder, plan, replay, record, summarise)


def publish(rounds: Sequence[Round], context: Context, begun: float) -> Finished:
    """Write what is missing or outdated; after a stop the tables and the manifest alone.

    Raises StorageError, and StoppedError after a stop.
    """
    folder, stopping, plan = context.folder, context.stopping, rounds[-1].plan
    trained = sum(one.trained for one in rounds)
    replay, facts = rounds[-1].replay, None
    if trained or not tables.current(folder) or manifest.tables_of(folder) != tables.digests(folder):
        with stopping.graceful():
            written = write_tables(rounds[-1], context, context.renderer.summarise)
        replay, facts = written.replay, written.facts
        session = manifest.session(
            begun=begun,
            ended=time.time(),
            training_seconds=sum(one.seconds for one in rounds),
            trained=trained,
            products=onednn.library(),
            audits={
                "count": sum(one.audits.count for one in rounds),
                "verified": sum(one.audits.verified for one in rounds),
                "failed": sum(len(one.audits.failed) for one in rounds),
                "where": [text for one in rounds for text in one.audits.failed],
            },
            throughput=list(map(dataclasses.asdict, summed(part for one in rounds for part in one.throughput))),
            company=list(dict.fromkeys(text for one in rounds for text in one.company)),
            **dataclasses.asdict(context.options),
        )
        notes = {key: note for one in rounds for key, note in one.task_notes.items()}
        manifest.write(folder, plan, session=session, written=written, tasks=notes)
        if not stopping.requested():
            draw(context)  # after the manifest, which the report reads
    elif not stopping.requested() and not _is_drawn(folder):
        draw(context)
    if not stopping.requested():
        redraw_variants(context)
    stored = stored_of(folder, plan, replay)
    if stopping.exit_code is not None:
        raise StoppedError(
            f"{cause(stopping.exit_code)}: {stored.done} of {plural(stored.total, 'run')} saved in {context.shown}"
            f"{_partly(folder)}; rerun the command to resume",
            stopping.exit_code,
        )
    return Finished(
        path=folder,
        shown=context.shown,
        total=stored.total,
        trained=trained,
        diverged=stored.diverged,
        failed=stored.failed,
        facts=facts,
        place=_own_code(plan.spec),
    )


def _own_code(spec: Spec) -> str:
    """Where the spec names code of the user's: `task (spec.yaml:1:1)`."""
    names: dict[Keys, str] = {("task",): spec.task.name, ("model",): spec.model.name if spec.model else ""}
    names |= {("optimizers", number): optimizer.name for number, optimizer in enumerate(spec.optimizers)}
    own = [keys for keys, name in names.items() if ":" in name]
    return " or ".join(placed(spec, keys, "").rstrip(": ") for keys in own)


def _partly(folder: Path) -> str:
    """The runs that a checkpoint holds up to some step, in words."""
    replay = journal.replay(folder)
    groups = [replay.groups[group] for group in replay.checkpoints if group in replay.groups]
    count = sum(run not in replay.entries for group in groups for run in group.runs)
    return f" and {count} more trained in part" if count else ""


def _is_drawn(folder: Path) -> bool:
    """Whether report and pictures are of the tables as they are."""
    fingerprint = tables.digest_of(folder)
    return figures.report_is_current(folder, fingerprint) and not figures.outdated(folder, fingerprint)


def draw(context: Context) -> None:
    """Pictures and report. What goes wrong in them is told and loses nothing: they can be drawn again."""
    with _told(context, "the report could not be written ({}); retry with `lrsweep report`"):
        outdated = figures.outdated(context.folder, tables.digest_of(context.folder))
        context.renderer.report(context.folder, tuple(sorted({*FORMATS, *outdated})))


def redraw_variants(context: Context) -> None:
    """The plots of another metric, of some optimizers or of another width, if there are any of older tables."""
    with _told(context, "plots with options could not be redrawn ({}); retry with `lrsweep plot`"):
        if figures.outdated_variants(context.folder, tables.digest_of(context.folder)):
            from lrsweep import plot  # matplotlib, which a sweep that only trains does without

            plot.redraw(context.folder, context.notes.note)


@contextmanager
def _told(context: Context, text: str) -> Iterator[None]:
    try:
        yield
    except LrsweepError:
        raise
    except Exception as error:  # noqa: BLE001 - the results are safe; a picture must not cost them
        context.notes.note(text.format(f"{type(error).__name__}: {error}"))
