"""Which runs are trained together, by which engine: from the sizes of the model and of the caches, never a stopwatch.

Whether runs can be trained together at all is decided in stackable.py. The same spec on the same machine is cut the
same way, and the cut is written to the journal, so a resumed sweep repeats it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lrsweep.store.journal import Group
from lrsweep.system.machine import Machine
from lrsweep.training import isolation, rates, stackable
from lrsweep.training.costs import RULE, WORTH, Sizes, sizes_of
from lrsweep.training.stackable import TOO_LARGE, Reason
from lrsweep.training.stepper import Stepper
from lrsweep.training.workload import Workload

if TYPE_CHECKING:
    from lrsweep.plan import Run

MIXED = 2e-6  # one run of a group of several seeds: its batch is its own
BETTER = 0.995  # and another cut this share of the time of the best so far
FEW, LARGEST = 6, 128  # runs in a group: even if they fit no cache, and at most
SPREAD = 0.1  # what a group costs besides what its runs do should be this share of that, or less
TAIL = 0.1  # cores are never equally fast: of the longest group, this share is waited for at the end
MEMORY_SHARE = 0.5  # of the machine's memory, for all workers together


def cut(runs: Sequence[Run], workload: Workload, machine: Machine, workers: int, compile: str = "auto") -> list[Group]:
    """Cut `runs`, which share one workload, into groups for `workers` processes, longest first.

    `compile`: "on" or "off"; "auto" is off, because compiling a step takes longer than it has ever given back here.
    """
    return [group for group, _ in cut_with_costs(runs, workload, machine, workers, compile)]


def cut_with_costs(
    runs: Sequence[Run], workload: Workload, machine: Machine, workers: int, compile: str = "auto"
) -> list[tuple[Group, float]]:
    """The same with the estimated seconds of a step of each group, good for nothing but ordering them."""
    alone: list[tuple[Run, Reason]] = []
    together: list[Run] = []
    reasons: dict[str, Reason | None] = {}
    for run in runs:
        key = run.setting.key
        if key not in reasons:
            reasons[key] = stackable.stack_reason(workload, run.setting)
        if (reason := reasons[key]) is None:
            together.append(run)
        else:
            alone.append((run, reason))
    sizes = measure(workload, runs[0].seed) if together else None
    step = 0.0 if sizes is None else sizes.alone
    groups = [(_alone(run, reason, _recordable(run, workload)), step) for run, reason in alone]
    if sizes is not None:
        groups += _cut_stackable(together, workload, sizes, machine, workers, compile)
    return sorted(groups, key=lambda each: -each[1])


def _recordable(run: Run, workload: Workload) -> bool:
    """Whether a run that cannot be stacked can replay its steps: torch's own rules can, where the model can."""
    return ":" not in run.setting.name and stackable.workload_reason(workload) is None


def _alone(run: Run, reason: Reason, recorded: bool) -> Group:
    engine = "recorded" if recorded else "single"
    return Group(engine=engine, runs=(run.run_id,), reason=reason.text, raised=reason.raised)


