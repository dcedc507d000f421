"""`python -m tests.bench.tricks [WORKLOAD ...]`: what each trick saves of the training of the bench's workloads.

A group of runs trains in this process in one copy with everything and in one without each trick (`LRSWEEP_PLAIN=name`).
They take turns, a chunk of updates each, and what counts is the CPU time of the fastest quarter of the chunks.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Sequence

import torch

from lrsweep import plan
from lrsweep.plan import Run
from lrsweep.spec.load import load_spec
from lrsweep.system.machine import keep_freed_memory, this_machine
from lrsweep.system.plain import VARIABLE
from lrsweep.training import grouping, stacked
from lrsweep.training import workload as workloads
from tests.bench.workloads import WORKLOADS

TRICKS = (
    "1",
    "replay",
    "tidy",
    "predict_by_max",
    "rectify_what_was_pooled",
    "bias_gradients_by_sums",
    "widen_products",
    "gradients_in_place",
    "add_within_products",
    "overwrite_operands",
    "onednn",
    "channels",
    "stacked_loss",
    "fused",
    "kernels",
    "rows",
)
WARM = 3  # updates before the clock starts: the first two are recorded


def group_of(name: str) -> list[Run]:
    """The runs of the group with the most optimizers, as the sweep would be cut for two processes."""
    spec = load_spec(WORKLOADS[name].spec | {"name": name})
    runs = {run.run_id: run for run in plan.build(spec, plan.fingerprints(spec)).runs}
    workload = workloads.build(next(iter(runs.values())).workload_spec)
    groups = grouping.cut(list(runs.values()), workload, this_machine(), 2)
    largest = max(groups, key=lambda group: len({runs[run_id].setting.key for run_id in group.runs}))
    return [runs[run_id] for run_id in largest.runs]


class Variant:
    """A group that trains without `trick`, a chunk of updates at a time."""

    def __init__(self, trick: str, runs: Sequence[Run]) -> None:
        self.trick, self.seconds, self._runs = trick, list[float](), runs
        os.environ[VARIABLE] = trick
        self.workload = workloads.build(runs[0].workload_spec)
        self._start()

    def _start(self) -> None:
        with self.workload.user_code():
            self.group = stacked.StackedTrainer(self._runs, self.workload)
            self.group.start()
            for _ in range(WARM):
                self.group.train_step()

    def train(self, updates: int) -> None:
        os.environ[VARIABLE] = self.trick
        if self.group.step + updates > self.workload.total_steps:
            self._start()
        begun = time.process_time()
        with self.workload.user_code():
            for _ in range(updates):
                self.group.train_step()
        self.seconds.append(time.process_time() - begun)


def quick(seconds: Sequence[float]) -> float:
    """The mean of the fastest quarter, which other work on the machine disturbs least."""
    return statistics.mean(sorted(seconds)[: max(1, len(seconds) // 4)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tricks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help="default: all")
    parser.add_argument("--tricks", nargs="*", default=TRICKS, help="values of LRSWEEP_PLAIN; default: one of each")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each workload")
    parser.add_argument("--chunk", type=int, default=10, help="updates between two looks at the clock")
    parser.add_argument("--runs", type=int, help="train this many runs, not all of the group")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    for name in given.workloads or WORKLOADS:
        runs = group_of(name)[: given.runs]
        variants = [Variant(trick, runs) for trick in ("", "", *given.tricks)]
        end = time.perf_counter() + given.seconds
        while time.perf_counter() < end:
            for variant in random.sample(variants, len(variants)):
                variant.train(given.chunk)
        whole = quick([*variants[0].seconds, *variants[1].seconds])
        print(
            f"{name}: {len(runs)} runs, {len(variants[0].seconds)} chunks, {whole / given.chunk * 1e3:.2f} ms an update"
        )
        for variant in variants[1:]:
            print(
                f"   {quick(variant.seconds) / whole - 1:+6.1%} without {variant.trick or 'anything (noise)'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
