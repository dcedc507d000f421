"""What a reader of the report does: looks at the first screen, points at dots, hides optimizers, presses keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lrsweep.report import page as report
from lrsweep.results.results import load
from tests.support import tables as fabricate
from tests.support.webdriver import CHROMEDRIVER, CHROMIUM, Browser, browser

pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,  # of this machine alone: chromedriver is talked to over HTTP
    pytest.mark.skipif(CHROMIUM is None or CHROMEDRIVER is None, reason="needs chromium and chromedriver"),
]
TIP = "return document.getElementById('tip').textContent"
BOX = (
    "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom]"
)
MIDDLE = """const m = document.querySelectorAll(arguments[0])[arguments[1]];
m.scrollIntoView({block: "center"}); const b = m.getBoundingClientRect();
return [b.left + b.width / 2, b.top + b.height / 2]"""


def middle(page: Browser, part: str, number: int = 0) -> Any:
    """Where the part of this number is, after the page has moved there."""
    found = page.run(MIDDLE, part, number)
    page.settle()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = fabricate.folder(tmp_path_factory.mktemp("browser"), failed=(20, 21, 50))
    report.write(found)
    return found


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def page(window: Browser, folder: Path) -> Browser:
    window.open(folder / "report.html", 1280, 800)
    return window


def told(folder: Path) -> dict[str, dict[str, Any]]:
    """What the script can tell, by title of the curve."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', (folder / "report.html").read_text())
    assert found is not None
    return {row["title"]: row for row in json.loads(found[1])["rows"]}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_answer_is_on_the_first_screen(window: Browser, folder: Path, dark: bool) -> None:
    window.open(folder / "report.html", 1280, 800, dark=dark)
    for part in (".verdict", ".answer", ".overview svg"):
        left, top, right, bottom = window.run(BOX, part)
        assert 0 <= left < right <= 1280, part
        assert 0 <= top < bottom <= 800, part
    window.open(folder / "report.html", 390, 844, dark=dark)
    assert window.run(BOX, ".overview svg")[3] <= 2 * 844
    assert window.run("return document.documentElement.scrollWidth") <= 390
    assert not window.complaints()


def test_every_point_of_a_panel_tells_lr_seed_value_and_status(page: Browser, folder: Path) -> None:
    facts = load(folder).facts()
    row = facts.row("sgd")
    count = page.run("return document.querySelectorAll('#plot-u_curve [data-row=\"0\"] [data-runs] use').length")
    assert count >= 30
    places = page.run("return Array.from(document.querySelectorAll('#plot-u_curve [data-row=\"0\"] [data-runs]'))"
                      ".flatMap(g => g.querySelector('use') ? g.dataset.runs.split(' ').map(Number) : [])")  # fmt: skip
    for number in range(0, count, 5):
        page.point(middle(page, '#plot-u_curve [data-row="0"] [data-runs] use', number))
        said, run = page.run(TIP), row.runs[places[number]]
        near = [other for other in row.runs if other.lr == run.lr]  # dots of other seeds may lie on top
        assert any(
            said.startswith(
                f"sgd · lr {run.lr:.3g} · seed {one.seed} · final val_loss {one.objective:.4g} · {one.status}"
            )
            for one in near
        ) or said.startswith(f"sgd · lr {run.lr:.3g} · median"), said
    page.point((5, 5))
    assert page.run(TIP) == ""


def test_the_keyboard_reaches_every_learning_rate_and_optimizer(page: Browser, folder: Path) -> None:
    known = told(folder)
    page.run("document.querySelector('.overview svg').focus({focusVisible: true})")
    (first, *_) = known
    rates = known[first]["rates"]
    seen = [page.run(TIP)]
    for _ in rates[1:]:
        page.press("Right")
        seen.append(page.run(TIP))
    drawn = [
        rate for rate in rates if any(f" lr {rate[0]} · median final val_loss {rate[1]} " in said for said in seen)
    ]
    assert len(drawn) >= 10
    page.press(*["Left"] * len(rates))
    assert page.run(TIP).startswith(f"{first} · lr {rates[0][0]} ·")
    names = [page.run(TIP).split(" · ")[0]]
    for _ in known:
        page.press("Down")
        names.append(page.run(TIP).split(" · ")[0])
    assert set(names) == set(known)
    page.press("Escape")
    assert page.run(TIP) == ""


