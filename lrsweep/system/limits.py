"""What the system refused: memory, files, processes. Told in one line, since no traceback helps against it."""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterator

from lrsweep.errors import LimitError
from lrsweep.system.machine import GIB, MIB, limit_of_process, memory_limit, size_text

FILES, PROCESSES, MEMORY = (
    "too many open files{}; allow more (ulimit -n 256) and rerun the command",
    "no new process could be started{}; allow more (ulimit -u, or the limit of the container) and rerun the command",
    "out of memory{}; allow more (ulimit -v, or the limit of the container) and rerun the command",
)
_BY_NUMBER = {
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
    errno.ENOMEM: MEMORY,
    errno.EAGAIN: PROCESSES,
    errno.ENOSYS: PROCESSES,
}
_BY_TEXT = {
    "Too many open files": FILES,
    "can't start new thread": PROCESSES,
    "failed to map segment": MEMORY,
    "annot allocate memory": MEMORY,
    "can't allocate memory": MEMORY,
    "not enough memory": MEMORY,
}
SMALL = 2 * GIB
"""With less memory than this, an import that fails without a reason fails for want of it."""

LEAST, LEAST_FOR_TORCH = 256 * MIB, 640 * MIB
"""With less than this, libraries in C and C++ (of numpy, of torch) may end the process without a word."""


def refusal(error: BaseException) -> str | None:
    """What the system refused, and what to do; None if `error` came about otherwise."""
    for one in _chain(error):
        text = _reason(one)
        if text is not None:
            return text.format(_limit(text))
    return None


def require_memory(least: int) -> None:
    """Raises LimitError where `ulimit` leaves less bytes."""
    limits = [limit_of_process(name) or least for name in ("RLIMIT_AS", "RLIMIT_DATA")]
    if min(limits) < least:
        raise LimitError(MEMORY.format(_limit(MEMORY)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _reason(error: BaseException) -> str | None:
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError) and error.errno in _BY_NUMBER and (error.errno != errno.EAGAIN or _forking(error)):
        return _BY_NUMBER[error.errno]
    if isinstance(error, ImportError | OSError | RuntimeError):
        return next((reason for text, reason in _BY_TEXT.items() if text in str(error)), None)
    if isinstance(error, SystemError) and (memory_limit() or SMALL) < SMALL:
        return MEMORY
    return None


def _forking(error: BaseException) -> bool:
    """Whether the error is from the start of a process; a stream that is full has the same number."""
    places = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return any(place.endswith(("popen_fork.py", "subprocess.py")) for place in places)


def _limit(reason: str) -> str:
    """The limit that was reached, where it is known: ` (at most 12)`."""
    if reason == MEMORY and (memory := memory_limit()) is not None:
        return f" ({size_text(memory)} can be used)"
    if reason == FILES and (files := limit_of_process("RLIMIT_NOFILE")) is not None:
        return f" (at most {files})"
    return ""
