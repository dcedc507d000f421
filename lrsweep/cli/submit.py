"""The command `submit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lrsweep.cli.options import Cluster, Config, Device, DeviceOption, ResultsDir, SetOption, worker_count
from lrsweep.cli.terminal import EXIT_SOME_FAILED, say

if TYPE_CHECKING:
    from lrsweep.sweep.submit import Submitted


def submit(
    config: Config,
    results: ResultsDir = Path("results"),
    set_: SetOption = None,
    device: DeviceOption = Device.auto,
    workers: Annotated[
        str, typer.Option(metavar="N|auto", help="Number of training processes; auto: the CPUs of the job.")
    ] = "auto",
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="Partition of the cluster. (default: the cluster's own)")
    ] = None,
    time: Annotated[str, typer.Option(metavar="TIME", help="Time limit, as for sbatch.")] = "4:00:00",
    gpus: Annotated[int, typer.Option(min=0, metavar="N", help="Number of GPUs.")] = 0,
    cpus: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Number of CPUs. (default: the cluster's own)")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory, such as 8G. (default: the cluster's own)")
    ] = None,
    account: Annotated[str | None, typer.Option(metavar="NAME", help="Account to charge.")] = None,
    requeues: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="How often the job continues after its time limit. Preemptions do not count."
        ),
    ] = 3,
    cluster: Annotated[
        Cluster,
        typer.Option(
            metavar="slurm|local|debug", help="local: try it in the background of this machine; debug: in this process."
        ),
    ] = Cluster.slurm,
) -> None:
    """Run a sweep as a SLURM job.

    Checks the spec as run --dry-run does, then submits one job and prints its
    id. Writes the script and logs of the job to results/NAME/slurm. The job
    reads the spec and your files by their paths. Before its time limit or a
    preemption it saves the sweep, is requeued and resumes; it ends with the exit
    code of the sweep. Needs submitit, the extra slurm of lrsweep.

    Example:
      lrsweep submit sweep.yaml --partition gpu --time 4:00:00 --gpus 1 --cpus 8
    """
    from lrsweep.sweep import progress as display
    from lrsweep.sweep import submit as submitting

    allocation = submitting.Allocation(
        partition=partition, time=time, gpus=gpus, cpus=cpus, memory=memory, account=account, requeues=requeues
    )
    with display.reporter("none") as reporter:
        made = submitting.submit(
            config,
            allocation,
            results=results,
            set=set_ or (),
            device=device.value,
            workers=worker_count(workers),
            cluster=cluster.value,
            reporter=reporter,
        )
    _tell(made)


def _tell(made: Submitted) -> None:
    from lrsweep.cli import output

    found = made.estimate
    if found.errors:
        say(output.estimate(found), err=True)
        say("nothing was submitted: runs that were tried failed", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
    if made.job is None:
        say(output.nothing_to_submit(found.runs), err=True)
        return
    if made.exit_code or made.cluster == "debug":
        raise typer.Exit(made.exit_code)
    say(output.submitted(made))
