"""A task and model made ready to train: data on the device, model builder, losses and batches, for both trainers.

What a run sees follows from its seed and the step alone: the initial weights, the order of the batches, and the numbers
that random layers and Datasets draw (contract, What a run means).
"""

from __future__ import annotations

import functools
import hashlib
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from lrsweep import given_code
from lrsweep.errors import LrsweepError, UsageError, WrongInSpec, did_you_mean
from lrsweep.models import MODELS, misfit
from lrsweep.run_result import Probed
from lrsweep.tasks import TASKS
from lrsweep.tasks.base import Shapes, Task, shapes_of
from lrsweep.training import isolation, memory, mistakes, param_groups, read_ahead
from lrsweep.training.data import PERMUTED_BYTES, DatasetSplit, TensorSplit, Wanted, epoch_order, map_tensors, split_of
from lrsweep.training.loss_module import LossModule, parameters_of
from lrsweep.user_imports import argument_error, defined_at, resolve, user_place

if TYPE_CHECKING:
    from lrsweep.plan import WorkloadSpec

T = TypeVar("T")

WEIGHTS = "bytes of the weights"
ALONE = "alone"
DIFFERENTIATES = "differentiates"
DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.float32}


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """What the runs of a group share: task, model and the `train` section, ready to train. Made by `build`.

    `builder` makes the model, `splits` holds "train", "val" and, where there is one, "test". `n_train` examples in
    batches of `batch_size` make `steps_per_epoch` steps an epoch and `total_steps` in all. `dtype` is that of
    parameters and batches (float32 under autocast).
    """

    workload_spec: WorkloadSpec
    task: Task
    builder: Callable[[], nn.Module]
    splits: Mapping[str, TensorSplit | DatasetSplit]
    device: torch.device
    dtype: torch.dtype
    n_train: int
    batch_size: int
    steps_per_epoch: int
    total_steps: int
    _epochs: dict[int, tuple[int, torch.Tensor, tuple[torch.Tensor, ...] | None]] = field(default_factory=dict)
    _together: dict[tuple[int, ...], tuple[int, tuple[torch.Tensor, ...]]] = field(default_factory=dict)
    _built: weakref.WeakValueDictionary[int, nn.Module] = field(default_factory=weakref.WeakValueDictionary)
    _once: dict[Hashable, Any] = field(default_factory=dict)
    _ahead: list[read_ahead.Readers | None] = field(default_factory=lambda: [None])

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, called once for each key while this workload lives."""
        if key not in self._once:
            self._once[key] = make()
        value: T = self._once[key]
        return value

    def train_alone(self) -> None:
        """This process trains one run and no other: what the user's code shares between its objects is left shared,
        its tensors among them, which are cast batch by batch."""
        self._once[ALONE] = True
        for split in self.splits.values():
            if isinstance(split, TensorSplit):
                split.share()

    @property
    def alone(self) -> bool:
        return ALONE in self._once

    @property
    def shared_batches(self) -> bool:
        """True if the train split is tensors: the batches of any seed can then be cut from one permuted epoch."""
        return isinstance(self.splits["train"], TensorSplit)

    @property
    def train_metrics(self) -> bool:
        return bool(self.workload_spec.train["metrics"])

    @cached_property
    def metric_names(self) -> tuple[str, ...]:
        """The metrics in their order; for a `step` the keys of its dict, found by one evaluation of a fresh model.

        Empty if that evaluation fails: every run then fails with the same text.
        """
        return tuple(self.task.metrics) if self.task.step is None else self._probe()

    def _probe(self) -> tuple[str, ...]:
        """Evaluate a fresh model on one batch: the metrics that come."""
        try:
            with self.user_code():
                module = LossModule(self._built_model(0), self, None).eval()
                self.seed_step(0, 0)
                batch, _ = next(self.eval_batches("val"))
                with torch.no_grad():
                    return tuple(module(*batch)[1])
        except (Exception, SystemExit):  # noqa: BLE001 - whatever user code raises is told by the runs it fails
            return ()

    @property
    def section(self) -> str:
        """The section of the spec that the model comes from."""
        return "task" if self.workload_spec.model is None else "model"

    @property
    def built_in(self) -> bool:
        """Are task and model built-ins?"""
        names = [self.workload_spec.task["name"], (self.workload_spec.model or {"name": ""})["name"]]
        return not any(":" in name for name in names)

    @property
    def differentiates(self) -> bool | None:
        """Does the loss take derivatives in evaluations? None before the first."""
        return self._once.get(DIFFERENTIATES)

    def know_evaluations(self, differentiate: bool) -> None:
        """Note whether the loss takes derivatives in evaluations."""
        self._once.setdefault(DIFFERENTIATES, differentiate)

    def probed(self) -> Probed:
        """For another process, in which the user's code must not be run to find it out."""
        names = self.metric_names
        if self.differentiates is None and not self.built_in:
            self._probe()
        return Probed(names, self.differentiates)

    def know(self, probed: Probed) -> None:
        """Take what another process has found out."""
        vars(self).setdefault("metric_names", probed.metric_names)
        if probed.differentiates is not None:
            self.know_evaluations(probed.differentiates)

    @cached_property
    def finalize(self) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        """What to apply to the mean of a metric, for those that ask for it."""
        metrics = self.task.metrics.items()
        return {name: metric.finalize for name, metric in metrics if hasattr(metric, "finalize")}

    def user_code(self) -> Any:
        """The context to train in: the spec's dtype as torch's default, generators and warnings kept apart."""
        return isolation.isolated(self.dtype, self.device, tf32=self.workload_spec.train["tf32"])

    def place_module(self, module: nn.Module) -> nn.Module:
        """`module` on the device, its floating-point tensors cast."""
        module = module.to(self.device)
        return module.double() if self.dtype == torch.float64 else module.float()

    def build_model(self, seed: int) -> LossModule:
        """A fresh model of `seed` with its loss and parameter groups, in training mode.

        Whatever the builder raises comes through. Raises WrongInSpec for groups that cannot be.
        """
        names = self.metric_names
        with self.user_code():
            module = LossModule(self._built_model(seed), self, names)
            if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters()):
                self._first_pass(module, seed)
            self.once(WEIGHTS, lambda: sum(parameter.nbytes for parameter in module.parameters()))
            module.train()
            module.groups = param_groups.made_for(self, module.model)
            return module

    @property
    def weights_bytes(self) -> int:
        """Bytes of the parameters of a model; 0 where none can be built: every run then says why."""
        if WEIGHTS not in self._once:
            with suppress(Exception):
                self.build_model(0)
        return int(self._once.get(WEIGHTS, 0))

    @torch.no_grad()
    def _first_pass(self, module: LossModule, seed: int) -> None:
        """Lazy layers draw their weights when they first see a batch; here that is part of building."""
        batch, _ = next(self.eval_batches("val"))
        torch.manual_seed(seed)
        module.eval()(*batch)

    def _built_model(self, seed: int) -> nn.Module:
        isolation.seed_all(isolation.stream_seed("builder", seed))
        torch.manual_seed(seed)
        given = (self.builder,)
        model = given[0]()
        if not isinstance(model, nn.Module):
            kind = "None; does it end with `return`?" if model is None else f"a {type(model).__name__}"
            raise mistakes.refused(
                f"the model builder must return a torch.nn.Module, not {kind}", self.builder, self.task, self.section
            )
        if self._built.get(id(model)) is model:
            text = "the model builder returned the same module twice; every run needs a fresh one, made in"
            raise mistakes.refused(f"{text} the function that returns it", self.builder, self.task, self.section)
        self._built[id(model)] = model
        return self.place_module(model)

    def seed_step(self, seed: int, step: int) -> None:
        """Seed the global generators for random layers at step `step` (from 0), or the evaluation after `step`."""
        isolation.seed_all(isolation.stream_seed("layers", seed, step))

    def epoch_order(self, seed: int, epoch: int) -> torch.Tensor:
        """The order in which an epoch (from 0) visits the train examples, [n_train]."""
        return epoch_order(seed, epoch, self.n_train, shuffle=self.workload_spec.train["shuffle"])

    def _epoch(self, seed: int, epoch: int) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None]:
        permuted = self._epochs.get(seed)
        if permuted is None or permuted[0] != epoch:
            order, split, data = self.epoch_order(seed, epoch), self.splits["train"], None
            if isinstance(split, TensorSplit) and not self.alone:
                order = order.to(self.device)  # once an epoch, not a part of it in every step
                if not self.workload_spec.train["shuffle"]:
                    data = split.tensors
                elif split.nbytes <= PERMUTED_BYTES:
                    data = split.take(order)
            permuted = self._epochs[seed] = (epoch, order, data)
        return permuted[1], permuted[2]

    def release(self) -> None:
        """Forget the permuted epochs; called when the runs that read them are done."""
        self._epochs.clear()
        self._together.clear()

    def batch(self, seed: int, step: int) -> tuple[Any, ...]:
        """The arguments of `LossModule.forward` at step `step` (from 0); the caller may write into them.

        (*inputs, target), or for a task with `step` what that is to be given. A Dataset draws from (seed, step).
        """
        epoch, low, high = self._place_in_epoch(step)
        order, data = self._epoch(seed, epoch)
        if data is not None:
            return self._arguments(tuple(tensor[low:high].clone() for tensor in data))
        split = self.splits["train"]
        if isinstance(split, TensorSplit):
            return self._arguments(split.take(order[low:high]))
        if readers := self._ahead[-1]:
            rest = (self._wanted(seed, later) for later in range(step, self.total_steps))
            return self._arguments(readers.train_batch(seed, step, rest))
        return self._arguments(next(split.batches([self._wanted(seed, step)])))

    def _wanted(self, seed: int, step: int) -> Wanted:
        """The batch of a train split that is a Dataset."""
        epoch, low, high = self._place_in_epoch(step)
        return Wanted(isolation.stream_seed("data", seed, step), self._epoch(seed, epoch)[0][low:high].tolist())

    @contextmanager
    def reading_ahead(self) -> Iterator[None]:
        """Within, the batches of Datasets are prepared by processes of their own, if the task asks for some."""
        with read_ahead.opened(self.splits, self.task.workers) as readers:
            self._ahead.append(readers)
            try:
                yield
            finally:
                self._ahead.pop()

    def batches(self, seeds: Sequence[int], of_run: torch.Tensor, step: int) -> tuple[Any, ...]:
        """As `batch`, for M runs of several seeds: each tensor is [M, B, ...]. `of_run` [M]: positions in `seeds`.

        For train splits that are tensors (`shared_batches`).
        """
        epoch, low, high = self._place_in_epoch(step)
        data = self._epochs_together(tuple(seeds), epoch)
        if data is not None:
            return self._arguments(tuple(tensor[:, low:high].index_select(0, of_run) for tensor in data))
        split: Any = self.splits["train"]
        parts = [split.take(self._epoch(seed, epoch)[0][low:high]) for seed in seeds]
        return self._arguments(tuple(torch.stack(part).index_select(0, of_run) for part in zip(*parts, strict=True)))

    def _place_in_epoch(self, step: int) -> tuple[int, int, int]:
        """The epoch of a step, and the first and last place in it."""
        epoch, number = divmod(step, self.steps_per_epoch)
        low = number * self.batch_size
        return epoch, low, min(low + self.batch_size, self.n_train)

    def _epochs_together(self, seeds: tuple[int, ...], epoch: int) -> tuple[torch.Tensor, ...] | None:
        """The permuted epoch of every seed, [S, n_train, ...]; None where that would be too large."""
        split = self.splits["train"]
        if not isinstance(split, TensorSplit) or len(seeds) * split.nbytes > PERMUTED_BYTES:
            return None
        permuted = self._together.get(seeds)
        if permuted is None or permuted[0] != epoch:
            parts = [split.take(self._epoch(seed, epoch)[0]) for seed in seeds]
            permuted = self._together[seeds] = (epoch, tuple(torch.stack(part) for part in zip(*parts, strict=True)))
        return permuted[1]

    def eval_batches(self, split: str, seed: int = 0, step: int = 0) -> Iterator[tuple[tuple[Any, ...], int]]:
        """Batches of a split in order, alike for all runs, and their sizes. A Dataset draws from (seed, step)."""
        examples, readers = self.splits[split], self._ahead[-1]
        if readers:
            readers.check(last=step >= self.total_steps)
        chunk = self.workload_spec.train["eval_batch_size"] or examples.chunk(self.batch_size)
        parts = [range(low, min(low + chunk, len(examples))) for low in range(0, len(examples), chunk)]
        if isinstance(examples, TensorSplit):
            for part in parts:
                yield self._arguments(examples.slice(part.start, part.stop)), len(part)
            return
        seeds = [isolation.stream_seed("data", split, part.start, seed, step) for part in parts]
        source = readers.reader(split) if readers else examples
        for batch, part in zip(source.batches(map(Wanted, seeds, map(list, parts))), parts, strict=True):
            yield self._arguments(batch), len(part)

    def _arguments(self, batch: Any) -> tuple[Any, ...]:
        if self.task.step is not None or isinstance(batch, torch.Tensor):
            return (batch,)
        if not isinstance(batch, list | tuple):
            kind = "None" if batch is None else f"a {type(batch).__name__}"
            told = f"a batch is {kind}; it must be a tuple (*inputs, target): change what the Dataset or collate_fn "
            told += "returns, or give Task a step=(model, batch) -> loss"
            raise mistakes.refused(told, self.task.collate_fn or self.task.train, self.task)
        return tuple(batch)

    def is_row(self, step: int) -> bool:
        """Is there an evaluation after `step` steps (from 1)?"""
        return step % self.row_interval == 0 or step == self.total_steps

    @property
    def row_interval(self) -> int:
        """Steps between two rows."""
        every = self.workload_spec.train["eval_every"]
        return int(every["steps"] if isinstance(every, Mapping) else every * self.steps_per_epoch)

    def order_hash(self, seed: int) -> str:
        """Identifies the order of the first epoch."""
        return hashlib.sha256(self.epoch_order(seed, 0).numpy().tobytes()).hexdigest()[:16]


