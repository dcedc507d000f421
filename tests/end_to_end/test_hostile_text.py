"""Texts that would steer a terminal or break a page: shown with escapes everywhere, unchanged in the tables."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import lrsweep
from lrsweep.errors import UsageError
from tests.support import sweeps

WORDS = ["\x1b[31mred", "a\r\nb", "a\nb", "n\x85l\u2028s", "rtl\u202e", "=1+1\x07\r"]
TASK = """\
import torch
from lrsweep import Task

def make_task(word="", fail=False):
    def loss(output, target):
        if fail:
            raise ValueError("\\x1b]0;title\\x07 of " + word)
        return (output - target).square().mean()

    inputs = torch.linspace(-1, 1, 16)[:, None]
    return Task(train=(inputs, inputs), val=(inputs, inputs), model=lambda: torch.nn.Linear(1, 1), loss=loss)
"""
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


def config(folder: Path, name: str, **changed: object) -> dict[str, object]:
    (folder / "task.py").write_text(TASK)
    task = {"name": str(folder / "task.py") + ":make_task", **changed}
    spec = sweeps.spec(name=name, task=task, lr=[0.01, 0.1], optimizers=["sgd"], seeds=1, axes={"task.word": WORDS})
    del spec["model"]
    return spec


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished sweeps in a folder whose name is hostile too; every run of `failed` has failed."""
    folder = tmp_path_factory.mktemp("texts")
    results = folder / "out\x1b[2J"
    sweeps.run(results, config(folder, "words"), draw=True)
    sweeps.run(results, config(folder, "failed", fail=True), draw=True)
    return results


def command(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lrsweep", *map(str, args)], capture_output=True, text=True, timeout=300
    )


def test_axis_values_come_back_from_the_tables_unchanged(results: Path, tmp_path: Path) -> None:
    found = lrsweep.load(results / "words")
    for table in (found.runs, found.curves, found.summary):
        assert list(dict.fromkeys(table["task.word"])) == WORDS
    shutil.copytree(results / "words", tmp_path / "words")  # the other tests read what was drawn there
    again = sweeps.run(tmp_path, lrsweep.load_spec(results / "words" / "spec.yaml"))
    assert (again.total, again.trained) == (12, 0)


def test_a_report_has_no_control_characters(results: Path) -> None:
    for name in ("words", "failed"):
        text = (results / name / "report.html").read_text(encoding="utf-8")
        assert not CONTROL.search(text)
        assert r"\x1b" in text


def test_an_svg_has_none_and_is_xml(results: Path) -> None:
    from lrsweep import plot

    for path in plot.draw_all(results / "words", ("svg",)):
        text = path.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert not CONTROL.search(text), path.name


@pytest.mark.parametrize(
    "arguments", ["status", "check", "check --max-diverged 0", "compare words", "plot --metric no\x1b", "report no\x1b"]
)
def test_no_command_sends_one_to_the_terminal(results: Path, arguments: str) -> None:
    name, *more = arguments.split()
    more = [str(results / one) if one == "words" else one for one in more]
    ran = command(name, results / "words", *more)
    shown = ran.stdout + ran.stderr
    assert not CONTROL.search(shown)
    assert r"\x1b" in shown
    assert "Traceback" not in shown


def test_what_failed_runs_raised_is_shown_with_escapes(results: Path, tmp_path: Path) -> None:
    spec = tmp_path / "failed.yaml"
    spec.write_text(
        f'task: {{name: "{results.parent / "task.py"}:make_task", fail: true, word: "\\e[31m"}}\n'
        "optimizers: [sgd]\nlr: [0.1]\nseeds: 1\ntrain: {epochs: 1}\n"
    )
    ran = command("run", spec, "--results", results)
    assert ran.returncode == 3
    assert not CONTROL.search(ran.stdout + ran.stderr)
    assert r"\x1b]0;title\x07 of \x1b[31m" in ran.stderr


def test_tables_from_elsewhere_cannot_steer_the_terminal(results: Path, tmp_path: Path) -> None:
    published = tmp_path / "words"
    shutil.copytree(results / "words", published, ignore=shutil.ignore_patterns("journal"))
    for table in ("runs.csv", "curves.csv", "summary.csv"):
        path = published / table
        path.write_bytes(path.read_bytes().replace(b"sgd", b"s\x1b[31mgd"))
    for ran in (command("check", published), command("report", published)):
        assert not CONTROL.search(ran.stdout + ran.stderr)
        assert "Traceback" not in ran.stderr
    assert not CONTROL.search((published / "report.html").read_text(encoding="utf-8"))


def test_a_folder_with_bytes_that_are_no_text_is_no_bug(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    ran = command("init", folder / "a.yaml")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert r"caf\udce9/a.yaml" in ran.stdout


def test_errors_from_python_have_none_either(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as info:
        lrsweep.load(tmp_path / "\x1b[31mnone")
    assert str(info.value).startswith(rf"{tmp_path}/\x1b[31mnone: no such folder")
