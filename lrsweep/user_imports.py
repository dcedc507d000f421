"""Import paths of the user's own code: `file.py:name` and `package.module:name`. Called when training, never before."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from lrsweep.errors import UsageError

LOADED: set[str] = set()
"""The import paths that this process has begun to load."""


def resolve(import_path: str, base_dir: str | Path) -> Any:
    """The object an import path names; files and packages are looked for in `base_dir` first.

    A file is run once per content, under a private module name. Raises UsageError, with file and line where the user's
    code is at fault.
    """
    place, _, name = import_path.rpartition(":")
    if not place or not name:
        raise UsageError(f"{import_path!r} is no import path; write file.py:name or package.module:name")
    LOADED.add(import_path)
    folder = Path(base_dir)
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    found: Any = _file_module(folder / place) if is_file else _package_module(place, folder)
    source = str(found.__file__ or place)
    for part in name.split("."):
        if not hasattr(found, part):
            raise UsageError(_unknown_name(found, part, source))
        found = getattr(found, part)
    return found


def user_place(error: BaseException, file: str | Path) -> str | None:
    """`file.py:12`, the last line of `file` that the exception passed through; None if it passed through none."""
    wanted = Path(file).resolve()
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).resolve() == wanted:
        return f"{file}:{error.lineno or 1}"
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if Path(frame.filename).resolve() == wanted:
            return f"{file}:{frame.lineno}"
    return None


def _unknown_name(owner: Any, name: str, source: str) -> str:
    names = [known for known in vars(owner) if not known.startswith("_")] if hasattr(owner, "__dict__") else []
    close = difflib.get_close_matches(name, names, n=1)
    if not close:
        return f"{source}: there is no {name!r} in it"
    try:
        line = inspect.getsourcelines(inspect.unwrap(getattr(owner, close[0])))[1]
        return f"{source}:{line}: there is no {name!r} in it (did you mean {close[0]!r}?)"
    except (TypeError, OSError):
        return f"{source}: there is no {name!r} in it (did you mean {close[0]!r}?)"


def _file_module(path: Path) -> ModuleType:
    """The module of a file, run afresh when its content has changed."""
    try:
        source = path.read_bytes()
    except OSError as error:
        siblings = [known.name for known in path.parent.glob("*.py")] if path.parent.is_dir() else []
        close = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UsageError(f"{path}: cannot be read: {error.strerror}{hint}") from None
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:16]
    name = f"_lrsweep_user_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up by name
    try:
        with _importable(path.parent), _told(path):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package_module(name: str, folder: Path) -> ModuleType:
    """An installed module, or one below `folder`."""
    with _importable(folder.resolve()), _told(name):
        return importlib.import_module(name)


@contextmanager
def _told(place: str | Path) -> Iterator[None]:
    """Exceptions of code that runs at import become UsageErrors with the line of the user's file that was reached."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
        own = [name for name in frames if name != __file__ and not name.startswith("<") and "importlib" not in name]
        where = user_place(error, place) or (user_place(error, own[-1]) if own else None) or str(place)
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        raise UsageError(f"{where}: cannot be loaded: {type(error).__name__}: {text}") from error


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While the user's code loads, its folder comes first on the import path; later it stays there as the last.

    So a file may import its neighbours inside functions too, and never hides an installed package from others.
    """
    entry = str(folder)
    importlib.invalidate_caches()
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry not in sys.path:
            sys.path.append(entry)
