"""Numbers with their nouns, and a sentence for every word that the analysis uses."""

from __future__ import annotations

from typing import get_args

import pytest

from lrsweep.analysis.caveats import Caveat
from lrsweep.analysis.facts import RecommendedBy
from lrsweep.wording import advice, words


@pytest.mark.parametrize(
    ("n", "noun", "said"),
    [(0, "run", "0 runs"), (1, "run", "1 run"), (3, "seed", "3 seeds"), (2, "process", "2 processes")],
)
def test_a_number_and_its_noun_agree(n: int, noun: str, said: str) -> None:
    assert words.plural(n, noun) == said


def test_a_verb_agrees_with_the_number_before_it() -> None:
    assert [words.agree(n, "diverge") for n in (1, 2)] == ["diverges", "diverge"]


def test_long_lists_are_cut_with_a_count() -> None:
    assert words.listed(["a", "b"]) == "a, b"
    assert words.listed(list("abcdef")) == "a, b, c, d and 2 more"


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.4, "8 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (float("nan"), "unknown")]
)
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_every_caveat_and_every_reason_has_its_words() -> None:
    assert set(advice.CAVEATS) == set(get_args(Caveat))
    assert set(advice.RECOMMENDED) == set(get_args(RecommendedBy))
