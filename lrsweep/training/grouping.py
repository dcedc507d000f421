"""Which runs are trained together, by which engine: from the sizes of the model and of the caches, never a stopwatch.

Whether runs can be trained together at all is decided in stackable.py. The same spec on the same machine is cut the
same way, and the cut is written to the journal, so a resumed sweep repeats it.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
EVEN = 1.02  # workers that end within this of their mean are not to be made more equal
TAIL = 0.1  # cores are never equally fast: of the longest group, this share is waited for at the end
ON_DEVICE = 2048  # runs in a group on a GPU, at most
MEMORY_SHARE = 0.5  # of the machine's memory, for all workers together


def cut(runs: Sequence[Run], workload: Workload, machine: Machine, workers: int, compile: str = "auto") -> list[Group]:
    """Cut `runs`, which share one workload, into groups for `workers` processes, longest first."""
    return [group for group, _ in cut_all([(runs, workload)], machine, workers, compile)]


def cut_all(
    recipes: Sequence[tuple[Sequence[Run], Workload]],
    machine: Machine,
    workers: int,
    compile: str = "auto",
    on_device: Sequence[int | None] | None = None,
) -> list[tuple[Group, float]]:
    """Cut the runs of each workload into groups for `workers` processes, longest first, each with its estimated
    seconds, good for nothing but ordering them.

    Small groups waste time and large ones leave workers idle at the end, so that each workload is cut as if it were
    alone with one worker, and the longest for twice as many as before for as long as some would be idle.

    `compile`: "on" or "off"; "auto" is off, because compiling a step takes longer than it has ever given back here.
    `on_device`: the runs of each workload for which a GPU has memory, None where nobody knows; None on the CPU. A step
    of many runs takes a GPU hardly longer than one of a single run, so groups are then as large as they can be.
    """
    most = [0] * len(recipes) if on_device is None else [min(ON_DEVICE, one or ON_DEVICE) for one in on_device]
    found = [
        _Recipe.of(runs, workload, machine, workers, room) for (runs, workload), room in zip(recipes, most, strict=True)
    ]
    shares = [1] * len(found)
    cuts = [one.cut(1) for one in found]
    best, best_time = list(cuts), math.inf
    while True:
        seconds = [part.seconds for parts in cuts for part in parts]
        if (time := _time(seconds, workers)) < best_time * BETTER:
            best, best_time = list(cuts), time
        if makespan(seconds, workers) <= EVEN * sum(seconds) / workers:
            break
        longest = {number: parts[0].seconds for number, parts in enumerate(cuts) if shares[number] < workers}
        if not longest:
            break
        number = max(longest, key=lambda one: longest[one])
        shares[number] = min(2 * shares[number], workers)
        cuts[number] = found[number].cut(shares[number])
    groups = [(part.group(compile == "on"), part.seconds) for parts in best for part in parts]
    return sorted(groups, key=lambda each: -each[1])


@dataclass(frozen=True, slots=True)
class _Part:
    """Runs that train as one group, in so many seconds; alone for a `reason`, together without one."""

    runs: Sequence[Run]
    seconds: float
    reason: Reason | None = None
    recorded: bool = False

    def group(self, compile: bool) -> Group:
        ids = tuple(run.run_id for run in self.runs)
        if self.reason is None:
            return Group(engine="stacked", runs=ids, compile=compile)
        engine = "recorded" if self.recorded else "single"
        return Group(engine=engine, runs=ids, reason=self.reason.text, raised=self.reason.raised)


@dataclass(frozen=True, slots=True)
class _Recipe:
    """The runs of one workload: those that train alone, and pools of the others, one of which is cut."""

    alone: list[_Part]
    pools: list[list[_Pool]]
    part_sizes: Callable[[int], list[int]]
    seconds: Callable[[_Pool, int, int], float]

    @classmethod
    def of(cls, runs: Sequence[Run], workload: Workload, machine: Machine, workers: int, on_device: int) -> _Recipe:
        """`on_device`: the runs for which a GPU has memory, 0 on the CPU."""
        alone: list[tuple[Run, Reason, bool]] = []
        together: list[Run] = []
        reasons: dict[str, Reason | None] = {}
        for run in runs:
            key = run.setting.key
            if key not in reasons:
                reasons[key] = stackable.stack_reason(workload, run.setting)
            if (reason := reasons[key]) is None:
                together.append(run)
            else:
                alone.append((run, reason, _recordable(run, workload)))
        sizes = measure(workload, runs[0].seed) if together else None
        pools: list[list[_Pool]] = []
        if sizes is not None and (on_device or _gains(sizes)):
            pools = _pools(together, workload, sizes)[-1 if on_device else 0 :]
        else:
            alone += [(run, TOO_LARGE, True) for run in together]
        each = 0.0 if sizes is None else sizes.alone * workload.total_steps
        return cls(
            alone=[_Part([run], each, reason, recorded) for run, reason, recorded in alone],
            pools=pools,
            part_sizes=lambda share: (
                _part_sizes(len(together), sizes, machine, workers, share, on_device) if sizes else []
            ),
            seconds=lambda pool, low, high: (
                _group_step(pool, low, high, sizes) * workload.total_steps if sizes else 0.0
            ),
        )

    def cut(self, share: int) -> list[_Part]:
        """With the shortest estimated time to the end for so many workers, longest first."""
        best: list[_Part] = []
        best_time = math.inf
        for pool, size, multiple in itertools.product(self.pools, self.part_sizes(share), {1, share}):
            bounds = [(one, low, high) for one in pool for low, high in _bounds(len(one.runs), size, multiple)]
            seconds = [self.seconds(*part) for part in bounds]
            if (time := _time(seconds, share)) < best_time * BETTER:
                best_time = time
                best = [_Part(one.runs[low:high], each) for (one, low, high), each in zip(bounds, seconds, strict=True)]
        return sorted([*self.alone, *best], key=lambda part: -part.seconds)


def _recordable(run: Run, workload: Workload) -> bool:
    """Whether a run that cannot be stacked can replay its steps: torch's own rules can, where the model can."""
    return ":" not in run.setting.name and stackable.workload_reason(workload) is None


def _pools(runs: Sequence[Run], workload: Workload, sizes: Sizes) -> list[list[_Pool]]:
    """The runs of each seed, and where seeds can be mixed all of them."""
    rule = {key: rates.rule_of(run.setting) for key, run in {run.setting.key: run for run in runs}.items()}
    runs = sorted(runs, key=lambda run: rule[run.setting.key])  # runs of one rule stay together: a part has few rules
    pools = [[_Pool.of(of_seed, rule) for of_seed in _by_seed(runs)]]
    if not sizes.random and not sizes.convolves and workload.shared_batches and stackable.findings(workload).mixes:
        pools.append([_Pool.of(runs, rule)])
    return pools


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


def _part_sizes(runs: int, sizes: Sizes, machine: Machine, workers: int, share: int, on_device: int) -> list[int]:
    """Sizes of group to consider, from the largest down to half of it, and those that give each of `share` workers as
    many. The caches and the memory are shared by all `workers`. On a GPU, the largest alone."""
    if on_device:
        return [min(runs, on_device)]
    largest = min(runs, _largest(sizes, machine, workers))
    even = max(1, math.ceil(runs / share))
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


def _time(seconds: Sequence[float], workers: int) -> float:
    """When all are done, if each takes so long."""
    return makespan(seconds, workers) + TAIL * max(seconds, default=0.0)


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
