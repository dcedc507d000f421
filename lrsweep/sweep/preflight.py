"""What can be known to be wrong with a sweep before anything of it is trained, beyond what the spec alone tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lrsweep import optimizers
from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.spec.check import refused

if TYPE_CHECKING:
    from lrsweep.plan import Recipe, Run
    from lrsweep.training.workload import Problem


def metrics(problem: Problem, watched: Mapping[str, str]) -> None:
    """Raises WrongInSpec if a column, {column: key of the spec}, will be in no curve of this task."""
    names = problem.metric_names
    columns = ["train_loss", "val_loss", *(f"val_{name}" for name in names)]
    columns += [f"train_{name}" for name in names if problem.train_metrics]
    for metric, key in watched.items():
        if metric not in columns and (names or problem.task.step is None):
            wrong = f"this task records no {metric!r} (it records {', '.join(columns)})"
            raise WrongInSpec((tuple(key.split(".")), wrong))


def user_code(runs: Sequence[Run], build: Callable[[Recipe], object]) -> None:
    """Raises WrongInSpec with all that is wrong with the task, built by `build`, and the optimizers of the user's."""
    found: list[tuple[tuple[str, ...], str]] = []
    try:
        build(runs[0].recipe)
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
            found = refused(optimizers.lookup(setting.name, run.recipe.base_dir), setting.args, [], lr=run.lr)
        except UsageError as error:
            yield ("optimizers", run.label), str(error)
            continue
        if found is not None:
            key, wrong = found
            yield ("optimizers", run.label, *filter(None, [key])), f"optimizer {run.label}: {wrong}"
