"""The parts an HTML report is made of: escaped text, sortable tables, one style sheet, a little script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

from lrsweep.errors import printable


@dataclass(frozen=True)
class TableCell:
    """What a table cell shows, and the number that sorts it (None: its text does)."""

    text: str
    value: float | None = None
    note: str = ""


def escaped(text: str) -> str:
    """Text for HTML, in content and in attributes."""
    return escape(printable(text))


def code(text: str) -> str:
    """Escaped text in which `...` becomes code."""
    parts = escaped(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{part}</code>" if index % 2 else part for index, part in enumerate(parts))


def paragraph(text: str, kind: str = "") -> str:
    return f'<p class="{kind}">{code(text)}</p>' if kind else f"<p>{code(text)}</p>"


def bullets(lines: Iterable[str], kind: str = "") -> str:
    items = "".join(f"<li>{code(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{items}</ul>' if items else ""


def term(name: str, anchor: str) -> str:
    """A word that leads to its definition, if it has one."""
    return f'<a href="#{anchor}">{escaped(name)}</a>' if anchor else escaped(name)


def section(anchor: str, title: str, *parts: str) -> str:
    """A part of the page whose heading is a link to itself."""
    body = "\n".join(part for part in parts if part)
    head = f'<h2><a href="#{anchor}">{escaped(title)}</a></h2>'
    return f'<section id="{anchor}">{head}\n{body}\n</section>' if body else ""


def folded(title: str, *parts: str) -> str:
    return f"<details><summary>{escaped(title)}</summary>\n{''.join(parts)}\n</details>"


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[TableCell | str]]) -> str:
    """A table whose columns sort by a click or by the keyboard; the first column names the row."""
    head = "".join(f'<th scope="col"><button type="button">{escaped(name)}</button></th>' for name in headers)
    body = "\n".join(f"<tr>{''.join(_cell(cell, first=not i) for i, cell in enumerate(row))}</tr>" for row in rows)
    if not body:
        return ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table>'
        f"<caption>{escaped(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: TableCell | str, *, first: bool) -> str:
    cell = TableCell(cell) if isinstance(cell, str) else cell
    sort = "" if cell.value is None else f' data-v="{_sortable(cell.value)}"'
    number = "" if cell.value is None else ' class="n"'
    note = f" <small>{escaped(cell.note)}</small>" if cell.note else ""
    if first:
        return f'<th scope="row"{sort}>{escaped(cell.text)}{note}</th>'
    return f"<td{number}{sort}>{escaped(cell.text)}{note}</td>"


def _sortable(value: float) -> str:
    return (
        "" if math.isnan(value) else "1e999" if value == math.inf else "-1e999" if value == -math.inf else repr(value)
    )


def data(value: Any) -> str:
    """What the script reads: JSON that no text in it can end."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="data">{text}</script>'


def page(title: str, body: Iterable[str], mark: str = "") -> str:
    """The whole document, with `mark` in its head. Its own policy forbids every request."""
    # Images that are in the page itself are no request: thousands of dots are one (plot/u_curves.py).
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        + (f'<meta name="source" content="{escaped(mark)}">\n' if mark else "")
        + f"<title>{escaped(title)}</title>\n<style>\n{stored('style.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<script>\n{stored('script.js')}</script>\n</body>\n</html>\n"
    )


def stored(name: str) -> str:
    """A file that is installed beside this module."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
