"""The import direction of the package, read off its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lrsweep"
FILES = sorted(PACKAGE.rglob("*.py"))

# Which top-level packages may be imported where (module names below `lrsweep`, a folder stands for all in it).
ONLY_IN = {
    "yaml": {"spec"},
    "pydantic": {"spec", "registry"},
    "matplotlib": {"plot"},
    "typer": {"cli"},
    "rich": {"sweep"},
    "filelock": {"store", "sweep"},
    "pandas": {"results", "analysis", "plot", "report", "sweep"},
}


def for_types_only(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Every node that runs."""
    if not for_types_only(node):
        yield node
        for child in ast.iter_child_nodes(node):
            yield from walk(child)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_stay_in_their_layer(path: Path) -> None:
    names = imports(path)
    tops = {name.split(".")[0] for name in names}
    for package, homes in ONLY_IN.items():
        assert package not in tops or module(path) in homes, f"{path.name} imports {package}"
    assert module(path) in ("__main__", "cli", "sweep") or not any(name.startswith("lrsweep.cli") for name in names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_can_be_read_at_one_sitting(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500
