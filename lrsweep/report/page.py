"""report.html: one file that answers first, shows then, and prints every rule it used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep import plot
from lrsweep.analysis.facts import OptimizerFacts, SweepFacts, full_title
from lrsweep.analysis.stats import DRAWS, ENUMERATED, draws_for
from lrsweep.plot import selection
from lrsweep.report import first_screen, points, svg
from lrsweep.report import tables as html_tables
from lrsweep.report.rules import RULES, anchor
from lrsweep.report.template import bullets, code, data, escaped, folded, page, paragraph, section
from lrsweep.results import manifest, tables
from lrsweep.results.figures import Rendered, Report, outdated, save_report
from lrsweep.spec.load import read_resolved
from lrsweep.spec.model import call_text
from lrsweep.store import atomic
from lrsweep.system.folders import given
from lrsweep.wording import advice
from lrsweep.wording.grouped import few_warnings
from lrsweep.wording.notes import notes as notes_of
from lrsweep.wording.words import budget_text, interval_name, plural

if TYPE_CHECKING:
    import pandas as pd

MOST_LINES = 10
"""A longer list is folded after as many lines."""
MOST_CURVES = 200
"""Curves in a table or list: the best ones, where there are more; summary.csv has all."""
MOST_DETAILS, FEW_DETAILS = 4000, 1000
"""Lines in the tables with a line for each learning rate, all together: all of them up to MOST_DETAILS; where there are
more, FEW_DETAILS, so that the page stays one that opens. runs.csv has all."""


def write(folder: Path | str, *, formats: Sequence[str] = ()) -> Path:
    """Write `report.html` into the folder of a sweep, from its files alone, and return its path.

    `formats` (png, svg, pdf) also saves the pictures beside it, each drawn once for both. The same files give the
    same bytes. Raises UsageError for a folder without a sweep, StorageError.
    """
    folder = given(folder)
    return save_report(make(folder, formats), folder, formats)


def stale(folder: Path) -> tuple[str, ...]:
    """The formats in which pictures beside the report show something else (older tables, `lrsweep plot --metric`).

    Raises what `write` raises.
    """
    tables.ensure(folder)
    return outdated(folder, tables.digest_of(folder))


def make(folder: Path, formats: Sequence[str]) -> Report:
    """What `write` writes; raises what it raises."""
    tables.ensure(folder)
    sweep = plot.load(folder)
    return _around(_pictures(sweep, formats), folder, sweep, tables.read_runs(folder))


class ReportBuilder:
    """A report that is begun before `summary.csv` and `manifest.json` are there. Methods raise what `write` raises."""

    def __init__(self, folder: Path, rates: dict[str, float]) -> None:
        """Analyse the tables in `folder`; `rates` are torch's default ones by label."""
        self.folder = folder
        fingerprint = tables.digest_of(folder)
        self._runs, curves = tables.read_runs(folder), tables.read_curves(folder)
        spec = read_resolved(folder / tables.SPEC)
        self.summary = tables.summary_of(self._runs, curves, spec, rates)
        self._sweep = plot.sweep_from(self.summary.facts, spec, curves, fingerprint)
        self._drawn: list[Rendered] = []

    def draw(self, formats: Sequence[str]) -> None:
        self._drawn = _pictures(self._sweep, formats)

    def report(self) -> Report:
        """When all that it reads is there and `draw` has come to its end."""
        if not self._drawn:
            raise RuntimeError("the plots could not be drawn")
        return _around(self._drawn, self.folder, self._sweep, self._runs)


def _pictures(sweep: plot.SweepFigures, formats: Sequence[str]) -> list[Rendered]:
    """Those of the report, and those beside it."""
    return plot.rendered(sweep, sorted({*formats, "svg"}))


def _around(pictures: list[Rendered], folder: Path, sweep: plot.SweepFigures, runs: pd.DataFrame) -> Report:
    text = html(sweep, pictures, runs, _read_spec(folder), splits(manifest.read(folder)))
    return Report(text=text, pictures=pictures)


def _read_spec(folder: Path) -> str:
    with atomic.storage_errors(folder / tables.SPEC, "read"):
        return (folder / tables.SPEC).read_text(encoding="utf-8")


