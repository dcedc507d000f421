"""Warnings of the user's code, and of torch about it: a line each, told once a command whatever process they come from.

Python shows a warning once for each line that raises it, in each process, with that line; here it is often one of torch
or lrsweep. What the numbers in a text differ by (the sizes of batches) makes no other warning.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from lrsweep.user_imports import calling_place

Told = tuple[str, str]
"""A sentence, and the key by which it is known."""

_tellers: list[Callable[[str, str], None]] = []


@contextmanager
def told(tell: Callable[[str, str], None]) -> Iterator[None]:
    """Within, a warning that would be shown goes to `tell`, as a sentence and a key. Others stay with their filters."""
    before = warnings.showwarning

    def show(message: Any, category: type[Warning], *_: Any, **__: Any) -> None:
        place = calling_place()
        text = " ".join(str(message).split())
        where = f"{category.__name__}{place and f', {place}'}"
        tell(f"warning: {text} ({where})", f"{where} {re.sub('[0-9]+', '#', text)}")

    warnings.showwarning = show
    _tellers.append(tell)
    try:
        yield
    finally:
        warnings.showwarning = before
        _tellers.pop()


def tell_of(others: Iterable[Told]) -> None:
    """Warnings of another process, as if they had come in this one."""
    for text, key in others if _tellers else ():
        _tellers[-1](text, key)


class Waiting:
    """Warnings of a process that another one is to tell of, each once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._texts: list[Told] = []

    def add(self, text: str, key: str) -> None:
        """May be called by any thread, as warnings are."""
        if key not in self._seen:
            self._seen.add(key)
            self._texts.append((text, key))

    def taken(self) -> list[Told]:
        """What has come since this was last asked for."""
        found = []
        while self._texts:
            found.append(self._texts.pop(0))
        return found
