"""Common mistakes in the user's code: what torch raises for them, what to change, and where."""

from __future__ import annotations

import re
from bdb import BdbQuit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lrsweep.errors import WrongInSpec
from lrsweep.system import notebook
from lrsweep.user_imports import of_user, user_place

if TYPE_CHECKING:
    from lrsweep.tasks.base import Task
    from lrsweep.training.loss_module import LossModule
    from lrsweep.training.workload import Workload

# A pattern of the text of an error, and the cure; groups of the pattern are filled in.
_CURES = [
    (re.compile(pattern), cure)
    for pattern, cure in (
        (
            r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)",
            "a linear layer for {1} features is given {0}; change the width of the layer, or the data",
        ),
        (
            r"mat1 and mat2 must have the same dtype, but got (Long|Int|Byte|Short)",
            "the inputs are integers; make them floating point in the task: X.float()",
        ),
        (
            r"same dtype, but got:? \(?(?:self\) )?(?:[Ff]loat|[Dd]ouble)\b.*\b(?:[Ff]loat|[Dd]ouble)\b"
            r"|type \((?:torch\.)?(?:[Ff]loat|[Dd]ouble)(?:Tensor)?\) and \w+ type \((?:torch\.)?(?:[Ff]loat|[Dd]ouble)"
            r"|expected scalar type (?:Double|Float) but found (?:Float|Double)",
            "the model and the tensors of a batch have the train.dtype of the spec (those in objects of your own do "
            "not); give others the same: .to(x.dtype) in place of .float(), .double() or dtype=",
        ),
        (
            r"Expected .* input to conv\dd",
            "a convolution takes [batch, channels, height, width]; reshape the data in the task or the model",
        ),
        (
            r"expected target dtype to be Long|expected scalar type Long|not implemented for '(Float|Double)' target",
            "class labels must be integers; make them so in the task: y.long()",
        ),
        (
            r"can't be cast to the desired output type Long|Found dtype (Long|Int) but expected",
            "this loss needs a target that is floating point; make it so in the task: y.float()",
        ),
        (
            r"multi-target not supported",
            "class labels are one number per example, of shape [batch]; use y.squeeze(1)",
        ),
        (
            r"Target -?\d+ is out of bounds",
            "class labels go from 0 to the number of outputs of the model - 1; change the labels, or its last layer",
        ),
        (
            r"(?<!Task\.__init__\(\) )(takes \d+ positional arguments? but \d+ w|missing \d+ required positional arg)",
            "lrsweep calls model(*inputs), loss(output, target), each metric(output, target) and step(model, batch)",
        ),
        (
            r"not compiled with CUDA|no NVIDIA driver|No CUDA GPUs|re-initialize CUDA",
            'leave out .cuda() and .to("cuda"); lrsweep moves the model and the data to the device of --device',
        ),
        (
            r"out of meta tensor|on the meta device|meta tensors",
            "build the model without device=; lrsweep moves it to the device of --device",
        ),
        (
            r"a leaf Variable that requires grad",
            "change a weight only within torch.no_grad(), or compute with a new tensor",
        ),
        (
            r"backward through the graph a second time",
            "keep no tensor of an earlier step without .detach(), and do not call backward() yourself",
        ),
        (r'missing the required "forward" function', "define forward(self, x) in the class of the model"),
        (r"before Module.__init__\(\) call", "call super().__init__() first in __init__"),
        (
            r"stack expects each tensor to be equal size",
            "the examples of the Dataset differ in shape; pad them, or give Task a collate_fn",
        ),
        (
            r"default_collate: batch must contain",
            "an example of a Dataset is a tuple (*inputs, target) of tensors or numbers; for others, give a collate_fn",
        ),
        (
            r"out of bounds for dimension 0 with size",
            "an index is too large; does __len__ of the Dataset count too many, or has an nn.Embedding too few rows?",
        ),
        (
            r"'tuple' object has no attribute",
            "if the model returns a tuple, take the part that the loss needs, in forward or in the loss",
        ),
    )
]

DETACHED = (
    "the loss does not depend on the parameters of the model: something cuts the gradient off on the way; leave out "
    ".detach(), .item(), .numpy(), torch.no_grad(), and optimizers of your own"
)

# The functions in which lrsweep calls what the user gave: their variable `given` holds it.
_PARTS = ("_output", "_loss_of", "_metric_of", "_step_of", "_built_model", "collated")
_CALLED = ("forward", "__getitem__", "__call__", "__init__")


def cure(error: BaseException) -> str:
    """What to change, for a mistake that is known; else nothing."""
    if isinstance(error, BdbQuit):
        return "a debugger needs the terminal of the command; give lrsweep run --executor in-process"
    for pattern, text in _CURES:
        if found := pattern.search(str(error)):
            return text.format(*found.groups())
    return ""


