"""Sweeps as batch jobs: what is submitted, and that a job which is preempted ends with the numbers of `lrsweep run`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrsweep.errors import BusyError, SpecError, StorageError, UsageError, WrongOption
from lrsweep.results import batch_job
from lrsweep.results.status import status
from lrsweep.store import lock
from lrsweep.sweep import submit as submitting
from lrsweep.sweep.progress import Silent
from lrsweep.workers import worker
from tests.support import sweeps
from tests.support.slurm import NUMBER, Cluster

needs_submitit = pytest.mark.usefixtures("submitit")
LONG = sweeps.spec(
    name="long", train={"steps": 30_000, "batch_size": 20, "eval_every": {"steps": 10_000}}, optimizers=["sgd"]
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.one_thread()


@pytest.fixture
def submitit() -> None:
    pytest.importorskip("submitit")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return written(tmp_path, sweeps.spec())


def written(folder: Path, spec: dict[str, Any]) -> Path:
    path = folder / f"{spec['name']}.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def submit(config: Path, results: Path, *, reporter: Any = None, **changed: Any) -> submitting.Submitted:
    options: dict[str, Any] = {"set": (), "device": "auto", "workers": "auto", "cluster": "slurm", **changed}
    names = submitting.Allocation.__dataclass_fields__
    asked = submitting.Allocation(**{name: options.pop(name) for name in list(options) if name in names})
    return submitting.submit(config, asked, results=results, reporter=reporter or Silent(), **options)


def flags(script: Path) -> dict[str, str]:
    """The options of a script for sbatch."""
    lines = [line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


@needs_submitit
def test_the_script_asks_for_what_was_asked_for(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    made = submit(
        config, tmp_path / "results", partition="gpu", time="1-02:30:00", gpus=2, cpus=8, memory="500M", account="lab"
    )
    scripts = tmp_path / "results" / "small" / "slurm"
    assert (made.job, made.folder, made.cancel) == (NUMBER, scripts, f"scancel {NUMBER}")
    assert [call.split()[0] for call in cluster.calls] == ["sbatch"]
    found = flags(scripts / f"{NUMBER}_submission.sh")
    assert (
        found.items()
        >= {
            **{"partition": "gpu", "time": "1590", "gpus-per-node": "2", "cpus-per-task": "8", "mem": "500M"},
            **{"account": "lab", "job-name": "small", "signal": "USR2@120", "requeue": "", "open-mode": "append"},
            **{"output": f"{scripts}/%j_0_log.out", "error": f"{scripts}/%j_0_log.err"},
        }.items()
    )
    assert " --cpus-per-task=8 " in (scripts / f"{NUMBER}_submission.sh").read_text()


@needs_submitit
def test_what_is_not_asked_for_is_left_to_the_cluster(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    submit(config, tmp_path / "results")
    found = flags(tmp_path / "results" / "small" / "slurm" / f"{NUMBER}_submission.sh")
    assert not {"partition", "gpus-per-node", "cpus-per-task", "mem", "account"} & set(found)
    assert (found["time"], found["signal"]) == ("240", "USR2@120")


@needs_submitit
def test_a_short_job_is_warned_at_half_of_its_time(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    submit(config, tmp_path / "results", time="2:30")
    found = flags(tmp_path / "results" / "small" / "slurm" / f"{NUMBER}_submission.sh")
    assert (found["time"], found["signal"]) == ("3", "USR2@90")


@needs_submitit
def test_the_job_holds_plain_values(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    """Whoever loads it needs lrsweep's name for one function, and no class of it."""
    import pickletools

    submit(config, tmp_path / "results", set=("seeds=1",), cpus=2)
    pickled = (tmp_path / "results" / "small" / "slurm" / f"{NUMBER}_submitted.pkl").read_bytes()
    texts = [argument for _, argument, _ in pickletools.genops(pickled) if isinstance(argument, str)]
    assert [text for text in texts if text.startswith("lrsweep")] == ["lrsweep.sweep.submit"]
    assert {str(config), f"--results={tmp_path / 'results'}", "--set=seeds=1", "--workers=2"} <= set(texts)


