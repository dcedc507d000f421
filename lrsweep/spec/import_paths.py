"""Import paths in a spec, `file.py:name` or `package.module:name`: the file is read, never imported."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from lrsweep import given_code
from lrsweep.errors import did_you_mean
from lrsweep.spec.check import Mistakes, with_hint
from lrsweep.spec.yaml_tree import Keys

IMPORT_PATH = re.compile(r"(?P<file>.*\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<what>[^\W\d]\w*(\.[^\W\d]\w*)*)")


def import_path(base_dir: Path, text: str, path: Keys, notes: Mistakes) -> bool:
    """Whether `text` is an import path and its file is there. Nothing is imported."""
    if given_code.is_name(text):
        return True
    match = IMPORT_PATH.fullmatch(text)
    if match is None:
        notes.add(path, f"{text!r} is not an import path (file.py:name or package.module:name)")
        return False
    file = match["file"]
    if not file.endswith(".py"):
        return True
    if not is_file(base_dir / file):
        notes.add(path, f"there is no file {file!r} in {base_dir} (paths are relative to the spec)")
        return False
    if wrong := _missing_name(base_dir / file, file, match["what"]):
        notes.add(path, wrong)
    return not wrong


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def missing_data(base_dir: Path, text: str, folder: bool) -> str:
    """What is wrong with the path of a file of data, or of a folder; "" if it is there."""
    path = base_dir / text
    try:
        there = path.is_dir() if folder else path.is_file()
        other = path.exists()
    except OSError:
        there = other = False
    if there:
        return ""
    if other:
        return f"{text!r} is {'a file, not a folder' if folder else 'a folder, not a file'}"
    return f"there is no {'folder' if folder else 'file'} {text!r} in {base_dir} (paths are relative to the spec)"


# A file that uses one of these may define names that reading it cannot find.
_DYNAMIC = {"globals", "locals", "vars", "exec", "eval", "setattr", "modules", "__getattr__", "__dict__", "*"}


def _missing_name(path: Path, shown: str, name: str) -> str:
    """Why `name` cannot be imported from the file, called `shown` in messages; "" if reading it cannot tell."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        return f"{shown}:{error.lineno or 1} is not valid Python: {error.msg}"
    except (OSError, ValueError, RecursionError):
        return ""
    names = _names(tree)
    first = name.partition(".")[0]
    if first in names or names & _DYNAMIC:
        return ""
    top = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    near = did_you_mean(first, top)
    return with_hint(
        f"{shown} does not define {first!r}", f"it defines {', '.join(top[:8])}" if top and not near else "", near
    )


def _names(tree: ast.AST) -> set[str]:
    """Every name that is assigned, defined or imported anywhere in the file."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and (isinstance(node.ctx, ast.Store) or node.id in _DYNAMIC):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in _DYNAMIC:
            found.add(node.attr)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.alias):
            found.add(node.asname or node.name.partition(".")[0])
        elif isinstance(node, ast.MatchAs | ast.MatchStar | ast.ExceptHandler) and node.name:
            found.add(node.name)
        elif isinstance(node, ast.MatchMapping) and node.rest:
            found.add(node.rest)
    return found
