"""What is there for speed alone: switched off by hand, and by itself where torch is not what it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from lrsweep.compiler import channels, torch_private, trace, tricks
from lrsweep.system.plain import VARIABLE
from lrsweep.training import update_rules


@pytest.mark.parametrize(("value", "off"), [("", set()), ("1", {"replay", "channels"}), ("channels,x", {"channels"})])
def test_the_switch_turns_off_all_or_what_it_names(value: str, off: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, value)
    assert {trick for trick in ("replay", "channels") if not tricks.enabled(trick)} == off


def broken(*_: Any, **__: Any) -> Any:
    raise AttributeError("gone")


@pytest.mark.parametrize(
    ("trick", "module", "name"), [("replay", trace, "record"), ("channels", channels, "_gradient_side_by_side")]
)
def test_what_does_not_work_is_not_used(
    trick: str, module: Any, name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(tricks.works.cache_clear)
    assert tricks.works(trick)
    for wrong in (broken, lambda *args: torch.zeros_like(args[0])):
        tricks.works.cache_clear()
        monkeypatch.setattr(module, name, wrong)
        assert not tricks.works(trick)


@pytest.mark.parametrize("trick", sorted(tricks.TESTS))
def test_an_evaluation_may_be_the_first_to_ask(trick: str, request: pytest.FixtureRequest) -> None:
    """The answer is kept for the whole process."""
    request.addfinalizer(tricks.works.cache_clear)
    tricks.works.cache_clear()
    with torch.no_grad():
        assert tricks.works(trick)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "rmsprop"])
def test_a_kernel_that_does_something_else_is_not_used(
    name: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(update_rules._kernel_works.cache_clear)
    assert update_rules._kernel_works(name)
    for wrong in (None, broken, lambda *args, **more: None):
        update_rules._kernel_works.cache_clear()
        monkeypatch.setitem(torch_private.FUSED, "adam" if name == "rmsprop" else name, wrong)
        assert not update_rules._kernel_works(name)


def test_many_tensors_at_once_or_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        tensors = [torch.ones(2), torch.full((3,), 2.0)]
        torch_private.foreach("addcmul", tensors, tensors, [torch.tensor(3.0), torch.tensor(4.0)])
        assert [tensor.tolist() for tensor in tensors] == [[4, 4], [10, 10, 10]]
        torch_private.foreach("zero", tensors)
        assert not any(tensor.any() for tensor in tensors)
        for name in ("addcmul", "zero"):
            monkeypatch.delattr(torch, f"_foreach_{name}_", raising=False)
