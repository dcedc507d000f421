"""Training on a device that is neither the CPU nor CUDA: the numbers of the CPU, and no step waits for the device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lrsweep import plan
from lrsweep.errors import StoppedError
from lrsweep.plan import Run
from lrsweep.run_result import NoHooks, RunResult
from lrsweep.spec.load import load_spec
from lrsweep.training import ramp, sequential, stacked, survivors, workload
from lrsweep.training.audit import AuditFailedError
from lrsweep.workers import device_memory, local, worker
from tests.support import pretend, sweeps
from tests.support.oracle import HERE

ITS_PROCESS = "LRSWEEP_TEST_PRETENDED"
ours = ITS_PROCESS in os.environ
if ours:
    pretend.device()  # before anything is differentiated: autograd counts the devices once
on_device = pytest.mark.skipif(not ours, reason="runs in a process of its own, by the first test")
# What computes otherwise on the CPU, or is there for the CPU alone.
OF_THE_CPU = "fused,kernels,onednn,channels,predict_by_max"
ALL_RATES = [1e-3, 0.1, 10.0, 1e38]
RULES: list[Any] = [
    "sgd",
    {"name": "sgd", "label": "momentum", "momentum": 0.9, "nesterov": True},
    {"name": "adam", "weight_decay": 0.1},
    {"name": "adamw", "label": "decoupled", "weight_decay": 0.3},
    {"name": "adamw", "independent_weight_decay": 0.01},
    {"name": "rmsprop", "centered": True, "momentum": 0.5},
    "adagrad",
]
BLOBS = {"name": "blobs", "n": 90, "centers": 3}


@pytest.fixture(autouse=True)
def _no_tricks_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRSWEEP_PLAIN", OF_THE_CPU)


def spec(**changed: Any) -> dict[str, Any]:
    train = {"epochs": 3, "batch_size": 20} | changed.pop("train", {})
    made = {"name": "x", "task": BLOBS, "model": {"name": "mlp"}, "lr": ALL_RATES, "optimizers": RULES, "seeds": 2}
    return {**made, "train": train, **changed}


def own(net: str, **more: Any) -> dict[str, Any]:
    """A task of tests/support/stacked_tasks.py."""
    return spec(task={"name": f"{HERE}/stacked_tasks.py:task", "net": net, **more}, model=None, seeds=1)


def planned(of: dict[str, Any], device: torch.device | str) -> tuple[tuple[Run, ...], workload.Workload]:
    loaded = load_spec({key: value for key, value in of.items() if value is not None})
    runs = plan.build(loaded, plan.fingerprints(loaded)).runs
    return runs, workload.build(runs[0].workload_spec, device)


def together(of: dict[str, Any], device: torch.device | str, hooks: Any = None) -> dict[str, RunResult]:
    runs, prepared = planned(of, device)
    return {one.run_id: one for one in stacked.train(runs, prepared, hooks or NoHooks())}


def alone(of: dict[str, Any], device: torch.device | str, **options: Any) -> dict[str, RunResult]:
    runs, prepared = planned(of, device)
    return {run.run_id: one for run in runs for one in sequential.train([run], prepared, NoHooks(), **options)}


def same(ours: dict[str, RunResult], wanted: dict[str, RunResult]) -> None:
    assert ours.keys() == wanted.keys()
    assert {one.error for one in ours.values()} == {None}
    for run_id, one in wanted.items():
        assert repr(ours[run_id]) == repr(one)  # nan is equal to nan


CASES: dict[str, dict[str, Any]] = {
    "every rule, seeds, runs that diverge": spec(),
    "clipping": spec(train={"clip_norm": 0.5}),
    "schedules": spec(
        axes={"schedule": [{"name": "cosine", "warmup": 3}, {"name": "plateau", "factor": 0.5, "patience": 1}]}
    ),
    "rows within an epoch": spec(train={"eval_every": {"steps": 2}}),
    "metrics and test split": spec(task="digits", lr=[0.1, 1e38], train={"metrics": True, "epochs": 1}),
    "float64": spec(train={"dtype": "float64"}),
    "convolutions": spec(task="digits", model={"name": "cnn"}, lr=[0.1, 1e38], optimizers=["sgd"], train={"epochs": 1}),
    "dropout": own("dropout"),
    "a loss that ends before the weights do": own("brittle") | {"lr": [0.01, 0.1, 0.3, 1.0]},
    "a number as a parameter": own("tempered"),
    "batch norm": own("batchnorm"),
    "shared parameter noise in evaluation": own("noisy_evaluation"),
    "batches that are dicts": spec(task={"name": f"{HERE}/tasks.py:dict_dataset"}, model=None, seeds=1),
    "a step of one's own": spec(task={"name": f"{HERE}/tasks.py:stepped"}, model=None, seeds=1),
    "examples of a Dataset": spec(task={"name": f"{HERE}/tasks.py:dataset"}, model=None, seeds=1),
    "parameters of one gradient": own("paired"),
    "a test split of one's own": own("mlp", test=True),
}
LONG = ("metrics and test split", "convolutions", "float64", "rows within an epoch", "parameters of one gradient")


@pytest.mark.skipif(ours or not pretend.available, reason="this torch has no Python backends")
@pytest.mark.parametrize("tier", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_in_a_process_that_has_such_a_device_all_tests_of_this_file_pass(tier: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-m", tier, "-p", "no:xdist", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=os.environ | {ITS_PROCESS: "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@on_device
@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in LONG)) for case in CASES])
def test_a_stack_on_another_device_has_the_numbers_of_the_cpu(case: str) -> None:
    of = CASES[case]
    wanted = together(of, "cpu")
    assert {"ok", "diverged"} == {one.status for one in wanted.values()}
    same(together(of, pretend.device()), wanted)


SOLO = ["clipping", "batch norm", "dropout", "examples of a Dataset", "schedules"]
SOLO += ["a loss that ends before the weights do", "rows within an epoch"]


def solo(case: str) -> dict[str, Any]:
    """Few runs of a case: some end, and these models have the same bits one by one."""
    return CASES[case] | {"lr": [0.1, 1.0, 1e30], "optimizers": ["sgd", "adam"], "seeds": 1}


@on_device
@pytest.mark.parametrize("captured", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", SOLO)
def test_a_run_alone_on_another_device_has_the_numbers_of_the_cpu(case: str, captured: bool) -> None:
    wanted = alone(solo(case), "cpu", captured=captured)
    assert {"ok", "diverged"} == {one.status for one in wanted.values()}
    same(alone(solo(case), pretend.device(), captured=captured), wanted)


@on_device
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("case", ["schedules", "batch norm", "a loss that ends before the weights do"])
def test_a_run_alone_that_was_stopped_goes_on_to_the_bit(case: str, step: int) -> None:
    wanted = alone(solo(case), "cpu", captured=True)
    runs, prepared = planned(solo(case), pretend.device())
    found = {}
    for run in runs:
        hooks, resumed = StopAt(step), NoHooks()
        try:
            found[run.run_id] = next(sequential.train([run], prepared, hooks, captured=True))
        except StoppedError:
            resumed.resume = hooks.saved or None
            found[run.run_id] = next(sequential.train([run], prepared, resumed, captured=True))
    same(found, wanted)


class StopAt(NoHooks):
    """Asks for a stop before the step that has this number in the order of the calls."""

    def __init__(self, step: int) -> None:
        self._left, self.saved = step, dict[str, Any]()

    @property
    def stopping(self) -> bool:  # type: ignore[override]
        self._left -= 1
        return self._left < 0

    def save(self, state: dict[str, Any]) -> None:
        self.saved = state


@on_device
@pytest.mark.parametrize("step", [1, pytest.param(5, marks=pytest.mark.slow), 7])
@pytest.mark.parametrize("case", ["schedules", pytest.param("clipping", marks=pytest.mark.slow), "batch norm"])
def test_a_stack_that_was_stopped_goes_on_to_the_bit(case: str, step: int) -> None:
    hooks = StopAt(step)
    with pytest.raises(StoppedError):
        together(CASES[case], pretend.device(), hooks)
    resumed = NoHooks()
    resumed.resume = hooks.saved
    same(together(CASES[case], pretend.device(), resumed), together(CASES[case], "cpu"))


@on_device
def test_a_range_test_has_the_numbers_of_the_cpu() -> None:
    (run, *_), there = planned(spec(), pretend.device())
    lrs = np.geomspace(1e-4, 10.0, 40)
    found, wanted = (ramp.train(run.setting, one, 0, lrs) for one in (there, planned(spec(), "cpu")[1]))
    assert repr(found) == repr(wanted)


def its_process(module: str, descriptor: int, path: Any = None, **options: Any) -> subprocess.Popen[bytes]:
    """As workers.local starts one, with the device in it."""
    command = f"import sys; sys.path[:] = {sys.path!r}; from tests.support import pretend; pretend.device(); "
    command += f"from {module} import main; main({descriptor})"
    given = {"stdin": subprocess.DEVNULL, **options}
    return subprocess.Popen([sys.executable, "-c", command], pass_fds=[descriptor], **given)


@on_device
@pytest.mark.parametrize("executor", ["in-process", pytest.param("local", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["clipping", pytest.param("examples of a Dataset", marks=pytest.mark.slow)])
def test_a_sweep_on_another_device_has_the_tables_of_the_cpu(
    case: str, executor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = {key: value for key, value in CASES[case].items() if value is not None} | {"lr": [0.1, 1.0, 1e30]}
    sweeps.run(tmp_path / "cpu", of, executor="local")
    monkeypatch.setattr(worker, "device_of", lambda wanted: str(pretend.device()))
    monkeypatch.setattr(local, "helper", its_process)
    pretend.log.clear()
    sweeps.run(tmp_path / "device", of, executor=executor)
    assert executor == "local" or pretend.log.uploads
    assert sweeps.tables(tmp_path / "device" / "x") == sweeps.tables(tmp_path / "cpu" / "x")
    manifest = json.loads((tmp_path / "device" / "x" / "manifest.json").read_text())
    assert ["a GPU may choose its kernels" in why for why in manifest["company"]["why_not"]] == [True]


@on_device
@pytest.mark.parametrize("tf32", [True, False])
def test_a_device_computes_deterministically_and_the_process_is_put_back(tf32: bool) -> None:
    """Warned of are operations that have no deterministic kernel there."""

    def now() -> list[object]:
        backends: Any = torch.backends
        precise = [one.fp32_precision for one in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn)]
        return [
            torch.are_deterministic_algorithms_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
            *precise,
        ]

    before = now()
    _, prepared = planned(spec(train={"tf32": tf32}), pretend.device())
    with prepared.user_code():
        assert now() == [True, False, *["tf32" if tf32 else "ieee"] * 3]
        assert torch.is_deterministic_algorithms_warn_only_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert now() == before
    _, on_cpu = planned(spec(), "cpu")
    with on_cpu.user_code():
        assert now() == before


@on_device
def test_the_memory_of_many_runs_is_foretold_by_few() -> None:
    runs, prepared = planned(spec(seeds=2), pretend.device())
    line = device_memory.measured(device_memory._sample(runs), prepared)
    whole = device_memory.measured(runs, prepared)
    assert line.room == pretend.Memory.TOTAL
    assert 1e4 < line.each < 1e7
    assert 0.2 < line.each / whole.each < 5.0
    assert line.most == int((device_memory.SHARE * line.room - line.base) / line.each)


STEPS_OF = {
    "constant rates": spec(train={"epochs": 4}),
    "rates that change": CASES["schedules"],
    "clipping": spec(train={"epochs": 4, "clip_norm": 0.5}),
    "batch norm": own("batchnorm") | {"train": {"epochs": 8, "batch_size": 20}},
    "metrics": spec(train={"epochs": 4, "metrics": True}),
    "data too large to be permuted": spec(train={"epochs": 4}),
}


@on_device
@pytest.mark.parametrize("case", STEPS_OF)
def test_no_step_between_two_rows_waits_for_the_device(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor are data copied to it, but at the beginning of an epoch. Runs diverge meanwhile."""
    if case == "data too large to be permuted":
        monkeypatch.setattr(workload, "PERMUTED_BYTES", 0)
    runs, prepared = planned(STEPS_OF[case], pretend.device())
    # An audit of the user's code compares numbers, and waits for them.
    monkeypatch.setattr(stacked.StackedTrainer, "_audit_of", lambda self, batch: None)
    quiet = 0
    with prepared.user_code():
        trainer = stacked.StackedTrainer(runs, prepared)
        trainer.start()
        while not trainer.done:
            first_of_epoch = trainer.step % prepared.steps_per_epoch == 0
            recorded = trainer.step >= prepared.steps_per_epoch  # every shape of batch was there before
            pretend.log.clear()
            trainer.train_step()
            if recorded and not prepared.is_row(trainer.step):
                quiet += 1
                assert pretend.log.waits == []
                assert first_of_epoch or pretend.log.uploads == []
        trainer.end()
    assert quiet >= 4
    assert {"ok", "diverged"} == {one.status for one in trainer.new_results()}


