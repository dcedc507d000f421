"""What is stored of a sweep. Needs neither torch nor the user's code."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrsweep.errors import StorageError, UsageError, printable
from lrsweep.results import batch_job, merging, tables
from lrsweep.results.batch_job import BatchJob
from lrsweep.store import fresh as fresh_start
from lrsweep.store import journal, lock, tally
from lrsweep.store.journal import Replay
from lrsweep.system.folders import given

if TYPE_CHECKING:
    from lrsweep.plan import Plan
    from lrsweep.spec.model import Spec

_log = logging.getLogger("lrsweep")


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """What is stored of a sweep. `outside`: stored runs that its spec no longer asks for. `busy`: it is being run.

    `job`: the last one that it was submitted as; where that has not begun yet, all counts are 0.
    """

    name: str
    path: Path
    total: int
    done: int
    diverged: int
    failed: int
    to_do: int
    outside: int
    busy: bool
    job: BatchJob | None = None


def status(folder: Path | str) -> SweepStatus:
    """What is done, to do and failed in a sweep's folder, and its batch job. Needs neither torch nor the user's code.

    Raises UsageError for a folder without a sweep, StorageError.
    """
    folder = given(folder)
    return dataclasses.replace(_stored(folder), job=batch_job.jobs_of([folder]).get(folder))


def below(folder: Path | str) -> Iterator[SweepStatus]:
    """The same of the sweep in `folder`, or of every sweep below it; one by one, but the jobs are asked for at once."""
    folders = tables.sweeps_below(folder, submitted=True)
    jobs = batch_job.jobs_of(folders)
    for one in folders:
        yield dataclasses.replace(_stored(one), job=jobs.get(one))


def _stored(folder: Path) -> SweepStatus:
    tables.refuse_links(folder)
    if journal.exists(folder) and (known := tables.known_counts(folder)) is not None:
        return _status(folder, *known)
    if (known := _tallied(folder)) is not None:
        return _status(folder, *known)
    before, replay = tables.stamped(folder), journal.replay(folder)
    if gone := tables.lost(before, replay):
        _log.warning("%s", printable(f"{folder / journal.FOLDER}: {gone}; {tables.RESTORE}"))
    if not journal.exists(folder):
        submitted = batch_job.is_submitted(folder) and not (folder / tables.RUNS).is_file()
        return _not_begun(folder) if submitted else _published(folder)
    running = lock.is_held(folder)
    for damage in journal.new_damage(replay):
        if not (damage.tail and running):
            _log.warning("%s; rerun `lrsweep run`, which trains again what it held", printable(str(damage)))
    if replay.plan is None:
        return _not_begun(folder)
    plan = tables.planned(replay.plan, folder)
    merging.disbelieve(plan.runs, replay)
    return stored_of(folder, plan, replay)


def _tallied(folder: Path) -> tuple[str, dict[str, int]] | None:
    """The counts of a large sweep that runs, or was killed; None where the journal has to be read."""
    before, now = tables.stamped(folder), journal.sizes(folder)
    if any(now.get(name, 0) < size for name, size in before.items()):
        return None
    return tally.counts(folder, running=lock.is_held(folder))


def stored_of(folder: Path, planned: Plan, replay: Replay) -> SweepStatus:
    return _status(folder, planned.spec.name, tables.counts_of(planned, replay))


def _status(folder: Path, name: str, counts: dict[str, int]) -> SweepStatus:
    done = counts["ok"] + counts["diverged"]
    return SweepStatus(
        name=name,
        path=folder,
        total=counts["total"],
        done=done,
        diverged=counts["diverged"],
        failed=counts["failed"],
        to_do=counts["total"] - done,
        outside=counts["outside"],
        busy=lock.is_held(folder),
    )


def _published(folder: Path) -> SweepStatus:
    """A copy of the tables without a journal: all that there is, is done."""
    counts = Counter(tables.read_runs(folder)["status"])
    total = counts.total()
    return SweepStatus(
        name=folder.name, path=folder, total=total, done=total - counts["failed"], diverged=counts["diverged"],
        failed=counts["failed"], to_do=counts["failed"], outside=0, busy=False,
    )  # fmt: skip


def _not_begun(folder: Path) -> SweepStatus:
    """Of a sweep that was submitted: its job will plan it. Raises UsageError if it was not."""
    if not batch_job.is_submitted(folder):
        raise UsageError(f"{folder}: no sweep here yet; run `lrsweep run` first")
    return SweepStatus(
        name=folder.name, path=folder, total=0, done=0, diverged=0, failed=0, to_do=0, outside=0, busy=False
    )


def with_refined(spec: Spec, folder: Path, fresh: bool) -> Spec:
    """The spec with the rates that --refine added before; they count until --fresh. Raises StorageError."""
    tables.refuse_links(folder)
    before = None if fresh_start.starts_over(folder, fresh) else _spec_before(folder)
    if before is None:
        return spec
    labels = {optimizer.label for optimizer in spec.optimizers}
    return spec.with_rates({label: rates for label, rates in before.refined.items() if label in labels})


def _spec_before(folder: Path) -> Spec | None:
    """The spec that this folder was last run with: from the journal, or where that record is lost, from spec.yaml."""
    from lrsweep.spec.load import read_resolved

    before, replay = tables.stamped(folder), journal.replay(folder)
    if replay.plan is not None and not tables.lost(before, replay):
        return tables.spec_of(replay.plan, folder)
    path = folder / tables.SPEC
    if fresh_start.underway(folder) or not path.is_file():  # spec.yaml is of the journal that was set aside
        return None if replay.plan is None else tables.spec_of(replay.plan, folder)
    try:
        return read_resolved(path)
    except UsageError as error:
        if not journal.exists(folder):
            return None
        raise StorageError(
            f"neither the journal nor {path} records what was run here ({error}); rerun with --fresh, which "
            "sets the journal aside, or delete spec.yaml if --refine was never used"
        ) from error
