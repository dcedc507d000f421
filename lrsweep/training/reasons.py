"""Why runs train one at a time, as users read it: a line of its own, short, with the place in the user's file."""

from __future__ import annotations

import re
import textwrap
import traceback
from collections.abc import Iterable

from lrsweep.user_imports import user_place

LONGEST = 200
_PLACE = re.compile(r",? \(?[^\s()]+:\d+ in [^\s()]+\)?$")
_OPERATOR = re.compile(r"HigherOrderOperator (\w+)")
_UNBATCHED = re.compile(r"atching rule (?:for|not implemented for) aten::(\w+)")


def short(text: str) -> str:
    """`text` on one line of at most LONGEST characters, the place at its end kept."""
    text = " ".join(text.split())
    place = found[0] if (found := _PLACE.search(text)) else ""
    return textwrap.shorten(text.removesuffix(place), LONGEST - len(place), placeholder=" ...") + place


_WHO = {"_loss_of": "the loss", "_metric_of": "a metric", "_step_of": "the step of the task", "_output": "the model"}
"""By the functions of LossModule that call what the user gave."""


def who(functions: Iterable[str]) -> str:
    """The subject of a reason: what of the user's was running, by the names of the functions that led there, the
    innermost first."""
    module = False  # called on the way, which in a step is the model
    for name in functions:
        if name in _WHO:
            return "the model" if module and name == "_step_of" else _WHO[name]
        module |= name == "_call_impl"
    return "the model"


def explain(error: BaseException) -> str:
    """Why a model that trains alone does not in a stack."""
    place = user_place(error)
    subject = who(frame.name for frame in reversed(traceback.extract_tb(error.__traceback__)))
    at = f", {place}" if place else ""
    if found := _UNBATCHED.search(str(error)):
        return f"{subject} uses an operation that torch cannot batch over runs: {found[1]}{at}"
    if "requires_grad_()" in str(error):
        other = "as it can torch.func.grad and torch.func.jvp"
        return f"{subject} calls requires_grad_(), which torch cannot batch over runs, {other}{at}"
    for sign, reason in _SIGNS:
        if sign in str(error):
            return f"{subject} {reason}"
    text = str(error).strip().split("\n")[0]
    what = f"{type(error).__name__}: {textwrap.shorten(text, LONGEST - 40, placeholder=' ...')}{at}"
    return f"{subject} cannot be trained for several runs at once ({what})"


def operator(error: BaseException) -> str | None:
    """The end of `the model ...` where torch let no one watch an operator that takes functions, such as torch.cond."""
    found = _OPERATOR.search(str(error)) if isinstance(error, NotImplementedError) else None
    place = user_place(error)
    return found and f"uses torch.{found[1]}, which torch cannot batch over runs{place and f', {place}'}"


_SIGNS = (
    (".item()", "turns a tensor into a Python number (.item(), float(), int()), which differs between runs"),
    ("data-dependent control flow", "branches on the values of a tensor (if, while), which differ between runs"),
    ("randomness", "draws random numbers in a way that torch cannot batch over runs"),
    ("dynamic shape", "has tensors whose shapes depend on their values"),
    ("in-place", "writes in place into a tensor that the runs share"),
    ("inplace", "writes in place into a tensor that the runs share"),
)
