"""Which curve, runs and learning rates a part of a plot shows, written into the ids of its SVG, by which report.html
becomes interactive.

`row-8c1f02aa-0-7` is a part of one curve, `some-8c1f02aa.03b1c7d5-0-8` one of two together, `runs-8c1f02aa-0-5-0_38.40`
the marks of 40 of its runs in the order they are drawn, `runslines-...` lines for runs. The two numbers in the middle
(panel and artist) make ids unique.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, groupby
from typing import Any, TypeVar

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from lrsweep.analysis.facts import OptimizerFacts

T = TypeVar("T", bound=tuple[Any, ...])


def key(title: str) -> str:
    """The curve with this title in an id."""
    return hashlib.blake2s(title.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def panel(ax: Axes, title: str) -> None:
    """The whole panel shows the curve with this title."""
    ax.set_gid(f"row-{key(title)}-{_number(ax)}")


@contextmanager
def curve(ax: Axes, *titles: str) -> Iterator[None]:
    """All that is drawn into the panel meanwhile shows the curve with this title, or these curves together."""
    before = set(map(id, ax.get_children()))
    yield
    for place, artist in enumerate(ax.get_children()):
        if id(artist) not in before and artist.get_gid() is None:
            part(artist, ax, titles, str(place))


def part(artist: Artist | None, ax: Axes, titles: Sequence[str], place: str) -> None:
    """The artist shows the curve with this title, or these curves; `place` makes its id unique in the panel."""
    kind = "row" if len(titles) == 1 else "some"
    assert artist is not None
    artist.set_gid(f"{kind}-{'.'.join(map(key, titles))}-{_number(ax)}-{place}")


def each(ax: Axes, items: Iterable[T]) -> Iterator[T]:
    """The items, each of which starts with a row: what the loop over them draws into the panel shows its curve."""
    for item in items:
        with curve(ax, item[0].title):
            yield item


def runs(artist: Artist, row: OptimizerFacts, run_ids: Iterable[str]) -> None:
    """The marks or lines of `artist` are these runs of `row`."""
    places = {run.run_id: place for place, run in enumerate(row.runs)}
    _points("runs", artist, row, [places[run_id] for run_id in run_ids])


def rates(artist: Artist, row: OptimizerFacts, lrs: Iterable[float]) -> None:
    """The marks or lines of `artist` are these learning rates of `row`, over its seeds."""
    places = {point.lr: place for place, point in enumerate(row.rates)}
    _points("rates", artist, row, [places[lr] for lr in lrs])


def _points(kind: str, artist: Artist, row: OptimizerFacts, places: Sequence[int]) -> None:
    ax = artist.axes
    assert isinstance(ax, Axes)
    lines = "lines" * isinstance(artist, LineCollection)
    artist.set_gid(f"{kind}{lines}-{key(row.title)}-{_number(ax)}-{ax.get_children().index(artist)}-{packed(places)}")


def packed(places: Sequence[int]) -> str:
    """`0_38.40` for 0, 1, ..., 38, 40."""
    steps = count()
    spans = [list(span) for _, span in groupby(places, key=lambda place: place - next(steps))]
    return ".".join(str(span[0]) if len(span) == 1 else f"{span[0]}_{span[-1]}" for span in spans)


def unpacked(text: str) -> list[int]:
    """What `packed` made `text` of."""
    ends = [[int(end) for end in span.split("_")] for span in text.split(".") if span]
    return [place for span in ends for place in range(span[0], span[-1] + 1)]


def _number(ax: Axes) -> int:
    figure = ax.get_figure()
    assert figure is not None
    return figure.axes.index(ax)