def test_a_point_lights_its_loss_curve_and_leads_to_it(page: Browser, folder: Path) -> None:
    page.run("document.querySelector('#plot-u_curve svg').focus({focusVisible: true})")
    page.press("Right", "Right", "Down")
    said = page.run(TIP)
    row = load(folder).facts().row(said.split(" · ")[0])
    lit = page.run("""return Array.from(document.querySelectorAll(".on")).map(function (one) {
        const group = one.closest("[data-lines]");
        return [one.closest("figure").id, Number(group.dataset.row),
                Number(group.dataset.runs.split(" ")[Array.from(group.querySelectorAll("path")).indexOf(one)])]})""")
    ((figure, number, place),) = lit
    assert (figure, number) == ("plot-loss_curves", 0)
    assert f" lr {row.runs[place].lr:.3g} · seed {row.runs[place].seed} " in said
    assert page.run("return document.querySelectorAll('svg.lit').length") == 1
    page.press("Enter")
    page.settle()
    _, top, _, bottom = page.run(BOX, ".on")
    assert 0 <= top
    assert bottom <= 800
    page.press("Escape")
    assert page.run("return document.querySelectorAll('.on, svg.lit').length") == 0
    page.run("document.querySelector('.overview svg').focus({focusVisible: true})")
    assert " · median " in page.run(TIP)
    assert page.run("return document.querySelectorAll('.on').length") == row.n_seeds


def test_the_name_of_an_optimizer_hides_and_shows_it_in_all_plots(page: Browser) -> None:
    visible = """return Array.from(document.querySelectorAll('.plot [data-row="1"]')).map(function (one) {
        return [one.closest("figure").id || "overview", getComputedStyle(one).visibility]})"""
    before = page.run(visible)
    assert {"overview", "plot-u_curve", "plot-loss_curves", "plot-u_curve_overlay"} <= {name for name, _ in before}
    page.run("document.querySelectorAll('.toggle')[1].focus()")
    page.press("Enter")
    assert page.run("return document.activeElement.getAttribute('aria-pressed')") == "false"
    assert {how for _, how in page.run(visible)} == {"hidden"}
    other = "return getComputedStyle(document.querySelector('.plot [data-row=\"0\"]')).visibility"
    assert page.run(other) == "visible"
    page.press("Space")
    assert page.run(visible) == before
    page.point(middle(page, ".toggle", 1), click=True)
    assert {how for _, how in page.run(visible)} == {"hidden"}


@pytest.mark.parametrize("width", [1000, 1205, 1215, 1250, 1280, 1440])
def test_the_first_table_and_the_plot_beside_it_do_not_overlap(window: Browser, tmp_path: Path, width: int) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd(momentum=0.9, nesterov=True)", "adam"))
    report.write(folder)
    window.open(folder / "report.html", width, 800)
    table, plot = (window.run(BOX, name) for name in (".answer", "figure.overview"))
    assert table[2] <= plot[0] or table[3] <= plot[1]
    sizes = "const all = document.documentElement; return [all.scrollWidth, all.clientWidth]"
    wide, room = window.run(sizes)
    assert wide <= room