@needs_submitit
def test_nothing_else_is_written(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    submit(config, tmp_path / "results")
    assert [path.name for path in (tmp_path / "results" / "small").iterdir()] == ["slurm"]


@needs_submitit
@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"set": ("train.epochs=0",)}, SpecError, "train.epochs"),
        ({"set": ("objective.metric=val_nothing",)}, UsageError, "val_nothing"),
        ({"time": "soon"}, WrongOption, "time='soon': give a time such as 4:00:00"),
        ({"time": "0"}, WrongOption, "time='0': give a time"),
        ({"memory": "8 GB"}, WrongOption, "memory='8 GB': give a whole number with a unit"),
        ({"device": "cuda"}, WrongOption, "the job would have no GPU; add --gpus 1"),
    ],
)
def test_a_mistake_submits_nothing(
    tmp_path: Path, cluster: Cluster, config: Path, changed: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as raised:
        submit(config, tmp_path / "results", **changed)
    assert text in str(raised.value)
    assert not cluster.calls
    assert not (tmp_path / "results").exists()


@needs_submitit
def test_a_sweep_whose_runs_fail_is_not_submitted(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "mine.py").write_text("def model():\n    raise ValueError('no weights today')\n")
    config = written(tmp_path, sweeps.spec(model={"name": "mine.py:model"}))
    made = submit(config, tmp_path / "results")
    assert made.job is None
    assert "no weights today" in made.estimate.errors[0]
    assert not cluster.calls
    assert not (tmp_path / "results").exists()


@needs_submitit
def test_code_that_needs_a_gpu_is_tried_by_the_job(tmp_path: Path, cluster: Cluster) -> None:
    """A login node rarely has one."""
    (tmp_path / "mine.py").write_text("def model():\n    raise RuntimeError('No CUDA GPUs are available')\n")
    config, told = written(tmp_path, sweeps.spec(model={"name": "mine.py:model"})), Silent()
    notes: list[str] = []
    told.note = notes.append  # type: ignore[method-assign]
    assert submit(config, tmp_path / "results", gpus=1, reporter=told).job == NUMBER
    assert any("fails without a GPU" in note and "No CUDA GPUs are available" in note for note in notes)


@needs_submitit
def test_a_job_that_sbatch_refuses_leaves_nothing(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    cluster.tool("sbatch", "echo 'sbatch: error: invalid partition specified: gpux' >&2; exit 1")
    with pytest.raises(UsageError, match=r"^sbatch: error: invalid partition specified: gpux$"):
        submit(config, tmp_path / "results", partition="gpux")
    assert not (tmp_path / "results").exists()


@needs_submitit
def test_a_sweep_that_is_done_is_not_submitted(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    sweeps.run(tmp_path / "results", config)
    assert submit(config, tmp_path / "results").job is None
    assert not cluster.calls


@needs_submitit
@pytest.mark.parametrize("word", ["PENDING", "RUNNING"])
def test_a_second_job_of_a_sweep_is_refused(tmp_path: Path, cluster: Cluster, config: Path, word: str) -> None:
    submit(config, tmp_path / "results")
    cluster.queue(f"{NUMBER} {word}")
    with pytest.raises(BusyError, match=f"job {NUMBER} is (queued|running); .*`scancel {NUMBER}`"):
        submit(config, tmp_path / "results")
    cluster.queue(f"{NUMBER} CANCELLED")
    assert submit(config, tmp_path / "results").job == NUMBER


@needs_submitit
def test_a_sweep_that_runs_is_not_submitted(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    (tmp_path / "results" / "small").mkdir(parents=True)
    with lock.hold(tmp_path / "results" / "small"), pytest.raises(BusyError, match="in use by process"):
        submit(config, tmp_path / "results")
    assert not cluster.calls


def test_without_submitit_the_extra_is_named(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'^submit needs submitit: pip install "lrsweep\[slurm\]"$'):
        submit(config, tmp_path / "results")


@needs_submitit
def test_without_sbatch_it_says_where_to_go(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"^sbatch is not on this machine; .*--cluster local$"):
        submit(config, tmp_path / "results")
    assert not (tmp_path / "results").exists()


@needs_submitit
def test_nothing_is_written_behind_a_link(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "results" / "small").mkdir(parents=True)
    (tmp_path / "results" / "small" / "slurm").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="symbolic link"):
        submit(config, tmp_path / "results")
    assert not list((tmp_path / "elsewhere").iterdir())


@needs_submitit
def test_a_path_that_slurm_reads_something_into_is_refused(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    with pytest.raises(UsageError, match="cannot write into a path with '%'"):
        submit(config, tmp_path / "50%")
    assert not cluster.calls


def test_the_worker_count_is_that_of_the_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "12")
    assert submitting._command(["run", "x.yaml"])[-1] == "--workers=12"
    assert submitting._command(["run", "x.yaml", "--workers=3"])[-1] == "--workers=3"


@pytest.mark.parametrize(
    ("came", "word", "goes_on"),
    [
        ({signal.SIGUSR2}, "COMPLETING", True),  # before the time limit: asked to come back
        ({signal.SIGTERM}, "RUNNING", True),  # in its grace time before a preemption
        ({signal.SIGTERM}, "COMPLETING", False),  # cancelled
        ({signal.SIGTERM}, "", False),
        ({signal.SIGTERM, signal.SIGUSR2}, "RUNNING", True),
        ({signal.SIGINT}, "RUNNING", False),
    ],
)
def test_a_job_that_was_cancelled_does_not_come_back(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, came: set[int], word: str, goes_on: bool
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", NUMBER)
    cluster.queue(f"{NUMBER} {word}" if word else "")
    assert submitting._goes_on(came) is goes_on


# --- real sweeps ---


def lrsweep(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lrsweep", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def until(reached: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def outcomes(folder: Path) -> int:
    """Of how many runs the journal tells the end."""
    return sum(path.read_text().count('"kind":"outcome"') for path in (folder / "journal").glob("*.jsonl"))


def children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descendants(pid: int) -> list[int]:
    found = children(pid)
    return found + [below for child in found for below in descendants(child)]


def finished(folder: Path) -> bool:
    return any((folder / "slurm").glob("*_0_result.pkl"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of the long sweep by `lrsweep run`."""
    folder = tmp_path_factory.mktemp("alone")
    assert lrsweep("run", written(folder, LONG), "--workers=1", cwd=folder).returncode == 0
    return sweeps.tables(folder / "results" / "long")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


@needs_submitit
@pytest.mark.slow
def test_a_local_job_ends_with_the_tables_of_run(tmp_path: Path, config: Path) -> None:
    sent = lrsweep("submit", config, "--cluster=local", "--cpus=1", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    folder = tmp_path / "results" / "small"
    number = json.loads((folder / "slurm" / "job.json").read_text())["id"]
    assert f"small: submitted as local job {number}, 12 runs to train" in sent.stdout
    until(lambda: finished(folder))
    assert lrsweep("run", config, "--results=again", cwd=tmp_path).returncode == 0
    assert sweeps.tables(folder) == sweeps.tables(tmp_path / "again" / "small")
    assert "12 of 12 runs done, 0 to do" in lrsweep("status", "results", cwd=tmp_path).stdout


@needs_submitit
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM], ids=lambda number: number.name)
def test_a_local_job_that_is_preempted_goes_on(tmp_path: Path, alone: dict[str, bytes], number: signal.Signals) -> None:
    """From where it was: the second start trains less than the first, and the tables are those without a stop."""
    sent = lrsweep("submit", written(tmp_path, LONG), "--cluster=local", "--cpus=1", cwd=tmp_path)
    assert sent.returncode == 0, sent.stderr
    folder = tmp_path / "results" / "long"
    (job,) = batch_job.jobs_of([folder]).values()
    assert job.state == "running"  # the command has not waited for it
    until(lambda: outcomes(folder) >= 2)  # those that diverge at once
    (process,) = children(int(job.id))  # the one that submitit starts in a shell of its own on a cluster
    os.kill(process, number)
    until(lambda: finished(folder))
    said = job.log.read_text()
    assert f"stopped by {number.name}: 2 of 6 runs saved in {folder} and 4 more trained in part" in said
    assert said.count("$ ") == 2
    assert "2 of 6 done before" in said
    assert sweeps.tables(folder) == alone
    assert status(folder).job.state == "done"  # type: ignore[union-attr]


@needs_submitit
@pytest.mark.slow
def test_a_slurm_job_is_requeued_before_its_time_limit(
    tmp_path: Path, cluster: Cluster, log: Path, alone: dict[str, bytes]
) -> None:
    submit(written(tmp_path, LONG), tmp_path / "results")
    folder = tmp_path / "results" / "long"
    script = folder / "slurm" / f"{NUMBER}_submission.sh"
    first = cluster.started(script, log)
    until(lambda: outcomes(folder) >= 2)
    for process in descendants(first.pid):  # SLURM signals all of them, but not the script
        os.kill(process, signal.SIGUSR2)
    assert first.wait(60) != 0
    assert cluster.calls[-1] == f"scontrol requeue {NUMBER}"
    second = cluster.started(script, log)
    assert second.wait(120) == 0, log.read_text()
    assert "--workers=1" in log.read_text()
    assert sweeps.tables(folder) == alone


@needs_submitit
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "asked", "said"),
    [
        (signal.SIGTERM, {}, "stopped by SIGTERM"),  # cancelled
        (signal.SIGUSR2, {"time": "5", "requeues": 0}, "timed-out too many times. Run lrsweep submit again to resume."),
    ],
)
def test_a_slurm_job_that_does_not_come_back_is_saved(
    tmp_path: Path, cluster: Cluster, log: Path, number: signal.Signals, asked: dict[str, Any], said: str
) -> None:
    submit(written(tmp_path, LONG), tmp_path / "results", **asked)
    folder = tmp_path / "results" / "long"
    cluster.queue(f"{NUMBER} COMPLETING")
    job = cluster.started(folder / "slurm" / f"{NUMBER}_submission.sh", log)
    until(lambda: outcomes(folder) >= 2)
    for process in descendants(job.pid):
        os.kill(process, number)
    assert job.wait(60) == 128 + number
    assert said in log.read_text()
    assert "Traceback" not in log.read_text()
    assert not any(call.startswith("scontrol") for call in cluster.calls)
    assert status(folder).done == 2
    assert list((folder / "checkpoints").glob("*.pt"))


@needs_submitit
@pytest.mark.slow
def test_a_sweep_does_not_outlive_its_job(tmp_path: Path, cluster: Cluster, log: Path) -> None:
    submit(written(tmp_path, LONG), tmp_path / "results")
    folder = tmp_path / "results" / "long"
    job = cluster.started(folder / "slurm" / f"{NUMBER}_submission.sh", log)
    until(lambda: outcomes(folder) >= 2)
    os.kill(children(job.pid)[0], signal.SIGKILL)
    assert job.wait(60) == 128 + signal.SIGKILL
    until(lambda: not lock.is_held(folder))
    assert status(folder).done == 2
    assert list((folder / "checkpoints").glob("*.pt"))


@needs_submitit
@pytest.mark.slow
def test_a_mistake_that_shows_in_the_job_ends_it_with_the_code_of_the_sweep(
    tmp_path: Path, cluster: Cluster, log: Path
) -> None:
    config = written(tmp_path, sweeps.spec())
    submit(config, tmp_path / "results")
    config.write_text("task: no_such_task\n")
    job = cluster.started(tmp_path / "results" / "small" / "slurm" / f"{NUMBER}_submission.sh", log)
    assert job.wait(60) == 2
    assert "no_such_task" in log.read_text()
    assert not any(call.startswith("scontrol") for call in cluster.calls)


@needs_submitit
@pytest.mark.slow
def test_a_debug_job_runs_here(tmp_path: Path, config: Path) -> None:
    ran = lrsweep("submit", config, "--cluster=debug", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "12 runs" in ran.stdout
    assert status(tmp_path / "results" / "small").done == 12
