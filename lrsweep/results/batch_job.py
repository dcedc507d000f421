"""The batch job that a sweep was submitted as: a record in its folder, and what the scheduler says about that job.

Needs neither torch nor submitit: SLURM is asked through `squeue`, once for all sweeps. Nothing but the record is read
of what the scheduler has in that folder; submitit keeps pickles there, which are only for the job itself.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from lrsweep.store import atomic, links

FOLDER = "slurm"
"""In the folder of a sweep: scripts and logs of its jobs, and the record of the last one."""
RECORD = "job.json"

State: TypeAlias = Literal["queued", "running", "done", "unknown"]

PATIENCE = 10.0
"""Seconds to wait for `squeue`: a busy scheduler takes some, and a reader of `status` will not wait for a minute."""
_QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_ENDED = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "REVOKED"),
)
_NUMBER = re.compile(r"[0-9]{1,18}")


class CannotAskError(Exception):
    """Nobody here knows about the jobs; the text says why."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """`cluster`: `slurm`, or `local` for a process of this machine. `id`: SLURM's number, or that of the process.

    `detail`: how a job that is done ended, where that is known and no success; why its state is unknown. `log`: the
    file with what the sweep said.
    """

    cluster: str
    id: str
    state: State
    detail: str
    log: Path


def write(folder: Path, *, cluster: str, job: str) -> None:
    """Record the job `job` of the sweep in `folder`, in place of an earlier one. Raises StorageError."""
    facts = {"cluster": cluster, "id": job, "host": socket.gethostname()}
    atomic.replace(folder / FOLDER / RECORD, json.dumps(facts) + "\n")


def is_submitted(folder: Path) -> bool:
    return (folder / FOLDER / RECORD).is_file()


def jobs_of(folders: Iterable[Path]) -> dict[Path, BatchJob]:
    """The last job of each sweep that was submitted, by folder.

    Raises StorageError for a record behind a link: what is read lies in the folder of the sweep.
    """
    records = {folder: record for folder in folders if (record := _record(folder))}
    ids = {record["id"] for record in records.values() if record["cluster"] == "slurm"}
    queue: Mapping[str, str] | str = {}
    if ids:
        try:
            queue = states(ids)
        except CannotAskError as error:
            queue = str(error)
    return {folder: _job(folder, record, queue) for folder, record in records.items()}


def states(ids: Collection[str]) -> dict[str, str]:
    """SLURM's own words for the states of jobs, such as `RUNNING`; it forgets jobs some minutes after they ended.

    Raises CannotAskError.
    """
    if shutil.which("squeue") is None:
        raise CannotAskError("squeue is not on this machine")
    command = ["squeue", "--noheader", "--states=all", "--format=%i %T", f"--jobs={','.join(sorted(ids))}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise CannotAskError(f"squeue did not answer within {PATIENCE:g} s") from None
    except OSError as error:
        raise CannotAskError(f"squeue: {error.strerror}") from None
    if asked.returncode and "invalid job id" not in asked.stderr.lower():
        first = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[0]
        raise CannotAskError(f"squeue: {first}")
    rows = (line.split() for line in asked.stdout.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 2}


def _record(folder: Path) -> dict[str, str]:
    """Empty if there is none that this version can read."""
    if not links.is_plain(folder / FOLDER, stat.S_ISDIR) or not links.is_plain(folder / FOLDER / RECORD, stat.S_ISREG):
        return {}
    found = atomic.read_object(folder / FOLDER / RECORD)
    record = {name: str(found.get(name, "")) for name in ("cluster", "id", "host")}
    known = record["cluster"] in ("slurm", "local") and _NUMBER.fullmatch(record["id"])
    return record if known else {}


def _job(folder: Path, record: Mapping[str, str], queue: Mapping[str, str] | str) -> BatchJob:
    cluster, number = record["cluster"], record["id"]
    if cluster == "local":
        state, detail = _of_process(folder, record)
    else:
        state, detail = ("unknown", queue) if isinstance(queue, str) else _of_slurm(queue.get(number, ""))
    log = folder / FOLDER / f"{number}_0_log.err"
    return BatchJob(cluster=cluster, id=number, state=state, detail=detail, log=log)


def _of_slurm(word: str) -> tuple[State, str]:
    """From the word of `states`; none means that the job ended a while ago."""
    if word in ("", "COMPLETED"):
        return "done", ""
    if word in _ENDED:
        return "done", word.lower().replace("_", " ")
    return ("queued" if word in _QUEUED else "running"), ""


def _of_process(folder: Path, record: Mapping[str, str]) -> tuple[State, str]:
    if (folder / FOLDER / f"{record['id']}_0_result.pkl").exists():
        return "done", ""
    if record["host"] != socket.gethostname():
        return "unknown", "it was started on another machine"
    try:
        os.kill(int(record["id"]), 0)
    except (OSError, OverflowError):  # none, or one of somebody else's that has its number now
        return "done", ""
    return "running", ""