def refuse_none(name: str, numbers: Sequence[int], examples: Sequence[Any]) -> None:
    """Raises TypeError if a Dataset, `name` in messages, has given None for one of these numbers."""
    none = [number for number, example in zip(numbers, examples, strict=False) if example is None]
    if none:
        missing = "; is its `return` missing?" if len(none) == len(numbers) else ""
        raise TypeError(f"{name}[{none[0]}] is None; `__getitem__` must return a tuple of tensors{missing}")


def refuse_untrainable(model: nn.Module, workload: Workload) -> None:
    """Raises WrongInSpec if an optimizer would have nothing to do."""
    parameters = list(model.parameters())
    if any(parameter.requires_grad for parameter in parameters):
        return
    if parameters:
        text = "none of its parameters requires a gradient; leave some of them out of requires_grad_(False)"
    else:
        text = "it has no parameters; layers in a Python list or dict are not seen, use nn.ModuleList or nn.ModuleDict"
    raise refused(f"the model cannot be trained: {text}", workload.builder, workload.task, workload.section)


def backward(loss: Tensor, module: LossModule, task: Task) -> None:
    """`loss.backward()`. Raises WrongInSpec where the user's code has made that impossible."""
    if not loss.requires_grad:
        raise refused(DETACHED, module.functions[0], task)
    try:
        loss.backward()
    except RuntimeError as error:
        text = str(error)
        if "modified by an inplace operation" in text:
            told = (
                "a value that the gradient needs is overwritten, by += or a function such as relu_; write y = y + 1 "
                "for y += 1, and relu for relu_"
            )
        elif "backward through the graph a second time" not in text:
            raise
        elif task.step is not None:
            told = (
                "step has used the gradient of the loss that it returns; it must call neither backward() nor an "
                "optimizer, since lrsweep does both. A task that needs two optimizers, such as a GAN, cannot be swept"
            )
        else:
            told = "the loss depends on tensors of an earlier step, whose gradients are gone; keep them with .detach()"
        raise refused(told, task.step or module.model, task) from error


def described(error: BaseException) -> str:
    """`Type: message; cure (file.py:12 in function)`, as far as they are known."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if wanted := cure(error):
        text = f"{text.split('. ')[0].rstrip('.')}: {wanted}"  # of torch's advice the first sentence
    place = user_place(error) or _given_at(error)
    return f"{text} ({place})" if place else text


def not_finite(task: Task) -> list[str]:
    """A sentence for each tensor of the data that holds nan or an infinite value."""
    found = []
    for name in ("train", "val", "test"):
        split = getattr(task, name)
        for position, tensor in enumerate(split if isinstance(split, tuple) else ()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor.sum())):
                rows = torch.nonzero(~torch.isfinite(tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]).all(1))
                if len(rows):
                    which = f"{len(rows)} of {len(tensor)} rows of {name}[{position}], the first {int(rows[0])}"
                    found.append(
                        f"nan or infinite values in {which}; every run diverges at the first batch with one, unless "
                        f"the loss leaves them out: remove or fill them{f' ({task.made_at})' if task.made_at else ''}"
                    )
    return found


def refused(text: str, function: Any, task: Task, section: str = "task") -> WrongInSpec:
    """A mistake in what the user gave, found by lrsweep itself: at `function`, or where the Task was made."""
    place = place_of(function) or task.made_at
    return WrongInSpec(((section,), f"{text} ({place})" if place else text))


def place_of(function: Any) -> str:
    """`file.py:12 in function`, where a function begins, or what is called of a model, a loss or a Dataset."""
    while hasattr(function, "func"):  # of a functools.partial
        function = function.func
    kind = function if isinstance(function, type) else type(function)
    methods: list[Callable[..., Any] | None] = [getattr(kind, name, None) for name in _CALLED]
    for one in (function, *methods):
        code = getattr(one, "__code__", None)
        if code is not None and of_user(code.co_filename):
            return f"{notebook.name_of(code.co_filename)}:{code.co_firstlineno} in {code.co_name}"
    return ""


_HOME = Path(__file__).parents[1]


def _given_at(error: BaseException) -> str:
    """Where the user gave what torch raised this for, if none of their own code was running."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_code.co_name in _PARTS and Path(frame.f_code.co_filename).is_relative_to(_HOME):
            task = getattr(frame.f_locals.get("self"), "task", None)
            found = map(place_of, frame.f_locals.get("given", ()))
            place = next(filter(None, found), "") or str(getattr(task, "made_at", place))
        trace = trace.tb_next
    return place
