"""report.html: one file that needs nothing else, says everything, and cannot be broken by what it shows."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from lrsweep import plot
from lrsweep.analysis.analyse import analyse
from lrsweep.analysis.suggest import CLIFF_STEP
from lrsweep.cli import output
from lrsweep.errors import UsageError
from lrsweep.plot import sensitivity, style
from lrsweep.report import page as report
from lrsweep.report import tables as html_tables
from lrsweep.report.rules import RULES
from lrsweep.report.svg import inline
from lrsweep.report.template import TableCell, code, stored, table
from lrsweep.results import tables
from lrsweep.results.results import load
from lrsweep.wording import advice, words
from lrsweep.wording.notes import notes as notes_of
from lrsweep.wording.verdict import verdict
from tests.support import planted_tables
from tests.support import tables as fabricate

HOSTILE = "<script>alert('x')</script>&\"`$y$"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fabricate.folder(tmp_path_factory.mktemp("report"), rates=fabricate.grid(per_decade=1), failed=(20, 21, 50))


@pytest.fixture(scope="module")
def text(sweep: Path) -> str:
    return report.write(sweep).read_text(encoding="utf-8")


def test_a_tie_is_said_to_be_about_the_seeds(sweep: Path, text: str) -> None:
    """Three seeds tell little apart: `tied` alone would read as `equally good`."""
    facts = plot.load(sweep).facts
    tied = replace(facts, against_adam=tuple(replace(one, verdict="tied") for one in facts.against_adam))
    assert "indistinguishable with 3 seeds" in html_tables.against_adam(tied)
    assert "tied with the best" in text
    assert "means that these seeds cannot distinguish the two, not that they are equally good" in text
    assert ">tied<" not in text


class Structure(HTMLParser):
    """Collects tags with their attributes and checks that every element is closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "hr", "wbr"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(text: str) -> Structure:
    return Structure(text)


def test_it_asks_for_nothing_from_anywhere(text: str, page: Structure) -> None:
    assert "http:" not in text
    assert "https:" not in text
    assert "//" not in re.sub(r"<pre.*?</pre>", "", text, flags=re.S)
    for tag, attributes in page.tags:
        assert "src" not in attributes
        assert "srcset" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert not re.search(r"url\((?!#)|@import", text)


def test_the_answer_comes_first(text: str, sweep: Path) -> None:
    facts = load(sweep).facts()
    choice, rest = verdict(facts)
    assert text.index(choice) < text.index(rest) < text.index("<table") < text.index('class="plot overview')


def test_every_curve_warning_note_and_rule_is_in_it(page: Structure, sweep: Path) -> None:
    facts = load(sweep).facts()
    said = " ".join(" ".join(page.text).split())
    wanted = [advice.sentence(row, facts.budget) for row in facts.rows]
    wanted += [*advice.sweep_warnings(facts), *notes_of(facts)]
    wanted += [part for rule in RULES for part in rule]
    wanted += ["The test set is never used for selection", "val_loss", "the validation split"]
    for sentence in wanted:
        for part in sentence.split("`"):  # what stands between backticks is code
            assert " ".join(part.split()) in said
    assert "No optimizer is best everywhere" in said


def test_the_whole_spec_is_in_it(page: Structure, sweep: Path) -> None:
    assert (sweep / "spec.yaml").read_text(encoding="utf-8") in page.text


def test_a_diverged_seed_is_the_worst_one(tmp_path: Path) -> None:
    """It costs more than any other, though its objective may be finite."""
    facts = plot.load(fabricate.folder(tmp_path, rates=fabricate.grid(per_decade=1))).facts
    row = facts.rows[0]
    point = replace(row.rates[2], n_diverged=1, worst=0.5)
    assert html_tables._worst(row, point) == TableCell("diverged", math.inf)
    turned = replace(row, initial_objective=0.1, best_objective=0.9)
    assert html_tables._worst(turned, point) == TableCell("diverged", -math.inf)
    assert html_tables._worst(row, replace(point, n_diverged=0)).value == 0.5
    shown = html_tables.rates(replace(row, rates=(point,)))
    assert '<td class="n" data-v="1e999">diverged</td>' in shown


