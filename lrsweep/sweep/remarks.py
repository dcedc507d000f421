"""What a sweep does that its spec allows but its author may not have meant: said once, before it is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lrsweep.schedules import warmup_steps

if TYPE_CHECKING:
    from lrsweep.plan import Run
    from lrsweep.spec.model import Spec
    from lrsweep.training.workload import Problem


def of_runs(runs: Sequence[Run], problem: Problem) -> Iterator[str]:
    """For runs of one recipe: batches larger than the data, warmups longer than the run."""
    size, total = problem.recipe.train["batch_size"], problem.total_steps
    if size != "full" and size > problem.n_train:
        yield (
            f"train.batch_size {size} is more than the {problem.n_train} training examples: every batch holds all of "
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
