"""matplotlib's SVG as a part of the page: small, without any address, and with what its parts show (plot/tags.py) as
data attributes for the script."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lrsweep.plot import tags
from lrsweep.report.template import code, escaped

_TAGGED = re.compile(r'<g id="(row|some|runs|rates)(lines)?-(\w{8}(?:\.\w{8})*)-[\d-]+?(?:-([\d_.]*))?">')
_PATH = re.compile(r' d="([^"]*)"')
_PLACE = re.compile(r' (x|y)="(-?\d+\.\d\d)\d+"')
_STYLE = re.compile(r' style="[^"]*"')
_LONG = re.compile(r"(\d\.\d\d)\d+")
_USES = re.compile(r'<g([^<>]*)>((?:\s*<use [^<>]*?style="([^"]*)"/>)(?:\s*<use [^<>]*?style="\3"/>)+)\s*</g>')


def figure(name: str, svg: str, alt: str, caption: str, places: Mapping[str, int], *, kind: str = "plot") -> str:
    """A captioned figure with this name. `places`: the numbers of the curves by their `tags.key`."""
    return (
        f'<figure class="{kind}" id="plot-{escaped(name)}"><div class="scroll" tabindex="0" role="region" '
        f'aria-label="{escaped(caption)}">{inline(name, svg, alt, places)}</div>'
        f"<figcaption>{code(caption)}</figcaption></figure>"
    )


def inline(name: str, svg: str, alt: str, places: Mapping[str, int]) -> str:
    """The SVG alone: no XML head, metadata or style sheet, and ids that start with the name of the figure."""
    body = svg[svg.index("<svg") :]
    box = re.search(r'viewBox="0 0 ([0-9.]+) ([0-9.]+)"', body)
    if box is None:
        raise ValueError("this is no SVG that matplotlib wrote")
    body = body[body.index(">") + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.S)
    body = _TAGGED.sub(lambda found: _data(found, places), body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # nothing refers to a group
    # Of a megabyte: far sooner replaced than matched.
    body = body.replace(' id="', f' id="{name}-').replace("url(#", f"url(#{name}-")
    body = body.replace('xlink:href="#', f'href="#{name}-')
    body = _smaller(body)
    width = round(float(box[1]) * 96 / 72)  # points to CSS pixels: no figure is blown up
    return (
        f'<svg viewBox="0 0 {box[1]} {box[2]}" style="max-width:{width}px" role="img" '
        f'aria-label="{escaped(alt)}">{body.strip()}'
    )


def _data(found: re.Match[str], places: Mapping[str, int]) -> str:
    """The start tag of a group: which curve it shows, and of marks and lines which runs or rates of that curve."""
    kind, lines, key, shown = found.groups()
    known = [str(places[one]) for one in key.split(".") if one in places]
    if not known:
        return "<g>"
    if kind == "some":
        return f'<g data-some="{" ".join(known)}">'
    what = "" if kind == "row" else f' data-{kind}="{" ".join(map(str, tags.unpacked(shown or "")))}"'
    return f'<g data-row="{known[0]}"{what}{" data-lines" if lines else ""}>'


def _smaller(body: str) -> str:
    """The same drawing in fewer letters: to a hundredth of a point, and a style that all marks share said once."""
    body = _PATH.sub(lambda found: f' d="{_short_path(found[1])}"', body)
    body = _PLACE.sub(r' \1="\2"', body)
    body = _USES.sub(_hoisted, body)
    body = _STYLE.sub(lambda found: found[0].replace(": ", ":").replace("; ", ";"), body)
    body = re.sub(r">\s+<", "><", body)
    while "<g></g>" in body or "<defs></defs>" in body:
        body = body.replace("<g></g>", "").replace("<defs></defs>", "")
    return body


def _short_path(path: str) -> str:
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", _LONG.sub(r"\1", path)).strip().replace("\n", " ")


def _hoisted(found: re.Match[str]) -> str:
    attributes, uses, style = found.groups()
    if "style=" in attributes or re.search(r"(?<!-)opacity", style):
        return found[0]  # the opacity of a group is another than that of each of its members
    return f'<g{attributes} style="{style}">' + uses.replace(f' style="{style}"', "") + "</g>"
