"""The machine a sweep runs on: cores this process may use, caches, memory, the name of the CPU."""

from __future__ import annotations

import ctypes
import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

KIB, MIB, GIB = 2**10, 2**20, 2**30
CPU_DIR = Path("/sys/devices/system/cpu")
CGROUP_DIR = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
UNLIMITED = 2**60
"""Version 1 of control groups writes a number near 2^63 where there is no limit."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """Sizes in bytes. `l2` is one core's; `l3` the last cache, which `l3_cores` cores share; `memory` is what this
    process and its workers may use."""

    cores: int
    cpu: str
    l2: int = MIB
    l3: int = 8 * MIB
    l3_cores: int = 4
    memory: int = 4 * GIB

    def cache_per_worker(self, workers: int) -> int:
        """What one of `workers` busy one-thread processes can keep in caches."""
        sharing = max(1, min(workers, self.l3_cores))
        return max(self.l2, self.l3 // sharing)


def this_machine() -> Machine:
    """Read from the system; what it does not tell takes the defaults of `Machine`."""
    found: dict[str, int] = {}
    l2, l3 = _cache(2), _cache(3)
    if l2 is not None:
        found["l2"] = l2[0]
    if l3 is not None:
        found["l3"], found["l3_cores"] = l3
    if (memory := machine_memory()) is not None:
        found["memory"] = memory
    return Machine(cores=available_cores(), cpu=cpu_name(), **found)


def size_text(count: float) -> str:
    """Bytes for people: `512 B`, `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TiB"


def available_cores() -> int:
    """Cores this process may use: its affinity, cut by the quota of its control group (rounded up). At least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota()
    return max(1, count if quota is None else min(count, math.ceil(quota)))


def _quota() -> float | None:
    """CPUs the control groups grant, versions 2 and 1; None without a limit."""
    granted = []
    for folder in _cgroups("cpu"):
        limit = _text(folder / "cpu.max").split()
        if len(limit) == 2 and limit[0] != "max":
            granted.append(int(limit[0]) / int(limit[1]))
        quota, period = (_text(folder / f"cpu.cfs_{kind}_us") for kind in ("quota", "period"))
        if quota and period and int(quota) > 0:
            granted.append(int(quota) / int(period))
    return min(granted, default=None)


def machine_memory() -> int | None:
    """Bytes of memory for this process and its workers together: what the machine has, cut by the limits of its control
    groups. None where nothing tells."""
    limits = [
        int(line.split()[1]) * KIB for line in _text(Path("/proc/meminfo")).splitlines() if line.startswith("MemTotal:")
    ]
    if not limits and (total := _memory_by_sysconf()) is not None:
        limits.append(total)
    for folder in _cgroups("memory"):
        texts = (_text(folder / name) for name in ("memory.max", "memory.limit_in_bytes"))
        limits += [int(text) for text in texts if text.isdigit()]
    return min((limit for limit in limits if 0 < limit < UNLIMITED), default=None)


def memory_limit() -> int | None:
    """Bytes of memory that one process may use: those of the machine, cut by `ulimit -v` and `-d`."""
    limits = [machine_memory(), *map(limit_of_process, ("RLIMIT_AS", "RLIMIT_DATA"))]
    return min((limit for limit in limits if limit is not None), default=None)


def _memory_by_sysconf() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf, some systems not these names
        return None


def limit_of_process(name: str) -> int | None:
    """A limit as `ulimit` sets it, by its name in `resource`; None without one, and on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(getattr(resource, name))
    return None if soft == resource.RLIM_INFINITY else soft


def _cgroups(controller: str) -> list[Path]:
    """The folders of the control groups of this process that may limit `controller`: its own and those above it, of
    version 2 (one tree for all) and of version 1 (a tree for each controller)."""
    found = [CGROUP_DIR, CGROUP_DIR / controller]
    for line in _text(OWN_CGROUPS).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        root = CGROUP_DIR if not controllers else CGROUP_DIR / controller
        if controllers and controller not in controllers.split(","):
            continue
        parts = [part for part in path.split("/") if part not in ("", "..")]
        found += [root.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return found


def _cache(level: int) -> tuple[int, int] | None:
    """Bytes of the data cache of this level, and how many cores share it."""
    for folder in sorted((CPU_DIR / "cpu0" / "cache").glob("index*")):
        if _text(folder / "level") == str(level) and _text(folder / "type") != "Instruction":
            size = _text(folder / "size")
            units = {"K": KIB, "M": MIB, "G": GIB}
            if size[:-1].isdigit() and size[-1] in units:
                return int(size[:-1]) * units[size[-1]], _listed(_text(folder / "shared_cpu_list"))
    return None


def _listed(text: str) -> int:
    """How many numbers a list such as `0-3,8` holds."""
    count = 0
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        count += int(high or low) - int(low) + 1
    return max(1, count)


def cpu_name() -> str:
    """The model of the CPU as the system calls it."""
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        if line.lower().startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def keep_freed_memory() -> None:
    """Let this process reuse what it frees. A step frees and asks for the same megabytes again, and glibc, left alone,
    hands them back to the system in between: every page then costs a fault (a fifth of the step of a small network).

    Only for processes that train; does nothing where there is no glibc.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, GIB)
        libc.mallopt(M_TRIM_THRESHOLD, GIB)
