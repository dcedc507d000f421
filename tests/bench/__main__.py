"""`python -m tests.bench [WORKLOAD ...] [--repeats N] [--fraction F]`: time whole processes, from start to files.

A sweep, the plain loop in one process with torch's default threads, and the plain loop in one process of one thread per
core take turns. What counts are the ratios of the medians; other work on the machine falsifies them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import yaml

from lrsweep.system.machine import available_cores
from tests.bench.workloads import WORKLOADS, Workload, plain_spec

PLAIN = str(Path(__file__).with_name("plain.py"))


def timed(commands: list[list[str]], threads: int | None) -> float:
    """Seconds until all commands, started together, are done."""
    environment = os.environ | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    begun = time.perf_counter()
    processes = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for command in commands]
    if any(process.wait() for process in processes):
        raise SystemExit(f"failed: {commands}")
    return time.perf_counter() - begun


def gemm_rate() -> float:
    """Operations per second of one thread in products of 512x512 float32 matrices."""
    torch.set_num_threads(1)
    a = torch.randn(512, 512)
    best = min(_once(a) for _ in range(10))
    return 2 * 512**3 / best


def _once(a: torch.Tensor) -> float:
    begun = time.perf_counter()
    torch.mm(a, a)
    return time.perf_counter() - begun


def bench(name: str, workload: Workload, repeats: int, fraction: float, rate: float) -> bool:
    cores = available_cores()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        train = workload.spec["train"]
        key = "epochs" if "epochs" in train else "steps"
        workload.spec["train"] = train | {key: max(1, round(train[key] * fraction))}
        plain = plain_spec(workload, folder)
        (folder / "plain.json").write_text(json.dumps(plain))
        (folder / "sweep.yaml").write_text(yaml.safe_dump(workload.spec, sort_keys=False))
        seconds: dict[str, list[float]] = {"lrsweep": [], "one": [], "cores": []}
        for turn in range(repeats):
            sweep = [sys.executable, "-m", "lrsweep", "run", str(folder / "sweep.yaml"), "--progress", "none"]
            seconds["lrsweep"].append(timed([[*sweep, "--results", str(folder / f"results{turn}")]], None))
            base = [sys.executable, PLAIN, str(folder / "plain.json")]
            seconds["one"].append(timed([[*base, str(folder / "one.csv"), "0", "1"]], None))
            parts = [[*base, str(folder / f"{part}.csv"), str(part), str(cores)] for part in range(cores)]
            seconds["cores"].append(timed(parts, 1))
    return report(name, workload, seconds, plain["steps"] * len(plain["runs"]), plain["flops"], rate * cores)


def report(
    name: str, workload: Workload, seconds: dict[str, list[float]], steps: int, flops: float, rate: float
) -> bool:
    """Print one workload; True if it keeps what is asked of it."""
    medians = {key: statistics.median(values) for key, values in seconds.items()}
    ratios = (medians["one"] / medians["lrsweep"], medians["cores"] / medians["lrsweep"])
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    fine = all(ratio >= least for ratio, least in zip(ratios, workload.least, strict=True))
    print(
        f"{name}: lrsweep {medians['lrsweep']:.1f} s, plain loop {medians['one']:.1f} s, "
        f"one per core {medians['cores']:.1f} s (medians of {len(seconds['one'])})\n"
        f"   {ratios[0]:.2f}x the loop (least {workload.least[0]:g}, aim {workload.aim[0]:g}), "
        f"{ratios[1]:.2f}x one per core (least {workload.least[1]:g}, aim {workload.aim[1]:g}): "
        f"{'fine' if fine else 'TOO SLOW'}\n"
        f"   {medians['lrsweep'] / steps * 1e6:.1f} us a member step, "
        f"{flops * steps / medians['lrsweep'] / rate:.1%} of the cores' GEMM rate, largest process {peak:.0f} MiB",
        flush=True,
    )
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], help="default: all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the epochs or steps, for a quick look")
    given = parser.parse_args()
    names = given.workloads or list(WORKLOADS)
    rate = gemm_rate()
    print(f"{available_cores()} cores, {rate / 1e9:.0f} GFLOP/s in products of matrices on one", flush=True)
    return 0 if all([bench(name, WORKLOADS[name], given.repeats, given.fraction, rate) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
