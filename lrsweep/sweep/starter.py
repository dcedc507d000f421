"""A spec for a task of the user's, with what one look at the task found."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep import plan as planning
from lrsweep import tasks
from lrsweep.errors import UsageError, on_one_line, printable
from lrsweep.spec.load import load_spec
from lrsweep.sweep import api, trial
from lrsweep.system.machine import size_text
from lrsweep.wording.words import duration, plural

if TYPE_CHECKING:
    from lrsweep.plan import Run
    from lrsweep.sweep.dry_run import CostEstimate
    from lrsweep.training.workload import Workload

BATCH = 64
TEXT = """\
{found}
name: {name}
task: {task}
lr: {{min: 1e-5, max: 1, per_decade: 2}}
optimizers:
  - sgd
  - {{name: sgd, momentum: 0.9}}
  - adam
seeds: 5
train: {{epochs: 10, batch_size: {batch}}}
objective: {{metric: val_loss, at: final}}{metrics}
"""


def for_task(task: str, path: Path) -> str:
    """The text of a spec for `task` (`mytask.py:make_task`, relative to the current folder) to be written to `path`.

    A few steps are trained, in memory only. Raises SpecError and UsageError for a task that cannot be swept.
    """
    mapping: dict[str, Any] = {
        "name": re.sub(r"[^A-Za-z0-9._-]", "-", path.stem).lstrip(".") or "sweep",
        "task": task,
        "lr": {"min": 1e-5, "max": 1, "per_decade": 2},
        "optimizers": ["sgd", {"name": "sgd", "momentum": 0.9}, "adam"],
        "train": {"epochs": 10, "batch_size": BATCH},
    }
    rows = int(trial.built(_first_run(mapping).workload_spec).task.notes["train"])
    mapping["train"]["batch_size"] = min(BATCH, 1 << (rows.bit_length() - 1))
    estimate = api.dry_run(mapping, progress="none")
    if estimate.errors:
        raise UsageError(f"{task} cannot be swept as it is: {estimate.errors[0]}")
    run = _first_run(mapping)
    workload = trial.built(run.workload_spec)
    lines = trial.in_a_copy(lambda: _found(task, workload, estimate), run, "cpu", meanwhile="a batch was evaluated")
    names = [f"val_{name}" for name in workload.metric_names]
    file, _, function = task.rpartition(":")
    there = Path(os.path.relpath(file, path.absolute().parent)).as_posix() if file.endswith(".py") else file
    found = (printable(on_one_line(line)) for line in lines)
    return TEXT.format(
        found="\n".join(f"# {line}" for line in found),
        name=json.dumps(mapping["name"]),
        task=json.dumps(f"{there}:{function}", ensure_ascii=False),
        batch=mapping["train"]["batch_size"],
        metrics=f"  # or {', '.join(names)}" if names else "",
    )


def _first_run(mapping: dict[str, Any]) -> Run:
    spec = load_spec(mapping)
    return planning.build(spec, planning.fingerprints(spec)).runs[0]


def _found(task: str, workload: Workload, estimate: CostEstimate) -> list[str]:
    """What was found, a line each."""
    batch = workload.batch(0, 0)
    module = workload.build_model(0)
    with workload.user_code():
        loss = float(module(*batch)[0].detach())
    parameters = [parameter for parameter in module.model.parameters() if parameter.requires_grad]
    count, size = sum(p.numel() for p in parameters), sum(p.nbytes for p in parameters)
    together = estimate.engines.get("stacked", 0)
    why = "; ".join(estimate.reasons) or "too large to be trained together"
    how = "many at a time" if together else f"one at a time: {why}"
    step = estimate.seconds * estimate.workers / max(estimate.run_steps, 1)
    return [
        f"Written by `lrsweep init --task {task}`, which found:",
        f"  data     {tasks.describe(workload.task)}",
        f"  a batch  {', '.join(map(_shape, batch))}",
        f"  model    {type(module.model).__name__}, {plural(count, 'parameter')} to train ({size_text(size)})",
        f"  loss     {loss:.4g} on the first batch, untrained",
        f"  metrics  {', '.join(workload.metric_names) or 'none'}",
        f"  trained  {how}",
        f"  time     {1e3 * step:.2g} ms for a step of a run; about {duration(max(estimate.seconds, 1.0))} for the "
        f"{estimate.runs} runs below with {plural(estimate.workers, 'process')}",
    ]


def _shape(value: Any) -> str:
    """`[64, 4] float32`, also of what a batch holds."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_shape(one)}" for key, one in value.items()) + "}"
    if isinstance(value, tuple | list):
        return "(" + ", ".join(map(_shape, value)) + ")"
    return type(value).__name__
