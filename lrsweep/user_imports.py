"""Import paths of the user's own code: `file.py:name` and `package.module:name`. Called when training, never before."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

from lrsweep import given_code
from lrsweep.errors import UsageError, did_you_mean, nearest
from lrsweep.system import digests, notebook

LOADED: set[str] = set()
"""The import paths that this process has begun to load."""


@dataclass
class Versions:
    """The user's files as one command sees them for its whole life: the source of those that are run, by resolved path,
    and the SHA-256 of those that are read."""

    sources: dict[str, bytes] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


_versions: list[Versions] = []


@contextmanager
def one_version(versions: Versions | None = None) -> Iterator[Versions]:
    """Within: a file of the user's that is edited meanwhile stays what it was, or is refused by `check_unchanged`."""
    _versions.append(Versions() if versions is None else versions)
    try:
        yield _versions[-1]
    finally:
        _versions.pop()


def current_versions() -> Versions | None:
    """Those of the command that is running."""
    return _versions[-1] if _versions else None


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file, or of a folder of data. Raises OSError."""
    if path.suffix == ".py":
        return hashlib.sha256(_source(path)).hexdigest()
    digest = digests.of_data(path)
    if _versions:
        _versions[-1].digests.setdefault(str(path.resolve()), digest)
    return digest


def check_unchanged(path: Path) -> None:
    """Raises UsageError if a file or folder of data is not what it was when this command began."""
    known = _versions[-1].digests.get(str(path.resolve())) if _versions else None
    if known is None:
        return
    if digests.of_data(path) != known:
        raise UsageError(f"{path}: changed while the sweep was running; rerun the command to train on what it is now")


def _source(path: Path) -> bytes:
    if not _versions:
        return path.read_bytes()
    key = str(path.resolve())
    if key not in _versions[-1].sources:
        _versions[-1].sources[key] = path.read_bytes()
    return _versions[-1].sources[key]


def resolve(import_path: str, base_dir: str | Path) -> Any:
    """The object that an import path, or the name of given code, means; files and packages are looked for in `base_dir`
    first.

    A file is run once per content, under a private module name. Raises UsageError, with file and line where the user's
    code is at fault.
    """
    place, _, name = import_path.rpartition(":")
    if not place or not name:
        raise UsageError(f"{import_path!r} is not an import path; write file.py:name or package.module:name")
    LOADED.add(import_path)
    if given_code.is_name(import_path):
        return given_code.get(import_path)
    folder = Path(base_dir)
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    value: Any = _file_module(folder / place) if is_file else _package_module(place, folder)
    source = str(value.__file__ or place)
    for part in name.split("."):
        if not hasattr(value, part):
            raise UsageError(_unknown_name(value, part, source))
        value = getattr(value, part)
    return value


def user_place(error: BaseException) -> str:
    """`file.py:12 in function`, the deepest place in the user's own code that an exception passed; "" if none."""
    frames = _user_frames(error)
    return f"{notebook.name_of(frames[-1].filename)}:{frames[-1].lineno} in {frames[-1].name}" if frames else ""


def calling_place() -> str:
    """The same of the code that is running: the deepest place of the user's; "" if none led here."""
    is_library, own = _libraries(), Path(__file__).parent
    callers = [str(own / folder) for folder in ("sweep", "workers", "cli")]  # beyond them is who called lrsweep
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(tuple(callers)):
        if not is_library(frame.f_code.co_filename):
            return f"{notebook.name_of(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""


def _user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames outside lrsweep, torch, numpy and Python's library, the deepest last."""
    is_library = _libraries()
    return [frame for frame in traceback.extract_tb(error.__traceback__) if not is_library(frame.filename)]


def of_user(file: str) -> bool:
    """Whether a file is none of lrsweep, torch, numpy or Python's library."""
    return not _libraries()(file)


def _libraries() -> Callable[[str], bool]:
    """Tells whether a file is one of lrsweep, torch, numpy or Python's library."""
    modules = filter(None, (sys.modules.get(name) for name in ("lrsweep", "torch", "numpy")))
    homes = [Path(module.__file__).parent for module in modules if module.__file__]

    def of_a_library(filename: str) -> bool:
        path = Path(filename)
        if filename.startswith("<") or any(path.is_relative_to(home) for home in homes):
            return True
        installed = {"site-packages", "dist-packages"} & set(path.parts)
        return not installed and path.is_relative_to(sysconfig.get_path("stdlib"))

    return of_a_library


