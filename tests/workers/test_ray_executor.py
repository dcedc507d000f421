"""What is Ray's alone: how it is started, what it leaves behind, what is said where it cannot be used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lrsweep.errors import LimitError, UsageError, WrongOption
from lrsweep.sweep.progress import Silent, Start, Update
from lrsweep.user_imports import one_version
from lrsweep.workers import needed, ray_executor
from lrsweep.workers.messages import WorkerConfig
from tests.support import places, sweeps

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


class Watching(Silent):
    """Which processes there are while a sweep trains, and where they take connections."""

    def __init__(self) -> None:
        super().__init__()
        self.pids: list[int] = []
        self.listening: set[str] = set()

    def start(self, start: Start) -> None:
        (driver,) = drivers()
        self.pids = places.processes_of_session(driver)
        self.listening = places.listening(self.pids)


def drivers() -> list[int]:
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(child) for child in children if "ray_driver" in Path(f"/proc/{child}/cmdline").read_text()]


@places.needs_ray
def test_a_small_sweep_in_a_cluster_of_this_machine_leaves_nothing_behind(tmp_path: Path) -> None:
    sweeps.run(tmp_path / "local")
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    before = dict(os.environ), threading.enumerate(), handlers, "ray" in sys.modules
    watching = Watching()
    sweeps.run(tmp_path / "ray", executor="ray", reporter=watching)
    assert sweeps.tables(tmp_path / "ray" / "small") == sweeps.tables(tmp_path / "local" / "small")
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    assert (dict(os.environ), threading.enumerate(), handlers, "ray" in sys.modules) == before
    assert len(watching.pids) > 3
    assert watching.listening
    assert watching.listening <= LOOPBACK
    assert not [pid for pid in watching.pids if Path(f"/proc/{pid}").exists()]


@places.needs_ray
def test_a_mistake_that_is_found_while_ray_starts_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []
    begin = ray_executor.Cluster.begin

    def begun(self: ray_executor.Cluster, *arguments: Any) -> None:
        begin(self, *arguments)
        assert self._process is not None
        started.append(self._process.pid)
        until = time.monotonic() + 60
        while len(places.processes_of_session(started[0])) < 3 and time.monotonic() < until:
            time.sleep(0.02)

    monkeypatch.setattr(ray_executor.Cluster, "begin", begun)
    (tmp_path / "own.py").write_text(OWN)
    spec = sweeps.spec(task=f"{tmp_path}/own.py:make_task", objective={"metric": "val_f1", "mode": "max"})
    del spec["model"]
    with pytest.raises(UsageError, match="does not record 'val_f1'"):
        sweeps.run(tmp_path / "results", spec, executor="ray")
    (driver,) = started
    until = time.monotonic() + 20
    while (left := places.processes_of_session(driver)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not left
    assert not list((tmp_path / "results").iterdir())


OWN = """
import torch
from torch import nn

from lrsweep import Task

def make_task():
    x = torch.arange(60.0).reshape(20, 3) / 60
    metrics = {"mse": nn.functional.mse_loss}
    build = lambda: nn.Linear(3, 1)
    return Task(train=(x, x[:, :1]), val=(x, x[:, :1]), model=build, loss=nn.functional.mse_loss, metrics=metrics)
