"""What can be seen of the user's model, batches and optimizer before training that training together would not honor.

Each function returns the end of a sentence (`the model ...`) or None.
"""

from __future__ import annotations

import ctypes
import inspect
import io
import sys
from collections.abc import Mapping
from multiprocessing.sharedctypes import SynchronizedBase
from pathlib import Path
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from lrsweep import optimizers
from lrsweep.compiler import torch_private
from lrsweep.compiler.torch_private import tree_flatten
from lrsweep.errors import WrongInSpec
from lrsweep.training import ownership, param_groups, user_names, user_state
from lrsweep.training.loss_module import LossModule

C_VALUES = (ctypes._SimpleCData, ctypes.Structure, ctypes.Array)
PLAIN_LEAVES = (bool, int, float, str, bytes, type(None))
# Methods whose answers training takes from torch.nn.Module itself.
LISTS: tuple[str, ...] = ("parameters", "named_parameters", "buffers", "named_buffers", "modules", "named_modules")
LISTS += ("children", "named_children", "zero_grad", "__call__", "_call_impl")


def of_model(module: nn.Module) -> str | None:
    """Hooks on weights, tensors of classes of their own, overridden lists of parameters, layers torch cannot batch."""
    for name, part in module.named_modules():
        place = name.removeprefix("model.") or type(part).__name__
        if isinstance(part, nn.RNNBase | nn.RNNCellBase | nn.EmbeddingBag):
            return f"has a layer that torch cannot batch over runs: {type(part).__name__} ({place})"
        if part._backward_hooks or part._backward_pre_hooks:
            return f"has a backward hook ({place})"
        for kind in type(part).__mro__:
            if not ownership.class_of_torch_or_python(kind) and (own := [n for n in LISTS if n in vars(kind)]):
                return f"overrides {own[0]}() ({kind.__name__})"
        if isinstance(part, torch.jit.ScriptModule):
            return f"is compiled by TorchScript ({place})"
    for name, parameter in module.named_parameters():
        if wrong := _of_parameter(parameter):
            return f"has {wrong} ({name.removeprefix('model.')})"
    for name, buffer in module.named_buffers():
        if not _is_plain(buffer):
            return f"has a buffer of class {type(buffer).__name__} ({name.removeprefix('model.')})"
    modules = nn.modules.module
    if any(hooks for name, hooks in vars(modules).items() if name.startswith("_global_") and name.endswith("_hooks")):
        return "runs beside hooks that were registered for all modules"
    if torch_private.optimizer_hooks():
        return "runs beside hooks that were registered for all optimizers"
    if changed := _changed_optimizer():
        return f"runs beside a change of torch's own optimizers ({changed})"
    return None


def _changed_optimizer() -> str | None:
    """A method of a class of torch.optim that is not torch's: `SGD.step`."""
    for cls in vars(torch.optim).values():
        for kind in cls.__mro__ if isinstance(cls, type) else ():
            for name, item in vars(kind).items() if ownership.class_of_torch_or_python(kind) else ():
                function = torch_private.unwrapped(item)
                if isinstance(function, FunctionType) and not ownership.code_of_torch_or_python(function):
                    return f"{kind.__name__}.{name}"
    return None


def _of_parameter(parameter: nn.Parameter) -> str | None:
    if isinstance(parameter, nn.UninitializedParameter):
        return "lazy layers, whose weights are made by the first batch"
    if not parameter.is_floating_point():
        return "parameters that are not real numbers"
    if type(parameter) is not nn.Parameter:
        return f"a parameter of class {type(parameter).__name__}"
    if hooked(parameter):
        return "a hook on a parameter"
    if parameter.layout is not torch.strided:
        return "a parameter that is not dense"
    return None


def hooked(tensor: Tensor) -> bool:
    """Would a backward pass through this tensor call a hook?"""
    return bool(tensor._backward_hooks) or bool(getattr(tensor, "_post_accumulate_grad_hooks", None))


def _is_plain(tensor: Tensor) -> bool:
    return type(tensor) in (Tensor, nn.Buffer) and tensor.layout is torch.strided


def of_batch(batch: Any) -> str | None:
    """Leaves that are neither tensors nor plain values."""
    for leaf in tree_flatten(batch)[0]:
        if isinstance(leaf, Tensor):
            if type(leaf) is not Tensor or leaf.layout is not torch.strided:
                return f"is given batches that hold a tensor of another kind ({type(leaf).__name__}, {leaf.layout})"
        elif type(leaf) not in PLAIN_LEAVES:
            return f"is given batches that hold a {type(leaf).__name__}"
    return None


def needs_closure(optimizer: object) -> bool:
    """Does its `step` want to evaluate the loss itself?"""
    try:  # of the class: schedulers put functions of their own in place of the object's
        _, *parameters = inspect.signature(type(optimizer).step).parameters.values()  # type: ignore[attr-defined]
    except (AttributeError, TypeError, ValueError):
        return False
    required = [parameter for parameter in parameters if parameter.default is inspect.Parameter.empty]
    return bool(required) and required[0].kind in (required[0].POSITIONAL_ONLY, required[0].POSITIONAL_OR_KEYWORD)


def of_optimizer(name: str, args: Mapping[str, Any], module: LossModule, base_dir: str) -> str | None:
    """Why the runs of an optimizer class of the user's train one at a time: a whole sentence.

    Built over the parameters of `module`, which have gradients, stepped once and thrown away: a class whose `step`
    raises is then known before it trains. Raises what the class raises.
    """
    params = list(module.model.parameters())
    kept = user_state.snapshot([optimizers.lookup(name, base_dir)])
    refuse_shared(kept, f"{name.rpartition(':')[2]} or its module", place=())
    if kept.hidden or not kept.full:
        what = user_names.of_hidden(kept) if kept.hidden else "more Python objects than lrsweep looks through"
        return f"{name.rpartition(':')[2]} or its module keeps {what}, into which lrsweep cannot look"
    groups = module.groups and param_groups.given(module.groups, param_groups.named(module.model), 1e-3)
    optimizer = optimizers.build(name, args, groups or params, 1e-3, base_dir)
    label = type(optimizer).__name__
    if needs_closure(optimizer):
        return f"{label} evaluates the loss itself (its step needs a closure)"
    if any(hooked(parameter) for parameter in params):
        return f"{label} registers hooks on the parameters"
    if optimizers.clears_gradients(optimizer):
        return f"{label} clears gradients in a way of its own"
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not held <= {id(parameter) for parameter in params}:
        return f"{label} does not keep the parameters that it is given"
    optimizers.set_mode(optimizer, training=True, seed=lambda: None)
    optimizer.step()
    return None


def refuse_shared(
    kept: user_state.Snapshot | None,
    who: str = "the task",
    place: tuple[str, ...] = ("task",),
    *,
    tensors: bool = True,
) -> None:
    """Raises WrongInSpec for what copies of a process share: each run would continue where another left off."""
    for value in () if kept is None else kept.alive:
        what = ""
        if isinstance(value, SynchronizedBase) or (isinstance(value, C_VALUES) and hasattr(value, "_wrapper")):
            what = "a value of multiprocessing"
        elif tensors and isinstance(value, Tensor) and value.device.type == "cpu" and value.is_shared():
            what = "a tensor in shared memory"
        elif isinstance(value, io.IOBase) and value is not sys.stdin and not value.closed and value.readable():
            what = f"the open file {Path(str(getattr(value, 'name', ''))).name}"
        if what:
            text = f"{who} keeps {what}, which all runs would share: each would continue where another left off"
            raise WrongInSpec((place, f"{text}; make it where it is used, or keep a plain value"))
