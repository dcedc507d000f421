"""What the user would call a value that was found in the user's code: `Net.calls`, `CACHE in task.py`."""

from __future__ import annotations

import bisect
import types
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lrsweep.training.contents import Unnamed
from lrsweep.training.user_state import Snapshot, Walk, environment, equal


def of_change(earlier: Snapshot, later: Snapshot) -> str:
    """Where what is there at the later snapshot, the latest, differs from an earlier one; "" if it has no name."""
    return _named(later, lambda walk: walk.name_of_difference(earlier))


def of_hidden(snapshot: Snapshot) -> str:
    """The first thing that cannot be looked into, with its name if it has one: `a generator (Net.draws)`."""
    name = _named(snapshot, lambda walk: walk.name(walk.hidden[0]))
    return f"a {snapshot.hidden[0]}{name and f' ({name})'}"


def _named(snapshot: Snapshot, name: Callable[[_NamingWalk], str]) -> str:
    walk = _NamingWalk(Snapshot(parts=[environment()]), alike=False, libraries=snapshot.libraries)
    with suppress(Exception):  # a name is a help; the user's classes may raise what they like when asked for it
        walk.run(list(snapshot.roots))
        return name(walk)
    return ""


class _NamingWalk(Walk):
    """The same walk, slower, which remembers how it came to each object."""

    def __init__(self, found: Snapshot, alike: bool, libraries: bool) -> None:
        super().__init__(found, alike, libraries)
        self._came: list[tuple[int, int]] = []  # to object number k: from which, as the how manieth that it holds
        self._values: list[Any] = []
        self._starts: list[int] = []  # where the parts of object number k begin
        self._held: list[int] = []
        self.hidden: list[int] = []  # which objects cannot be looked into

    def _look(self, value: Any) -> None:
        self._values.append(value)
        self._starts.append(len(self._found.parts))
        self._held.append(0)
        super()._look(value)

    def _hidden(self, value: Any) -> int:
        self.hidden.append(len(self._values) - 1)
        return super()._hidden(value)

    def _later(self, values: Iterable[Any], look: int = 0) -> int:
        now, count = (look or len(self._values)) - 1, super()._later(values)
        first = self._held[now] if self._held else 0
        self._came += [(now, first + place) for place in range(count)]
        if self._held:
            self._held[now] += count
        return count

    def name_of_difference(self, earlier: Snapshot) -> str:
        for index, (one, other) in enumerate(zip(self._found.parts, earlier.parts, strict=False)):
            if not equal(one, other):
                if isinstance(one, Unnamed):
                    return f"{one.key} in {one.file}"
                return self.name(bisect.bisect_right(self._starts, index) - 1) if index else "os.environ"
        return ""

    def name(self, number: int) -> str:
        """`Net.calls`, `history of step`, `CACHE in task.py`: up to the first holder that has a name."""
        name, shared = "", False
        while number >= 0:
            holder, place = self._came[number]
            if holder < 0:
                return name
            owner = self._values[holder]
            name = _label(owner, place, self._values[number]) or name
            above = self._values[self._came[holder][0]] if self._came[holder][0] >= 0 else None
            if isinstance(owner, dict) and isinstance(above, types.FunctionType):
                shared = owner is above.__globals__
            if isinstance(owner, dict) and owner is getattr(above, "__dict__", None):
                owner, holder = above, self._came[holder][0]
            if isinstance(owner, types.FunctionType):
                file = Path(owner.__code__.co_filename).name
                return f"{name} in {file}" if shared else f"{name or 'an attribute'} of {owner.__name__}"
            if name and not isinstance(owner, dict | list | tuple | set | frozenset | types.CellType):
                return (
                    f"{owner.__name__ if isinstance(owner, type | types.ModuleType) else type(owner).__name__}.{name}"
                )
            number = holder
        return name


def _label(owner: Any, place: int, value: Any) -> str:
    """What `owner` calls the `place`-th object that it holds; "" if it has no name for it."""
    found: Any = None
    if isinstance(owner, dict):
        found = next((key for key, item in owner.items() if item is value), None)
    elif isinstance(owner, types.FunctionType):
        names = owner.__code__.co_freevars
        found = names[place - 3] if 0 <= place - 3 < len(names) else None
    else:
        for kind in (owner, *(type(owner).__mro__ if not isinstance(owner, type) else ())):
            held = getattr(kind, "__dict__", {})
            slots = getattr(kind, "__slots__", ()) if isinstance(kind, type) else ()
            found = found or next((key for key, item in list(held.items()) if item is value), None)
            found = found or next((slot for slot in slots if getattr(owner, slot, None) is value), None)
    return found if isinstance(found, str) else ""