"""


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as info:
        sweeps.run(tmp_path, executor="ray")
    assert str(info.value) == "executor='ray': needs Ray: pip install \"lrsweep[ray]\""
    assert not list(tmp_path.iterdir())


@places.needs_ray
@pytest.mark.parametrize("address", ["head", "ray://head:10001", "head:port"])
def test_an_address_that_means_nothing_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(WrongOption, match="give host:port of the head node"):
        sweeps.run(tmp_path, executor="ray", address=address)


@places.needs_ray
def test_an_address_where_nothing_answers_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        sweeps.run(tmp_path, executor="ray", address="127.0.0.1:1")
    assert str(info.value).startswith("--address 127.0.0.1:1: the Ray cluster cannot be used: ")
    assert "refused" in str(info.value)
    assert not list(tmp_path.iterdir())


# What a machine lacks.


def test_a_machine_without_what_training_takes_says_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n1,2\n")
    with one_version() as versions:
        versions.digests = {str(tmp_path / "data.csv"): "0" * 64, str(tmp_path / "gone.csv"): "0" * 64}
        versions.sources = {str(tmp_path / "task.py"): b"import torch, pytest\nimport nowhere\n"}
        wanted = needed.here(versions)
    assert "torch" in wanted.modules
    assert "nowhere" not in wanted.modules, "the command has not imported it either"
    assert needed.missing(wanted, sys.path) == [], "this is the machine itself"
    other = replace(wanted, host="another", versions=wanted.versions | {"torch": "1.0", "lrsweep": "0.0"})
    found = needed.missing(other, [str(tmp_path)])
    assert f"{tmp_path}/data.csv is another file" in found
    assert f"{tmp_path}/gone.csv is not there" in found
    assert "torch cannot be imported" in found
    assert any(text.startswith("torch ") and text.endswith("in place of 1.0") for text in found)
    assert any(text.startswith("lrsweep ") and text.endswith("in place of 0.0") for text in found)


@pytest.mark.slow
@places.needs_ray
def test_what_a_machine_lacks_ends_the_command_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needed.platform, "node", lambda: "the machine of the sweep")
    monkeypatch.setattr(needed, "__version__", "0.0")
    with pytest.raises(UsageError, match=r"lacks what training takes: lrsweep \S+ in place of 0\.0\. Install it there"):
        sweeps.run(tmp_path, executor="ray")


# What a worker is given of its machine.


class Unstarted:
    """In place of a cluster: what it is asked for."""

    def __init__(self) -> None:
        self.needs: list[dict[str, float]] = []
        self.sent: list[tuple[Any, ...]] = []
        self.ready, self.send = self.needs.append, self.sent.append


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("cuda", 1.0)])
def test_every_worker_asks_for_its_cores_and_gpus(device: str, gpus: float, tmp_path: Path) -> None:
    """Always for a number of GPUs: Ray would leave a worker that asks for none those of all others."""
    cluster: Any = Unstarted()
    config = WorkerConfig(folder=str(tmp_path), device=device, parent=os.getpid(), checkpoint_seconds=1.0, threads=3)
    ray_executor.Ray(cluster, config, 2).start()
    wanted = {"num_cpus": 3.0, "num_gpus": gpus}
    assert cluster.needs == [wanted]
    assert [command[:3] for command in cluster.sent] == [("start", 2, wanted)]


@pytest.mark.slow
@places.needs_ray
def test_a_worker_sees_its_own_gpu_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Ray says that there are two, which is all that it needs to hand them out; the workers train on the CPU."""
    send = ray_executor.Cluster.send

    def with_gpus(self: ray_executor.Cluster, command: tuple[Any, ...]) -> None:
        if command[0] is None:
            command = (None, {**command[1], "num_gpus": 2}, command[2])
        elif command[0] == "start":
            command = (*command[:2], {**command[2], "num_gpus": 1.0}, *command[3:])
        send(self, command)

    monkeypatch.setattr(ray_executor.Cluster, "send", with_gpus)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    build = 'def build():\n    print("it sees", os.environ["CUDA_VISIBLE_DEVICES"])\n    return nn.Linear(3, 1)\n'
    own = OWN.replace("import torch\n", "import os\nimport torch\n").replace("def make_task", f"{build}\ndef make_task")
    (tmp_path / "own.py").write_text(own.replace("build = lambda: nn.Linear(3, 1)", "pass"))
    spec = sweeps.spec(task=f"{tmp_path}/own.py:make_task", train={"steps": 5, "batch_size": 10})
    del spec["model"]
    sweeps.run(tmp_path / "results", spec, executor="ray", workers=2)
    seen = {line.removeprefix("it sees ") for line in capfd.readouterr().err.splitlines() if line.startswith("it sees")}
    assert seen == {"0", "1"}


# A cluster of two machines.

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print("address", cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@contextmanager
def two_machines() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a cluster with two simulated machines, and a process that kills one for each line it is sent."""
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            address = next(line.split()[1] for line in process.stdout if line.startswith("address"))
            yield address, process
            process.stdin.close()
            process.wait(60)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Killing(Silent):
    """Kills a machine once both have made steps."""

    def __init__(self, cluster: subprocess.Popen[str]) -> None:
        super().__init__()
        self._cluster, self.done = cluster, False

    def update(self, update: Update) -> None:
        if not self.done and update.run_steps > 5_000:
            self.done = True
            assert self._cluster.stdin is not None
            self._cluster.stdin.write("now\n")
            self._cluster.stdin.flush()


@pytest.mark.slow
@places.needs_ray
def test_a_machine_that_is_lost_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**ray_executor.ONLY_HERE, "RAY_AUTH_TOKEN": "0" * 64}.items():
        monkeypatch.setenv(name, value)
    train = {"steps": 20_000, "batch_size": 20, "eval_every": {"steps": 10_000}}
    spec = sweeps.spec(train=train, optimizers=["sgd"])
    sweeps.run(tmp_path / "local", spec, workers=2)
    with two_machines() as (address, cluster):
        killing = Killing(cluster)
        sweeps.run(tmp_path / "ray", spec, executor="ray", address=address, workers="auto", reporter=killing)
    assert killing.done
    assert any("was lost" in note and "trained elsewhere" in note for note in killing.notes), killing.notes
    assert sweeps.tables(tmp_path / "ray" / "small") == sweeps.tables(tmp_path / "local" / "small")


class Ending(Silent):
    """Kills Ray's driver, and with it the cluster, once steps have been made."""

    def update(self, update: Update) -> None:
        for pid in drivers() if update.run_steps > 0 else ():
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@places.needs_ray
def test_a_cluster_that_is_lost_costs_what_was_not_yet_saved(tmp_path: Path) -> None:
    spec = sweeps.spec(train={"steps": 8_000, "batch_size": 20, "eval_every": {"steps": 4_000}}, optimizers=["sgd"])
    with pytest.raises(LimitError) as info:
        sweeps.run(tmp_path, spec, executor="ray", reporter=Ending())
    assert str(info.value).startswith("the Ray cluster was lost; finished runs are saved, rerun the command to resume")
    sweeps.run(tmp_path, spec)
    sweeps.run(tmp_path / "local", spec)
    assert sweeps.tables(tmp_path / "small") == sweeps.tables(tmp_path / "local" / "small")
