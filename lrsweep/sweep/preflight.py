"""What can be known of a sweep before anything of it is trained, beyond what the spec alone tells.

Groups are cut, and what is wrong with the user's code, the metrics or the schedules is found out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lrsweep import given_code, optimizers, schedules, tasks
from lrsweep.compiler.torch_private import make_products_ignore_place, products_ignore_place
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.run_result import Probed
from lrsweep.schedules import warmup_steps
from lrsweep.store.journal import Group
from lrsweep.sweep import pending, trial
from lrsweep.system import child, ending
from lrsweep.system.machine import memory_limit, size_text, this_machine
from lrsweep.training import grouping, isolation, memory, param_groups, stackable
from lrsweep.training.company import dependence
from lrsweep.user_imports import argument_error
from lrsweep.wording.words import plural
from lrsweep.workers import device_memory

if TYPE_CHECKING:
    from lrsweep.plan import Plan, Run
    from lrsweep.spec.model import Spec
    from lrsweep.store.journal import Replay
    from lrsweep.sweep.context import Options
    from lrsweep.sweep.pending import Pending
    from lrsweep.training.stackable import Reason
    from lrsweep.training.workload import Workload
    from lrsweep.workers.messages import Job


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is about to be trained, by how many processes. `descriptions` and `task_notes` (by workload) are of the
    tasks; `remarks` are sentences about the spec, `warnings` those of the tasks about their data, `company` about runs
    whose last digits may depend on the runs they train with."""

    jobs: tuple[Job, ...] = ()
    workers: int = 1
    descriptions: tuple[str, ...] = ()
    task_notes: dict[str, Any] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    company: tuple[str, ...] = ()


DIGITS = "the last digits of a run may depend on the runs it trains with"


def prepare(left: Pending, plan: Plan, replay: Replay, options: Options) -> Work:
    """Cut what is left to train into jobs.

    Raises UsageError if the user's code cannot be used or does not record what the spec asks for.
    """
    if not left.runs:
        return Work()
    user_code(left.runs)
    found = _survey(left, plan.spec, replay, options)
    jobs = _taken_apart(pending.jobs(left, replay, lambda runs: found.groups), found.reasons)
    members = _by_workload(run for job in jobs for run in job.runs)
    required = pending.required_metrics((run for runs in members.values() for run in runs), plan.spec.objective.metric)
    steps, notes, described, made_at = {}, {}, {}, {}
    again = len(left.retry)
    remarks = [f"{plural(again, 'failed run')} will be retried"] if again else []
    for key, runs in members.items():
        workload = trial.built(runs[0].workload_spec)
        if key in found.probed:
            workload.know(found.probed[key])
        metrics(workload, required[key])
        steps[key], made_at[key] = workload.total_steps, workload.task.made_at
        notes[key] = {"task": runs[0].workload_spec.task, **workload.task.notes}
        name = given_code.short(runs[0].workload_spec.task["name"])
        described[f"{name}: {tasks.describe(workload.task)}"] = workload.task.notes
        remarks += [f"warning: {remark}" for remark in (*of_labels(plan.spec), *of_runs(runs, workload))]
    fitting, text = _fitting(found.needs, len(jobs), options)
    return Work(
        workers=options.processes(len(jobs), fitting),
        jobs=_longest_first(
            [
                dataclasses.replace(
                    job,
                    run_steps=steps[job.runs[0].workload_spec.key] * len(job.runs),
                    probed=found.probed.get(job.runs[0].workload_spec.key),
                    made_at=made_at[job.runs[0].workload_spec.key],
                )
                for job in jobs
            ],
            found.seconds,
        ),
        descriptions=tuple(described),
        task_notes=notes,
        remarks=(*remarks, *text),
        warnings=tuple(
            f"warning: {text}"
            for text in (*found.warnings, *(text for each in described.values() for text in each.get("warnings", ())))
        ),
        company=(*found.company, *_of_company(jobs, options)),
    )


def _longest_first(jobs: Sequence[Job], seconds: Mapping[str, float]) -> tuple[Job, ...]:
    """Those whose `seconds` nobody has estimated are taken for as fast, by the step of a run, as the others: a long job
    that starts last would keep one worker busy and the others idle."""
    known = [(seconds[job.group.id], job.run_steps) for job in jobs if seconds.get(job.group.id)]
    each = sum(one for one, _ in known) / sum(steps for _, steps in known) if known else 1.0
    return tuple(sorted(jobs, key=lambda job: -(seconds.get(job.group.id) or each * job.run_steps)))


