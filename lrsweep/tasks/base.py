"""What a task is: the data of its splits, the loss, the metrics. Built-in tasks and the user's own are alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from lrsweep.errors import UsageError, on_one_line
from lrsweep.user_imports import calling_place

Split = tuple[torch.Tensor, ...] | Dataset[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """Data, loss and metrics of what is trained.

    `train`, `val`, `test`: tensors with one row per example, the last being the target (a `train` of one tensor means
    a model without inputs), or any map-style `Dataset`, with `collate_fn` where needed.
    `model`: () -> nn.Module, called with torch's generator seeded from the run's seed; None leaves it to the spec.
    `loss`: (output, target) -> scalar, the mean over the batch.
    `metrics`: name -> (output, target) -> scalar; one may carry `.finalize`, applied to its mean over a split.
    `step`: (model, batch) -> loss or {"loss": ..., metric: ...}, in place of loss and metrics. One that has a parameter
    `step` is given the number of steps made so far by that name.
    `param_groups`: model -> groups of its parameters as torch.optim takes them, dicts of `params`, arguments of the
    optimizer for these, and `lr_scale` in place of `lr`: their rate is that times the swept one (default 1).
    Parameters in no group are not trained.
    `workers`: how many processes prepare the batches of Datasets, beside each process that trains (default: none).

    `notes` are facts for messages and for building models: the split sizes (always there), and what a built-in task
    knows about itself: kind, in_shape, num_outputs, scale, prepared (what was done to the data), warnings, baselines.
    Raises UsageError for what cannot be trained.

    >>> import torch
    >>> def line(n=200):
    ...     x = torch.linspace(-1, 1, n)[:, None]
    ...     y = 3 * x + 0.1 * torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    ...     return lrsweep.Task(
    ...         train=(x[::2], y[::2]),
    ...         val=(x[1::2], y[1::2]),
    ...         model=lambda: torch.nn.Linear(1, 1),
    ...         loss=torch.nn.functional.mse_loss,
    ...     )
    >>> line(100).notes
    {'train': 50, 'val': 50, 'test': 0}
    """

    train: Any
    val: Any
    test: Any = None
    model: Callable[[], torch.nn.Module] | None = None
    loss: Callable[[Any, Any], torch.Tensor] | None = None
    metrics: Mapping[str, Callable[[Any, Any], torch.Tensor]] = field(default_factory=dict)
    step: Callable[[Any, Any], Any] | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    param_groups: Callable[[Any], Any] | None = None
    workers: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    made_at: str = field(init=False, repr=False, default="")  # the line of the user's file, for messages

    def __post_init__(self) -> None:
        object.__setattr__(self, "made_at", calling_place())
        splits = {"train": self.train, "val": self.val, "test": self.test}
        for name, split in splits.items():
            if split is None and name != "test":
                raise UsageError(f"Task: {name} is missing (give tensors, the last being the target, or a Dataset)")
            checked = None if split is None else _checked_split(name, split, keep_dataset=self.collate_fn is not None)
            object.__setattr__(self, name, checked)
            self.notes.setdefault(name, 0 if checked is None else rows(checked))
        _check_widths(self)
        _check_functions(self)

    @property
    def functions(self) -> list[Callable[..., Any]]:
        """What the user gave besides the data and the builder of the model."""
        given = (self.loss, self.step, *self.metrics.values(), self.collate_fn, self.param_groups)
        return [function for function in given if function is not None]


def rows(split: Split) -> int:
    """The number of examples of a split."""
    return split[0].shape[0] if isinstance(split, tuple) else len(split)  # type: ignore[arg-type]


def _checked_split(name: str, split: Any, *, keep_dataset: bool) -> Split:
    """`split` as a tuple of tensors or as a Dataset with at least one example."""
    if type(split) is TensorDataset and not keep_dataset:
        split = split.tensors
    if isinstance(split, torch.Tensor):
        split = (split,)
    if isinstance(split, (tuple, list)):
        return _checked_tensors(name, tuple(split))
    if isinstance(split, IterableDataset):
        raise UsageError(f"Task: {name} is an IterableDataset; batches are drawn by index; use a map-style Dataset")
    if not (hasattr(split, "__getitem__") and hasattr(split, "__len__")) or isinstance(split, (str, dict)):
        loaded = "; give its dataset (loader.dataset), and its batch size as train.batch_size in the spec"
        cure = loaded if type(split).__name__ == "DataLoader" else "; give a tuple of tensors or a map-style Dataset"
        raise UsageError(f"Task: {name} is a {type(split).__name__}{cure}")
    if len(split) == 0:
        raise UsageError(f"Task: {name} has no examples")
    dataset: Dataset[Any] = split
    return dataset


def _checked_tensors(name: str, tensors: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
    if not tensors:
        raise UsageError(f"Task: {name} is empty; give tensors with one row per example, the last being the target")
    for position, tensor in enumerate(tensors):
        if not isinstance(tensor, torch.Tensor):
            cures = {
                "list": "; use torch.tensor",
                "tuple": "; stack the examples: one tensor of all inputs, one of targets",
            }
            cures["ndarray"] = "; use torch.from_numpy"
            hint = cures.get(type(tensor).__name__, "")
            raise UsageError(f"Task: {name}[{position}] is a {type(tensor).__name__}, not a tensor{hint}")
        if tensor.dim() == 0:
            raise UsageError(f"Task: {name}[{position}] is a single number; it needs one row per example")
    sizes = [tensor.shape[0] for tensor in tensors]
    if len(set(sizes)) > 1:
        raise UsageError(f"Task: the tensors of {name} have different numbers of rows: {', '.join(map(str, sizes))}")
    if sizes[0] == 0:
        raise UsageError(f"Task: {name} has no examples")
    return tuple(tensor.detach() for tensor in tensors)


def _check_widths(task: Task) -> None:
    """Every split of tensors must have the same number of them."""
    splits = {"train": task.train, "val": task.val, "test": task.test}
    widths = {name: len(split) for name, split in splits.items() if isinstance(split, tuple)}
    if len(set(widths.values())) > 1:
        listed = ", ".join(f"{name} {width}" for name, width in widths.items())
        raise UsageError(f"Task: every split needs as many tensors as train: {listed}")
    if task.collate_fn is not None and len(widths) == 2 + (task.test is not None):
        raise UsageError("Task: collate_fn is for Datasets, but all splits are tensors; leave it out")
    if not isinstance(task.workers, int) or isinstance(task.workers, bool) or task.workers < 0:
        raise UsageError(f"Task: workers is {task.workers!r}; give the number of processes, 0 for none")
    if task.workers and len(widths) == 2 + (task.test is not None):
        raise UsageError("Task: workers is for Datasets, but all splits are tensors, which need none; leave it out")


def _check_functions(task: Task) -> None:
    if task.loss is None and task.step is None:
        raise UsageError("Task: give loss=(output, target) -> scalar, or step=(model, batch) -> loss")
    if task.loss is not None and task.step is not None:
        raise UsageError("Task: give loss or step, not both (step computes the loss itself)")
    if task.step is not None and task.metrics:
        raise UsageError('Task: with step=, leave metrics out and return them: {"loss": ..., "accuracy": ...}')
    if isinstance(task.model, torch.nn.Module):
        raise UsageError("Task: model is a module; give a function that builds it, so that every run gets its own")
    for name in ("model", "loss", "step", "collate_fn", "param_groups"):
        value = getattr(task, name)
        if value is not None and not callable(value):
            cure = "; give a function that makes the groups of a model" if name == "param_groups" else ""
            raise UsageError(f"Task: {name} is a {type(value).__name__}, not a function{cure}")
        if name != "model":
            _refuse_class(name, value)
        trained = value.named_parameters() if isinstance(value, torch.nn.Module) else ()
        if stray := [key for key, parameter in trained if parameter.requires_grad]:
            raise UsageError(
                f"Task: {name} has a parameter that requires a gradient ({stray[0]}), but only those of the model are "
                "trained; make it a parameter of the model and compute the loss in step=, or call requires_grad_(False)"
            )
    if not isinstance(task.metrics, Mapping):
        raise UsageError(f"Task: metrics is a {type(task.metrics).__name__}; give a dict of name: function")
    for name, metric in task.metrics.items():
        plain = isinstance(name, str) and name == on_one_line(name) and not set(name) & set(',"')
        if not plain or name in ("", "loss"):
            raise UsageError(f"Task: {name!r} cannot name a metric (it becomes a column name; `loss` is taken)")
        if not callable(metric):
            raise UsageError(f"Task: metric {name!r} is a {type(metric).__name__}, not a function")
        _refuse_class(f"metric {name!r}", metric)


def _refuse_class(name: str, value: Any) -> None:
    """Refuse `nn.MSELoss` where `nn.MSELoss()` is meant."""
    if isinstance(value, type) and issubclass(value, torch.nn.Module):
        raise UsageError(f"Task: {name} is the class {value.__name__}; give an object of it: {value.__name__}()")


def describe(task: Task) -> str:
    """One line for users: the split sizes, and what the task knows about itself.

    `1077 train, 360 val, 360 test; classification, 10 outputs; inputs standardised`.
    """
    notes = task.notes
    parts = [f"{notes['train']} train, {notes['val']} val, {notes['test'] or 'no'} test"]
    if "kind" in notes:
        inferred = " (inferred from the target)" if notes.get("inferred") else ""
        outputs = f", {notes['num_outputs']} outputs" if notes.get("num_outputs", 1) > 1 else ""
        parts.append(f"{notes['kind']}{inferred}{outputs}")
    parts += notes.get("prepared", [])
    if "scale" in notes:
        both = " and target" if notes.get("target_scale") == "standard" else ""
        each = " per channel" if notes.get("pixels") else ""
        parts.append(f"inputs{both} standardized{each}" if notes["scale"] == "standard" else "inputs not scaled")
    if "baselines" in notes:
        parts.append(", ".join(f"{name} baseline {value:.3f}" for name, value in notes["baselines"].items()))
    return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """What a model builder needs to know: the shape of one example, how many outputs, and whether inputs are tokens."""

    in_shape: tuple[int, ...] | None
    num_outputs: int | None
    tokens: bool


def shapes_of(task: Task) -> Shapes:
    """Read off the task's notes (`in_shape`, `num_outputs`) where they say so, else off its train split.

    Outputs are the classes of an integer target (highest label + 1, over train and val; a Dataset is read through for
    it), or the last dimension of a real one. None if unknown: a model without inputs, examples that are not tuples of
    tensors.
    """
    first = _first_input(task)
    in_shape = task.notes.get("in_shape", None if first is None else tuple(first.shape))
    outputs = task.notes["num_outputs"] if "num_outputs" in task.notes else _outputs(_targets(task))
    tokens = first is not None and not first.is_floating_point() and not first.is_complex()
    return Shapes(in_shape=None if in_shape is None else tuple(in_shape), num_outputs=outputs, tokens=tokens)


def _first_input(task: Task) -> torch.Tensor | None:
    if isinstance(task.train, tuple):
        return task.train[0][0] if len(task.train) > 1 else None
    item = task.train[0]
    return item[0] if _is_pair(item) else None


def _is_pair(item: Any) -> bool:
    return isinstance(item, (tuple, list)) and len(item) > 1 and isinstance(item[0], torch.Tensor)


def _targets(task: Task) -> list[torch.Tensor]:
    """The targets of train and val, or as much of them as is needed to count the outputs."""
    splits = (task.train, task.val)
    targets = [split[-1] for split in splits if isinstance(split, tuple)]
    for split in splits:
        if isinstance(split, tuple) or not _is_pair(split[0]):
            continue
        try:
            first = torch.as_tensor(split[0][-1]).unsqueeze(0)
        except (TypeError, ValueError, RuntimeError):
            continue
        real = first.is_floating_point()
        targets.append(first if real else torch.stack([torch.as_tensor(split[i][-1]) for i in range(rows(split))]))
    return targets


def _outputs(targets: list[torch.Tensor]) -> int | None:
    if not targets:
        return None
    if targets[0].is_floating_point():
        return targets[0].shape[-1] if targets[0].dim() > 1 else 1
    return int(max(target.max() for target in targets)) + 1


def cross_entropy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats; output (..., classes), target (...) of class numbers."""
    return F.cross_entropy(output.flatten(0, -2), target.flatten())


def accuracy(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Share of examples whose largest output is the target, in float32 at least: bfloat16 holds only 8 bits of it."""
    return (output.argmax(-1) == target).to(torch.promote_types(output.dtype, torch.float32)).mean()


def mse(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over examples and outputs; output and target (batch, outputs)."""
    return F.mse_loss(output, target)


class Perplexity:
    """exp of the mean cross-entropy; `finalize` is applied after averaging, since perplexities do not average."""

    finalize = staticmethod(torch.exp)

    def __call__(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return cross_entropy(output, target)