@on_device
@pytest.mark.parametrize("case", ["rates that change", "clipping", "batch norm"])
def test_no_recorded_step_of_a_run_alone_waits_for_the_device(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential.Trainer, "_audit_due", lambda self, batch: False)
    runs, prepared = planned(STEPS_OF[case] | {"lr": [0.1, 1e36], "optimizers": RULES[:3]}, pretend.device())
    quiet, results = 0, []
    for run in runs:
        with prepared.user_code():
            trainer = sequential.Trainer(run, prepared, captured=True)
            trainer.start()
            while not trainer.done:
                settled = trainer.step >= prepared.steps_per_epoch
                pretend.log.clear()
                trainer.train_step()
                if settled and not prepared.is_row(trainer.step):
                    quiet += 1
                    assert pretend.log.waits == []
            results.append(trainer.result())
    assert quiet > len(runs)
    assert {"ok", "diverged"} == {one.status for one in results}


@pytest.mark.skipif(ours, reason="needs no such device")
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_looking_at_rows_only_gives_the_results_of_looking_at_once(
    data: st.DataObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the CPU, with rates of which some blow up sooner or later."""
    # Runs leave the tensors when they are known to have ended, and these models give other last digits without them.
    monkeypatch.setattr(stacked, "COMPACT_SHARE", 2.0)
    # From 3e37 on torch's Adam raises, if it is not fused.
    rates = data.draw(st.lists(st.floats(-3, 36).map(lambda power: 10**power), min_size=2, max_size=5, unique=True))
    train = {
        "eval_every": {"steps": data.draw(st.integers(1, 9))},
        "clip_norm": data.draw(st.sampled_from([None, 0.3])),
    }
    net = data.draw(st.sampled_from(["mlp", "batchnorm", "brittle", "tempered", "noisy_evaluation"]))
    schedule = data.draw(st.sampled_from(["constant", "cosine", {"name": "plateau", "factor": 0.3, "patience": 1}]))
    task = {"name": f"{HERE}/stacked_tasks.py:task", "net": net, "loss": data.draw(st.sampled_from(["mse", "smooth"]))}
    of = spec(task=task, model=None, seeds=1, lr=rates, train=train, schedule=schedule)
    try:
        wanted = together(of, "cpu")
    except AuditFailedError:  # vmap's BatchNorm overflows where torch's does not: such runs are trained alone
        assume(False)
    few = of | {"optimizers": ["sgd", "adam"]}
    wanted_alone = alone(few, "cpu", captured=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survivors, "looks_at_once", lambda device: False)
        same(together(of, "cpu"), wanted)
        same(alone(few, "cpu", captured=True), wanted_alone)
