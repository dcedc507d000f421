"""The user's code built here and tried in a copy of this process: code that ends its process cannot end the command
without a word."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from lrsweep import given_code
from lrsweep.errors import WrongInSpec
from lrsweep.system import child, ending
from lrsweep.wording import words
from lrsweep.workers import worker

if TYPE_CHECKING:
    from lrsweep.plan import Run, WorkloadSpec
    from lrsweep.training.workload import Workload

T = TypeVar("T")


def built(workload_spec: WorkloadSpec, device: str = "cpu") -> Workload:
    """The workload of a recipe, built in this process, whose copies and workers then have it.

    Raises UsageError if the user's task cannot be built, or calls `os._exit`.
    """
    cache, name = worker.workloads(), workload_spec.task["name"]
    names = [name, (workload_spec.model or {"name": ""})["name"]]
    if cache.holds(workload_spec, device) or not any(":" in one for one in names):
        return cache.get(workload_spec, device)
    child.before_user_code()
    with ending.told_of(f"task {given_code.short(name)} was being built"):
        return cache.get(workload_spec, device)


def in_a_copy(function: Callable[[], T], run: Run, device: str, *, meanwhile: str) -> T:
    """`function()`, which runs the code of the recipe of `run`, in a copy where there is user code and can be one.

    The task must have been built here: the copy finds it. The result must be picklable. Raises what `function` raises,
    and WrongInSpec if the copy ends before it has a result; `meanwhile` says what was being done.
    """
    if run.built_in or device != "cpu":  # CUDA works in no copy of a process that has used it
        return function()
    try:
        return child.call(function)
    except child.ChildDiedError as died:
        name = given_code.short(run.workload_spec.task["name"])
        place = words.made_at(built(run.workload_spec, device).task.made_at)
        raise WrongInSpec((("task",), f"task {name}: the process {died} while {meanwhile}{place}")) from died