def weights_hash(model: nn.Module) -> str:
    """Identifies the parameters and buffers of a model: names, shapes, dtypes, bits."""
    digest = hashlib.sha256()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def build(workload_spec: WorkloadSpec, device: torch.device | str = "cpu") -> Workload:
    """Make a workload: load its task and data, find its model builder, move the data to `device`.

    Raises UsageError, with the place in the user's file, when the task function raises, refuses an argument or returns
    something else than a Task, and when the model or the batches cannot be what the spec says.
    """
    device, train = torch.device(device), workload_spec.train
    dtype = DTYPES[train["dtype"]]
    with isolation.isolated(dtype, device, tf32=train["tf32"]):
        with _section("task"):
            task = task_of(workload_spec)
        with _section("model"):
            builder = builder_of(workload_spec, task)

        def place(batch: Any) -> Any:
            return map_tensors(lambda t: t.to(device, dtype) if t.is_floating_point() else t.to(device), batch)

        names = ["train", "val", *(["test"] if task.test is not None else [])]
        splits = {name: split_of(name, getattr(task, name), task.collate_fn, place) for name in names}
    count = len(splits["train"])
    size = count if train["batch_size"] == "full" else min(train["batch_size"], count)
    if train["drop_last"] and train["batch_size"] != "full" and count < train["batch_size"]:
        wrong = f"a batch of {train['batch_size']} exceeds the {count} training examples, leaving no batch"
        raise WrongInSpec(
            (("train", "drop_last"), f"{wrong} (use a smaller train.batch_size, or drop_last: false)"),
        )
    per_epoch = count // size if train["drop_last"] else -(-count // size)
    total = train["steps"] if train["steps"] is not None else train["epochs"] * per_epoch
    return Workload(
        workload_spec=workload_spec,
        task=task,
        builder=builder,
        splits=splits,
        device=device,
        dtype=dtype,
        n_train=count,
        batch_size=size,
        steps_per_epoch=per_epoch,
        total_steps=total,
    )


