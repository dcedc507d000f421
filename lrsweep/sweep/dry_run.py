"""What a sweep would cost: counted from the plan, timed on a few real steps; writes nothing."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep import plan as planning
from lrsweep.errors import StoppedError
from lrsweep.results import merging
from lrsweep.store import journal
from lrsweep.store.fresh import starts_over
from lrsweep.store.journal import Replay
from lrsweep.sweep import pending, preflight, trial
from lrsweep.workers import worker

if TYPE_CHECKING:
    from lrsweep.plan import Run, WorkloadSpec
    from lrsweep.spec.model import Spec
    from lrsweep.sweep.context import Context
    from lrsweep.training.workload import Workload
    from lrsweep.workers.messages import Job

    WorkloadOf = Callable[[WorkloadSpec], Workload]

SECONDS_EACH = 1.0
SAMPLES = 3
BYTES_PER_CELL = 22
"""A float in the journal and one in curves.csv, about."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """`seconds` of training with `workers` processes, nan if a step could not be timed; `bytes` of all files, of
    `free_bytes` that the disk has left.

    `run_steps` are updates summed over the runs to do; `engines` counts those runs by engine; `reasons` say why
    runs are trained one at a time. `restarting` runs may start over when a sweep that was stopped is resumed. `errors`:
    what runs that were tried failed with, as they would in the sweep.

    >>> estimate = lrsweep.dry_run("sweep.yaml", set=["seeds=5"])
    >>> print(estimate.done, "runs done,", estimate.run_steps, "steps to make, one at a time:", list(estimate.reasons))
    24 runs done, 800 steps to make, one at a time: []
    """

    name: str
    path: str
    runs: int
    done: int
    to_do: int
    groups: int
    run_steps: int
    seconds: float
    bytes: int
    free_bytes: int
    workers: int
    device: str
    engines: dict[str, int]
    reasons: tuple[str, ...]
    restarting: int = 0
    errors: tuple[str, ...] = ()


def dry_run(spec: Spec, context: Context, *, fresh: bool) -> CostEstimate:
    """Count and time what a run would do. Raises what the preflight raises."""
    options = context.options
    plan = planning.build(spec, planning.fingerprints(spec))
    replay = Replay() if starts_over(context.folder, fresh) else journal.replay(context.folder)
    merging.disbelieve(plan.runs, replay)
    work = preflight.prepare(pending.pending(plan, replay), plan, replay, options)
    for text in (*work.remarks, *work.warnings):
        context.notes.once(text)
    jobs, workers = work.jobs, work.workers

    def workload_of(workload_spec: WorkloadSpec) -> Workload:
        return trial.built(workload_spec, options.device)

    def tried() -> tuple[float, tuple[str, ...], set[str | None], int]:
        size = bytes_of(plan.runs, len(plan.axis_names), workload_of) if jobs else 0
        with worker.threads(options.threads):
            return *trial_of(jobs, workload_of, workers), size

    own = next((run for job in jobs for run in job.runs if not run.built_in), plan.runs[0])
    seconds, errors, told, size = trial.in_a_copy(tried, own, options.device, meanwhile="its first steps were tried")
    done = sum(run.run_id in replay.entries and replay.entries[run.run_id].status != "failed" for run in plan.runs)
    engines: Counter[str] = Counter()
    for job in jobs:
        engines[job.group.engine] += len(job.runs)
    return CostEstimate(
        name=spec.name,
        path=str(context.shown),
        runs=len(plan.runs),
        done=done,
        to_do=len(plan.runs) - done,
        groups=len(jobs),
        run_steps=sum(job.run_steps for job in jobs),
        seconds=seconds,
        bytes=size,
        free_bytes=_free(context.folder.absolute()),
        workers=workers,
        device=options.device,
        engines=dict(engines),
        restarting=sum(len(job.runs) for job in jobs if job.in_a_copy),
        errors=errors,
        reasons=tuple(dict.fromkeys(why for job in jobs if (why := job.group.reason) and why not in told)),
    )


def _free(folder: Path) -> int:
    """Bytes that are free on the disk that will hold `folder`."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    return shutil.disk_usage(there).free


