"""The parts an HTML report is made of: escaped text, sortable tables, inline SVG, one style sheet, a little script."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

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


def section(anchor: str, title: str, *parts: str) -> str:
    body = "\n".join(part for part in parts if part)
    return f'<section id="{anchor}"><h2>{escaped(title)}</h2>\n{body}\n</section>' if body else ""


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


def picture(number: int, svg: str, alt: str, caption: str) -> str:
    """A figure from matplotlib's SVG: no XML head, no metadata, no address of any kind, ids of its own."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.S)
    # Of a megabyte: far sooner replaced than matched.
    body = body.replace(' id="', f' id="f{number}-').replace("url(#", f"url(#f{number}-")
    body = body.replace('xlink:href="#', f'href="#f{number}-')
    body = re.sub(r"<!--.*?-->\s*", "", body, flags=re.S)  # matplotlib repeats every text in a comment
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', body)
    if box is None:
        raise ValueError("this is no SVG that matplotlib wrote")
    width = round(float(box[1]) * 96 / 72)  # points to CSS pixels: no picture is blown up
    opening = (
        f'<svg viewBox="0 0 {box[1]} {box[2]}" style="max-width:{width}px" role="img" aria-label="{escaped(alt)}">'
    )
    body = opening + body[body.index(">") + 1 :]
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}">{body.strip()}</div>'
        f"<figcaption>{code(caption)}</figcaption></figure>"
    )


def page(title: str, body: Iterable[str], mark: str = "") -> str:
    """The whole document, with `mark` in its head. Its own policy forbids every request."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
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
