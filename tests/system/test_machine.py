"""What the machine and its control groups allow."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from lrsweep.system import machine
from lrsweep.system.machine import GIB, MIB


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the control groups of a process that is in /jobs/42 of every one of them."""
    own = tmp_path / "own"
    own.write_text("5:cpu,cpuacct:/jobs/42\n4:memory:/jobs/42\n1:name=systemd:/\n0::/jobs/42\n")
    monkeypatch.setattr(machine, "CGROUP_DIR", tmp_path)
    monkeypatch.setattr(machine, "OWN_CGROUPS", own)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    "place",
    [
        "memory.max",
        "jobs/memory.max",
        "jobs/42/memory.max",
        "memory/memory.limit_in_bytes",
        "memory/jobs/memory.limit_in_bytes",
        "memory/jobs/42/memory.limit_in_bytes",
    ],
)
def test_the_lowest_limit_of_memory_counts(groups: Path, place: str) -> None:
    write(groups / "memory" / "memory.limit_in_bytes", str(2**63 - 4096))  # none
    write(groups / "jobs" / "memory.max", "max")
    free = machine.memory_limit()
    write(groups / place, str(300 * MIB))
    assert machine.memory_limit() == 300 * MIB
    assert machine.this_machine().memory == 300 * MIB
    assert free is not None
    assert free > 300 * MIB


def test_limits_of_other_groups_do_not_count(groups: Path) -> None:
    write(groups / "jobs" / "43" / "memory.max", "1000")
    write(groups / "memory" / "jobs" / "43" / "memory.limit_in_bytes", "1000")
    assert machine.this_machine().memory > 300 * MIB


@pytest.mark.parametrize(
    ("place", "parts"), [("jobs/42/cpu.max", ["150000 100000"]), ("cpu/jobs/42", ["150000", "100000"])]
)
def test_cores_are_limited_by_nested_groups(
    groups: Path, monkeypatch: pytest.MonkeyPatch, place: str, parts: list[str]
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert machine.available_cores() == 4
    names = [""] if len(parts) == 1 else ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
    for name, text in zip(names, parts, strict=True):
        write(groups / place / name, text)
    assert machine.available_cores() == 2


def test_ulimit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_AS: GIB, resource.RLIMIT_DATA: resource.RLIM_INFINITY}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limits[kind], resource.RLIM_INFINITY))
    assert machine.memory_limit() == GIB
    assert machine.machine_memory() != GIB  # each process has as much


def test_sizes() -> None:
    assert [machine.size_text(n) for n in (512, 2048, 3 * 2**30, 2**50)] == ["512 B", "2 KiB", "3 GiB", "1.02e+03 TiB"]