def splits(facts: Mapping[str, Any]) -> list[str]:
    """The sizes of the splits, from what `manifest.json` says of the tasks; empty for a sweep without one."""
    found = []
    tasks = facts.get("tasks")
    for notes in tasks.values() if isinstance(tasks, dict) else ():
        if isinstance(notes, dict) and {"train", "val"} <= set(notes):
            task = notes.get("task")
            name = call_text(str(task["name"]), {}) if isinstance(task, dict) and "name" in task else "the task"
            test = notes.get("test") or "no"
            sizes = f"{notes['train']} train, {notes['val']} validation, {test} test examples"
            prepared = notes.get("prepared")
            more = [str(text) for text in prepared] if isinstance(prepared, list) else []
            found.append(f"{'; '.join([f'{name}: {sizes}', *more])}.")
    return sorted(set(found))


def html(
    sweep: plot.SweepFigures, pictures: Sequence[Rendered], runs: pd.DataFrame, spec: str,
    split_sizes: Sequence[str] = (),
) -> str:  # fmt: skip
    """The report as text; `pictures` hold the SVG of every plot."""
    facts = sweep.facts
    listed = _listed(facts)
    known = points.Curves(facts.rows)
    figures = [
        svg.figure(one.name, one.files["svg"].decode("utf-8"), one.alt, one.caption, known.places) for one in pictures
    ]
    sections = {
        "summary": ("Summary", _summary(sweep, known)),
        "caveats": ("Caveats", _caveats(facts, listed)),
        "plots": ("Plots", figures),
        "details": ("Details", _details(facts, listed)),
        "numbers": ("Numbers", _numbers(facts, listed)),
        "diagnosis": ("Diagnosis", _diagnosis(listed, runs)),
        "comparisons": ("Comparisons", _comparisons(facts, listed)),
        "setup": ("Setup", _setting(facts, spec, split_sizes)),
        "definitions": ("Definitions", _rules()),
    }
    parts = {name: section(name, heading, *found) for name, (heading, found) in sections.items()}
    parts = {name: part for name, part in parts.items() if part}
    links = "".join(f'<a href="#{name}">{escaped(sections[name][0])}</a>' for name in parts)
    body = [
        f"<header>{_title(facts, sweep.setting or budget_text(facts.budget))}</header>",
        f'<nav aria-label="contents">{links}</nav>',
        *parts.values(),
        data(known.said(facts, "".join(figures), parts["summary"])),
    ]
    return page(f"{facts.name}: learning-rate sensitivity", body, sweep.mark)


def _title(facts: SweepFacts, setting: str) -> str:
    counts = f"{plural(facts.n_runs, 'run')}, {facts.n_diverged} diverged, {facts.n_failed} failed"
    return (
        f"<h1>{escaped(facts.name)}: learning-rate sensitivity</h1>"
        f'<p class="budget">{escaped(setting)} · {plural(len(facts.seeds), "seed")} · {counts}</p>'
    )


def _summary(sweep: plot.SweepFigures, known: points.Curves) -> Iterable[str]:
    facts, shown = sweep.facts, sweep.head
    yield first_screen.sentence(facts)
    table = first_screen.table(shown.facts, shown.looks, [known.place(row) for row in shown.facts.rows])
    drawn = plot.head(sweep)
    if drawn is None:
        yield table
        return
    text = drawn.files["svg"].decode("utf-8")
    figure = f'<figure class="plot overview">{svg.inline(drawn.name, text, drawn.alt, known.places)}</figure>'
    yield f'<div class="first">{table}{figure}</div>'
    if len(shown.facts.rows) < len(facts.rows):
        said = selection.said(len(shown.facts.rows), len(facts.rows), "settings")
        yield f'<p>Shown: {said}; <a href="#numbers">all of them</a> further down.</p>'


def _caveats(facts: SweepFacts, listed: SweepFacts) -> Iterable[str]:
    texts = advice.sweep_warnings(listed)
    if shown := selection.said(len(listed.rows), len(facts.rows), "curves"):
        yield bullets(few_warnings(facts), "warnings")
        yield folded(f"Every caveat of {shown}", bullets(texts, "warnings"))
    elif texts:
        yield bullets(texts[:MOST_LINES], "warnings")
        if len(texts) > MOST_LINES:
            yield folded(f"{len(texts) - MOST_LINES} more", bullets(texts[MOST_LINES:], "warnings"))


def _details(facts: SweepFacts, listed: SweepFacts) -> Iterable[str]:
    said = [(advice.sentence(row, facts.budget), advice.recommendation(row, facts.metric)) for row in listed.rows]
    sentences = [" ".join(parts).strip() for parts in said]
    yield bullets(sentences) if len(sentences) <= MOST_LINES else folded("Details per optimizer", bullets(sentences))


