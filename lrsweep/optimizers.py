"""Optimizers of single runs: torch's own and the user's, their arguments, and what to know about them.

The table at the bottom is read off `torch.optim`, so whatever torch adds is offered; `NOT_OFFERED` has the exceptions,
`RANGES` and `NOTES` what torch does not say. How a stack of runs is updated is in `training.update_rules`.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lrsweep.compiler import torch_private
from lrsweep.errors import UsageError
from lrsweep.system.plain import uses
from lrsweep.user_imports import resolve

# Optimizers of torch.optim that lrsweep does not offer, and why.
NOT_OFFERED = {
    "lbfgs": "it evaluates the loss several times per step and needs a closure",
    "sparseadam": "it supports sparse gradients only",
}
# Arguments that are not the spec's to set: the first two are lrsweep's, the others choose an implementation.
IMPLEMENTATION = ("foreach", "capturable", "differentiable", "fused")
RESERVED = ("params", "lr", *IMPLEMENTATION)

Rule = tuple[Callable[[Any], bool], str]


def _between(low: float, high: float, *, closed: bool = False) -> Rule:
    if closed:
        return (lambda x: low <= x <= high), f"must be from {low:g} to {high:g}"
    return (lambda x: low <= x < high), f"must be at least {low:g} and below {high:g}"


_NOT_NEGATIVE: Rule = (lambda x: x >= 0), "must not be negative"
_BETAS: Rule = (lambda x: all(0 <= b < 1 for b in x)), "must each be at least 0 and below 1"

# What an argument may be, under whichever optimizer has it; `name.argument` where optimizers differ.
RANGES: dict[str, Rule] = {
    "momentum": _between(0, 1),
    "betas": _BETAS,
    "eps": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "momentum_decay": _NOT_NEGATIVE,
    "lr_decay": _NOT_NEGATIVE,
    "initial_accumulator_value": _NOT_NEGATIVE,
    "rho": _between(0, 1, closed=True),
    "rmsprop.alpha": _between(0, 1, closed=True),
    "asgd.alpha": _NOT_NEGATIVE,
    "lambd": _NOT_NEGATIVE,
    "t0": _NOT_NEGATIVE,
    "etas": ((lambda x: 0 < x[0] < 1 < x[1]), "must be one number in (0, 1) and one above 1"),
    "step_sizes": ((lambda x: 0 < x[0] <= x[1]), "must be the least and the largest step, both above 0"),
    "beta2_decay": ((lambda x: x <= 0), "must not be above 0"),
    "d": ((lambda x: x >= 1), "must be at least 1"),
    "adafactor.eps": ((lambda x: (x[0] is None or x[0] >= 0) and x[1] >= 0), "must not be negative"),
    "ns_steps": ((lambda x: isinstance(x, int) and 1 <= x < 100), "must be an integer from 1 to 99"),
    "adjust_lr_fn": ((lambda x: x in (None, "original", "match_rms_adamw")), "must be original or match_rms_adamw"),
}


class MuonWithAux:
    """`torch.optim.Muon` for the 2-D weights and `torch.optim.AdamW` for all the rest, at one rate.

    Not every update of a model can be orthogonalised (Jordan et al. 2024, github.com/KellerJordan/Muon): biases, gains
    and convolutions go to AdamW, whose arguments are `aux`. It has the part of an optimizer's interface that training
    uses; `param_groups` holds the groups of both.
    """

    def __init__(self, params: Iterable[Any], lr: float, aux: Mapping[str, Any] | None = None, **args: Any) -> None:
        """`params`: parameters, or groups of them, each with an `aux` of its own where it sets arguments of AdamW."""
        params = list(params)
        grouped = bool(params) and isinstance(params[0], Mapping)
        matrices, rest = [], []
        for given in params if grouped else [{"params": params}]:
            group = dict(given)
            of_adamw = {"lr": group.get("lr", lr), **_as_torch(torch.optim.AdamW, group.pop("aux", None) or {})}
            if members := [p for p in group["params"] if p.ndim == 2]:
                matrices.append({**group, "params": members})
            if members := [p for p in group["params"] if p.ndim != 2]:
                rest.append({**of_adamw, "params": members})
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, lr=lr, **args))
        if rest:
            self.parts.append(torch.optim.AdamW(rest, lr=lr, **_as_torch(torch.optim.AdamW, aux or {})))

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            step_of(part)()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for part, saved in zip(self.parts, state["parts"], strict=True):
            part.load_state_dict(saved)


Optimizer = torch.optim.Optimizer | MuonWithAux


def lookup(name: str, base_dir: Path | str) -> type[Any]:
    """The class of a built-in name or of an import path (one with a colon).

    Raises UsageError if an import path leads to something other than a class.
    """
    if ":" not in name:
        return OPTIMIZERS[name]
    found = resolve(name, base_dir)
    if not isinstance(found, type):
        kind = type(found).__name__
        raise UsageError(f"optimizer {name}: a {kind}, not a class; give a subclass of torch.optim.Optimizer")
    return found


def defaults(name: str | type[Any]) -> dict[str, Any]:
    """The arguments a spec may set, with torch's own defaults; tuples are written as lists. `name` may be a class.

    An argument of the user's class that has no default is left out.
    """
    parameters = _parameters(name)
    found = {key: p.default for key, p in parameters.items() if p.default is not p.empty and key not in RESERVED}
    found = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    return found | {"aux": defaults("adamw")} if name == "muon" else found


def _parameters(name: str | type[Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a built-in, by name, or of a class."""
    cls = OPTIMIZERS[name] if isinstance(name, str) else name
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {key: p for key, p in inspect.signature(cls).parameters.items() if p.kind in named}