def test_failed_runs_of_one_error_are_one_line_with_their_count() -> None:
    of = {"status": "failed", "axis": "x"}
    lost = "RuntimeError: DataLoader worker (pid {}) is killed"
    runs = pd.DataFrame(
        [
            {**of, "optimizer": "sgd", "lr": 0.1, "seed": 0, "error": "KeyError: 'x'\nmore"},
            {**of, "optimizer": "sgd", "lr": 0.1, "seed": 2, "error": "KeyError: 'x'"},
            {**of, "optimizer": "adam", "lr": 0.001, "seed": 0, "error": "KeyError: 'x'"},
            {**of, "optimizer": "adam", "lr": 0.001, "seed": 0, "error": "KeyError: 'x'"},  # another axis value
            {**of, "optimizer": "adam", "lr": 0.01, "seed": 1, "error": lost.format(7)},
            {**of, "optimizer": "adam", "lr": 0.01, "seed": 0, "error": lost.format(81)},
            {**of, "optimizer": "adam", "lr": 0.01, "seed": 3, "error": "", "status": "ok"},
        ]
    )
    assert re.findall(r"<tr>.*?</tr>", html_tables.failures(runs))[1:] == [
        '<tr><th scope="row">KeyError: &#x27;x&#x27;</th><td class="n" data-v="4.0">4</td>'
        "<td>sgd 0.1 (seeds 0, 2), adam 0.001 (seed 0)</td></tr>",
        '<tr><th scope="row">RuntimeError: DataLoader worker (pid) is killed</th><td class="n" data-v="2.0">2</td>'
        "<td>adam 0.01 (seeds 1, 0)</td></tr>",
    ]
    assert "Failed runs (6)" in html_tables.failures(runs)
    many = pd.DataFrame([{**of, "optimizer": "sgd", "lr": 0.1 + n, "seed": 0, "error": f"no {n}"} for n in range(60)])
    assert "Failed runs (60; the first 50 of 60 errors)" in html_tables.failures(many)
    many["error"] = "no"
    assert "and 40 more" in html_tables.failures(many)


def test_failed_runs_are_listed_with_their_error(page: Structure) -> None:
    assert "ValueError: <script>alert(1)</script> made up" in page.text


def test_the_tables_hold_the_numbers_of_the_summary(page: Structure, sweep: Path) -> None:
    sorted_by = [attributes.get("data-v") for _, attributes in page.tags]
    for row in load(sweep).summary.itertuples():
        assert repr(float(row.best_lr)) in sorted_by  # type: ignore[arg-type]
        assert repr(float(row.sensitivity)) in sorted_by  # type: ignore[arg-type]


def test_screen_readers_find_names(page: Structure) -> None:
    pictures = [attributes for tag, attributes in page.tags if tag == "svg" and "aria-hidden" not in attributes]
    assert len(pictures) >= 6
    for attributes in pictures:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 40
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert heads
    assert all(attributes.get("scope") in {"row", "col"} for attributes in heads)
    tables_found = [tag for tag, _ in page.tags if tag in {"table", "caption"}]
    assert tables_found.count("table") == tables_found.count("caption")
    assert ("html", {"lang": "en"}) in page.tags


def test_ids_are_unique_and_references_lead_somewhere(text: str, page: Structure) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {attributes["href"] for _, attributes in page.tags if attributes.get("href")}
    used |= {f"#{name}" for name in re.findall(r"url\(#([^)]+)\)", text)}
    assert {name.removeprefix("#") for name in used if name} <= set(ids)


def test_hostile_labels_stay_text(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=(HOSTILE, "adam"), rates=[1e-3, 1e-2, 1e-1], seeds=2, rows=8)
    page = Structure(report.write(folder).read_text(encoding="utf-8"))
    assert [attributes.get("type") for tag, attributes in page.tags if tag == "script"] == ["application/json", None]
    assert len([tag for tag, _ in page.tags if tag == "table"]) > 5
    assert any(HOSTILE.split("`")[0] in part for part in page.text)