def argument_error(
    function: Callable[..., Any], written: Mapping[str, Any], *given: Any, **more: Any
) -> tuple[str, str] | None:
    """Why a function of the user's cannot be called with the arguments `written` in the spec.

    `given` and `more` are what lrsweep passes besides, by position and by name. Returns the argument to blame ("" if it
    is none of them) and what is wrong, or None if the call is possible.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some callables written in C do not tell
        return None
    try:
        signature.bind(*given, **more, **written)
    except TypeError as error:
        bare = inspect.Signature.empty
        settable = [
            p.replace(annotation=bare) for p in list(signature.parameters.values())[len(given) :] if p.name not in more
        ]
        key = next((key for key in written if repr(key) in str(error)), "")
        return key, f"{error} (its arguments are {signature.replace(parameters=settable, return_annotation=bare)})"
    return None


def defined_at(function: Callable[..., Any]) -> str:
    """`file.py:12: `, where the function begins; empty if that is not known."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return "" if code is None else f"{notebook.name_of(code.co_filename)}:{code.co_firstlineno}: "


def _unknown_name(owner: Any, name: str, source: str) -> str:
    names = [known for known in vars(owner) if not known.startswith("_")] if hasattr(owner, "__dict__") else []
    near = nearest(name, names)
    if near is None:
        return f"{source}: it does not define {name!r}"
    try:
        source += f":{inspect.getsourcelines(inspect.unwrap(getattr(owner, near)))[1]}"
    except (TypeError, OSError):
        pass
    return f"{source}: it does not define {name!r} (did you mean {near}?)"


def _file_module(path: Path) -> ModuleType:
    """The module of a file, run afresh when its content has changed."""
    try:
        source = _source(path)
    except OSError as error:
        siblings = [known.name for known in path.parent.glob("*.py")] if path.parent.is_dir() else []
        hint = did_you_mean(path.name, siblings)
        raise UsageError(f"{path}: cannot be read: {error.strerror}{hint and f' ({hint})'}") from None
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + b"\0" + source).hexdigest()[:16]
    name = f"_lrsweep_user_{digest}"
    if name in sys.modules:
        with _importable(path.parent):
            return sys.modules[name]
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their module up by name
    try:
        with _importable(path.parent), _load_errors(path):
            exec(compile(source, str(path), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _package_module(name: str, folder: Path) -> ModuleType:
    """An installed module, or one below `folder`."""
    with _importable(folder.resolve()), _load_errors(name):
        return importlib.import_module(name)


@contextmanager
def _load_errors(place: str | Path) -> Iterator[None]:
    """Exceptions of code that runs at import become UsageErrors with the line of the user's file that was reached."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = _user_frames(error)
        frames = [frame for frame in frames if Path(frame.filename).resolve() == Path(place).resolve()] or frames
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else str(place)
        if isinstance(error, SyntaxError) and error.filename and not frames:
            where = f"{error.filename}:{error.lineno or 1}"
        text = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        if "relative import" in text:
            text += "; write `import name` without the dot: the folder of the file is searched"
        elif isinstance(error, ModuleNotFoundError):
            text += "; install it beside lrsweep, or put its file into the folder of this one"
        raise UsageError(f"{where}: cannot be loaded: {type(error).__name__}: {text}") from error


_FOLDERS: set[Path] = set()
"""Whose files this process has loaded."""


def neighbours() -> list[Path]:
    """The files beside the user's named ones that these have imported in this process."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    found = {Path(file) for file in files if file and file.endswith(".py")}
    installed = {"site-packages", "dist-packages"}
    return sorted(
        path for path in found if not installed & set(path.parts) and not _FOLDERS.isdisjoint(path.resolve().parents)
    )


def folders() -> list[Path]:
    """Those in which the user's code finds what it imports."""
    return sorted(_FOLDERS)


def _foreign_neighbours(folder: Path) -> list[str]:
    """Modules of other folders of the user's by whose names, or packages', this one has files of its own."""

    def is_foreign(name: str, module: ModuleType | None) -> bool:
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if file is None or not any((folder / place).exists() for place in (f"{top}.py", top)):
            return False
        above = [Path(file).resolve(), *Path(file).resolve().parents]
        home = above[min(1 + name.count(".") + (Path(file).name == "__init__.py"), len(above) - 1)]
        return home != folder and home in _FOLDERS

    return [name for name, module in list(sys.modules.items()) if is_foreign(name, module)]


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While the user's code loads, its folder comes first on the import path; later it stays there as the last, but for
    those of earlier loads.

    So a file may import its neighbours inside functions too, and never hides an installed package from others. What a
    file of another folder has imported as a neighbour is imported anew where this folder has one of that name.
    """
    entry = str(folder)
    importlib.invalidate_caches()
    for name in _foreign_neighbours(folder):
        del sys.modules[name]
    _FOLDERS.add(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry in sys.path:
            sys.path.remove(entry)
        others = [place for place, known in enumerate(sys.path) if Path(known) in _FOLDERS]
        sys.path.insert(others[0] if others else len(sys.path), entry)
