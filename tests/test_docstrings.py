"""`help()` of everything public has an example, and every example does what it says."""

from __future__ import annotations

import doctest
import os
import pydoc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lrsweep

pytestmark = pytest.mark.process

SPEC = """
task: blobs
lr: {min: 1e-3, max: 1, per_decade: 1}
optimizers: [sgd, adam]
seeds: 3
train: {epochs: 5}
"""
REACHES_NOBODY = {"WrongInSpec"}
"""`run` and the others raise it as a UsageError with its place in the spec."""
PUBLIC = sorted(set(lrsweep._HOMES) - REACHES_NOBODY)
METHODS = sorted(
    name
    for name, value in vars(lrsweep.Results).items()
    if not name.startswith("_") and (callable(value) or isinstance(value, property))
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The current folder: the spec `sweep.yaml`, its results, and those of more epochs in `results/longer`."""
    place, before = tmp_path_factory.mktemp("docs"), Path.cwd()
    os.chdir(place)
    Path("sweep.yaml").write_text(SPEC)
    lrsweep.run("sweep.yaml")
    lrsweep.run("sweep.yaml", set=["name=longer", "train.epochs=20"])
    yield
    os.chdir(before)


def check(name: str, value: Any) -> None:
    """Raises AssertionError unless there are examples in the docstring, and all hold."""
    text = pydoc.getdoc(value)
    example = doctest.DocTestParser().get_doctest(text, {"lrsweep": lrsweep}, name, None, None)
    assert example.examples, f"the docstring of {name} has no example"
    told: list[str] = []
    doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert not told, "".join(told)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_everything_public_holds(name: str, folder: None) -> None:
    check(name, getattr(lrsweep, name))


@pytest.mark.parametrize("name", METHODS)
def test_so_does_that_of_every_method_of_results(name: str, folder: None) -> None:
    check(name, getattr(lrsweep.Results, name))


def test_what_there_is_fits_one_screen() -> None:
    """The text of the package: beyond it `help(lrsweep)` lists only its parts."""
    lines = pydoc.render_doc(lrsweep, renderer=pydoc.plaintext).splitlines()
    assert lines.index("PACKAGE CONTENTS") <= 24
    said = pydoc.getdoc(lrsweep)
    assert [name for name in lrsweep._HOMES if name not in said and name != "SpecIssue"] == []