def argument_names(name: str, base_dir: Path | str) -> list[str] | None:
    """What a parameter group may set besides `params` and `lr`; None if the class takes any argument."""
    if ":" not in name:
        return list(defaults(name))
    cls = lookup(name, base_dir)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in inspect.signature(cls).parameters.values()):
        return None
    return [key for key in _parameters(cls) if key not in ("params", "lr")]


def default_lr(name: str | type[Any]) -> float:
    """The learning rate torch (or the user's class) takes when none is given; nan if it has none."""
    parameter = _parameters(name).get("lr")
    value = None if parameter is None else parameter.default
    return float(value) if isinstance(value, int | float) else math.nan


def resolved(name: str, args: Mapping[str, Any], *, independent: bool = False) -> dict[str, Any]:
    """Every argument of a built-in optimizer, written out; with `independent` weight decay the default decay is 0."""
    full = defaults(name)
    if name == "muon":
        full["aux"] |= ({"weight_decay": 0.0} if independent else {}) | dict(args.get("aux") or {})
        args = {key: value for key, value in args.items() if key != "aux"}
    if independent and "weight_decay" in full:
        full["weight_decay"] = 0.0
    return full | dict(args)


def check(name: str, args: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with the arguments of a built-in optimizer: pairs (argument, what is wrong).

    Arguments that the optimizer does not have are ignored.
    """
    known = defaults(name)
    problems = []
    for key, value in args.items():
        if key not in known:
            continue
        if key == "aux":
            problems += _check_aux(value)
        elif wrong := _wrong(name, key, value, known[key]):
            problems.append((key, wrong))
    if not problems:
        full = known | {key: value for key, value in args.items() if key in known}
        if full.get("nesterov") and name == "sgd" and (full["momentum"] <= 0 or full["dampening"] != 0):
            return [("nesterov", "needs momentum above 0 and dampening 0")]
        try:
            build(name, full, [nn.Parameter(torch.zeros(2, 2)), nn.Parameter(torch.zeros(2))], 1e-3, ".")
        except (TypeError, ValueError, RuntimeError) as error:
            return [(next((key for key in args if key in str(error)), name), str(error))]
    return problems


def _check_aux(value: object) -> list[tuple[str, str]]:
    if not isinstance(value, Mapping):
        return [("aux", "must be a mapping of arguments of adamw")]
    unknown = [(f"aux.{key}", "adamw has no such argument") for key in value if key not in defaults("adamw")]
    return unknown + [(f"aux.{key}", wrong) for key, wrong in check("adamw", value)]


def _wrong(name: str, key: str, value: object, default: object) -> str | None:
    """Why `value` cannot be argument `key`, or None."""
    if (wrong := _wrong_type(value, default)) is not None:
        return wrong
    rule = RANGES.get(f"{name}.{key}", RANGES.get(key))
    if rule is not None and not rule[0](value):
        return f"{rule[1]}, not {value!r}"
    return None


def _wrong_type(value: object, default: object) -> str | None:
    if isinstance(default, bool):
        return None if isinstance(value, bool) else f"must be true or false, not {value!r}"
    if isinstance(default, list):
        if not isinstance(value, list | tuple) or len(value) != len(default):
            return f"must be a list of {len(default)} numbers, not {value!r}"
        wrongs = (_wrong_type(v, d) for v, d in zip(value, default, strict=True) if not (v is None and d is None))
        return next((wrong for wrong in wrongs if wrong is not None), None)
    if default is None and (value is None or isinstance(value, str | int | float)) and not isinstance(value, bool):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"must be a number, not {value!r}"
    return None if math.isfinite(value) else f"must be finite, not {value!r}"


def build(name: str, args: Mapping[str, Any], params: Iterable[Any], lr: float, base_dir: Path | str) -> Optimizer:
    """The optimizer of one run, over parameters or groups of them, as torch.optim takes them.

    `args` are keyword arguments; a list becomes a tuple if the default is one, in groups too.

    An import path is relative to `base_dir`. What the class raises is not caught.
    """
    cls = lookup(name, base_dir)
    params = [_as_torch(cls, one) if isinstance(one, Mapping) else one for one in params]
    with without_compiler():
        if name == "muon":
            return MuonWithAux(params, lr, **_as_torch(cls, args))
        optimizer: Optimizer = cls(params, lr=lr, **_as_torch(cls, args))
        return optimizer


@contextmanager
def without_compiler() -> Iterator[None]:
    """Within: optimizers are built, saved and restored without importing torch's compiler.

    torch shields some of their methods from its compiler, by a wrapper that imports it at the first call to ask for the
    shielded method, and keeps the answer in `__dynamo_disable`. Nothing compiles optimizers here, so the answer is the
    method itself. Where torch does this in another way, nothing changes.
    1.2 s of the start of each process that trains (2026-11).
    """
    shielded = [getattr(method, "__wrapped__", None) for method in vars(torch.optim.Optimizer).values()]
    ours = [method for method in shielded if method is not None and not hasattr(method, "__dynamo_disable")]
    for method in ours if uses("compiler_left_out") else []:
        method.__dynamo_disable = method
    try:
        yield
    finally:
        for method in ours:
            vars(method).pop("__dynamo_disable", None)


def _as_torch(cls: type[Any], args: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the types of the defaults: a list becomes a tuple, its integers floats (`betas: [0, 0.9]`)."""
    tuples = {key: p.default for key, p in _parameters(cls).items() if isinstance(p.default, tuple)}
    return {key: _like(value, tuples[key]) if key in tuples else value for key, value in args.items()}


def _like(value: object, default: tuple[Any, ...]) -> object:
    if not isinstance(value, list | tuple) or len(value) != len(default):
        return value
    return tuple(float(v) if type(v) is int and type(d) is float else v for v, d in zip(value, default, strict=True))


def fused(name: str, device: str) -> dict[str, bool]:
    """The argument that lets torch do a whole update in one kernel, where it has one for this type of device.

    Without it training takes 22 % longer on workload a of `python -m tests.bench.tricks`, 29 % on b (2026-11).
    """
    return {"fused": True} if uses("fused") and device in FUSED.get(name, ()) else {}


def step_of(optimizer: Any) -> Callable[..., Any]:
    """The update of `optimizer`; that of torch's own classes without what torch wraps around it.

    Which is hooks that cost more than the update of a small model, and an import of torch's compiler, a second long.
    """
    cls = type(optimizer)
    if not uses("compiler_left_out") or not cls.__module__.startswith("torch.optim."):
        return lambda *closure: optimizer.step(*closure)  # which an object may replace on its way
    bare = torch.no_grad()(functools.partial(inspect.unwrap(cls.step), optimizer))
    return lambda *closure: (optimizer.step if torch_private.optimizer_hooks() else bare)(*closure)


def shares(optimizer: Optimizer, lr: float) -> list[float]:
    """The rate of each parameter group as a share of `lr`, which the optimizer was just built with.

    1 unless a class of the user's gives its groups rates of their own.
    """
    return [group.get("lr", lr) / lr for group in optimizer.param_groups]


def set_lr(optimizer: Optimizer, lr: float, shares: Sequence[float]) -> None:
    """Give every parameter group its share of the rate of the next update."""
    for group, share in zip(optimizer.param_groups, shares, strict=True):
        group["lr"] = lr * share


class ScheduledRate:
    """Sets the rate of an optimizer as `torch.optim.lr_scheduler.LambdaLR` does: before each update, that of every
    group to what it was built with, times the factor. Under `constant` nothing is touched: it may change its own."""

    def __init__(self, optimizer: Any, schedule: Mapping[str, Any]) -> None:
        self._optimizer = optimizer
        self._touched = schedule["name"] != "constant" or bool(schedule.get("warmup"))
        self._base: list[Any] = []
        if self._touched:
            for group in optimizer.param_groups:
                lr = group.get("lr")
                group.setdefault("initial_lr", lr.clone() if isinstance(lr, torch.Tensor) else lr)
                self._base.append(group["initial_lr"])

    def set(self, factor: float) -> None:
        for group, base in zip(self._optimizer.param_groups, self._base, strict=False):
            if base is None:
                continue
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(base * factor)
            else:
                group["lr"] = base * factor


# Attributes that torch gives every optimizer.
with without_compiler():
    _TORCHS_OWN = frozenset(vars(torch.optim.SGD([torch.zeros(())]))) | {"_zero_grad_profile_name"}


def own_state(optimizer: Any, params: Sequence[torch.Tensor]) -> dict[str, Any] | None:
    """What an optimizer of the user's keeps, as a checkpoint can hold it: copies of tensors and plain values.

    None where it keeps anything else, or keeps one tensor in two places: then a run starts over when it is resumed.
    """
    if not isinstance(optimizer, torch.optim.Optimizer) or _keeps_elsewhere(optimizer, params):
        return None
    kept = {key: value for key, value in vars(optimizer).items() if key not in _TORCHS_OWN or key == "defaults"}
    if not all(_is_value(value) for value in (*kept.pop("defaults").values(), *kept.values())):
        return None
    number = {id(param): index for index, param in enumerate(params)}
    if not all(isinstance(key, torch.Tensor) and id(key) in number for key in optimizer.state):
        return None
    state = {number[id(key)]: dict(value) for key, value in optimizer.state.items()}
    groups = [{key: v for key, v in group.items() if key != "params"} for group in optimizer.param_groups]
    members = [[number.get(id(param), -1) for param in group["params"]] for group in optimizer.param_groups]
    tensors = [v for values in state.values() for v in values.values() if isinstance(v, torch.Tensor)]
    if any(map(vars, tensors)):  # an attribute, which no copy has
        return None
    memory = [tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()]
    shared = len(set(memory)) < len(memory) or set(memory) & {p.untyped_storage().data_ptr() for p in params}
    if shared or any(-1 in group for group in members):
        return None
    if not all(_is_value(v) or type(v) is torch.Tensor for values in state.values() for v in values.values()):
        return None
    if not all(_is_value(v) for group in groups for v in group.values()):
        return None
    copied = {
        index: {key: v.detach().clone() if isinstance(v, torch.Tensor) else v for key, v in values.items()}
        for index, values in state.items()
    }
    return {
        "attributes": kept,
        "defaults": dict(optimizer.defaults),
        "groups": groups,
        "members": members,
        "state": copied,
        "requires_grad": [param.requires_grad for param in params],
    }


def _keeps_elsewhere(optimizer: Optimizer, params: Sequence[torch.Tensor]) -> bool:
    """Might it keep something in slots, hooks, gradients that it does not clear, or attributes of its parameters?"""
    slots = any(vars(cls).get("__slots__") for cls in type(optimizer).__mro__)
    hooks = any(value for key, value in vars(optimizer).items() if key in _TORCHS_OWN and key.endswith("_hooks"))
    return slots or hooks or clears_gradients(optimizer) or any(vars(param) for param in params)


def restore_own(optimizer: Any, params: Sequence[torch.Tensor], state: Mapping[str, Any]) -> None:
    """Put the `own_state` of an optimizer with the same parameters into one that was just built.

    Raises ValueError if its groups are others.
    """
    number = {id(param): index for index, param in enumerate(params)}
    members = [[number.get(id(param), -1) for param in group["params"]] for group in optimizer.param_groups]
    if members != state["members"]:
        raise ValueError("the optimizer has other parameter groups")
    vars(optimizer).update(state["attributes"])
    optimizer.defaults = dict(state["defaults"])
    for param, requires_grad in zip(params, state["requires_grad"], strict=True):
        param.requires_grad_(requires_grad)
    for group, saved in zip(optimizer.param_groups, state["groups"], strict=True):
        for key in [key for key in group if key != "params" and key not in saved]:
            del group[key]
        group.update(saved)
    optimizer.state.clear()
    for index, values in state["state"].items():
        copied = {key: v.detach().clone() if isinstance(v, torch.Tensor) else v for key, v in values.items()}
        optimizer.state[params[index]] = copied


def _is_value(value: Any) -> bool:
    """A plain value that `torch.load(weights_only=True)` reads back."""
    if type(value) in (tuple, list):
        return all(_is_value(one) for one in value)
    return value is None or type(value) in (bool, int, float, str)


def set_mode(optimizer: object, *, training: bool, seed: Callable[[], None]) -> bool:
    """Call `optimizer.train()` or `.eval()` where the class has them (Schedule-Free keeps two sets of weights).

    `seed` is called before, since they may draw random numbers. Returns whether there was anything to call.
    """
    switch = getattr(optimizer, "train" if training else "eval", None)
    if not callable(switch):
        return False
    seed()
    switch()
    return True


def clears_gradients(optimizer: Any) -> bool:
    """Has the class a `zero_grad` of its own?"""
    own = getattr(type(optimizer), "zero_grad", None)
    return own is not None and own is not torch.optim.Optimizer.zero_grad and not isinstance(optimizer, MuonWithAux)


@torch.no_grad()
def decay_independently(params: Sequence[torch.Tensor], rate: float) -> None:
    """w <- w (1 - rate) before an update; `rate` is `independent_weight_decay` times the schedule's factor."""
    for param in params:
        param.mul_(1 - rate)


_COUPLED = (
    "weight decay is coupled: it is added to the gradient, so it passes through the update rule and is multiplied by lr"
)
_DECOUPLED = "weight decay is decoupled and multiplied by lr, w <- w (1 - lr decay): sweeping lr also sweeps the decay"


def decay_note(name: str) -> str:
    """How the optimizer applies `weight_decay`, and whether an lr sweep changes it (one plain sentence)."""
    known = defaults(name)
    if "weight_decay" not in known:
        return "has no weight decay"
    if name in ("adamw", "muon", "adafactor"):
        return _DECOUPLED
    if "decoupled_weight_decay" in known:
        return f"{_COUPLED}; decoupled_weight_decay: true makes it w <- w (1 - lr decay)"
    return _COUPLED


FUSED = {"sgd": ("cpu", "cuda"), "adam": ("cpu", "cuda"), "adamw": ("cpu", "cuda"), "adagrad": ("cpu",)}
# What a user should know before sweeping the rate of an optimizer.
NOTES: dict[str, tuple[str, ...]] = {
    "adadelta": ("its lr is on a different scale from the others; torch's default is 1.0",),
    "adafactor": (
        "lr is an upper bound on a step relative to the size of the weights, and is itself capped at 1/sqrt(step)",
    ),
    "asgd": ("torch trains the plain weights and keeps the averaged ones aside; lr also enters its own decay",),
    "muon": ("applied to 2-D weights; all others use adamw with the same lr (set its arguments with aux: {...})",),
    "rprop": ("lr is only the initial step size, after which each weight has its own; meant for batch_size: full",),
    "sgd": ("plain SGD unless momentum is set; with momentum the effective lr is lr / (1 - momentum)",),
}


OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    cls.__name__.lower(): cls
    for cls in vars(torch.optim).values()
    if isinstance(cls, type)
    and issubclass(cls, torch.optim.Optimizer)
    and cls is not torch.optim.Optimizer
    and cls.__name__.lower() not in NOT_OFFERED
}
