"""Plain torch training, written out: what one run must equal. Nothing of lrsweep is used in here.

`workload_spec` and `run` make the inputs of the engines by hand, with the attributes of the plan's own types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

HERE = str(Path(__file__).parent)


def workload_spec(task: dict[str, Any] | str, model: dict[str, Any] | None = None, **train: Any) -> SimpleNamespace:
    """A workload; float64, 3 epochs and batches of 32 unless told otherwise.

    A bare task name is a function of tasks.py, `builtin:digits` the package's own, one with a colon an import path.
    """
    task = {"name": task} if isinstance(task, str) else task
    name = task["name"] if ":" in task["name"] else f"tasks.py:{task['name']}"
    task = task | {"name": name.removeprefix("builtin:")}
    given = {
        "epochs": None if "steps" in train else 3,
        "steps": None,
        "batch_size": 32,
        "eval_batch_size": None,
        "shuffle": True,
        "drop_last": False,
        "dtype": "float64",
        "tf32": False,
        "metrics": False,
        "clip_norm": None,
        "eval_every": 1,
    }
    return SimpleNamespace(task=task, model=model, train=given | train, base_dir=HERE, key="")


def run(
    workload_spec: SimpleNamespace,
    optimizer: str = "sgd",
    lr: float = 0.1,
    seed: int = 0,
    schedule: dict[str, Any] | None = None,
    independent_weight_decay: float | None = None,
    **args: Any,
) -> SimpleNamespace:
    """One run of a workload; `args` are the optimizer's."""
    setting = SimpleNamespace(
        name=optimizer,
        args=args,
        schedule=schedule or {"name": "constant"},
        independent_weight_decay=independent_weight_decay,
        key=f"{optimizer} {args} {schedule} {independent_weight_decay}",
    )
    return SimpleNamespace(
        run_id=f"run-{seed}", label=optimizer, lr=lr, seed=seed, axes=(), workload_spec=workload_spec, setting=setting
    )


@dataclass
class Plain:
    """What the plain loop saw. `rows`: (step, train loss, val loss); `val_metric` where a metric was given."""

    model: nn.Module
    rows: list[tuple[int, float, float]] = field(default_factory=list)
    val_metric: list[float] = field(default_factory=list)
    start: list[torch.Tensor] = field(default_factory=list)

    @property
    def displacement(self) -> torch.Tensor:
        pairs = zip(self.model.parameters(), self.start, strict=True)
        return torch.cat([(p.detach() - s).flatten() for p, s in pairs])


@contextmanager
def double() -> Iterator[None]:
    """torch's default dtype is float64 within."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@double()
def plain_loop(
    build: Callable[[], nn.Module],
    train: tuple[torch.Tensor, ...],
    val: tuple[torch.Tensor, ...],
    optimizer: Callable[[Sequence[nn.Parameter]], torch.optim.Optimizer],
    *,
    seed: int = 0,
    epochs: int = 3,
    batch_size: int = 32,
    loss: Callable[..., torch.Tensor] = nn.functional.cross_entropy,
    metric: Callable[..., torch.Tensor] | None = None,
    factor: Callable[[int], float] = lambda t: 1.0,
    lr: float = 0.1,
    shuffle: bool = True,
    drop_last: bool = False,
    clip_norm: float | None = None,
    decay: float = 0.0,
) -> Plain:
    """Epochs of minibatch training in float64, the textbook way; a row after every epoch, and one before the first."""
    torch.manual_seed(seed)
    model = build()
    plain = Plain(model, start=[p.detach().clone() for p in model.parameters()])
    opt = optimizer(list(model.parameters()))

    def evaluate(data: tuple[torch.Tensor, ...], function: Callable[..., torch.Tensor]) -> float:
        model.eval()
        with torch.no_grad():
            value = function(model(*data[:-1]), data[-1]).item()
        model.train()
        return value

    def record(step: int, train_loss: float) -> None:
        plain.rows.append((step, train_loss, evaluate(val, loss)))
        if metric is not None:
            plain.val_metric.append(evaluate(val, metric))

    record(0, evaluate(train, loss))
    n, t = len(train[0]), 0
    for epoch in range(epochs):
        order = torch.arange(n)
        if shuffle:
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))
        losses = []
        for index in order.split(batch_size):
            if drop_last and len(index) < batch_size:
                continue
            opt.zero_grad()
            value = loss(model(*(x[index] for x in train[:-1])), train[-1][index])
            losses.append(value.item())
            value.backward()
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            with torch.no_grad():
                for p in model.parameters():
                    p.mul_(1 - decay * factor(t))
            for group in opt.param_groups:
                group["lr"] = lr * factor(t)
            opt.step()
            t += 1
        record(t, sum(losses) / len(losses))
    return plain
