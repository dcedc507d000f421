"""The names a spec may use and the arguments they take, read off the tables of lrsweep and off `torch.optim`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Complaints: TypeAlias = list[tuple[str, str]]  # (argument, what is wrong)

# Given by lrsweep, never by a spec.
GIVEN = ("in_shape", "num_outputs", "step", "total_steps")

# Arguments of torch's optimizers that a spec cannot set, and why.
REFUSED = {
    "params": "lrsweep passes the parameters itself",
    "foreach": "it chooses an implementation, not a rule; lrsweep has its own",
    "fused": "it chooses an implementation, not a rule; lrsweep has its own",
    "capturable": "it chooses an implementation, not a rule; lrsweep has its own",
    "differentiable": "it chooses an implementation, not a rule; lrsweep has its own",
}

# Arguments of built-in tasks that name a file, relative to the spec.
DATA_FILES = {"csv": "path", "npz": "path"}


def _no_complaints(name: str, args: Mapping[str, Any]) -> Complaints:
    return []


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a spec is checked against.

    Tasks, models and schedules map a name to the function that is called with its arguments; optimizers map a name to
    torch's defaults of its arguments. `optimizer_args(name, args, independent=...)` writes every argument out.
    """

    tasks: Mapping[str, Callable[..., Any]]
    models: Mapping[str, Callable[..., Any]]
    schedules: Mapping[str, Callable[..., Any]]
    optimizers: Mapping[str, Mapping[str, Any]]
    default_models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    check_optimizer: Callable[[str, Mapping[str, Any]], Complaints] = _no_complaints
    check_schedule: Callable[[str, Mapping[str, Any]], Complaints] = _no_complaints
    optimizer_args: Callable[..., dict[str, Any]] | None = None

    def resolved_optimizer(self, name: str, args: Mapping[str, Any], *, independent: bool) -> dict[str, Any]:
        """Every argument of a built-in optimizer; with `independent` weight decay its own decay is 0 by default."""
        if self.optimizer_args is not None:
            return self.optimizer_args(name, args, independent=independent)
        defaults = dict(self.optimizers[name])
        if independent and "weight_decay" in defaults:
            defaults["weight_decay"] = 0.0
        return defaults | dict(args)


@functools.cache
def known() -> Known:
    """Everything that lrsweep knows. Imports torch."""
    from lrsweep import models, optimizers, schedules, tasks

    return Known(
        tasks=tasks.TASKS,
        models=models.MODELS,
        schedules=schedules.SCHEDULES,
        optimizers={name: optimizers.defaults(name) for name in optimizers.OPTIMIZERS},
        default_models=tasks.DEFAULT_MODELS,
        metrics=getattr(tasks, "METRICS", {}),
        check_optimizer=optimizers.check,
        check_schedule=schedules.check,
        optimizer_args=optimizers.resolved,
    )
