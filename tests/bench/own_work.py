"""`python -m tests.bench.own_work [NAME ...] [--repeats N] [--fraction F]`: code of the user's against plain torch.

A row of a markdown table for each example of configs/own and each kind of kinds.py: trained together or why not, the
largest relative difference to the plain loop (one epoch in float64), and the time of `lrsweep run --workers 2` beside
that of the plain loop (plain_runs.py) in as many processes, whole commands that take turns. Other work on the machine
changes the ratio of their CPU times less. What each takes to start (and lrsweep to draw) is measured by sweeps of one
learning rate, seed and step.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lrsweep.spec.load import load_spec
from lrsweep.workers import worker
from tests.support import own_work, spec_runs, sweeps
from tests.support.own_work import EXAMPLES

PROCESSES = 2
KINDS_FILE = Path(__file__).with_name("kinds.py")
HELPERS = ("generator", "points", "images", "tokens", "swish", "collated", "by_name")
KINDS = [
    name for name in re.findall(r"^def (\w+)\(", KINDS_FILE.read_text(), re.M) if name not in ("split", "mlp", *HELPERS)
]
ONE_STEP = ("train.epochs=null", "train.steps=1", "lr=[0.001]", "seeds=1")
HEAD = (
    "| task | trained | difference | lrsweep | plain loop | ratio | of CPU time | start of each | ratio without |",
    "|---|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A spec that is measured: a file, or one that is written for a kind."""

    name: str
    spec: Path
    differentiates: bool

    def settings(self, overrides: Sequence[str]) -> list[spec_runs.Planned]:
        return spec_runs.of_spec(self.spec, overrides, differentiates=self.differentiates)


def entry(name: str, folder: Path) -> Entry:
    if name in EXAMPLES:
        return Entry(name=name, spec=own_work.path(name), differentiates=EXAMPLES[name].differentiates)
    spec = {
        "task": f"{KINDS_FILE}:{name}",
        "lr": {"min": 1e-4, "max": 0.1, "per_decade": 2},
        "optimizers": [{"name": "sgd", "momentum": 0.9}, "adam"],
        "seeds": 3,
        "train": {"epochs": 10, "batch_size": 32, "eval_batch_size": 64},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return Entry(name=name, spec=path, differentiates=name == "gradient_penalty")


def compared(one: Entry, folder: Path) -> tuple[str, str]:
    """How its runs were trained, and how far they are from plain torch."""
    overrides = ["train.dtype=float64", "train.epochs=1", "lr=[0.001, 0.01]", "seeds=2"]
    finished = sweeps.run(folder / "compared", one.spec, set=overrides)
    runs = pd.read_csv(finished.path / "runs.csv")
    if set(runs["status"]) != {"ok"}:
        return "not ok: " + "; ".join({str(error) for error in runs["error"].dropna()} or set(runs["status"])), "-"
    manifest = json.loads((finished.path / "manifest.json").read_text())
    how = "together" if "stacked" in manifest["engines"] else "one at a time"
    off = spec_runs.difference(pd.read_csv(finished.path / "curves.csv"), one.settings(overrides))
    return ": ".join([how, *manifest["notes"]]), f"{off:.1e}"


class Racer:
    """The two commands for one spec."""

    def __init__(self, one: Entry, overrides: Sequence[str], folder: Path) -> None:
        folder.mkdir()
        self._one, self._overrides, self._folder = one, overrides, folder
        runs = [(run.recipe, run.lr, run.seed) for run in one.settings(overrides)]
        self._runs = folder / "runs.pickle"
        self._runs.write_bytes(pickle.dumps(runs))
        self._processes = min(PROCESSES, len(runs))
        self._times: dict[str, list[tuple[float, float]]] = {"lrsweep": [], "plain": []}

    def turn(self) -> None:
        number = len(self._times["lrsweep"])
        results = str(self._folder / f"results{number}")
        sets = [part for override in self._overrides for part in ("--set", override)]
        sweep = [sys.executable, "-m", "lrsweep", "run", str(self._one.spec), "--workers", str(self._processes)]
        self._times["lrsweep"].append(timed([[*sweep, "--progress", "none", "--results", results, *sets]]))
        plain = [sys.executable, "-m", "tests.bench.plain_runs", str(self._runs)]
        parts = range(self._processes)
        out = self._folder / "plain.csv"
        self._times["plain"].append(timed([[*plain, f"{out}{part}", str(part), str(len(parts))] for part in parts]))

    def medians(self, name: str) -> tuple[float, float]:
        """Seconds of wall clock and of CPU time."""
        wall, cpu = zip(*self._times[name], strict=True)
        return statistics.median(wall), statistics.median(cpu)


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Seconds until all commands, started together, are done; and those of CPU time that they took."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    begun, used = time.perf_counter(), _children()
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, env=environment, **quiet) for command in commands]
    if any([process.wait() for process in processes]):
        raise SystemExit(f"failed: {commands}")
    return time.perf_counter() - begun, _children() - used


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def row(one: Entry, repeats: int, fraction: float, folder: Path) -> str:
    how, off = compared(one, folder)
    if off == "-":
        return f"| {one.name} | {how} | - | - | - | - | - | - | - |"
    spec = load_spec(one.spec)
    assert spec.train.epochs is not None
    whole = Racer(one, [f"train.epochs={max(1, round(spec.train.epochs * fraction))}"], folder / "whole")
    start = Racer(one, [*ONE_STEP, *(["axes={}"] if spec.axes else [])], folder / "start")
    for _ in range(repeats):
        whole.turn()
        start.turn()
    (ours, ours_cpu), (plain, plain_cpu) = whole.medians("lrsweep"), whole.medians("plain")
    begin = start.medians("lrsweep")[0], start.medians("plain")[0]
    without = (plain - begin[1]) / max(ours - begin[0], 0.01)
    cells = [
        one.name,
        how,
        off,
        f"{ours:.1f} s",
        f"{plain:.1f} s",
        f"{plain / ours:.2f}x",
        f"{plain_cpu / ours_cpu:.2f}x",
    ]
    return f"| {' | '.join(cells)} | {begin[0]:.1f} s, {begin[1]:.1f} s | {without:.2f}x |"


def main() -> None:
    names = [*EXAMPLES, *KINDS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.own_work", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*names, []], metavar="NAME", help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the epochs, for a quick look")
    given = parser.parse_args()
    worker.one_thread()
    print(*HEAD, sep="\n", flush=True)
    for name in given.names or names:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            print(row(entry(name, folder), given.repeats, given.fraction, folder), flush=True)


if __name__ == "__main__":
    main()
