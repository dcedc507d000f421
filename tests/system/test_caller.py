"""Whoever imports and calls lrsweep finds their process as it was, and their settings change no number."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TASK = """
import torch
from lrsweep import Task

def make():
    x = torch.randn(24, 3, generator=torch.Generator().manual_seed(1))
    data = (x, x.sum(1, keepdim=True))
    model = lambda: torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5), torch.nn.Linear(2, 1))
    return Task(train=data, val=data, model=model, loss=lambda out, y: ((out - y) ** 2).mean())
"""

SNAPSHOT = """
import asyncio, gc, io, logging, multiprocessing, os, random, signal, sys, threading, time, warnings
import matplotlib, numpy, pandas, sklearn.datasets, torch
import matplotlib.figure, matplotlib.backends.backend_agg, sympy  # what a library's import changes is its own affair

HOOKS = [value for name, value in vars(sys.modules["torch.optim.optimizer"]).items() if name.startswith("_global_")]

def umask():
    return next(line for line in open("/proc/self/status") if line.startswith("Umask"))

def descriptors():
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            pass  # that of the listing itself
    caches = (".ttf", "/dev/shm/pym-")  # fonts that matplotlib keeps open, memory that multiprocessing does
    return {name: target for name, target in found.items() if not any(part in target for part in caches)}

def snapshot():
    gc.collect()
    return {
        "torch threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "modes": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu")),
        "precision": (torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()),
        "torch generator": torch.get_rng_state().tolist(),
        "numpy generator": repr(numpy.random.get_state()),
        "python generator": random.getstate(),
        "numpy errors": numpy.geterr(),
        "optimizer methods": {
            # torch keeps what its compiler makes of a method here; the method itself it never does
            name: (id(method), getattr(method.__wrapped__, "__dynamo_disable", None) is method.__wrapped__)
            for name, method in vars(torch.optim.Optimizer).items()
            if hasattr(method, "__wrapped__")
        },
        "optimizer hooks": [len(hooks) for hooks in HOOKS],
        "garbage collector": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count(), len(gc.callbacks)),
        "signal handlers": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "signal mask": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "rcParams": dict(matplotlib.rcParams),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "import path": [entry for entry in sys.path if entry != OWN],
        "warning filters": list(warnings.filters),
        "streams": [id(getattr(sys, name)) for name in ("stdin", "stdout", "stderr", "excepthook", "displayhook")],
        "logging": [(one.level, list(one.handlers)) for one in map(logging.getLogger, (None, "lrsweep"))],
        "umask": umask(),
        "descriptors": descriptors(),
        "children": open(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children").read().split(),
        "threads": threading.enumerate(),
        "limits": (sys.getrecursionlimit(), sys.getswitchinterval()),
    }

def compare(before, what):
    for name, value in snapshot().items():
        was = before[name]
        if isinstance(value, dict):
            keys = [key for key in {**was, **value} if was.get(key) != value.get(key)]
            was, value = [{key: each.get(key) for key in keys} for each in (was, value)]
        assert value == was, f"{what}: {name}: {was!r} became {value!r}"[:2000]
"""

SWEEPS = """
def spec(name, task):
    return {"name": name, "task": task, "lr": [0.01, 0.1], "optimizers": ["sgd", "asgd"], "seeds": 1,
            "train": {"epochs": 1, "batch_size": 12}}

def sweep():
    before = snapshot()
    import lrsweep
    compare(before, "import")
    lrsweep.dry_run(spec("dry", {"name": "own.py:make"}), results=OUT)
    compare(before, "dry_run")
    for workers in (1, 2):
        for name, task in (("own", {"name": "own.py:make"}), ("blobs", {"name": "blobs", "n": 40})):
            assert len(lrsweep.run(spec(f"{name}{workers}", task), results=OUT, workers=workers).runs) == 4
            compare(before, f"{name} with {workers} workers")
"""

PLACES = {
    "main thread": "sweep()",
    "another thread": """
found = []
def call():
    try:
        sweep()
    except BaseException as error:
        found.append(error)
thread = threading.Thread(target=call)
thread.start()
thread.join()
assert not found, found
""",
    "notebook": """
class Stream(io.TextIOBase):  # as that of a kernel: no descriptor, no encoding
    def write(self, text):
        return len(text)

async def cell():
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, print)
    sweep()

sys.stdout = sys.stderr = Stream()
try:
    asyncio.run(cell())
except BaseException as error:
    sys.__stderr__.write(f"{error!r}")
    raise
""",
}


def python(code: str, folder: Path) -> None:
    (folder / "own.py").write_text(TASK)
    head = f"OWN, OUT = {str(folder)!r}, {str(folder / 'results')!r}\n"
    command = [sys.executable, "-c", head + SNAPSHOT + SWEEPS + textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    "place", [place if place == "another thread" else pytest.param(place, marks=pytest.mark.slow) for place in PLACES]
)
def test_nothing_stays_behind_in_the_callers_process(place: str, tmp_path: Path) -> None:
    python(PLACES[place], tmp_path)


HOSTILE = """
torch.set_default_dtype(torch.float64)
torch.set_default_device("meta")
torch.set_float32_matmul_precision("medium")
torch.set_num_threads(2)
numpy.seterr(all="raise")
for seed in (torch.manual_seed, numpy.random.seed, random.seed):
    seed(7)
with torch.no_grad(), torch.autocast("cpu"):
    sweep()
with torch.inference_mode(), torch.device("meta"):
    import lrsweep
    lrsweep.run(spec("inference", {"name": "own.py:make"}), results=OUT, workers=1)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_settings_of_the_caller_change_no_number_and_stay(tmp_path: Path) -> None:
    for name, code in (("plain", PLACES["main thread"]), ("hostile", HOSTILE)):
        (tmp_path / name).mkdir()
        python(code, tmp_path / name)
    plain, hostile = tmp_path / "plain" / "results", tmp_path / "hostile" / "results"
    for name in ("own1", "own2", "blobs1", "blobs2", "inference"):
        for table in ("runs.csv", "curves.csv", "summary.csv"):
            expected = plain / ("own1" if name == "inference" else name) / table
            assert (hostile / name / table).read_bytes() == expected.read_bytes()
