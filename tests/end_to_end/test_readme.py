"""The README says what is true: its commands, its spec, its files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lrsweep.spec.load import load_spec

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def test_the_test_command_is_what_ci_runs() -> None:
    command = next(block for block in blocks("sh") if "pytest" in block).strip()
    assert command in (ROOT / ".ci/run").read_text().splitlines()


def test_the_quickstart_command_runs_the_file_that_is_shown() -> None:
    command = next(block for block in blocks("sh") if "lrsweep run" in block)
    path = re.search(r"lrsweep run (\S+)", command)
    assert path is not None
    assert (ROOT / path[1]).read_text(encoding="utf-8") in blocks("yaml")


@pytest.mark.parametrize("number", range(len(blocks("yaml"))))
def test_every_spec_that_is_shown_loads(number: int, tmp_path: Path) -> None:
    path = tmp_path / "shown.yaml"
    path.write_text(blocks("yaml")[number], encoding="utf-8")
    load_spec(path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_config_loads(path: Path) -> None:
    load_spec(path)


def test_the_output_that_is_shown_is_of_the_results_that_are_kept() -> None:
    summary = (ROOT / "results/quickstart/summary.csv").read_text().splitlines()
    shown = next(block for block in blocks("text") if "best of the rates tried" in block)
    for line in summary[1:]:
        label, best, objective = line.split(",")[:3]
        assert re.search(rf"^{re.escape(label)} +{float(best):.3g} +{float(objective):.4g} ", shown, flags=re.M), label


def test_files_that_are_linked_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