class _Clock:
    """Hooks that stop the engine after SECONDS_EACH; the first tick starts the clock, warm-up stays out if it can."""

    resume: dict[str, Any] | None = None
    audits = 0

    def __init__(self) -> None:
        self._created = time.monotonic()
        self._begun = 0.0
        self._first = 0
        self._steps = 0
        self._seconds = 0.0
        self._deadline = self._created + 4 * SECONDS_EACH

    @property
    def stopping(self) -> bool:
        now = time.monotonic()
        return (self._begun > 0 and now - self._begun > SECONDS_EACH) or now > self._deadline

    def tick(self, run_steps: int) -> None:
        now = time.monotonic()
        if self._begun == 0:
            self._begun, self._first = now, run_steps
        else:
            self._steps += run_steps
            self._seconds = now - self._begun

    def per_step(self) -> float:
        """Seconds of an update of one run; with the warm-up where there was one tick only, 0 where there was none."""
        if self._steps:
            return self._seconds / self._steps
        return (self._begun - self._created) / self._first if self._first else 0.0

    def checkpoint_due(self) -> bool:
        return False

    def save(self, state: dict[str, Any]) -> None:
        pass


def trial_of(
    jobs: Sequence[Job], workload_of: WorkloadOf, workers: int
) -> tuple[float, tuple[str, ...], set[str | None]]:
    """Training time of `jobs` with `workers` processes, from timing a group of each of a few kinds, nan without any;
    what the runs that were tried failed with, and the reasons of groups that say no more than that."""
    kinds: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        kinds.setdefault((job.runs[0].workload_spec.key, job.group.engine), []).append(job)
    largest = sorted(kinds.values(), key=lambda same: -sum(job.run_steps for job in same))[:SAMPLES]
    chosen = [max(same, key=lambda job: len(job.runs)) for same in largest]
    tried = [(same, *_try(job, workload_of)) for same, job in zip(largest, chosen, strict=True)]
    errors = tuple(dict.fromkeys(error for _, _, error in tried if error))
    told = {job.group.reason for job, (_, _, error) in zip(chosen, tried, strict=True) if error and job.group.raised}
    known = [(same, cost) for same, cost, _ in tried if cost > 0]
    if not known:
        return float("nan"), errors, told
    steps = sum(job.run_steps for same, _ in known for job in same)
    cost = sum(cost * job.run_steps for same, cost in known for job in same)
    total = cost / max(steps, 1) * sum(job.run_steps for job in jobs)
    longest = max(cost * max(job.run_steps for job in same) for same, cost in known)
    return max(total / max(min(workers, len(jobs)), 1), longest), errors, told


def _try(job: Job, workload_of: WorkloadOf) -> tuple[float, str]:
    """Seconds of an update of one run in its group, 0 if it ended before it could be timed; what a run failed with."""
    clock, error = _Clock(), ""
    try:
        for result in worker.ENGINES[job.group.engine](job, workload_of(job.runs[0].workload_spec), clock):
            if job.group.engine != "recorded":  # else the sweep tries again without a recording
                error = error or (result.error or "").split("\n", 1)[0]
    except StoppedError:
        pass
    except Exception:  # noqa: BLE001 - what is wrong with runs together is told when they are trained
        return 0.0, error
    return (0.0 if error else clock.per_step()), error


def bytes_of(runs: Sequence[Run], axes: int, workload_of: WorkloadOf) -> int:
    """Bytes of the journal and the tables of `runs`."""
    of_recipe: dict[str, int] = {}
    for run in runs:
        if run.workload_spec.key not in of_recipe:
            workload = workload_of(run.workload_spec)
            columns = 9 + axes + len(workload.metric_names) * (1 + workload.train_metrics)
            rows = workload.total_steps // workload.row_interval + 2
            of_recipe[run.workload_spec.key] = 1000 + 2 * BYTES_PER_CELL * rows * columns
    return sum(of_recipe[run.workload_spec.key] for run in runs)