def _of_company(jobs: Iterable[Job], options: Options) -> Iterator[str]:
    """Why any model may come out differently in its last digits, besides what is wrong with single ones."""
    together = [job.group for job in jobs if job.group.engine == "stacked"]
    if any(group.compile for group in together):
        yield f"{DIGITS}: compiled steps are optimized for the size of a group"
    if together and options.device != "cpu":
        yield f"{DIGITS}: a GPU may choose its kernels by the size of a group"
    if together and options.executor == "in-process" and not make_products_ignore_place():
        yield (
            f"{DIGITS}: the sweep trains in this process, which has multiplied matrices before, and then its products "
            "depend on where they lie in memory (set MKL_CBWR=AUTO before torch is imported, or use --executor local)"
        )
    elif together and child.must_fork() and not child.call(make_products_ignore_place):
        yield (
            f"{DIGITS}: code that is given in Python trains in copies of this process, which has multiplied matrices "
            "before, and then their products depend on where they lie in memory (set MKL_CBWR=AUTO before torch is "
            "imported, or name a file in the spec)"
        )


def _fitting(needs: Iterable[memory.Needed], jobs: int, options: Options) -> tuple[int, list[str]]:
    """How many workers fit in memory whatever they train, and a remark where that matters."""
    machine, wanted = this_machine(), min(options.workers, jobs)
    fitting, each = min(((need.workers, need.bytes) for need in needs), default=(wanted, 0))
    if fitting >= wanted or options.device == "cuda":
        return fitting, []
    room = machine.memory if fitting else memory_limit() or machine.memory
    sizes = f"a worker needs about {size_text(each)} of memory, and {size_text(room)} can be used"
    if not fitting:
        return 1, [f"warning: {sizes}; the sweep may be killed"]
    if options.fixed_workers:
        return fitting, [f"warning: {sizes}; use --workers {fitting} if they are killed"]
    return fitting, [f"{plural(fitting, 'worker')} instead of {wanted}: {sizes}"]


def _by_workload(runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.workload_spec.key, []).append(run)
    return found


@dataclass(frozen=True, kw_only=True)
class _Survey:
    """What is found out by running the user's code: groups of runs, metrics and memory of workloads, sentences.

    By id: `seconds` that groups may take; `reasons` why runs that an earlier command began to train together train one
    at a time.
    """

    groups: list[Group]
    seconds: dict[str, float]
    reasons: dict[str, Reason]
    probed: dict[str, Probed]
    needs: tuple[memory.Needed, ...]
    warnings: tuple[str, ...]
    company: tuple[str, ...] = ()


def _survey(left: Pending, spec: Spec, replay: Replay, options: Options) -> _Survey:
    """In a copy of this process where user code runs: what it keeps must not reach the workers. And where this process
    is not our own: whether its copies multiply alike is settled by its first product.

    Raises UsageError if a task cannot be built, its loss has parameters of its own, its parameter groups cannot be, or
    a schedule gives no factors.
    """
    if all(run.built_in for run in left.runs) and products_ignore_place():
        return _look(left, spec, replay, options)
    try:
        return child.call(lambda: _look(left, spec, replay, options))
    except child.ChildDiedError as died:
        reason = f"the trial of the model {died}"
        groups = [Group(engine="single", runs=(run.run_id,), reason=reason, raised=True) for run in left.uncut]
        probed = {key: _probed_apart(runs[0]) for key, runs in _by_workload(left.runs).items()}
        return _Survey(groups=groups if left.new else [], seconds={}, reasons={}, probed=probed, needs=(), warnings=())


def _probed_apart(run: Run) -> Probed:
    """Of the recipe of `run`, whose code has ended a process: in another copy, without metrics if that ends too."""
    workload = trial.built(run.workload_spec)
    try:
        return child.call(workload.probed)
    except child.ChildDiedError:
        return Probed(tuple(workload.task.metrics))


