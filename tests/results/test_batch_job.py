"""What is shown of the job of a sweep, from its record and from `squeue`."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lrsweep.errors import StorageError, UsageError
from lrsweep.results import batch_job
from lrsweep.results.status import below, status
from lrsweep.results.tables import sweeps_below
from tests.support.slurm import Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


def submitted(results: Path, name: str, job: str, cluster: str = "slurm") -> Path:
    folder = results / name
    (folder / "slurm").mkdir(parents=True)
    batch_job.write(folder, cluster=cluster, job=job)
    return folder


def state(folder: Path) -> tuple[str, str]:
    job = batch_job.jobs_of([folder])[folder]
    return job.state, job.detail


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("PENDING", ("queued", "")),
        ("REQUEUED", ("queued", "")),
        ("CONFIGURING", ("queued", "")),
        ("RUNNING", ("running", "")),
        ("COMPLETING", ("running", "")),
        ("SUSPENDED", ("running", "")),
        ("COMPLETED", ("done", "")),
        ("OUT_OF_MEMORY", ("done", "out of memory")),
        ("CANCELLED", ("done", "cancelled")),
    ],
)
def test_the_words_of_slurm(tmp_path: Path, cluster: Cluster, word: str, shown: tuple[str, str]) -> None:
    folder = submitted(tmp_path, "one", "7")
    cluster.queue(f"7 {word}")
    assert state(folder) == shown


def test_a_job_that_slurm_has_forgotten_is_done(tmp_path: Path, cluster: Cluster) -> None:
    folder = submitted(tmp_path, "one", "7")
    cluster.queue(error="slurm_load_jobs error: Invalid job id specified", code=1)
    assert state(folder) == ("done", "")


def test_a_scheduler_that_does_not_answer_is_told(tmp_path: Path, cluster: Cluster) -> None:
    folder = submitted(tmp_path, "one", "7")
    cluster.queue(error="slurm_load_jobs error: Unable to contact slurm controller", code=1)
    assert state(folder) == ("unknown", "squeue: slurm_load_jobs error: Unable to contact slurm controller")


def test_without_squeue_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert state(submitted(tmp_path, "one", "7")) == ("unknown", "squeue is not on this machine")


def test_all_jobs_are_asked_for_at_once(tmp_path: Path, cluster: Cluster) -> None:
    for name, job in (("a", "7"), ("b", "8"), ("c", "9")):
        submitted(tmp_path / "results", name, job)
    cluster.queue("8 RUNNING", "7 PENDING")
    found = list(below(tmp_path / "results"))
    assert [(one.name, one.job.state) for one in found if one.job] == [("a", "queued"), ("b", "running"), ("c", "done")]
    assert len(cluster.calls) == 1
    assert "--jobs=7,8,9" in cluster.calls[0]


def test_a_sweep_that_was_never_submitted_asks_nobody(tmp_path: Path, cluster: Cluster) -> None:
    assert batch_job.jobs_of([tmp_path]) == {}
    assert not cluster.calls


def test_a_job_that_has_not_begun_is_no_sweep_yet_for_other_commands(tmp_path: Path, cluster: Cluster) -> None:
    folder = submitted(tmp_path / "results", "one", "7")
    cluster.queue("7 PENDING")
    assert (status(folder).total, status(folder).job.state) == (0, "queued")  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="no sweep in this folder or below"):
        sweeps_below(tmp_path / "results")


def test_a_local_job_is_its_process(tmp_path: Path) -> None:
    folder = submitted(tmp_path, "one", str(os.getpid()), "local")
    assert state(folder) == ("running", "")
    (folder / "slurm" / f"{os.getpid()}_0_result.pkl").write_bytes(b"not read")
    assert state(folder) == ("done", "")


def test_a_local_job_of_another_machine_is_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = submitted(tmp_path, "one", str(os.getpid()), "local")
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    assert state(folder) == ("unknown", "it was started on another machine")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"cluster": "slurm", "id": "7; rm x"}', '{"cluster": "x", "id": "7"}']
)
def test_a_record_that_is_none_of_ours_is_passed_over(tmp_path: Path, cluster: Cluster, text: str) -> None:
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "job.json").write_text(text)
    assert batch_job.jobs_of([tmp_path]) == {}
    assert not cluster.calls


@pytest.mark.parametrize("name", ["slurm", "slurm/job.json"])
def test_a_record_behind_a_link_is_refused(tmp_path: Path, cluster: Cluster, name: str) -> None:
    elsewhere = submitted(tmp_path, "elsewhere", "7")
    here = tmp_path / "here"
    (here / name).parent.mkdir(parents=True)
    (here / name).symlink_to(elsewhere / name)
    with pytest.raises(StorageError, match="symbolic link"):
        status(here)
    assert not cluster.calls


def test_the_record_is_text_that_anybody_can_read(tmp_path: Path) -> None:
    folder = submitted(tmp_path, "one", "7")
    found = json.loads((folder / "slurm" / "job.json").read_text())
    assert found == {"cluster": "slurm", "id": "7", "host": socket.gethostname()}
