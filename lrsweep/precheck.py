"""What can be known to be wrong with a sweep before anything of it is trained, beyond what the spec alone tells."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lrsweep import optimizers
from lrsweep.errors import UsageError

if TYPE_CHECKING:
    from lrsweep.plan import Recipe, Run
    from lrsweep.problem import Problem


def metrics(problem: Problem, watched: Mapping[str, str]) -> None:
    """Raises UsageError if a column, {column: key of the spec}, will be in no curve of this task."""
    names = problem.metric_names
    columns = ["train_loss", "val_loss", *(f"val_{name}" for name in names)]
    columns += [f"train_{name}" for name in names if problem.train_metrics]
    for metric, key in watched.items():
        if metric not in columns and (names or problem.task.step is None):
            raise UsageError(f"{key}: this task records no {metric!r} (it records {', '.join(columns)})")


def user_code(runs: Sequence[Run], build: Callable[[Recipe], object]) -> None:
    """Raises UsageError with all that is wrong with the task, built by `build`, and the optimizers of the user's."""
    found = []
    try:
        build(runs[0].recipe)
    except UsageError as error:
        found.append(str(error))
    found += _refused_arguments(runs)
    if found:
        raise UsageError("\n".join(found))


def _refused_arguments(runs: Iterable[Run]) -> Iterator[str]:
    """What classes of the user's have against the arguments that the spec gives them."""
    seen: set[str] = set()
    for run in runs:
        setting = run.setting
        if ":" not in setting.name or setting.key in seen:
            continue
        seen.add(setting.key)
        signature = None
        try:
            signature = _signature(optimizers.lookup(setting.name, run.recipe.base_dir))
            if signature is not None:
                signature.bind([], lr=run.lr, **setting.args)
        except UsageError as error:
            yield str(error)
        except TypeError as error:
            yield f"optimizer {run.label}: {error} (its arguments are {signature})"


def _signature(cls: type) -> inspect.Signature | None:
    try:
        return inspect.signature(cls)
    except (TypeError, ValueError):  # some classes written in C do not tell
        return None