def _look(left: Pending, spec: Spec, replay: Replay, options: Options) -> _Survey:
    if wrong := dict(_refused_schedules(left.runs, spec)):
        raise WrongInSpec(*((path, text) for text, path in wrong.items()))
    cut = _cut(left.uncut, replay, options) if left.new else []
    groups = [group for group, _ in cut]
    probed, needs, warnings = {}, [], {}
    company: list[str] = []
    for key, members in _by_workload(left.runs).items():
        workload = trial.built(members[0].workload_spec)
        probed[key] = workload.probed()
        settings = {run.setting.key: run.setting for run in members}
        param_groups.check_arguments(workload, settings.values(), members[0].seed)
        needs.append(memory.needed(workload, this_machine()))
        if groups:
            warnings.update(dict.fromkeys(stackable.findings(workload).warnings))
            company += _dependences(workload, members, groups)
    return _Survey(
        groups=groups,
        seconds={group.id: seconds for group, seconds in cut},
        reasons=_reasons(left),
        probed=probed,
        needs=tuple(needs),
        warnings=tuple(warnings),
        company=tuple(dict.fromkeys(company)),
    )


def _dependences(workload: Workload, members: Sequence[Run], groups: Iterable[Group]) -> Iterator[str]:
    """What of runs of one recipe depends on the size of their group: of the largest, if it is code of the user's."""
    seeds = {run.run_id: run.seed for run in members}
    together = [group.runs for group in groups if group.engine == "stacked" and group.runs[0] in seeds]
    if not together:
        return
    if workload.workload_spec.train["dtype"] == "float64" and grouping.measure(workload, members[0].seed).convolves:
        yield f"{DIGITS}: convolutions in float64 do"
    if workload.built_in:
        return
    largest = max(together, key=len)
    try:
        found = dependence(workload, list(dict.fromkeys(seeds[run] for run in largest)), len(largest))
    except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything, and will tell when it trains
        found = f"its steps could not be compared, {isolation.describe(error)}; it"
    if found is not None:
        name = given_code.short(workload.workload_spec.task["name"]).rpartition("/")[2]
        yield f"{DIGITS}: {found} does, in {name}"


def _reasons(left: Pending) -> dict[str, Reason]:
    """Look at the user's code of the groups that are repeated: an earlier version of lrsweep may have cut them."""
    found: dict[str, Reason] = {}
    for run in (run for job in left.repeat if job.group.engine != "single" for run in job.runs):
        if run.built_in:
            continue
        workload = trial.built(run.workload_spec)
        reason = stackable.workload_reason(workload)
        if reason is None and ":" in run.setting.name:
            reason = stackable.stack_reason(workload, run.setting)
        if reason is not None:
            found[run.run_id] = reason
    return found


def _taken_apart(jobs: Sequence[Job], reasons: Mapping[str, Reason]) -> list[Job]:
    """`jobs` with every group that holds such a run trained one run at a time."""
    found: list[Job] = []
    for job in jobs:
        reason = next((reasons[run.run_id] for run in job.runs if run.run_id in reasons), None)
        if reason is None:
            found.append(job)
            continue
        for run in job.runs:
            own = Group(engine="single", runs=(run.run_id,), reason=reason.text, raised=reason.raised)
            found.append(dataclasses.replace(job, group=own, runs=(run,), resume=None))
    return found


def _cut(runs: Iterable[Run], replay: Replay, options: Options) -> list[tuple[Group, float]]:
    """Cut runs into groups, with the seconds they may take; those that failed an audit before train one at a time."""
    groups: list[tuple[Group, float]] = []
    recipes = []
    for key, members in _by_workload(runs).items():
        together = []
        for run in members:
            reason = replay.distrusted.get((key, None)) or replay.distrusted.get((key, run.label))
            if reason is None:
                together.append(run)
            else:
                groups.append((Group(engine="single", runs=(run.run_id,), reason=reason), 0.0))
        if together:
            recipes.append((together, trial.built(members[0].workload_spec)))
    here = options.executor != "ray"
    workers = 1 if options.device != "cpu" and here else options.workers
    on_device = _on_device(recipes, options, here) if options.device != "cpu" else None
    return [*groups, *grouping.cut_all(recipes, this_machine(), workers, options.compile, on_device)]


def _on_device(recipes: Sequence[tuple[Sequence[Run], Workload]], options: Options, here: bool) -> list[int | None]:
    """How many runs of each recipe a GPU has memory for, tried with runs of one seed that can train together; None
    where that cannot be tried."""
    if not here or child.must_fork():
        return [None] * len(recipes)
    tried = []
    for runs, workload in recipes:
        settings = {run.setting.key: run.setting for run in runs}
        fit = {key for key, setting in settings.items() if stackable.stack_reason(workload, setting) is None}
        tried.append([run for run in runs if run.seed == runs[0].seed and run.setting.key in fit])
    return device_memory.most_runs(tried, options.device)