def test_the_same_files_give_the_same_bytes(sweep: Path, text: str) -> None:
    assert report.write(sweep).read_text(encoding="utf-8") == text


def test_pictures_can_be_saved_on_the_way(tmp_path: Path) -> None:
    from lrsweep import plot

    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2, 1e-1], seeds=2, rows=8)
    report.write(folder, formats=("png",))
    saved = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    drawn = plot.draw_all(folder)
    assert {path.name: path.read_bytes() for path in drawn} == saved


def test_split_sizes_are_named(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2], seeds=1, rows=8)
    notes = {"task": {"name": "/some/where/own.py:make_task"}, "train": 1077, "val": 360, "test": 0}
    table = {**notes, "task": {"name": "csv"}, "prepared": ["left out: <id>", "one-hot: city (3 values)"]}
    tasks = {"k": notes, "odd": 3, "t": table, "o": {**table, "prepared": 3}}
    (folder / "manifest.json").write_text(json.dumps({"tasks": tasks}), encoding="utf-8")
    text = report.write(folder).read_text(encoding="utf-8")
    assert "make_task: 1077 train, 360 validation, no test examples." in text
    assert "no test examples; left out: &lt;id&gt;; one-hot: city (3 values)." in text
    assert "/some/where" not in text


def test_a_folder_without_a_sweep_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no sweep"):
        report.write(tmp_path)


def test_a_sweep_without_a_finished_run_has_a_report(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("adam",), rates=[1e-3, 1e-2], seeds=1, rows=8)
    for name in ("runs.csv", "curves.csv", "summary.csv"):
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").split("\n", 1)[0] + "\n", encoding="utf-8")
    assert "No run has finished yet" in report.write(folder).read_text(encoding="utf-8")


# --- parts --------------------------------------------------------------------------------------------------------


def test_code_is_what_stands_between_pairs_of_backticks() -> None:
    assert code("try `a<b`") == "try <code>a&lt;b</code>"
    assert code("a ` b") == "a ` b"


def test_cells_sort_by_their_value_and_nan_has_none() -> None:
    made = table(
        "t",
        ("a", "b"),
        [["x", TableCell("1e-05", 1e-5)], ["y", TableCell("", float("nan"))], ["z", TableCell("inf", float("inf"))]],
    )
    assert re.findall(r'data-v="([^"]*)"', made) == ["1e-05", "", "1e999"]
    assert table("t", ("a",), []) == ""


def test_a_picture_that_is_no_svg_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="SVG"):
        inline("u_curve", "<svg></svg>", "alt", {})


