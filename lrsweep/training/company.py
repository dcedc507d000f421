"""Does a run come out the same to the bit whatever other runs it trains with?

It does where every kernel is chosen by a run's own sizes. The tests show that for built-in tasks and models; code of
the user's may use operations for which torch chooses by the size of the whole stack. A step and an evaluation of stacks
of several sizes are compared before the sweep. What is found is told, and changes nothing else: results agree to
rounding anyway.
"""

# M runs

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lrsweep.training import isolation
from lrsweep.training.loss_module import LossModule
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import Workload

Member = tuple[int, float]
"""A run: its seed, and a factor on the initial weights, for runs of a seed differ after the first step."""


def dependence(workload: Workload, seeds: Sequence[int], runs: int) -> str | None:
    """What of a run depends on the other runs of a group of up to `runs`, as the subject of a sentence; None: nothing
    that was seen. `seeds`: of one group, one or more."""
    with workload.user_code():
        return _dependence(workload, seeds[:2], runs)


def _dependence(workload: Workload, seeds: Sequence[int], runs: int) -> str | None:
    models = {seed: workload.build_model(seed) for seed in seeds}
    members = [(seeds[number % len(seeds)], 1 - number / (4 * runs)) for number in range(max(runs, 2))]
    whole = dict(zip(members, _values(workload, models, members), strict=True))
    for part in (members[-1:], members[:3]):
        for member, found in zip(part, _values(workload, models, part), strict=True):
            for name, value in whole[member].items():
                if not _same_bits(value, found[name]):
                    return name
    return None


def _same_bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(), other.nan_to_num()) and torch.equal(one.isnan(), other.isnan())


def _values(
    workload: Workload, models: dict[int, LossModule], members: Sequence[Member]
) -> Iterator[dict[str, Tensor]]:
    """What a step and an evaluation give each of these runs, trained together."""
    seeds = list(dict.fromkeys(seed for seed, _ in members))
    module = workload.build_model(seeds[0])
    stepper = Stepper(module, workload, shared=len(seeds) == 1)
    if len(seeds) == 1:
        batch = workload.batch(seeds[0], 0)
    else:
        batch = workload.batches(seeds, torch.tensor([seeds.index(seed) for seed, _ in members]), 0)
    tensors = {seed: model.tensors() for seed, model in models.items()}
    isolation.seed_all(0)
    stepper.freeze_unused(
        _stack(tensors, members, stepper.trainable), _stack(tensors, members, stepper.non_trainable), batch
    )
    params, rest = (_stack(tensors, members, names) for names in (stepper.trainable, stepper.non_trainable))
    workload.seed_step(seeds[0], 0)
    step = stepper.train(params, rest, batch)
    checks, _ = next(workload.eval_batches("val", seeds[0]))
    workload.seed_step(seeds[0], 0)
    evaluation = stepper.evaluate(params, rest, checks)
    for run in range(len(members)):
        yield {
            "its loss": step.losses[run],
            **{
                f"the gradient of {_named(name)}": grad[run]
                for name, grad in zip(stepper.trainable, step.grads, strict=True)
            },
            **{
                f"what a step leaves in {_named(name)}": value[run]
                for name, value in zip(stepper.non_trainable, rest, strict=True)
            },
            "its loss in an evaluation": evaluation.losses[run],
            **{f"{name} in an evaluation": value[run] for name, value in evaluation.metrics.items()},
        }


def _named(parameter: str) -> str:
    """As the user's model has it, without the module around that and its loss."""
    return parameter.removeprefix("model.")


def _stack(tensors: dict[int, dict[str, Tensor]], members: Sequence[Member], names: Sequence[str]) -> list[Tensor]:
    def of(name: str, seed: int, factor: float) -> Tensor:
        value = tensors[seed][name].detach()
        return value * factor if value.is_floating_point() else value.clone()

    return [torch.stack([of(name, *member) for member in members]) for name in names]
