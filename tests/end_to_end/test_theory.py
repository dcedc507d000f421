"""Training comes to the exact answer, by a closed form (T1 to T10) or by scikit-learn's own training (P1)."""

from __future__ import annotations

import pytest

from tests.support.theory import CLAIMS, Exact


def name(claim: Exact) -> str:
    return f"{claim.id}-{claim.measure.__name__}"


@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if not claim.engines], ids=name)
def test_the_answer_is_exact(claim: Exact) -> None:
    measured, held = claim.measure()
    assert held, f"{claim.claim}: {measured}, expected {claim.expected}"


@pytest.mark.usefixtures("both_ways_always")
@pytest.mark.parametrize("claim", [claim for claim in CLAIMS if claim.engines], ids=name)
def test_the_answer_is_exact_in_plain_torch_too(claim: Exact) -> None:
    measured, held = claim.measure()
    assert held, f"{claim.claim}: {measured}, expected {claim.expected}"
