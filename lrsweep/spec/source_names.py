"""What can be told of a user's file without running it: does it define a name?"""

from __future__ import annotations

import ast
from pathlib import Path

from lrsweep.spec.check import did_you_mean, told

# Where one of these stands, names may come about that no reader sees.
_DYNAMIC = {"globals", "locals", "vars", "exec", "eval", "setattr", "modules", "__getattr__", "__dict__", "*"}


def problem(path: Path, shown: str, name: str) -> str:
    """Why `name` cannot be taken from the file, which messages call `shown`; "" if that cannot be told from reading."""
    try:
        tree = ast.parse(path.read_bytes())
    except SyntaxError as error:
        return f"{shown}:{error.lineno or 1} is no valid Python: {error.msg}"
    except (OSError, ValueError, RecursionError):
        return ""
    names = _names(tree)
    first = name.partition(".")[0]
    if first in names or names & _DYNAMIC:
        return ""
    top = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_"]
    near = did_you_mean(first, top)
    return told(f"there is no {first!r} in {shown}", f"it has {', '.join(top[:8])}" if top and not near else "", near)


def _names(tree: ast.AST) -> set[str]:
    """Every name and attribute that stands anywhere in the file, but those that are only read."""
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
