"""What training takes besides the job itself: libraries, the user's data, and what the user's code imports.

A named file of the user's travels with every job (`Versions.sources`); the rest must be on the machine that trains, as
it is here, and is looked for there before the first step.
"""

from __future__ import annotations

import ast
import platform
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from lrsweep import __version__, user_imports
from lrsweep.system import digests
from lrsweep.user_imports import Versions

LIBRARIES = ("torch", "numpy")
"""Results may differ between two versions of these, and of lrsweep."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Needed:
    """`versions` of libraries by name, SHA-256 of `files` and folders by absolute path, names of `modules`, and the
    `folders` in which they may lie. `host`: where this was looked up, and nothing is missing."""

    host: str
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def here(versions: Versions | None) -> Needed:
    """What the tasks take that this process has built. `versions`: the user's files as the command sees them."""
    sources = {} if versions is None else versions.sources
    beside = [path for path in user_imports.neighbours() if str(path.resolve()) not in sources]
    texts = [*sources.values(), *(path.read_bytes() for path in beside)]
    named = (name.split(":")[0].split(".")[0] for name in user_imports.LOADED if ".py:" not in name)
    found = {name for text in texts for name in _imported(text)} | set(named)
    return Needed(
        host=platform.node(),
        versions=_versions(),
        files={
            **({} if versions is None else versions.digests),
            **{str(path): digests.of_file(path) for path in beside},
        },
        modules=tuple(sorted(name for name in found if name in sys.modules and name not in sys.stdlib_module_names)),
        folders=tuple(map(str, user_imports.folders())),
    )


def missing(needed: Needed, path: Sequence[str]) -> list[str]:
    """What of it is not on this machine, whose `path` is searched for modules; a phrase for each."""
    if platform.node() == needed.host:
        return []
    return [*_other_versions(needed.versions), *_other_files(needed.files), *_unknown(needed, path)]


def _imported(source: bytes) -> Iterator[str]:
    """The packages that a file imports by name."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


def _versions() -> dict[str, str]:
    """Those that are installed."""
    found = {"lrsweep": __version__}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _other_versions(versions: dict[str, str]) -> Iterator[str]:
    installed = _versions()
    for name, wanted in versions.items():
        if (found := installed.get(name)) != wanted:
            yield f"{name} {wanted} is not installed" if found is None else f"{name} {found} in place of {wanted}"


def _other_files(files: dict[str, str]) -> Iterator[str]:
    for path, wanted in files.items():
        try:
            if digests.of_data(Path(path)) != wanted:
                yield f"{path} is another file"
        except OSError:
            yield f"{path} is not there"


def _unknown(needed: Needed, path: Iterable[str]) -> Iterator[str]:
    places = [*needed.folders, *path]
    yield from (f"{name} cannot be imported" for name in needed.modules if PathFinder.find_spec(name, places) is None)