@contextmanager
def _section(name: str) -> Iterator[None]:
    """What is wrong within is a mistake in this section of the spec, unless it names another."""
    try:
        yield
    except UsageError as error:
        if type(error) is not UsageError:
            raise
        raise WrongInSpec(((name,), str(error))) from error


def task_of(workload_spec: WorkloadSpec) -> Task:
    """Call the task function. To be called within `isolation.isolated`.

    Raises UsageError, with the place in the user's file, if it raises, refuses an argument or returns something else.
    """
    name = given_code.short(workload_spec.task["name"])
    function, arguments = _named("task", workload_spec.task, TASKS, workload_spec.base_dir)
    _check_arguments("task", name, function, arguments)
    # Data that a task draws without a seed of its own are still the same in every process.
    isolation.seed_all(isolation.stream_seed("task"))
    try:
        task = function(**arguments)
    except (Exception, SystemExit) as error:
        place = user_place(error)
        if isinstance(error, LrsweepError) and not place:
            raise
        text = f"{error} ({place})" if isinstance(error, LrsweepError) else isolation.describe(_of_keyword(error))
        raise UsageError(f"task {name}: {text}") from error
    if not isinstance(task, Task):
        what = f"{defined_at(function)}it must return an lrsweep.Task, not a {type(task).__name__}"
        raise UsageError(f"task {name}: {what}")
    return task


