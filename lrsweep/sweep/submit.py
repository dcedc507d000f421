"""A sweep as one batch job, through submitit.

What crosses to the job is a function of this module by its name, and the words of a command line: in the allocation
`run_sweep` starts `lrsweep run`, which reads the spec and the user's files by their paths. The journal is the truth, so
a job that is requeued is the same command again.
"""

from __future__ import annotations

import atexit
import dataclasses
import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from lrsweep.errors import BusyError, UsageError, WrongOption
from lrsweep.results import batch_job
from lrsweep.store import atomic, lock
from lrsweep.system.folders import absolute, given
from lrsweep.system.signals import ENDING, stop_with_parent

if TYPE_CHECKING:
    from submitit import Job
    from submitit.core.core import Executor
    from submitit.core.utils import DelayedSubmission

    from lrsweep.sweep.dry_run import CostEstimate
    from lrsweep.sweep.progress import Reporter

CLUSTERS = ("slurm", "local", "debug")

WARNING_SECONDS = 120
"""Before the time limit, when the scheduler sends SIGUSR2; in a job of a few minutes half of its time at most."""
PATIENCE = 0.8
"""Of these, the share that the sweep may take to save itself. It is killed then, which loses a checkpoint at most: a
job that is still there at its limit could not be requeued."""
LOOK_SECONDS = 0.25
"""Between two looks at whether the sweep still runs."""
ASKING = tuple(one for one in ENDING if one.name in ("SIGUSR1", "SIGUSR2", "SIGTERM", "SIGINT"))
"""What ends a job: SIGUSR2, or SIGUSR1 by submitit's environment variable, before its time limit and its preemption;
SIGTERM at both and when it is cancelled; SIGINT from submitit's local executor."""

_MEMORY = re.compile(r"[1-9][0-9]*[KMGT]?")
_TIMES = (
    r"(?P<minutes>\d+)(:(?P<seconds>\d+))?",
    r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)",
    r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?",
)
"""As sbatch takes them."""


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What the job asks the scheduler for, on one node; None leaves it to the cluster.

    `time` and `memory` as sbatch takes them: `4:00:00`, `8G`. `requeues`: how often a job that ran into its time limit
    goes on; preemptions do not count. `minutes` is the time; `warning` seconds before its end the job is told.
    """

    time: str = "4:00:00"
    partition: str | None = None
    gpus: int = 0
    cpus: int | None = None
    memory: str | None = None
    account: str | None = None
    requeues: int = 3
    minutes: int = field(init=False)
    warning: int = field(init=False)

    def __post_init__(self) -> None:
        """Raises WrongOption."""
        if self.memory is not None and not _MEMORY.fullmatch(self.memory):
            raise WrongOption("memory", self.memory, "give a whole number with a unit, such as 8G or 500M")
        object.__setattr__(self, "minutes", _minutes(self.time))
        object.__setattr__(self, "warning", min(WARNING_SECONDS, 30 * self.minutes))


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that was submitted. `estimate`: of its sweep. `folder`: of its scripts and logs, as users are told it.

    `job` is None where nothing was submitted: all is done, or every run that was tried failed (`estimate.errors`).
    `exit_code`: that of the sweep, which is over already with the cluster `debug`.
    """

    estimate: CostEstimate
    folder: Path
    cluster: str
    job: str | None = None
    exit_code: int = 0

    @property
    def cancel(self) -> str:
        """The command that cancels the job."""
        return _cancel(self.cluster, str(self.job))


def submit(
    config: Path,
    allocation: Allocation,
    *,
    results: Path,
    set: Sequence[str],
    device: str,
    workers: int | str,
    cluster: str,
    reporter: Reporter,
) -> Submitted:
    """Check the spec as a dry run does, then submit one job that runs it.

    Writes the folder `slurm` in that of the sweep, and nothing else. Raises UsageError for what is wrong with the spec,
    the options and this machine, BusyError if the sweep is being run or submitted already, StorageError.
    """
    _check_machine(cluster, device, allocation)
    found = _checked(config, allocation, results=results, set=set, device=device, reporter=reporter)
    shown = Path(found.path)
    folder = absolute(shown)
    nothing = Submitted(estimate=found, folder=shown / batch_job.FOLDER, cluster=cluster)
    if not found.to_do or found.errors:
        return nothing
    _refuse_second(folder, shown)
    arguments = [
        *("run", str(absolute(given(config))), f"--results={folder.parent}", f"--device={device}", "--progress=plain"),
        *(f"--set={text}" for text in set),
    ]
    if workers != "auto" or allocation.cpus is not None:
        arguments.append(f"--workers={allocation.cpus if workers == 'auto' else workers}")
    with _scheduler_folder(folder) as scripts:
        executor = _executor(cluster, scripts, allocation, name=found.name)
        with _detached() if cluster == "local" else nullcontext():
            job = _sent(executor, arguments, PATIENCE * allocation.warning)
    if cluster == "debug":
        return dataclasses.replace(nothing, job=job.job_id, exit_code=job.result())
    batch_job.write(folder, cluster=cluster, job=job.job_id)
    return dataclasses.replace(nothing, job=job.job_id)


