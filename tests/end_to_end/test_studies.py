"""The studies of configs/studies show what was published; those that do not are named in results/README.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrsweep.spec.load import load_spec
from lrsweep.workers import worker
from tests.support import studies, sweeps
from tests.support.studies import CLAIMS, Study

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "configs/studies").glob("*.yaml"))
COURSE = (ROOT / "results/README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    worker.prepare()


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_every_study_says_what_it_shows(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("\ntask:")[0]
    assert head.startswith("# ")
    assert head.splitlines()[0].endswith("?") or "? " in head.splitlines()[0]
    for word in ("# Shows: ", "# Source: ", "# Time: "):
        assert word in head
    assert load_spec(path).name == path.stem


def test_every_study_is_listed_and_has_claims() -> None:
    cookbook = (ROOT / "configs/README.md").read_text(encoding="utf-8")
    assert {claim.study for claim in CLAIMS} == {path.stem for path in SPECS}
    for path in SPECS:
        assert f"](studies/{path.name})" in cookbook
        assert f"](../configs/studies/{path.name})" in COURSE
        assert (ROOT / "results" / path.stem / "summary.csv").exists()


def verdicts(table: str) -> list[tuple[str, ...]]:
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table.splitlines()]
    return [(row[0], row[1], row[-1]) for row in rows if len(row) == 6 and re.match(r"\d\d_", row[0])]


def test_every_claim_is_in_the_course() -> None:
    told = {(study, claim) for study, claim, _ in verdicts(COURSE)}
    assert told == {(claim.study, claim.claim) for claim in CLAIMS}


@pytest.mark.process
def test_learning_rates_as_published_in_short(tmp_path: Path) -> None:
    """Of study 01: the two rates that get there, and the one that oscillates."""
    short = ["lr=[1, 0.1, 0.01]", "seeds=3"]
    finished = sweeps.run(tmp_path, SPECS[0], set=short)
    for measure in (studies._good_rates, studies._large_rate, studies._best_rate, studies._ceiling):
        assert measure(Study(finished.path))[1], measure


@pytest.mark.process
def test_limits_of_a_quadratic(tmp_path: Path) -> None:
    path = next(path for path in SPECS if path.stem.endswith("quadratic"))
    finished = sweeps.run(tmp_path, path)
    assert studies._limits(Study(finished.path))[1]


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_study_comes_out_as_the_course_tells(path: Path, tmp_path: Path) -> None:
    finished = sweeps.run(tmp_path, path, workers=2)
    told = {claim: verdict for study, claim, verdict in verdicts(COURSE) if study == path.stem}
    for claim in CLAIMS:
        if claim.study == path.stem:
            measured, held = claim.measure(Study(finished.path))
            assert held == (told[claim.claim] == "holds"), (claim.claim, measured)