def _numbers(facts: SweepFacts, listed: SweepFacts) -> Iterable[str]:
    brackets = " or ".join(dict.fromkeys(interval_name(row.n_seeds) for row in facts.rows if row.n_seeds))
    better = "smaller" if facts.mode == "min" else "larger"
    of_grid = (
        f"Each best learning rate is the best of those tried with this budget. Brackets: {brackets or 'no seeds'}; "
        "≥ marks a lower bound (the grid ended first, or the next learning rate diverged). "
    )
    objective = f"Objective: {facts.metric} ({facts.at.replace('_', ' ')}), {better} is better. "
    sort = '<span class="scripted">Click a column heading to sort.</span>'
    yield f"<p>{code(objective + of_grid * (not facts.one_rate))}{sort}</p>"
    if shown := selection.said(len(listed.rows), len(facts.rows), "curves"):
        yield paragraph(f"Tables and lists show {shown}; summary.csv has all of them.")
    if (draws := draws_for(len(facts.rows))) < DRAWS and any(row.n_seeds > ENUMERATED for row in facts.rows):
        yield paragraph(
            f"With {len(facts.rows):,} curves, intervals are of {draws:,} draws of the seeds instead of {DRAWS:,}."
        )
    yield from html_tables.numbers(listed)
    detailed = () if facts.one_rate else _detailed(listed)
    if detailed and (shown := selection.said(len(detailed), len(facts.rows), "curves")):
        yield paragraph(f"Every learning rate of {shown}; runs.csv has all of them.")
    for row in detailed:
        yield folded(f"{row.title}: every learning rate", html_tables.rates(row))


def _listed(facts: SweepFacts) -> SweepFacts:
    """What tables and lists show: all of it, or what is about the best rows where there are too many."""
    rows = selection.best(facts.rows, facts.mode, MOST_CURVES)
    if len(rows) == len(facts.rows):
        return facts
    kept = {row.title for row in rows}
    return replace(
        selection.with_rows(facts, rows),
        against_adam=tuple(one for one in facts.against_adam if full_title(one.optimizer, one.axes) in kept),
        ratios=tuple(one for one in facts.ratios if full_title(one.optimizer, one.axes) in kept),
    )


def _detailed(facts: SweepFacts) -> tuple[OptimizerFacts, ...]:
    """The rows whose learning rates are all shown: the best ones, where these are too many."""
    longest = max((len(row.rates) for row in facts.rows), default=1)
    if longest * len(facts.rows) <= MOST_DETAILS:
        return facts.rows
    return selection.best(facts.rows, facts.mode, max(1, FEW_DETAILS // max(1, longest)))


def _diagnosis(facts: SweepFacts, runs: pd.DataFrame) -> Iterable[str]:
    yield html_tables.diagnoses(facts)
    yield html_tables.failures(runs)
    for row in _detailed(facts):
        yield folded(f"{row.title}: diagnosis by learning rate", html_tables.diagnosis_by_rate(row))


def _comparisons(facts: SweepFacts, listed: SweepFacts) -> Iterable[str]:
    if listed.against_adam:
        yield html_tables.against_adam(listed)
    if not facts.one_rate:
        yield html_tables.ratios(listed)
        yield html_tables.drifts(listed)
    yield bullets(notes_of(facts))


def _setting(facts: SweepFacts, spec: str, split_sizes: Sequence[str]) -> Iterable[str]:
    yield paragraph(_chosen_on(facts.metric))
    yield bullets(split_sizes)
    yield "<h3>The resolved spec</h3>"
    yield f'<pre tabindex="0"><code>{escaped(spec)}</code></pre>'


def _chosen_on(metric: str) -> str:
    split = {"train": "training", "val": "validation"}.get(metric.split("_")[0], "")
    where = f"the {split} split" if split else "no named split"
    return (
        f"Every learning rate in this report was selected by `{metric}`, measured on {where}. The test set "
        "is never used for selection; its results are in runs.csv (final_test_*)."
    )


def _rules() -> Iterable[str]:
    yield "<dl>"
    for name, text, source in RULES:
        yield f'<dt id="{anchor(name)}">{escaped(name)}</dt><dd>{escaped(text)} <small>[{escaped(source)}]</small></dd>'
    yield "</dl>"