def test_the_drift_plot_and_heatmaps_follow_the_names_too(window: Browser, tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd", "adam"), axes={"train.batch_size": [16, 64]})
    report.write(folder)
    window.open(folder / "report.html", 1280, 800)
    heat, drift = '[id="plot-heatmap_train.batch_size"]', "#plot-best_lr_drift"
    seen = """return Array.from(document.querySelectorAll(arguments[0])).map(function (one) {
        return getComputedStyle(one).visibility})"""
    # Two lines of the table: sgd at both sizes. The line of sgd in the plot against the size goes with the second.
    rows = window.run("return Array.from(document.querySelectorAll('.answer tbody tr')).map(r => r.dataset.row)")
    assert rows == ["0", "1", "2", "3"]
    of_sgd, of_adam = '[data-some="0 1"]', '[data-some="2 3"]'
    assert set(window.run(seen, f'{heat} [data-row="0"]')) == {"visible"}
    window.run("document.querySelectorAll('.toggle')[0].click()")
    assert set(window.run(seen, f'{heat} [data-row="0"]')) == {"hidden"}
    assert set(window.run(seen, f'{heat} [data-row="1"]')) == {"visible"}
    assert set(window.run(seen, f'{drift} [data-row="0"]')) == {"hidden"}, "against the budget"
    assert set(window.run(seen, f"{drift} {of_sgd}")) == {"visible"}
    window.run("document.querySelectorAll('.toggle')[1].click()")
    assert set(window.run(seen, f"{drift} {of_sgd}")) == {"hidden"}
    assert set(window.run(seen, f"{drift} {of_adam}")) == {"visible"}
    window.run("document.querySelectorAll('.toggle')[0].click()")
    assert set(window.run(seen, f"{drift} {of_sgd}")) == {"visible"}


def test_every_panel_against_an_axis_follows_the_names(window: Browser, tmp_path: Path) -> None:
    folder = fabricate.folder(tmp_path, optimizers=("sgd",), rates=(0.1,), axes={"train.batch_size": [16, 64]})
    report.write(folder)
    window.open(folder / "report.html", 1280, 800)
    drawn = """return Array.from(document.querySelectorAll('[id="plot-by_train.batch_size"] ' + arguments[0])).map(
        one => getComputedStyle(one).visibility)"""
    first, second, both = '[data-row="0"]', '[data-row="1"]', '[data-some="0 1"]'
    shown = {part: window.run(drawn, part) for part in (first, second, both)}
    assert len(shown[first]) == len(shown[second]) >= 4, "in every panel"
    assert len(shown[both]) == 3, "the lines of all panels but that of the curves"
    assert {state for states in shown.values() for state in states} == {"visible"}
    window.run("document.querySelectorAll('.toggle')[0].click()")
    assert set(window.run(drawn, first)) == {"hidden"}
    assert set(window.run(drawn, second)) == set(window.run(drawn, both)) == {"visible"}
    window.run("document.querySelectorAll('.toggle')[1].click()")
    assert set(window.run(drawn, second)) == set(window.run(drawn, both)) == {"hidden"}


SEEN = """return Array.from(document.querySelectorAll(arguments[0])).map(function (one) {
    const box = one.getBoundingClientRect(), how = getComputedStyle(one), drawn = box.width > 0 && box.height > 0;
    return [one.textContent, drawn && how.visibility === "visible" && how.opacity === "1"]})"""
PARTS = {
    "sections": "main > section", "the table": ".answer tbody td:not(.flag)", "tables": "section table tbody td",
    "plots": "figure.plot svg", "curves": "figure.plot [data-row] path", "marks": "figure.plot [data-row] use",
    "captions": "figcaption", "links": "nav a",
}  # fmt: skip


def test_without_javascript_everything_is_still_there(window: Browser, folder: Path) -> None:
    everything = "document.querySelectorAll('details').forEach(function (one) { one.open = true; })"
    found = []
    for scripts in (True, False):
        window.open(folder / "report.html", 1280, 800, scripts=scripts)
        assert window.run("return document.querySelectorAll('.toggle').length") == 5 * scripts
        window.run(everything)
        found.append({name: window.run(SEEN, part) for name, part in PARTS.items()})
    with_script, without = found
    for name, seen in without.items():
        assert seen, name
        assert [text for text, _ in seen] == [text for text, _ in with_script[name]], name
        if name not in ("curves", "marks"):  # a line along one axis has a box without a height
            assert all(visible for _, visible in seen), name
        assert [visible for _, visible in seen] == [visible for _, visible in with_script[name]], name


def test_without_javascript_caveats_open_and_nothing_pretends_to_work(window: Browser, folder: Path) -> None:
    window.open(folder / "report.html", 1280, 800, scripts=False)
    window.point(window.run(MIDDLE, ".flag summary", 0), click=True)
    _, top, _, bottom = window.run(BOX, ".flag details[open] ul")
    assert top < bottom
    arrow = "return getComputedStyle(document.querySelector('thead button'), '::after').content"
    assert window.run(arrow) == "none"
    assert "Click a column heading" not in window.run("return document.querySelector('#numbers').innerText")
    window.open(folder / "report.html", 1280, 800)
    assert window.run(arrow) != "none"
    assert "Click a column heading" in window.run("return document.querySelector('#numbers').innerText")


def test_a_flag_opens_its_caveats(page: Browser) -> None:
    page.point(middle(page, ".flag summary", 0), click=True)
    _, top, right, bottom = page.run(BOX, ".flag details[open] ul")
    assert top < bottom
    assert right <= 1280


def test_the_page_moves_below_its_table_of_contents(page: Browser) -> None:
    page.point(middle(page, 'nav a[href="#numbers"]', 0), click=True)
    assert page.run(BOX, "nav")[1] == 0
    assert page.run(BOX, "#numbers h2")[1] >= page.run(BOX, "nav")[3] - 1


def test_many_optimizers_and_seeds_stay_small(tmp_path: Path) -> None:
    twelve = ("sgd", "sgd(momentum=0.9)", "rmsprop", "adagrad", "adam", "adadelta", "nadam", "radam", "adamax", "asgd",
              "rprop", "adamw")  # fmt: skip
    made = report.write(fabricate.folder(tmp_path, optimizers=twelve, seeds=20))
    assert made.stat().st_size < 1_500_000
