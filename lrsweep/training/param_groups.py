"""Parameter groups of the user's: `Task(param_groups=...)` read, checked, and handed to an optimizer class.

They are kept by the names of the parameters, since runs that train together have weights of their own.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from lrsweep import given_code, optimizers
from lrsweep.errors import UsageError, WrongInSpec, did_you_mean
from lrsweep.training import isolation, user_state

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lrsweep.plan import OptimizerSetting
    from lrsweep.training.loss_module import LossModule
    from lrsweep.training.workload import Workload

INITIAL = "initial_accumulator_value"
EXAMPLE = '{"params": model.head.parameters(), "lr_scale": 0.1}'


@dataclass(frozen=True, kw_only=True, slots=True)
class ParamGroup:
    """Parameters by name, the factor of their rate, and what else the user gave the optimizer for them."""

    names: tuple[str, ...]
    lr_scale: float
    options: dict[str, Any]

    @property
    def decays_itself(self) -> bool:
        """Has it a weight decay of its own, in place of that of the setting?"""
        return "weight_decay" in self.options


def differ(models: Iterable[LossModule]) -> bool:
    """Have these models, which a builder made for several seeds, other groups, or some that do not compare?"""
    return not all(user_state.equal(*pair) for pair in pairwise(model.groups for model in models))


def made_for(workload: Workload, model: nn.Module) -> tuple[ParamGroup, ...] | None:
    """What the task's `param_groups` gives for a model that was just built; None if the task has none.

    Raises WrongInSpec for what it raises, and for what it should not have returned.
    """
    function = workload.task.param_groups
    if function is None:
        return None
    try:
        try:
            given = function(model)
        except (Exception, SystemExit) as error:
            raise UsageError(f"param_groups: {isolation.describe(error)}") from error
        return _read(given, model)
    except UsageError as error:
        raise _wrong(workload, str(error)) from error


def _wrong(workload: Workload, *texts: str) -> WrongInSpec:
    name = given_code.short(workload.workload_spec.task["name"])
    return WrongInSpec(*((("task",), f"task {name}: {text}") for text in texts))


def _read(given: Any, model: nn.Module) -> tuple[ParamGroup, ...]:
    if not isinstance(given, list | tuple):
        raise UsageError(f"param_groups returned a {type(given).__name__}, not a list of groups such as [{EXAMPLE}]")
    if not given:
        raise UsageError(f"param_groups returned an empty list, so nothing would be trained; for example [{EXAMPLE}]")
    names = {id(parameter): name for name, parameter in named(model).items()}
    found: dict[str, int] = {}
    return tuple(_group(number, group, names, found) for number, group in enumerate(given))


def named(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of a model by name, those included that only its own `parameters()` knows."""
    registered = dict(nn.Module.named_parameters(model))
    known = {id(parameter) for parameter in registered.values()}
    others = {f"parameters()[{i}]": p for i, p in enumerate(model.parameters()) if id(p) not in known}
    return registered | others


def _group(number: int, given: Any, names: Mapping[int, str], found: dict[str, int]) -> ParamGroup:
    """`found`: the number of the group of every parameter so far; those of this one are added."""
    place = f"param_groups[{number}]"
    if not isinstance(given, Mapping):
        raise UsageError(f"{place} is a {type(given).__name__}, not a dict such as {EXAMPLE}")
    options = dict(given)
    if "params" not in options:
        raise UsageError(f'{place} has no "params"; name the parameters that it holds, as in {EXAMPLE}')
    if "lr" in options:
        text = "sets lr, which the sweep varies; give lr_scale: the rate of the group is lr_scale times the swept one"
        raise UsageError(f"{place} {text}")
    members = []
    for parameter in _members(place, options.pop("params")):
        name = names.get(id(parameter))
        if name is None:
            raise UsageError(
                f"{place} holds a tensor of shape {list(parameter.shape)} that is no parameter of the model"
            )
        if name in found:
            where = "twice in it" if found[name] == number else f"in param_groups[{found[name]}], too"
            raise UsageError(f"{place} holds {name}, which is {where}; a parameter can be in one group, once")
        found[name] = number
        members.append(name)
    if not members:
        once = "an iterator such as model.parameters() can be read only once; make a list of it"
        raise UsageError(f"{place} holds no parameters; leave it out ({once})")
    return ParamGroup(names=tuple(members), lr_scale=_scale(place, options.pop("lr_scale", 1.0)), options=options)


