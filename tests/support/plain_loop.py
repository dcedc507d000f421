"""Training written out in plain torch, by the words of the contract: what every run of a sweep has to equal.

Of lrsweep it takes the seeds alone: which numbers a step draws is defined, not derived. The user's files are loaded
anew for every run, since what they keep starts anew in each.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import default_collate

from lrsweep import Task
from lrsweep.training.isolation import seed_all, stream_seed

Row = dict[str, float]
"""`step`, `train_loss`, `val_loss`, and `val_<metric>` for each metric: a line of curves.csv."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is trained. `task` and `optimizer`: import paths of a function and a class, or a class of torch.optim.

    `steps`, `epochs`: one of the two.
    `factor`: step -> factor on the learning rate, as `LambdaLR` takes it; None leaves the optimizer's rate alone.
    `clip_norm`: gradients are scaled down to this norm.
    `eval_batch_size`: None is 512 examples, or `batch_size` where the user collates them.
    `differentiates`: the loss takes derivatives, in evaluations too.
    """

    task: str
    optimizer: str | type[torch.optim.Optimizer]
    task_args: Mapping[str, Any]
    optimizer_args: Mapping[str, Any]
    batch_size: int
    steps: int = 0
    epochs: int = 0
    shuffle: bool = True
    factor: Callable[[int], float] | None = None
    clip_norm: float | None = None
    eval_batch_size: int | None = None
    differentiates: bool = False
    dtype: torch.dtype = torch.float64


def train(recipe: Recipe, lr: float, seed: int, perturbation: int | None = None) -> list[Row]:
    """The rows of one run: one before the first step, one after each epoch and after the last step.

    A batch loss that is not finite ends it without a further row. `perturbation`: number of the draw by which the
    initial weights are moved in their last digits; None leaves them.
    """
    with numbers(recipe.dtype):
        rows = _Run(recipe, lr, seed, perturbation).rows()
        for place in (recipe.task, recipe.optimizer):
            if isinstance(place, str):
                load(place)  # what the file keeps on objects of torch or Python starts anew for sweeps of this process
        return rows


def load(path: str) -> Any:
    """The object that `file.py:name` means, from a file (and neighbours it imports) that nothing has used yet."""
    place, _, name = path.rpartition(":")
    folder = Path(place).parent
    _forget(folder)
    spec = importlib.util.spec_from_file_location(f"plain_{Path(place).stem}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
        _forget(folder)  # sweeps of this process, whose workers are forks of it, import their own
    return getattr(module, name)


def _forget(folder: Path) -> None:
    """Neighbours imported by their bare names, from this folder or another one that a sweep has taken them from."""
    for file in folder.glob("*.py"):
        known = getattr(sys.modules.get(file.stem), "__file__", None)
        if known is not None and Path(known).name == file.name and file.stem not in sys.stdlib_module_names:
            del sys.modules[file.stem]


@contextmanager
def numbers(dtype: torch.dtype) -> Iterator[None]:
    """torch's default dtype is `dtype` within, in one thread; generators and environment are put back after."""
    before = torch.get_default_dtype(), torch.get_rng_state(), np.random.get_state(), random.getstate()
    threads, environment = torch.get_num_threads(), dict(os.environ)
    torch.set_default_dtype(dtype)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
        torch.set_default_dtype(before[0])
        torch.set_rng_state(before[1])
        np.random.set_state(before[2])
        random.setstate(before[3])


def rows(recipe: Recipe, lr: float, seed: int, task: Task) -> list[Row]:
    """As `train`, of a task that is made already and keeps nothing between runs; within `numbers`."""
    return _Run(recipe, lr, seed, task=task).rows()


def make_task(recipe: Recipe) -> Task:
    """The user's task, from a file that nothing has used yet."""
    seed_all(stream_seed("import"))
    function = load(recipe.task)
    seed_all(stream_seed("task"))
    made: Task = function(**recipe.task_args)
    return made


