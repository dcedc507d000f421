"""The parts an HTML report is made of: escaped text, sortable tables, inline SVG, one style sheet, a little script."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """What a table cell shows, and the number that sorts it (None: its text does)."""

    text: str
    value: float | None = None
    note: str = ""


def code(text: str) -> str:
    """Escaped text in which `...` becomes code."""
    parts = escape(text).split("`")
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
    return f'<section id="{anchor}"><h2>{escape(title)}</h2>\n{body}\n</section>' if body else ""


def folded(title: str, *parts: str) -> str:
    return f"<details><summary>{escape(title)}</summary>\n{''.join(parts)}\n</details>"


def table(caption: str, headers: Sequence[str], rows: Iterable[Sequence[Cell | str]]) -> str:
    """A table whose columns sort by a click or by the keyboard; the first column names the row."""
    head = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in headers)
    body = "\n".join(f"<tr>{''.join(_cell(cell, first=not i) for i, cell in enumerate(row))}</tr>" for row in rows)
    if not body:
        return ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def _cell(cell: Cell | str, *, first: bool) -> str:
    cell = Cell(cell) if isinstance(cell, str) else cell
    sort = "" if cell.value is None else f' data-v="{_sortable(cell.value)}"'
    number = "" if cell.value is None else ' class="n"'
    note = f" <small>{escape(cell.note)}</small>" if cell.note else ""
    if first:
        return f'<th scope="row"{sort}>{escape(cell.text)}{note}</th>'
    return f"<td{number}{sort}>{escape(cell.text)}{note}</td>"


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
    opening = f'<svg viewBox="0 0 {box[1]} {box[2]}" style="max-width:{width}px" role="img" aria-label="{escape(alt)}">'
    body = opening + body[body.index(">") + 1 :]
    return (
        f'<figure><div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">{body.strip()}</div>'
        f"<figcaption>{code(caption)}</figcaption></figure>"
    )


def page(title: str, body: Iterable[str]) -> str:
    """The whole document. Its own policy forbids every request."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + f"\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


STYLE = """
:root{--ink:#1d1f23;--soft:#565b66;--paper:#fff;--card:#f5f6f8;--line:#d5d8de;--link:#0b5cad;--warn:#8a1c1c;--warnbg:#fdf0ef}
@media (prefers-color-scheme:dark){:root{--ink:#e8eaee;--soft:#a9afbb;--paper:#16181c;--card:#20242a;--line:#3a3f48;
--link:#8ec2ff;--warn:#ffb4ab;--warnbg:#35201f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:1.2rem 1rem 4rem}
h1{font-size:1.7rem;line-height:1.2;margin:.4rem 0 .2rem;overflow-wrap:anywhere}
h2{font-size:1.25rem;margin:2.4rem 0 .6rem;padding-top:.4rem;border-top:1px solid var(--line)}
h3{font-size:1.02rem;margin:1.4rem 0 .3rem}
p,li,dd,figcaption,summary{overflow-wrap:anywhere}
.budget,figcaption,small,caption{color:var(--soft)}
.verdict{font-size:1.12rem;background:var(--card);border-left:4px solid var(--link);padding:.8rem 1rem;
border-radius:4px}
.warnings{background:var(--warnbg);border-left:4px solid var(--warn);padding:.7rem 1rem .7rem 2rem;border-radius:4px}
nav{font-size:.92rem}nav a{margin-right:.9rem;display:inline-block}
a{color:var(--link)}
code{font:.88em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;
background:var(--card);padding:.05em .3em;border-radius:3px}
pre{background:var(--card);padding:.8rem;border-radius:4px;overflow-x:auto;font-size:.85rem;line-height:1.4}
pre code{padding:0;background:none;font-size:1em}
.scroll{overflow-x:auto;max-width:100%}
table{border-collapse:collapse;font-size:.84rem;margin:.4rem 0 1rem;min-width:50%}
caption{text-align:left;padding-bottom:.3rem;font-size:.88rem}
th,td{padding:.28rem .45rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
tbody th{font-weight:600;white-space:nowrap}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
thead th{vertical-align:bottom;background:var(--card)}
thead button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer;
text-align:left;font-weight:600}
thead button::after{content:" \\2195";color:var(--soft)}
th[aria-sort=ascending] button::after{content:" \\2191"}
th[aria-sort=descending] button::after{content:" \\2193"}
figure{margin:1rem 0 1.8rem}
figure .scroll{background:#fff;border:1px solid var(--line);border-radius:6px;padding:.3rem}
figure svg{display:block;width:100%;min-width:640px;height:auto}
figure svg *{stroke-linejoin:round;stroke-linecap:butt}
figcaption{font-size:.9rem;margin-top:.35rem}
summary{cursor:pointer;font-weight:600;margin:.5rem 0}
dt{font-weight:600;margin-top:.7rem}dd{margin:.1rem 0 0}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
@media print{:root{--ink:#000;--soft:#444;--paper:#fff;--card:#f5f5f5;--line:#bbb;--link:#000;--warn:#600;--warnbg:#fff}
main{max-width:none;padding:0}nav{display:none}.scroll{overflow:visible}figure svg{min-width:0}
figure,tr{break-inside:avoid}table{font-size:.7rem}thead button::after{content:""!important}}
"""

SCRIPT = """
document.querySelectorAll("thead button").forEach(function(button){button.addEventListener("click",function(){
var head=button.parentNode,index=head.cellIndex,body=head.closest("table").tBodies[0];
var down=head.getAttribute("aria-sort")==="ascending",rows=Array.from(body.rows);
function key(row){var cell=row.cells[index],v=cell.getAttribute("data-v");
return v===null?cell.textContent:v===""?NaN:Number(v)}
rows.map(function(row,place){return{row:row,place:place,key:key(row)}}).sort(function(a,b){
var x=a.key,y=b.key,n=Number.isNaN(x)-Number.isNaN(y);if(n)return n;
var order=typeof x==="number"&&typeof y==="number"?x-y||0:String(x).localeCompare(String(y));
if(x===y||Number.isNaN(order))order=0;return(down?-order:order)||a.place-b.place
}).forEach(function(item){body.appendChild(item.row)});
head.parentNode.querySelectorAll("th").forEach(function(th){th.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",down?"descending":"ascending")})});
window.addEventListener("beforeprint",function(){document.querySelectorAll("details").forEach(function(d){d.open=true})});
"""
