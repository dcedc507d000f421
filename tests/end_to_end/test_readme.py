"""The READMEs say what is true: their commands, their specs, their files."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from lrsweep.cli import output
from lrsweep.results.results import load
from lrsweep.spec.load import load_spec
from tests.support import sweeps

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
COOKBOOK = ROOT / "configs/README.md"
PAGES = [
    README,
    COOKBOOK,
    ROOT / "results/README.md",
    *sorted((ROOT / "lrsweep").glob("*.md")),
    *sorted((ROOT / ".github").glob("*.md")),
]


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


SPECS = [block for page in (README, COOKBOOK) for block in blocks("yaml", page)]


def test_the_test_command_is_what_ci_runs() -> None:
    command = next(block for block in blocks("sh") if "pytest" in block).strip()
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_the_quickstart_command_runs_the_file_that_is_shown() -> None:
    command = next(block for block in blocks("sh") if "lrsweep run" in block)
    path = re.search(r"lrsweep run (\S+)", command)
    assert path is not None
    assert (ROOT / path[1]).read_text(encoding="utf-8") in blocks("yaml")


@pytest.mark.parametrize("number", range(len(SPECS)))
def test_every_spec_that_is_shown_loads(number: int, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(SPECS[number], encoding="utf-8")
    load_spec(path)


def test_the_output_that_is_shown_is_of_the_results_that_are_kept() -> None:
    kept = Path("results/quickstart")
    printed = output.summary(load(ROOT / kept).facts(), kept).rpartition("\n\n")[0]  # the files are not all kept
    assert any(printed in block for block in blocks("text"))


def test_the_loop_that_is_shown_is_what_a_run_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (loop,) = (block for block in blocks("python", COOKBOOK) if "randperm" in block)
    monkeypatch.syspath_prepend(str(COOKBOOK.parent))
    exec(loop, {})
    printed = float(capsys.readouterr().out)
    finished = sweeps.run(tmp_path, COOKBOOK.parent / "own_task.yaml", set=["lr=[0.01]", "seeds=1"])
    runs = pd.read_csv(finished.path / "runs.csv").set_index("optimizer")
    assert runs.loc["adam", "final_val_loss"] == pytest.approx(printed, rel=1e-4)


def headings(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    found = re.findall(r"^#+ (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8")):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        assert not anchor or anchor in headings(found), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_that_are_named_exist(page: Path) -> None:
    for path in re.findall(r"`((?:tests|lrsweep|configs|\.ci|\.github)/[\w./-]*)`", page.read_text(encoding="utf-8")):
        assert (ROOT / path).exists(), path


def test_the_columns_that_are_explained_exist() -> None:
    columns = (ROOT / "results/quickstart/summary.csv").read_text().splitlines()[0].split(",")
    table = (ROOT / "lrsweep/README.md").read_text(encoding="utf-8").split("| number |")[1].split("\n\n")[0]
    for row in table.splitlines()[2:]:
        for name in re.findall(r"`(\w+)`", row.rstrip("|").rsplit("|", 1)[1]):
            assert name in columns, name
