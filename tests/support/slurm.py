"""Tools of a SLURM cluster that does not exist: each is a small script that writes down how it was called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

NUMBER = "123"
_SRUN = """\
while [ "${1#-}" != "$1" ]; do
  case "$1" in --output|--error) shift 2 ;; *) shift ;; esac
done
exec "$@"
"""


class Cluster:
    """A folder of such tools, first on PATH; `calls` is what was called, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._tools, self._log = folder / "tools", folder / "calls.txt"
        self._tools.mkdir()
        self.tool("sbatch", f'echo "Submitted batch job {NUMBER}"')
        self.tool("srun", _SRUN)
        self.tool("scontrol", "")
        self.queue("")
        monkeypatch.setenv("PATH", f"{self._tools}{os.pathsep}{os.environ['PATH']}")

    def tool(self, name: str, script: str) -> None:
        path = self._tools / name
        path.write_text(f'#!/bin/sh\necho "{name} $*" >> {self._log}\n{script}\n')
        path.chmod(0o755)

    def queue(self, *lines: str, error: str = "", code: int = 0) -> None:
        """What `squeue` answers."""
        said = "".join(f"echo '{line}'\n" for line in lines if line)
        self.tool("squeue", f"{said}echo '{error}' >&2\nexit {code}")

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []

    def started(self, script: Path, log: Path) -> subprocess.Popen[bytes]:
        """The job, as a node of the cluster would start it."""
        env = {**os.environ, "SLURM_JOB_ID": NUMBER, "SLURM_CPUS_ON_NODE": "1", "SLURM_JOB_NUM_NODES": "1"}
        with log.open("ab") as out:
            return subprocess.Popen(["bash", script], stdout=out, stderr=out, env=env)