def metrics(workload: Workload, required_metrics: Mapping[str, str]) -> None:
    """Raises WrongInSpec if a column, {column: key of the spec}, will be in no curve of this task."""
    names = workload.metric_names
    columns = ["train_loss", "val_loss", *(f"val_{name}" for name in names)]
    columns += [f"train_{name}" for name in names if workload.train_metrics]
    for metric, key in required_metrics.items():
        if metric not in columns and (names or workload.task.step is None):
            wrong = f"this task does not record {metric!r} (it records {', '.join(columns)})"
            raise WrongInSpec((tuple(key.split(".")), wrong))


def user_code(runs: Sequence[Run]) -> None:
    """Build the task of the first run. Raises WrongInSpec with all that is wrong with it and the user's optimizers."""
    found: list[tuple[tuple[str, ...], str]] = []
    try:
        trial.built(runs[0].workload_spec)
    except WrongInSpec as error:
        found += error.found
    except UsageError as error:
        found.append(((), str(error)))
    found += _refused_arguments(runs)
    if found:
        raise WrongInSpec(*found)


def _refused_arguments(runs: Iterable[Run]) -> Iterator[tuple[tuple[str, ...], str]]:
    """What classes of the user's have against the arguments that the spec gives them."""
    seen: set[str] = set()
    for run in runs:
        setting = run.setting
        if ":" not in setting.name or setting.key in seen:
            continue
        seen.add(setting.key)
        try:
            with ending.told_of(f"optimizer {given_code.short(setting.name)} was being loaded"):
                cls = optimizers.lookup(setting.name, run.workload_spec.base_dir)
            found = argument_error(cls, setting.args, [], lr=run.lr)
        except UsageError as error:
            yield ("optimizers", run.label), str(error)
            continue
        if found is not None:
            key, wrong = found
            wrong += "; lrsweep passes the parameters and lr" if "'lr'" in wrong else ""
            yield ("optimizers", run.label, *filter(None, [key])), f"optimizer {run.label}: {wrong}"


def _refused_schedules(runs: Sequence[Run], spec: Spec) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What is wrong with schedules of the user's, whose factors for all steps can be known before the first: a sentence
    and the place of the schedule in the spec."""
    own = {entry.label for entry in spec.optimizers if entry.schedule is not None}
    for members in _by_workload(run for run in runs if ":" in run.setting.schedule["name"]).values():
        workload = trial.built(members[0].workload_spec)
        asked = {(repr(run.setting.schedule), run.label in own): run for run in members}
        for run in asked.values():
            name = run.setting.schedule["name"]
            try:
                with workload.user_code(), child.no_exit():
                    schedules.factors(run.setting.schedule, workload.total_steps, run.workload_spec.base_dir)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - user code may raise anything
                text = str(error) if isinstance(error, UsageError) else f"schedule {name}: {isolation.describe(error)}"
                yield text, ("optimizers", run.label, "schedule") if run.label in own else ("schedule",)


def of_runs(runs: Sequence[Run], workload: Workload) -> Iterator[str]:
    """For runs of one recipe: batches larger than the data, warmups longer than the run."""
    size, total = workload.workload_spec.train["batch_size"], workload.total_steps
    if size != "full" and size > workload.n_train:
        yield (
            f"train.batch_size {size} exceeds the {workload.n_train} training examples; every batch will "
            "contain all of them, as with `full`"
        )
    for schedule in (run.setting.schedule for run in runs):
        length = warmup_steps(schedule.get("warmup", 0), total) if ":" not in schedule["name"] else 0
        if length > total:
            yield (
                f"schedule {schedule['name']}: its warmup of {length} steps is longer than the run "
                f"({plural(total, 'step')}), so lr only reaches {total / length:.3g} of its value"
            )


def of_labels(spec: Spec) -> Iterator[str]:
    """Labels that show an argument with a value that an axis replaces."""
    for optimizer in spec.optimizers:
        for name, value in optimizer.args.items():
            if f"optimizers.{name}" in spec.axes and f"{name}={value}" in optimizer.label:
                yield (
                    f"the axis optimizers.{name} sets {name} for {optimizer.label!r}, whatever that label "
                    f"says; remove {name} from the optimizer or give it a `label:`"
                )
