"""Every sentence that users can read, pinned. To accept a change, run `python -m tests.end_to_end.test_wording`.

`tests/golden/messages.txt` holds the text of all string literals with more than one word, module by module, and
`tests/golden/help.txt` what `--help` prints.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
AGAIN = "read the change, then run `python -m tests.end_to_end.test_wording`"
COMMANDS = ("", "run", "submit", "plot", "report", "compare", "check", "status", "range-test", "init", "list", "schema")
WIDTH = 100

# Words that a PyTorch user would not say, each with what is said in its place.
AVOIDED = {
    r"\bpictures?\b": "plot",
    r"\bbasins?\b": "good range",
    r"\banew\b": "again",
    r"\bvalleys?\b": "good range",
    r"\bupdates?\b(?! rule)": "step",
    r"\btold from\b": "tied",
    r"\bstands? (for|in|beside|under)\b": "is",
    r"\bsuch (as are|ones?)\b": "",
    r"\bmoved between\b": "changed",
    r"\bstacked\b": "trained together",
    r"\bcolour\b": "color",
    r"\bneighbour": "neighbor",
}


def _text(node: ast.AST) -> str | None:
    """The text of a string literal; `{}` stands for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(value.value if isinstance(value, ast.Constant) else "{}" for value in node.values)
    return None


def _is_prose(text: str) -> bool:
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 1 and " " in text.strip()


def literals(tree: ast.Module) -> Iterator[str]:
    """String literals in the order of the source, docstrings aside; f-strings whole."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        for child in getattr(node, "body", []) if isinstance(getattr(node, "body", None), list) else []:
            if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
                skipped.add(id(child.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(value) for value in node.values if isinstance(value, ast.Constant)}
    found = [node for node in ast.walk(tree) if id(node) not in skipped]
    placed = [(node.lineno, node.col_offset, text) for node in found if (text := _text(node)) is not None]  # type: ignore[attr-defined]
    yield from (text for _, _, text in sorted(placed) if _is_prose(text))


@functools.cache
def messages() -> str:
    parts = []
    for path in sorted((ROOT / "lrsweep").rglob("*.py")):
        lines = list(dict.fromkeys(literals(ast.parse(path.read_text(encoding="utf-8")))))
        if lines:
            parts.append("\n".join([f"## {path.relative_to(ROOT).as_posix()}", *map(repr, lines), ""]))
    return "\n".join(parts)


def help_texts() -> str:
    from lrsweep.cli.app import app

    runner = CliRunner()
    parts = []
    for command in COMMANDS:
        shown = runner.invoke(app, [*command.split(), "--help"], terminal_width=WIDTH, env={"COLUMNS": str(WIDTH)})
        assert shown.exit_code == 0, shown.output
        parts.append("\n".join(line.rstrip() for line in shown.output.splitlines()))
    return "\n".join(parts) + "\n"


def test_every_message_is_as_it_was_approved() -> None:
    assert messages() == (GOLDEN / "messages.txt").read_text(encoding="utf-8"), AGAIN


def test_every_help_text_is_as_it_was_approved() -> None:
    assert help_texts() == (GOLDEN / "help.txt").read_text(encoding="utf-8"), AGAIN


@pytest.mark.parametrize("word", AVOIDED)
def test_messages_use_the_words_of_the_field(word: str) -> None:
    lines = [line for line in messages().splitlines() if not line.startswith("##") and re.search(word, line)]
    assert not lines, f"say {AVOIDED[word]!r}: {lines}"


if __name__ == "__main__":
    (GOLDEN / "messages.txt").write_text(messages(), encoding="utf-8")
    (GOLDEN / "help.txt").write_text(help_texts(), encoding="utf-8")
    sys.exit(0)
