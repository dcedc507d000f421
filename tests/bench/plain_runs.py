"""The training script of tests/bench/own_work.py: the plain loop, one process of one thread per core.

`python -m tests.bench.plain_runs RUNS OUT.csv PART PARTS` trains every PARTS-th run of RUNS (a pickled list of recipe,
learning rate and seed) from PART on. The task is made once, as a script would; `plain_loop` says what a run does.
"""

from __future__ import annotations

import csv
import pickle
import sys
from pathlib import Path

from lrsweep import Task
from tests.support import plain_loop


def main(runs_path: str, out_path: str, part: int, parts: int) -> None:
    runs: list[tuple[plain_loop.Recipe, float, int]] = pickle.loads(Path(runs_path).read_bytes())
    tasks: dict[str, Task] = {}
    with Path(out_path).open("w", newline="") as stream:
        writer = csv.writer(stream)
        for recipe, lr, seed in runs[part::parts]:
            key = repr((recipe.task, recipe.task_args))
            with plain_loop.numbers(recipe.dtype):
                if key not in tasks:
                    tasks[key] = plain_loop.make_task(recipe)
                for row in plain_loop.rows(recipe, lr, seed, tasks[key]):
                    writer.writerow([recipe.optimizer, lr, seed, *row.values()])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
