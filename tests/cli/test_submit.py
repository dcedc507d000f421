"""`lrsweep submit`, and what `lrsweep status` prints of its jobs, as a user meets them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrsweep.results import batch_job
from tests.cli.test_app import SPEC
from tests.support.slurm import NUMBER, Cluster


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(tmp_path, monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(SPEC)
    return tmp_path / "tiny.yaml"


def lrsweep(*args: str | Path, cwd: Path, without: str = "") -> subprocess.CompletedProcess[str]:
    """`without`: a library that cannot be imported."""
    block = f"import sys; sys.modules[{without!r}] = None; " if without else ""
    code = f"{block}from lrsweep.cli.app import main; main()"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def test_what_was_submitted_how_to_watch_and_how_to_cancel(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    pytest.importorskip("submitit")
    ran = lrsweep("submit", config, "--partition", "gpu", "--gpus", "1", "--cpus", "8", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == (
        f"tiny: submitted as SLURM job {NUMBER}, 8 runs to train\n"
        "  folder  results/tiny/\n"
        f"  log     results/tiny/slurm/{NUMBER}_0_log.err\n"
        "  watch   lrsweep status results/tiny\n"
        f"  cancel  scancel {NUMBER}\n"
    )
    assert "#SBATCH --partition=gpu" in (tmp_path / "results/tiny/slurm" / f"{NUMBER}_submission.sh").read_text()


def test_a_mistake_in_the_spec_is_told_as_run_tells_it(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    pytest.importorskip("submitit")
    config.write_text(SPEC.replace("seeds: 2", "seeds: none") + "tsk: 1\n")
    told = lrsweep("submit", config, cwd=tmp_path)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == lrsweep("run", config, cwd=tmp_path).stderr
    assert not cluster.calls


def test_a_run_that_fails_in_the_check_is_shown(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    pytest.importorskip("submitit")
    (tmp_path / "mine.py").write_text("def model():\n    raise ValueError('no weights today')\n")
    config.write_text(SPEC + "model: mine.py:model\n")
    told = lrsweep("submit", config, cwd=tmp_path)
    assert (told.returncode, told.stdout) == (3, "")
    assert "no weights today" in told.stderr
    assert told.stderr.endswith("nothing was submitted: runs that were tried failed\n")


def test_without_submitit_one_message_says_what_to_install(tmp_path: Path, cluster: Cluster, config: Path) -> None:
    told = lrsweep("submit", config, cwd=tmp_path, without="submitit")
    assert told.returncode == 2
    assert told.stderr == 'submit needs submitit: pip install "lrsweep[slurm]"\n'


def test_without_sbatch_one_message_says_where_to_go(tmp_path: Path, config: Path) -> None:
    pytest.importorskip("submitit")
    told = lrsweep("submit", config, cwd=tmp_path)
    assert told.returncode == 2
    assert told.stderr == (
        "sbatch is not on this machine; submit from a login node of a SLURM cluster, or try it here with "
        "--cluster local\n"
    )


def test_status_shows_the_job_without_torch_and_submitit(tmp_path: Path, cluster: Cluster) -> None:
    (tmp_path / "results" / "tiny" / "slurm").mkdir(parents=True)
    batch_job.write(tmp_path / "results" / "tiny", cluster="slurm", job=NUMBER)
    name = "tiny (results/tiny): nothing trained yet"
    for word, text in (
        ("PENDING", f"SLURM job {NUMBER} is queued"),
        ("RUNNING", f"SLURM job {NUMBER} is running"),
        ("TIMEOUT", f"SLURM job {NUMBER} is done (timeout), see results/tiny/slurm/{NUMBER}_0_log.err"),
    ):
        cluster.queue(f"{NUMBER} {word}")
        shown = lrsweep("status", "results", cwd=tmp_path, without="torch" if word == "RUNNING" else "submitit")
        assert (shown.returncode, shown.stdout) == (0, f"{name}; {text}\n"), shown.stderr


def test_status_says_that_nobody_can_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results" / "tiny" / "slurm").mkdir(parents=True)
    batch_job.write(tmp_path / "results" / "tiny", cluster="slurm", job=NUMBER)
    monkeypatch.setenv("PATH", os.devnull)
    shown = lrsweep("status", "results/tiny", cwd=tmp_path)
    reason = f"cannot ask about SLURM job {NUMBER}: squeue is not on this machine"
    assert shown.stdout == f"tiny (results/tiny): nothing trained yet; {reason}\n"
