"""Numbers with their nouns, and a sentence for every word that the analysis uses."""

from __future__ import annotations

from types import SimpleNamespace
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


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"n_failed": 1, "n_runs": 6}, "1 of 6 runs failed and is left out; rerun to retry it"),
        ({"n_failed": 1, "n_runs": 1}, "1 of 1 run failed and is left out; rerun to retry it"),
        ({"n_failed": 2, "n_runs": 6}, "2 of 6 runs failed and are left out; rerun to retry them"),
    ],
)
def test_what_is_said_of_failed_runs_agrees_with_their_number(of: dict[str, int], said: str) -> None:
    assert advice.CAVEATS["failed"](SimpleNamespace(**of)) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ((1, 1), "1 of 1 run in the good range was still improving: train longer"),
        ((2, 5), "2 of 5 runs in the good range were still improving: train longer"),
    ],
)
def test_what_is_said_of_a_short_budget_agrees_with_the_number(counts: tuple[int, int], said: str) -> None:
    row = SimpleNamespace(still_improving=counts, holds_rate=False)
    assert advice.CAVEATS["short_budget"](row).startswith(said)  # type: ignore[arg-type]


def test_every_caveat_and_every_reason_has_its_words() -> None:
    assert set(advice.CAVEATS) == set(get_args(Caveat))
    assert set(advice.RECOMMENDED) == set(get_args(RecommendedBy))