def luminance(color: str) -> float:
    digits = color if len(color) == 7 else "#" + "".join(2 * c for c in color[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("pair", ["ink paper", "soft paper", "soft card", "link paper", "ink warnbg", "ink card"])
def test_text_is_readable(number: int, pair: str) -> None:
    """WCAG 2.1, 1.4.3: a contrast of 4.5 or more."""
    scheme = re.findall(r":root\{(.*?)\}", stored("style.css"), flags=re.S)[number]
    colors = dict(re.findall(r"--(\w+):(#[0-9a-f]+)", scheme))
    light, dark = sorted((luminance(colors[name]) for name in pair.split()), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


# --- in a browser -------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--virtual-time-budget=8000",
]  # fmt: skip
FRAME = """<!DOCTYPE html><title>waiting</title><iframe style="width:WIDTHpx;height:900px;border:0"></iframe><script>
var frame=document.querySelector("iframe");frame.onload=function(){var d=frame.contentDocument,r=d.documentElement;
var b=d.querySelector("thead button"),t=b.closest("table");t.querySelectorAll("thead button")[1].click();
var v=Array.from(t.tBodies[0].rows).map(function(x){return x.cells[1].getAttribute("data-v")});
document.title=JSON.stringify({wide:r.scrollWidth,room:r.clientWidth,order:v})};frame.srcdoc=TEXT;</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_nothing_scrolls_sideways_and_columns_sort(text: str, tmp_path: Path, width: int) -> None:
    html = FRAME.replace("WIDTH", str(width)).replace("TEXT", json.dumps(text).replace("</", "<\\/"))
    (tmp_path / "frame.html").write_text(html, encoding="utf-8")
    command = [
        str(CHROMIUM),
        *QUIET,
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--window-size={width + 40},1000",
        "--dump-dom",
    ]
    done = subprocess.run(
        [*command, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    assert title is not None
    seen = json.loads(title[1].replace("&quot;", '"'))
    assert seen["wide"] <= seen["room"] <= width
    order = [float(value) for value in seen["order"] if value]
    assert order == sorted(order)
    assert len(order) == 5


def test_the_report_needs_only_the_tables(sweep: Path) -> None:
    assert not (sweep / "journal").exists()
    assert tables.is_sweep(sweep)


def test_the_rules_say_what_the_code_does() -> None:
    rules = {name: text for name, text, _ in RULES}
    for name, part in {
        "Tied with the best": "costs above l0 counted as l0",
        "Learning rates to try next": f"steps of {'half a decade' if CLIFF_STEP == 0.5 else ''} or less",
        "Drift of the best learning rate": "at every budget of the curve; otherwise no curve is refined",
        "Diagnosis": "From train_loss alone",
        "Recommended learning rate": "the cost there is shown next to it",
    }.items():
        assert part in rules[name], name


def test_of_an_optimizer_whose_runs_all_failed_no_seeds_range_or_training_is_told(tmp_path: Path) -> None:
    rates = [10.0**k for k in range(-4, 1)]
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), rates=rates, failed=range(3 * len(rates)))
    report.write(folder)
    text = (folder / "report.html").read_text()
    for untrue in ("One seed", "nothing trained</span>", "0 seeds", "grid too short"):
        assert untrue not in text
    assert '<span class="none">every run failed</span>' in text


def test_of_one_learning_rate_no_range_and_no_sensitivity_is_told() -> None:
    (row,) = fabricate.facts_of_medians([0.01], {"sgd": [0.5]}, start=2.3).rows
    assert words.facts_line(row) == "one learning rate tried, 0.01"


@pytest.mark.parametrize(
    ("medians", "bound"),
    [
        ([2.0, 1.0, 0.5, 0.5, 1.5], False),
        ([2.0, 1.0, 0.5, 0.5], True),  # the grid ends first
        ([2.0, 1.0, 0.5, 0.5, math.inf], True),  # the next rate diverged
        ([math.inf, 0.5, 0.5, 1.0, 1.5], True),
        ([2.0, 1.0, 0.5, 0.5, 1.5, math.inf], False),  # that is further away
    ],
)
def test_a_width_that_is_a_lower_bound_is_shown_as_one_everywhere(
    medians: list[float], bound: bool, tmp_path: Path
) -> None:
    facts = fabricate.facts_of_medians([10.0**k for k in range(-6, len(medians) - 6)], {"sgd": medians}, start=2.3)
    (row,) = facts.rows
    wide, narrow = row.good_range.decades, row.good_range_1pct.decades
    assert (f">= {wide:.1f}" in output.summary(facts, tmp_path)) == bound
    for number in (wide, narrow):
        assert (
            bool(re.search(rf"≥ {float(f'{round(number, 3):.4g}'):g}[< ]", "".join(html_tables.numbers(facts))))
            == bound
        )
    assert (f"(≥ {wide:.1f} decades)" in words.facts_line(row)) == bound
    looks = [style.look(0)]
    with style.styled():
        texts = [text.get_text() for text in sensitivity.sensitivity(facts, looks).axes[1].texts]
    assert any(text.startswith(f"≥ {wide:.1f} decades [") for text in texts) == bound
    assert ("at least" in planted_tables.said(row)) == bound


def test_table_and_summary_count_the_same_tied_rates() -> None:
    """Three seeds that spread widely tie a rate that hardly trains; the report says that a tie is about the seeds."""
    values = [[0.1] * 3, [0.085] * 3, [0.2, 0.1, 0.3], [1.99, 0.2, 1.958]]
    runs = planted_tables.frame(planted_tables.table("adam", [1e-3, 1e-2, 1e-1, 1.0], values))
    facts = analyse(runs, None, planted_tables.spec("adam"), {})
    (row,) = facts.rows
    marked = re.findall(r"<tr>.*?</tr>", html_tables.rates(row), flags=re.DOTALL)
    tied = [line for line in marked if re.findall("<td>(yes|)</td>", line)[1:2] == ["yes"]]
    assert len(row.tied_lrs) == 3
    assert len(tied) == 3
    assert fabricate.summary_frame(facts).loc[0, "n_tied"] == 3


@pytest.mark.parametrize(
    ("good", "wild", "told"), [(4, 2, ["6 of 6 learning rates"]), (4, 0, ["4 of 4 learning rates"]), (2, 0, [])]
)
def test_the_warning_of_too_few_seeds_counts_the_rates_that_the_tables_list(
    good: int, wild: int, told: list[str]
) -> None:
    """Rates that end alike, and rates that hardly train but spread so widely that the t interval ties them too."""
    values = [[0.1, 0.11, 0.09], [0.11, 0.09, 0.1], [0.09, 0.1, 0.11], [0.1, 0.09, 0.11]][:good]
    values += [[1.99, 0.2, 1.958]] * wild
    rates = [10.0 ** (k - 5) for k in range(len(values))]
    (row,) = analyse(
        planted_tables.frame(planted_tables.table("adam", rates, values)), None, planted_tables.spec("adam"), {}
    ).rows
    assert len(row.tied_lrs) == good + wild
    warned = [text for kind, text in advice.warnings(row) if kind == "few_seeds"]
    assert [re.findall(r"\d+ of \d+ learning rates", text)[0] for text in warned] == told


def test_a_good_range_is_never_shown_without_the_best_rate_in_it(tmp_path: Path) -> None:
    """Two digits would write the range as 2 .. 2.1 and its width as 0.0, with 2.11 as the best rate."""
    facts = fabricate.facts_of_medians([1.0, 2.0, 2.106, 2.2, 3.0], {"sgd": [2.0, 1.5, 0.5, 1.6, 2.0]}, start=2.3)
    (row,) = facts.rows
    assert row.good_range.low <= row.best_lr.value <= row.good_range.high < 2.15
    for low, high, decades in (
        re.findall(r"2\.11 .* ([\d.]+) \.\. ([\d.]+) +(\S+)", output.summary(facts, tmp_path))[0],
        re.findall(r"good ([\d.]+) to ([\d.]+) \((\S+) decades\)", words.facts_line(row))[0],
    ):
        assert float(low) <= 2.11 <= float(high)
        assert decades == "<0.1"


def test_the_largest_safe_rate_is_one_at_which_no_seed_is_lost() -> None:
    """At 0.1 the median is fine and one seed of three ends worse than untrained."""
    medians = [[2.0, 2.0, 2.0], [0.5, 0.5, 0.5], [0.9, 1.0, 7.0], [math.nan] * 3]
    runs = planted_tables.frame(planted_tables.table("adam", [1e-3, 1e-2, 1e-1, 1.0], medians))
    facts = analyse(runs, None, planted_tables.spec("adam"), {})
    sweep = plot.SweepFigures(facts, planted_tables.spec("adam"), pd.DataFrame(), "")
    said = re.sub("<[^>]+>", " ", report.html(sweep, [], runs, ""))
    assert "Largest safe learning rate (no seed lost half of the improvement): 0.01." in said
    assert "still trains" not in said


def test_a_study_at_one_learning_rate_says_nothing_of_a_grid(tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, rates=[0.1], optimizers=("sgd",), axes={"model.activation": ["relu", "tanh"]})
    found = report.write(folder).read_text(encoding="utf-8")
    shown = re.sub(r"(?s)<(script|style|svg).*?</\1>|<[^>]+>", " ", found.partition('id="setup"')[0])
    assert not re.search(r"good range|grid|sensitivity, |best of the|widen|unusable|Best learning rate", shown)
    assert "Every setting at its learning rate" in shown
    assert re.search(r"sgd, model.activation=relu: [\d.]+ at 0.1, the only learning rate tried", shown)
    assert "the metric" in shown.lower()
