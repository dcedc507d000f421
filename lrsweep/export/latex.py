"""The table of the summary in LaTeX, with booktabs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from lrsweep.analysis.leader import at_recommended
from lrsweep.wording import words

if TYPE_CHECKING:
    from lrsweep.analysis.facts import OptimizerFacts, SweepFacts
    from lrsweep.results.results import Results

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{one: f"\\{one}" for one in "&%$#_{}"},
    "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def write(sweep: Results, folder: Path) -> None:
    """`summary.tex`: a line per optimizer and axis values, in the order of the spec; needs the package booktabs."""
    (folder / "summary.tex").write_text(table(sweep.facts()), encoding="utf-8")


def table(facts: SweepFacts) -> str:
    """A `tabular` to be read with `input`, and what its numbers hold for as a comment above it."""
    axes = list(facts.axes)
    ends = [path.rpartition(".")[2] for path in axes]
    names = ends if len(set(ends)) == len(ends) else axes
    seeds = max((row.n_seeds for row in facts.rows), default=0)
    head = ["optimizer", *map(escaped, names), "use lr", f"{escaped(words.objective_text(facts))} there", "good range"]
    head += ["decades", "$S$", "unusable from"]
    columns = "l" * (1 + len(axes)) + "r" + "l" + "l" + "rrr"
    lines = [
        f"% {facts.name}: {words.budget_line(facts)}".replace("\n", " "),
        f"% [..]: {words.interval_name(seeds)}" if seeds > 1 else "% one seed: no intervals",
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{columns}}}",
        "\\toprule",
        f"{' & '.join(head)} \\\\",
        "\\midrule",
        *(f"{' & '.join(_cells(row, facts))} \\\\" for row in facts.rows),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _cells(row: OptimizerFacts, facts: SweepFacts) -> list[str]:
    first = [escaped(row.optimizer), *(escaped(value) for value in row.axes.values())]
    if not row.trained:
        return [*first, *["--"] * 6]
    there = at_recommended(row, facts.mode)
    low, high = (words.objective_text_of(row, end, 3) for end in (there.low, there.high))
    ends = f" [{low}, {high}]" if math.isfinite(there.low) else ""
    start, end = words.good_range_ends(row)
    unusable = words.unusable_text(row)
    return [
        *first,
        number(words.rate_text(row.recommended_lr)),
        number(words.objective_text_of(row, there.value)) + escaped(ends),
        f"{number(start)}--{number(end)}",
        r"$\geq$ " * row.good_range.at_least + words.decades_text(row).replace("~", r"$\sim$").replace("<", "$<$"),
        number(words.number_text(row.sensitivity.whole.value, 3)),
        f"$>$ {number(unusable[2:])}" if unusable.startswith("> ") else number(unusable),
    ]


def number(text: str) -> str:
    """`1e-05` as a power of ten; others as they are."""
    mantissa, e, exponent = text.partition("e")
    if not e:
        return f"${text}$" if text.startswith("-") else text
    power = f"10^{{{int(exponent)}}}"
    return f"${power}$" if mantissa == "1" else f"${mantissa} \\cdot {power}$"


def escaped(text: str) -> str:
    """A text in which no character means anything to LaTeX."""
    return "".join(SPECIAL.get(one, one) for one in text)
