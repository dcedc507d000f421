"""What keeps a start short: less is imported."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import torch

from lrsweep import optimizers
from lrsweep.system.process import few_collections

TRAINING = """
import sys
sys.path.insert(0, {here!r})
from tests.support.oracle import workload_spec
from tests.training.test_stacked import MIXED, captured, made, outcomes
from lrsweep.training import sequential, stacked

shared = workload_spec({{"name": "stacked_tasks.py:task"}}, steps=3)
for train in (stacked.train, captured, sequential.train):
    outcomes(train, made(shared, *MIXED), shared)
    assert "sympy" not in sys.modules, train
    assert "torch._dynamo" not in sys.modules, train
"""


def test_training_imports_neither_sympy_nor_the_compiler() -> None:
    code = TRAINING.format(here=str(Path(__file__).parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_search_for_garbage_is_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with few_collections():
        assert gc.get_threshold()[0] > before[0]
    assert gc.get_threshold() == before


def test_a_forked_worker_searches_as_usual_among_its_own_objects_only() -> None:
    code = (
        "import gc, lrsweep.system.process as startup\n"
        "usual = gc.get_threshold()\n"
        "class Loop: ...\n"
        "def loops():\n"
        "    made = Loop(); made.self = made\n"
        "    return made\n"
        "import weakref\n"
        "with startup.few_collections():\n"
        "    given = weakref.ref(loops())\n"
        "    startup.collect_own_objects()\n"
        "    assert gc.get_threshold() == usual\n"
        "    own = weakref.ref(loops())\n"
        "    gc.collect()\n"
        "    assert given() is not None and own() is None\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_torchs_optimizers_are_as_before_once_one_is_built() -> None:
    def shielded() -> set[str]:
        methods = vars(torch.optim.Optimizer).items()
        return {name for name, one in methods if hasattr(getattr(one, "__wrapped__", None), "__dynamo_disable")}

    before = shielded()
    with optimizers.without_compiler():
        assert "add_param_group" in shielded()
    optimizers.build("adam", {}, [torch.nn.Parameter(torch.zeros(2))], 0.1, ".")
    assert shielded() == before