def _cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Complex parameters stay as they are."""
    return module.double() if dtype == torch.float64 else module.float()


class _Run:
    def __init__(
        self, recipe: Recipe, lr: float, seed: int, perturbation: int | None = None, task: Task | None = None
    ) -> None:
        self.recipe, self.seed, self.steps_made = recipe, seed, 0
        self.task: Task = make_task(recipe) if task is None else task
        assert self.task.model is not None
        function = self.task.step
        self.asks_step = function is not None and "step" in inspect.signature(function).parameters
        seed_all(stream_seed("builder", seed))
        torch.manual_seed(seed)
        self.model: nn.Module = _cast(self.task.model(), recipe.dtype).train()
        if perturbation is not None:
            _move_last_digits(self.model, torch.Generator().manual_seed(perturbation))
        if isinstance(self.task.loss, nn.Module):
            _cast(self.task.loss, recipe.dtype).requires_grad_(False)
        self.optimizer: Any = self._optimizer(lr)
        self.schedule = None
        if recipe.factor is not None:
            self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, recipe.factor)

    def _optimizer(self, lr: float) -> Any:
        made = self.recipe.optimizer
        cls = load(made) if isinstance(made, str) else made
        groups = getattr(self.task, "param_groups", None)
        params = list(self.model.parameters())
        if groups is not None:
            params = [
                {key: value for key, value in group.items() if key != "lr_scale"}
                | {"lr": lr * group.get("lr_scale", 1.0)}
                for group in groups(self.model)
            ]
        return cls(params, lr=lr, **self.recipe.optimizer_args)

    def rows(self) -> list[Row]:
        rows = [{"step": 0, "train_loss": self._evaluate("train")["loss"], **self._validation()}]
        count = len(self.task.train[-1] if isinstance(self.task.train, tuple) else self.task.train)
        per_epoch = -(-count // self.recipe.batch_size)
        losses: list[float] = []
        steps = self.recipe.steps or self.recipe.epochs * per_epoch
        for step in range(steps):
            if losses and not math.isfinite(losses[-1]):
                break
            epoch, place = divmod(step, per_epoch)
            order = torch.arange(count)
            if self.recipe.shuffle:
                order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
            losses.append(self._step(order[place * self.recipe.batch_size :][: self.recipe.batch_size]))
            if place == per_epoch - 1 or step == steps - 1:
                rows.append({"step": step + 1, "train_loss": sum(losses) / len(losses), **self._validation()})
                losses = []
        return rows

    def _step(self, index: torch.Tensor) -> float:
        """One step of training on the examples `index`; the loss of the batch, when it is first computed."""
        batch = self._batch("train", index, ("data", self.seed, self.steps_made))
        seed_all(stream_seed("layers", self.seed, self.steps_made))
        losses: list[float] = []

        @torch.enable_grad()
        def closure() -> torch.Tensor:
            self.optimizer.zero_grad()
            loss = self._losses(batch)["loss"]
            loss.backward()
            if self.recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
            losses.append(loss.item())
            return loss

        if _needs_closure(self.optimizer):
            self.optimizer.step(closure)
        else:
            closure()
            self.optimizer.step()
        if self.schedule is not None:
            self.schedule.step()
        self.steps_made += 1
        return losses[0]

    def _losses(self, batch: Any) -> dict[str, torch.Tensor]:
        """The loss and, in evaluation, the metrics."""
        if self.task.step is not None:
            asked = {"step": self.steps_made} if self.asks_step else {}
            result = self.task.step(self.model, batch, **asked)
            return dict(result) if isinstance(result, Mapping) else {"loss": result}
        *inputs, target = batch
        assert self.task.loss is not None
        output = self.model(*inputs)
        found = {"loss": self.task.loss(output, target)}
        if not self.model.training:
            found |= {name: metric(output, target) for name, metric in self.task.metrics.items()}
        return found

    def _validation(self) -> Row:
        return {f"val_{name}": value for name, value in self._evaluate("val").items()}

    def _evaluate(self, split: str) -> dict[str, float]:
        """Means of loss and metrics over a whole split, by batches in stored order."""
        if self.steps_made and hasattr(self.optimizer, "eval"):
            seed_all(stream_seed("layers", self.seed, self.steps_made))
            self.optimizer.eval()
        self.model.eval()
        seed_all(stream_seed("layers", self.seed, self.steps_made))
        data = getattr(self.task, split)
        count = len(data[-1] if isinstance(data, tuple) else data)
        size = self.recipe.eval_batch_size or (512 if self.task.collate_fn is None else self.recipe.batch_size)
        found: dict[str, float] = {}
        for index in torch.arange(count).split(size):
            batch = self._batch(split, index, ("data", split, int(index[0]), self.seed, self.steps_made))
            with torch.set_grad_enabled(self.recipe.differentiates or _wants_gradients(self.task)):
                for name, value in self._losses(batch).items():
                    share = float(torch.as_tensor(value).detach()) * len(index) / count
                    found[name] = found.get(name, 0.0) + share
        self.model.train()
        if hasattr(self.optimizer, "train"):
            seed_all(stream_seed("layers", self.seed, self.steps_made))
            self.optimizer.train()
        return found

    def _batch(self, split: str, index: torch.Tensor, stream: Sequence[Any]) -> Any:
        """What the model or the step is given. A Dataset's random numbers come from the seed and the step."""
        data = getattr(self.task, split)
        if isinstance(data, tuple):
            batch: Any = tuple(tensor[index] for tensor in data)
        else:
            seed_all(stream_seed(*stream))
            batch = (self.task.collate_fn or default_collate)([data[number] for number in index.tolist()])
        return _cast(batch, self.recipe.dtype)


@torch.no_grad()
def _move_last_digits(model: nn.Module, generator: torch.Generator) -> None:
    """Every weight goes up or down by about one unit in its last place, or stays."""
    for weight in model.parameters():
        signs = torch.randint(-1, 2, weight.shape, generator=generator).to(weight.dtype)
        weight.mul_(1 + torch.finfo(weight.dtype).eps * signs)


def _needs_closure(optimizer: Any) -> bool:
    parameter = inspect.signature(optimizer.step).parameters.get("closure")
    return parameter is not None and parameter.default is parameter.empty


def _wants_gradients(task: Task) -> bool:
    """Does the step ask for derivatives, in evaluation too? Its author says so here; lrsweep has to find out."""
    return bool(getattr(task.step, "wants_gradients", False))


def _cast(batch: Any, dtype: torch.dtype) -> Any:
    """`batch` with its floating-point tensors in `dtype`."""
    if isinstance(batch, torch.Tensor):
        return batch.to(dtype) if batch.is_floating_point() else batch
    if isinstance(batch, Mapping):
        return {key: _cast(value, dtype) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_cast(value, dtype) for value in batch))
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{field.name: _cast(getattr(batch, field.name), dtype) for field in fields(batch)})
    return type(batch)(_cast(value, dtype) for value in batch) if type(batch) in (list, tuple) else batch
