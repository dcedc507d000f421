"""The functions of `import lrsweep` that run something: what they take, and how they name what is wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import lrsweep
from lrsweep.errors import StorageError, UsageError
from lrsweep.sweep import api
from tests.support import sweeps


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"refine": "yes"}, "refine='yes': give True or False"),
        ({"fresh": 1}, "fresh=1: give True or False"),
        ({"dry_run": None}, "dry_run=None: give True or False"),
        ({"results": None}, "results=None: give the path of a folder"),
        ({"set": None}, "set=None: give a list of texts such as 'train.epochs=5'"),
        ({"set": {"train.epochs": 5}}, "set={'train.epochs': 5}: give a list of texts"),
        ({"set": [5]}, "set=[5]: give a list of texts"),
        ({"workers": "2"}, "workers='2': give a whole number from 1, or auto"),
        ({"workers": 1.0}, "workers=1.0: give a whole number"),
        ({"executor": ["local"]}, "executor=['local']: unknown executor (allowed: local, in-process, ray)"),
        ({"address": "head:6379"}, "address='head:6379': only the executor ray has an address"),
        ({"address": 6379}, "address=6379: give a text such as"),
        ({"device": "tpu"}, "device='tpu': unknown device"),
        ({"device": 0}, "device=0: unknown device"),
        ({"compile": True}, "compile=True: give auto, on or off"),
        ({"progress": 3}, "progress=3: give auto, rich, plain, none, None or a Reporter"),
    ],
)
def test_an_option_of_the_wrong_type_is_a_usage_error(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as info:
        lrsweep.run(sweeps.spec(), **{"results": tmp_path, **options})
    assert str(info.value).startswith(said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [None, 3, ["spec.yaml"]])
def test_what_is_no_spec_is_a_usage_error(tmp_path: Path, wrong: Any) -> None:
    for call in (lrsweep.run, lrsweep.lr_finder):
        with pytest.raises(UsageError, match=re.escape(f"{wrong!r} is no spec; give the path of one, a dict")):
            call(wrong, results=tmp_path)


def test_a_wrong_override_is_named_without_dashes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^set train\.epoch=3: train has no 'epoch'"):
        lrsweep.run(sweeps.spec(), results=tmp_path, set=["train.epoch=3"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rerun with --fresh, which sets the journal aside", "rerun with fresh=True, which sets the journal aside"),
        (
            "the path is too long: choose a shorter --results or name",
            "the path is too long: choose a shorter results or name",
        ),
    ],
)
def test_advice_names_the_arguments_of_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise StorageError(text)

    monkeypatch.setattr(api, "execute", refuse)
    with pytest.raises(StorageError) as info:
        lrsweep.run(sweeps.spec(), results=tmp_path)
    assert str(info.value) == said


def test_the_range_test_takes_a_dict_as_run_does(tmp_path: Path) -> None:
    found = lrsweep.lr_finder(sweeps.spec(), results=tmp_path, steps=20)
    assert [one.label for one in found.results] == ["sgd", "adam"]
    assert (tmp_path / "small" / "range_test.csv").is_file()


@pytest.mark.parametrize(
    ("options", "said"),
    [({"steps": "9"}, "steps='9': give a whole number"), ({"low": None}, "low=None: give a number"),
     ({"seed": -1}, "seed=-1: give a whole number from 0")],
)  # fmt: skip
def test_so_are_the_options_of_a_range_test(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as info:
        lrsweep.lr_finder(sweeps.spec(), results=tmp_path, **options)
    assert str(info.value) == said