def _of_keyword(error: BaseException) -> BaseException:
    """The same with what Task takes, if it was given something else."""
    if isinstance(error, TypeError) and str(error).startswith("Task.__init__()"):
        names = [field.name for field in fields(Task) if field.init]
        wrong = str(error).partition("unexpected keyword argument '")[2].rstrip("'")
        near = {"valid": "val", "validation": "val", "criterion": "loss", "net": "model"}.get(wrong)
        hint = f"did you mean {near}?" if near else did_you_mean(wrong, names)
        text = f"{error} (write Task(train=..., val=..., ...); it takes {', '.join(names)}{hint and f'; {hint}'})"
        return TypeError(text).with_traceback(error.__traceback__)
    return error


def builder_of(workload_spec: WorkloadSpec, task: Task) -> Callable[[], nn.Module]:
    """The model builder without arguments: that of the spec's model where it names one, else the task's own.

    `in_shape` and `num_outputs` are given to a builder that names them. Raises UsageError if there is no model, if the
    builder refuses its arguments, or if a built-in model does not fit the task.
    """
    if workload_spec.model is None:
        if task.model is None:
            name = given_code.short(workload_spec.task["name"])
            wrong = f"task {name}: it has no model of its own; set one with `model:`"
            raise WrongInSpec((("task",), wrong))
        name, function = "of the task", task.model
        arguments: dict[str, Any] = {}
    else:
        name = given_code.short(workload_spec.model["name"])
        function, arguments = _named("model", workload_spec.model, MODELS, workload_spec.base_dir)
    builtin = function in MODELS.values()
    wanted = {"in_shape", "num_outputs"} & parameters_of(function) - arguments.keys()
    if wanted:
        arguments = _shape_arguments(shapes_of(task), wanted, name if builtin else None) | arguments
    _check_arguments("model", name, function, arguments)
    if builtin:
        train = workload_spec.train
        memory.check_model(name, arguments, task, train, DTYPES[train["dtype"]].itemsize)
        # What a built-in refuses is found here; a user's builder is called by runs alone.
        with torch.device("meta"):
            function(**arguments)
    return functools.partial(function, **arguments)