def _cut_stackable(
    runs: Sequence[Run], workload: Workload, sizes: Sizes, machine: Machine, workers: int, compile: str
) -> list[tuple[Group, float]]:
    """The cut into stacks with the shortest estimated time to the end, or all alone where stacks gain nothing.

    Which of the two depends on a run's own sizes only, so that it comes out the same in whatever company it trains.
    Each group comes with the seconds of a step of it.
    """
    if not _gains(sizes):
        return [(_alone(run, TOO_LARGE, True), sizes.alone) for run in runs]
    rule = {key: rates.rule_of(run.setting) for key, run in {run.setting.key: run for run in runs}.items()}
    runs = sorted(runs, key=lambda run: rule[run.setting.key])  # runs of one rule stay together: a part has few rules
    best, best_time = None, math.inf
    pools = [[_Pool.of(of_seed, rule) for of_seed in _by_seed(runs)]]
    if not sizes.random and not sizes.convolves and workload.shared_batches and stackable.findings(workload).mixes:
        pools.append([_Pool.of(runs, rule)])
    part_sizes = _part_sizes(len(runs), sizes, machine, workers)
    for pool, size, multiple in itertools.product(pools, part_sizes, {1, workers}):
        parts = [(one, low, high) for one in pool for low, high in _bounds(len(one.runs), size, multiple)]
        steps = [_group_step(*part, sizes) for part in parts]
        time = _time(steps, workers)
        if time < best_time * BETTER:
            best, best_time = (parts, steps), time
    assert best is not None
    return [
        (Group(engine="stacked", runs=tuple(run.run_id for run in pool.runs[low:high]), compile=compile == "on"), step)
        for (pool, low, high), step in zip(*best, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Pool:
    """Runs in their order, and how often the rule and the seed have changed before each: cuts are counted fast."""

    runs: Sequence[Run]
    rule_changes: Sequence[int]
    seed_changes: Sequence[int]

    @classmethod
    def of(cls, runs: Sequence[Run], rule: Mapping[str, str]) -> _Pool:
        return cls(runs, _changes([rule[run.setting.key] for run in runs]), _changes([run.seed for run in runs]))


def _changes(values: Sequence[object]) -> list[int]:
    return list(itertools.accumulate((one != other for one, other in itertools.pairwise(values)), initial=0))


def _part_sizes(runs: int, sizes: Sizes, machine: Machine, workers: int) -> list[int]:
    """Sizes of group to consider, from the largest down to half of it, and those that give each worker as many."""
    largest = min(runs, _largest(sizes, machine, workers))
    even = max(1, math.ceil(runs / workers))
    return sorted({*range(max(1, largest // 2), largest + 1), min(even, largest)}, reverse=True)


def _group_step(pool: _Pool, low: int, high: int, sizes: Sizes) -> float:
    """Seconds of a step of the runs low..high of a pool."""
    count = pool.rule_changes[high - 1] - pool.rule_changes[low] + 1
    mixed = 0.0 if pool.seed_changes[high - 1] == pool.seed_changes[low] else MIXED * (high - low)
    return sizes.stacked(high - low) + RULE * count + mixed


def _largest(sizes: Sizes, machine: Machine, workers: int) -> int:
    """The most runs in a group: enough to spread what a group costs, as long as they fit the caches or are few."""
    # Of the values, half are alive at once.
    per_run = max(1.0, sizes.values / 2 + 4 * sizes.weights)
    fits = max(FEW, int(machine.cache_per_worker(workers) / per_run))
    memory = int(MEMORY_SHARE * machine.memory / workers / per_run)
    return max(1, min(LARGEST, _enough(sizes), fits, memory))


def _enough(sizes: Sizes) -> int:
    """The runs that spread what a group costs."""
    return math.ceil((sizes.around + RULE) / (SPREAD * sizes.inside))


def _gains(sizes: Sizes) -> bool:
    """Is a group of enough runs faster than its runs alone?"""
    enough = _enough(sizes)
    return sizes.stacked(enough) + RULE < WORTH * enough * sizes.alone


def _by_seed(runs: Iterable[Run]) -> list[list[Run]]:
    pools: dict[int, list[Run]] = {}
    for run in runs:
        pools.setdefault(run.seed, []).append(run)
    return list(pools.values())


def _bounds(count: int, size: int, multiple: int) -> Iterable[tuple[int, int]]:
    """As few parts as there can be of up to `size` runs, or the next multiple, of sizes that differ by one at most."""
    parts = min(count, math.ceil(count / size / multiple) * multiple)
    return itertools.pairwise(round(number * count / parts) for number in range(parts + 1))


def _time(steps: Sequence[float], workers: int) -> float:
    """When all are done, if each takes so long."""
    return makespan(steps, workers) + TAIL * max(steps)


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last of `workers` is done, if each takes the longest task left (Graham 1969: within 4/3 of the best)."""
    loads = [0.0] * workers
    for cost in sorted(seconds, reverse=True):
        heapq.heapreplace(loads, loads[0] + cost)
    return max(loads)


def measure(workload: Workload, seed: int) -> Sizes:
    """Record one training step of one run and add up what it does.

    A model of the user's may draw random numbers in its evaluation only.
    """
    with workload.user_code():
        module = workload.build_model(seed)
        stepper = Stepper(module, workload, shared=True)
        values = module.tensors()
        isolation.seed_all(0)
        params, non_trainable = (
            [values[name].detach().unsqueeze(0) for name in names]
            for names in (stepper.trainable, stepper.non_trainable)
        )
        graph = stepper.graph(params, non_trainable, workload.batch(seed, 0))
        random = graph.random
        if not random and not workload.built_in:
            checks, _ = next(workload.eval_batches("val", seed))
            random = stepper.graph(params, non_trainable, checks, training=False).random
    weights = float(sum(param.nbytes for param in params))
    return replace(sizes_of(graph, weights), random=random)