def _minutes(text: str) -> int:
    """Of a time as sbatch takes it, rounded up. Raises WrongOption."""
    for pattern in _TIMES:
        if match := re.fullmatch(pattern, text):
            part = {name: int(value or 0) for name, value in match.groupdict().items()}
            seconds = part.get("seconds", 0) + 60 * part.get("minutes", 0)
            seconds += 3600 * (part.get("hours", 0) + 24 * part.get("days", 0))
            if seconds:
                return -(-seconds // 60)
    raise WrongOption("time", text, "give a time such as 4:00:00, 90 (minutes) or 1-12:00:00 (with days)")


def _check_machine(cluster: str, device: str, allocation: Allocation) -> None:
    """Raises UsageError if nothing can be submitted from here."""
    if importlib.util.find_spec("submitit") is None:
        raise UsageError('submit needs submitit: pip install "lrsweep[slurm]"')
    if cluster == "slurm":
        if missing := [tool for tool in ("sbatch", "srun") if shutil.which(tool) is None]:
            raise UsageError(
                f"{missing[0]} is not on this machine; submit from a login node of a SLURM cluster, or try it here "
                "with --cluster local"
            )
        if device == "cuda" and not allocation.gpus:
            raise WrongOption("device", device, "the job would have no GPU; add --gpus 1")


def _checked(
    config: Path, allocation: Allocation, *, results: Path, set: Sequence[str], device: str, reporter: Reporter
) -> CostEstimate:
    """What a dry run finds, on the CPU where this machine has no GPU. Code of the user's that needs one cannot be tried
    there; that is told, and left to the job. Raises what a dry run raises."""
    from lrsweep.sweep import api

    on_gpu = device == "cuda" or (device == "auto" and allocation.gpus > 0)
    found = api.estimate(
        config,
        results=results,
        set=set,
        device="auto" if on_gpu else "cpu",
        workers=1,
        executor="local",
        compile="auto",
        refine=False,
        fresh=False,
        reporter=reporter,
    )
    if found.errors and on_gpu and found.device == "cpu":
        for text in found.errors:
            reporter.note(f"warning: fails without a GPU, which this machine lacks: {text}")
        found = dataclasses.replace(found, errors=())
    return found


def _refuse_second(folder: Path, shown: Path) -> None:
    """Raises BusyError while the sweep is run by a process, or a job of it is queued or running, and StorageError if
    the scheduler's folder is a link."""
    if lock.is_held(folder):
        raise BusyError(lock.busy_text(shown))
    job = batch_job.jobs_of([folder]).get(folder)
    if job is not None and job.state in ("queued", "running"):
        raise BusyError(
            f"{shown} was submitted already: job {job.id} is {job.state}; wait for it, or cancel it with "
            f"`{_cancel(job.cluster, job.id)}`"
        )


def _cancel(cluster: str, job: str) -> str:
    return f"scancel {job}" if cluster == "slurm" else f"kill -INT {job}"


@contextmanager
def _scheduler_folder(folder: Path) -> Iterator[Path]:
    """The folder for the scheduler's files. If nothing could be submitted, it is left as it was, or not there at all.

    Raises UsageError for a path that submitit and SLURM would read something else into, StorageError.
    """
    scripts = folder / batch_job.FOLDER
    if wrong := re.search(r"[%\\\n]", str(scripts)):
        raise UsageError(
            f"{folder}: SLURM cannot write into a path with {wrong[0]!r}; choose another one with --results"
        )
    missing = [path for path in (scripts, *scripts.parents) if not path.exists()]
    before = set(scripts.iterdir()) if scripts.is_dir() else set()
    atomic.make_folder(scripts)
    try:
        with atomic.storage_errors(scripts):
            yield scripts
    except BaseException:
        with suppress(OSError):
            for path in set(scripts.iterdir()) - before:
                path.unlink()
            for made in missing:
                made.rmdir()
        raise


def _executor(cluster: str, scripts: Path, allocation: Allocation, *, name: str) -> Executor:
    """submitit's, set up for this job."""
    import submitit
    from submitit.local.debug import DebugExecutor

    if cluster == "debug":
        return DebugExecutor(scripts)
    executor: Executor
    if cluster == "local":
        executor = submitit.LocalExecutor(scripts, max_num_timeout=allocation.requeues)
        executor.update_parameters(
            timeout_min=allocation.minutes,
            gpus_per_node=allocation.gpus,
            signal_delay_s=allocation.warning,
        )
        return executor
    wanted: dict[str, Any] = {
        "partition": allocation.partition,
        "account": allocation.account,
        "gpus_per_node": allocation.gpus or None,
        "cpus_per_task": allocation.cpus,
        "mem": allocation.memory,
        # srun does not take it from sbatch since SLURM 22.05, and would give the sweep one core
        "srun_args": [f"--cpus-per-task={allocation.cpus}"] if allocation.cpus else None,
    }
    executor = submitit.SlurmExecutor(scripts, max_num_timeout=allocation.requeues)
    executor.update_parameters(
        job_name=name,
        time=allocation.minutes,
        signal_delay_s=allocation.warning,
        additional_parameters={"requeue": True},  # where SLURM itself preempts, or a node fails
        **{key: value for key, value in wanted.items() if value is not None},
    )
    return executor


def _sent(executor: Executor, arguments: Sequence[str], patience: float) -> Job[int]:
    """Raises UsageError with what the scheduler said if it takes no such job."""
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    try:
        return executor.submit(run_sweep, list(arguments), os.getcwd(), patience)
    except (FailedJobError, FailedSubmissionError) as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip().startswith("sbatch:")]
        raise UsageError("\n".join(said) or f"sbatch: {error}") from error