def _shape_arguments(shapes: Shapes, wanted: set[str], builtin: str | None) -> dict[str, Any]:
    """The shapes that a builder asks for, as far as they are known."""
    if builtin is not None and (wrong := misfit(builtin, shapes)):
        raise WrongInSpec((("model",), f"model {builtin}: {wrong}"))
    given = {key: getattr(shapes, key) for key in sorted(wanted)}
    return {key: value for key, value in given.items() if value is not None}


def _named(
    kind: str, entry: Mapping[str, Any], table: Mapping[str, Callable[..., Any]], base_dir: str
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """The function that a `{name: ..., **arguments}` entry means, and its arguments."""
    name = entry["name"]
    # What a file draws while it is imported is then the same in every process, too.
    isolation.seed_all(isolation.stream_seed("import"))
    function = resolve(name, base_dir) if ":" in name else table.get(name)
    if function is None:
        raise UsageError(f"{kind}: unknown name {name!r} (allowed: {', '.join(table)})")
    if not callable(function):
        raise UsageError(f"{kind} {name}: is a {type(function).__name__}, not a function")
    return function, {key: value for key, value in entry.items() if key != "name"}


def _check_arguments(kind: str, name: str, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    if found := argument_error(function, arguments):
        key, wrong = found
        raise WrongInSpec(((kind, *filter(None, [key])), f"{kind} {name}: {defined_at(function)}{wrong}"))
