"""What can be known to be wrong with a sweep before anything of it is trained, beyond what the spec alone tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lrsweep import optimizers
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.schedules import warmup_steps
from lrsweep.user_imports import argument_error

if TYPE_CHECKING:
    from lrsweep.plan import Run, WorkloadSpec
    from lrsweep.spec.model import Spec
    from lrsweep.training.workload import Workload


def metrics(workload: Workload, required_metrics: Mapping[str, str]) -> None:
    """Raises WrongInSpec if a column, {column: key of the spec}, will be in no curve of this task."""
    names = workload.metric_names
    columns = ["train_loss", "val_loss", *(f"val_{name}" for name in names)]
    columns += [f"train_{name}" for name in names if workload.train_metrics]
    for metric, key in required_metrics.items():
        if metric not in columns and (names or workload.task.step is None):
            wrong = f"this task records no {metric!r} (it records {', '.join(columns)})"
            raise WrongInSpec((tuple(key.split(".")), wrong))


def user_code(runs: Sequence[Run], build: Callable[[WorkloadSpec], object]) -> None:
    """Raises WrongInSpec with all that is wrong with the task, built by `build`, and the optimizers of the user's."""
    found: list[tuple[tuple[str, ...], str]] = []
    try:
        build(runs[0].workload_spec)
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
            cls = optimizers.lookup(setting.name, run.workload_spec.base_dir)
            found = argument_error(cls, setting.args, [], lr=run.lr)
        except UsageError as error:
            yield ("optimizers", run.label), str(error)
            continue
        if found is not None:
            key, wrong = found
            yield ("optimizers", run.label, *filter(None, [key])), f"optimizer {run.label}: {wrong}"


def of_runs(runs: Sequence[Run], workload: Workload) -> Iterator[str]:
    """For runs of one recipe: batches larger than the data, warmups longer than the run."""
    size, total = workload.workload_spec.train["batch_size"], workload.total_steps
    if size != "full" and size > workload.n_train:
        yield (
            f"train.batch_size {size} is more than the {workload.n_train} training examples: every batch holds all of "
            "them, as with `full`"
        )
    for schedule in (run.setting.schedule for run in runs):
        length = warmup_steps(schedule.get("warmup", 0), total) if ":" not in schedule["name"] else 0
        if length > total:
            yield (
                f"schedule {schedule['name']}: its warmup of {length} updates is longer than the run of {total}: the "
                f"rate rises to {total / length:.3g} of its value and no further"
            )


def of_labels(spec: Spec) -> Iterator[str]:
    """Labels that show an argument with a value that an axis replaces."""
    for optimizer in spec.optimizers:
        for name, value in optimizer.args.items():
            if f"optimizers.{name}" in spec.axes and f"{name}={value}" in optimizer.label:
                yield (
                    f"the axis optimizers.{name} sets {name} in every row of {optimizer.label!r}, whatever that name "
                    f"says: leave {name} out of the optimizer, or give it a `label:`"
                )
