"""Libraries that start threads read data in a process of their own: beside threads no worker could be forked."""

from __future__ import annotations

from collections.abc import Callable

from lrsweep.errors import UsageError
from lrsweep.system import child
from lrsweep.tasks.splits import Table


def read_apart(source: str, read: Callable[[], Table]) -> Table:
    """`read()`, in a copy of this process where there can be one. Raises what it raises; `source` names the data in the
    UsageError that tells of a copy that was killed."""
    try:
        return child.call(read)
    except child.ChildDiedError as died:
        raise UsageError(f"{source}: the process that read it {died}") from died