def _members(place: str, params: Any) -> Iterable[Tensor]:
    if isinstance(params, Tensor):
        return [params]
    try:
        members = None if isinstance(params, set | str | Mapping) else list(params)
    except TypeError:
        members = None
    if members is None:
        raise UsageError(f'{place}["params"] is a {type(params).__name__}, not a parameter or a list of parameters')
    if odd := [type(one).__name__ for one in members if not isinstance(one, Tensor)]:
        raise UsageError(
            f'{place}["params"] holds a {odd[0]}, not only parameters; give model.parameters() or the like'
        )
    return members


def _scale(place: str, value: Any) -> float:
    fine = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value) and float(value) > 0
    if not fine:
        raise UsageError(
            f"{place}: lr_scale must be a positive finite number, not {value!r} (leave the group out to keep it fixed)"
        )
    return float(value)


def given(groups: tuple[ParamGroup, ...], parameters: Mapping[str, nn.Parameter], lr: float) -> list[dict[str, Any]]:
    """What an optimizer class is given as `params`, with `parameters` as those of the names."""
    return [
        {
            "params": [parameters[name] for name in group.names],
            "lr": lr * group.lr_scale,
            **copy.deepcopy(group.options),
        }
        for group in groups
    ]


def decayed(groups: tuple[ParamGroup, ...] | None, parameters: Mapping[str, nn.Parameter]) -> list[nn.Parameter]:
    """What `independent_weight_decay` shrinks: all that is trained but groups with a weight decay of their own."""
    if groups is None:
        shrunk = list(parameters.values())
    else:
        shrunk = [parameters[name] for group in groups if not group.decays_itself for name in group.names]
    return [parameter for parameter in shrunk if parameter.requires_grad]


def check_arguments(workload: Workload, settings: Iterable[OptimizerSetting], seed: int) -> None:
    """Raises WrongInSpec where a group has arguments that the optimizer of one of the `settings` does not take.

    Builds a model of `seed`; where that raises, the runs tell.
    """
    if workload.task.param_groups is None:
        return
    try:
        with workload.user_code():
            groups = workload.build_model(seed).groups or ()
    except WrongInSpec:
        raise
    except (Exception, SystemExit):  # noqa: BLE001 - the user's builder may raise anything
        return
    texts = [
        f"param_groups[{number}]: {text}"
        for setting in settings
        for number, group in enumerate(groups)
        for text in _refused(setting, group.options, workload.workload_spec.base_dir)
    ]
    if texts:
        raise _wrong(workload, *dict.fromkeys(texts))


def _refused(setting: OptimizerSetting, options: Mapping[str, Any], base_dir: str) -> Iterator[str]:
    """What is wrong with the `options` of a group under this optimizer."""
    label = setting.name.rpartition(":")[2]
    known = optimizers.argument_names(setting.name, base_dir)
    if setting.name == "adagrad" and INITIAL in options:
        yield f"{INITIAL} of adagrad is one for all groups, and torch ignores it in one; give it in the spec"
    unknown = [] if known is None else [key for key in options if key not in known]
    for key in unknown:
        hint = did_you_mean(str(key), known or ())
        yield f"{label} has no argument {key!r} ({hint or 'it has ' + ', '.join(known or ())})"
    if ":" not in setting.name and not unknown:
        for key, wrong in optimizers.check(setting.name, {**setting.args, **options}):
            yield f"{key} of {label} {wrong}"