@contextmanager
def _detached() -> Iterator[None]:
    """A process that is started within outlives the terminal, and holds no stream of this command open."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    kept = [os.dup(number) for number in (0, 1, 2)]
    nowhere = os.open(os.devnull, os.O_RDWR)
    hangup = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        for number in (0, 1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        signal.signal(signal.SIGHUP, hangup)
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def run_sweep(arguments: Sequence[str], folder: str, patience: float) -> int:
    """The job: `lrsweep` with these arguments, in `folder`; returns its exit code, which becomes that of the job.

    A sweep that is asked to stop has `patience` seconds to save itself. Then this process ends and the job is requeued,
    unless it was cancelled or has been requeued often enough.
    """
    before = {number: signal.getsignal(number) for number in ASKING}
    came: list[int] = []
    code = _run(_command(arguments), folder, patience, came)
    for number, handler in before.items():
        signal.signal(number, handler)
    own = next((number for number in ASKING if _is_of_submitit(before[number])), None)
    if own is None:  # with submitit's debug executor nobody requeues, or waits for an exit code
        return code
    if code - 128 in ASKING and _goes_on({*came, code - 128}):
        _requeue(before[own], own)
    atexit.register(partial(_leave, code))  # submitit ends with 0 whatever the function returns
    return code


def _requeue(handler: Any, number: int) -> None:
    """Let submitit do so and end this process; return where the job ran into its time limit too often."""
    from submitit.core.utils import UncompletedJobError

    try:
        handler(number, None)
    except UncompletedJobError as error:
        sys.stderr.write(f"{error} Run lrsweep submit again to resume.\n")


def _again(*arguments: Any) -> DelayedSubmission:
    """What submitit requeues: the same command, which goes on from the journal."""
    from submitit.core.utils import DelayedSubmission

    return DelayedSubmission(run_sweep, *arguments)


run_sweep.checkpoint = _again  # type: ignore[attr-defined]  # where submitit looks for it


def _command(arguments: Sequence[str]) -> list[str]:
    """As many workers as the allocation has CPUs, if their number was not given."""
    cpus = os.environ.get("SLURM_CPUS_ON_NODE", "")
    given_number = any(text.startswith("--workers=") for text in arguments)
    workers = [f"--workers={cpus}"] if cpus.isdigit() and not given_number else []
    return [sys.executable, "-m", "lrsweep", *arguments, *workers]


def _run(command: Sequence[str], folder: str, patience: float, came: list[int]) -> int:
    """The exit code of a command, 128 + the number of a signal that ended it. The first signal that comes here is
    passed on to it, all are noted in `came`."""

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)

    for number in ASKING:
        signal.signal(number, note)
    sys.stderr.write(f"$ {shlex.join(command)}\n")
    sys.stderr.flush()
    process = subprocess.Popen(command, cwd=folder, preexec_fn=stop_with_parent)
    deadline: float | None = None
    while (code := process.poll()) is None:
        if came and deadline is None:
            process.send_signal(came[0])
            deadline = time.monotonic() + patience
        elif deadline is not None and time.monotonic() > deadline:
            process.kill()
            process.wait()
            return 128 + came[0]
        time.sleep(LOOK_SECONDS)
    return 128 - code if code < 0 else code


def _goes_on(came: Collection[int]) -> bool:
    """Whether a job whose sweep was stopped by these signals is to be requeued.

    After SIGTERM alone it is where SLURM still calls it running: it is in its grace time before a preemption. Of a job
    that was cancelled, or preempted at once, SLURM has decided already whether it comes back.
    """
    if signal.SIGINT in came:
        return False
    if came != {signal.SIGTERM} or "SLURM_JOB_ID" not in os.environ:
        return True
    number = os.environ["SLURM_JOB_ID"]
    try:
        return batch_job.states([number]).get(number) == "RUNNING"
    except batch_job.CannotAskError:
        return False


def _is_of_submitit(handler: Callable[..., Any] | int | None) -> bool:
    """Whether this is the one that requeues its job."""
    from submitit.core.job_environment import SignalHandler

    return getattr(handler, "__func__", None) is SignalHandler.checkpoint_and_try_requeue


def _leave(code: int) -> None:
    if code:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
