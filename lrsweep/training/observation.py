"""Watches the user's code while it makes a step, and says what a recording of that step could not repeat."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lrsweep.system import notebook
from lrsweep.training import ownership, reasons, user_state

# What makes Python values of a tensor: what Python does next may depend on them.
ESCAPES = frozenset(
    "item tolist numpy __array__ __bool__ __int__ __float__ __complex__ __index__ __contains__ __dlpack__ data_ptr "
    "untyped_storage storage is_nonzero equal allclose argwhere apply_ map_ map2_ "
    "__deepcopy__".split()
)
HOOKS = frozenset({"register_hook", "register_post_accumulate_grad_hook", "retain_grad"})
# What takes tensors for the numbers in them, in C++ where no mode sees it.
FACTORIES = frozenset({"tensor", "as_tensor", "asarray", "new_tensor", "sparse_coo_tensor"})
SEEDS = frozenset({"initial_seed", "seed"})
SUBCLASSES = frozenset({"_make_subclass", "_make_wrapper_subclass", "as_subclass"})
CLOCKS = frozenset({"time", "posix", "nt", "_datetime", "datetime", "_uuid"})
ENTROPY = frozenset({"urandom", "getrandom"})


class Observation(TorchFunctionMode):
    """`found` holds what was seen, in the order in which it was seen: who did it (`the model`), and the end of the
    sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.pads = False  # an embedding has a padding_idx

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__" and getattr(getattr(func, "__self__", None), "__name__", "") == "grad":
            self._note("reads .grad")
        elif name in ESCAPES and not _of_shapes(args):
            self._note(f"turns a tensor into Python values ({_call(name)})")
        elif name in FACTORIES and any(_holds_tensor(value) for value in (*args, *kwargs.values())):
            self._note(f"makes a tensor of the numbers in others (torch.{name})")
        elif name == "tensor_split" and any(isinstance(value, Tensor) for value in (*args[1:], *kwargs.values())):
            self._note("splits a tensor at places that it computes (tensor_split)")
        elif name in HOOKS:
            self._note(f"registers a hook on a tensor ({_call(name)})")
        elif name in ("embedding", "embedding_bag"):
            self.pads |= _is_index(args[2] if len(args) > 2 else kwargs.get("padding_idx"))
        if any(isinstance(value, torch.Generator) for value in (*args, *kwargs.values())):
            self._note("draws from a torch.Generator of its own")
        return func(*args, **kwargs)

    def _note(self, what: str) -> None:
        place = _user_line()
        seen = reasons.who(_functions()), f"{what}{place and f', {place}'}"
        if seen not in self.found:
            self.found.append(seen)

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_call":
            return
        if function.__name__ in SEEDS and isinstance(getattr(function, "__self__", None), torch.Generator):
            self._note(f"asks for the seed (torch.{function.__name__}())")
            return
        if function.__name__ in SUBCLASSES:
            self._note("makes a tensor of another class, such as nn.Parameter")
            return
        owner = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
        asked = owner in CLOCKS and not _library_frame(frame)
        if asked or function.__name__ in ENTROPY:
            self._note(f"asks for what differs from run to run ({owner.lstrip('_')}.{function.__name__})")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Within, the user's model, loss and metrics run."""
        before = user_state.random_state()
        try:
            with self, _profiling(self._called):
                yield
        finally:
            if user_state.random_state() != before:
                seen = "the code", "draws random numbers from Python's or numpy's global generator"
                self.found += [seen] if seen not in self.found else []


@contextmanager
def _profiling(function: Callable[[FrameType, str, Any], None]) -> Iterator[None]:
    """Within, `function` is the profile function, and the caller's own is not."""
    before: Any = sys.getprofile()
    sys.setprofile(function)
    try:
        yield
    finally:
        sys.setprofile(None)
        if callable(before):
            sys.setprofile(before)
        elif before is not None:  # a profiler written in C, as cProfile's is: it is no function
            before.enable()


def _of_shapes(args: Any) -> bool:
    """torch's own code asks numbers of what is no tensor."""
    return not any(isinstance(arg, Tensor) for arg in args)


def _holds_tensor(value: Any) -> bool:
    """Is it a list with a tensor somewhere in it?"""
    return isinstance(value, list | tuple) and any(isinstance(v, Tensor) or _holds_tensor(v) for v in value)


def _is_index(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


SPELLED = {
    "__bool__": "if, bool()", "__int__": "int()", "__float__": "float()", "__contains__": "in",
    "__deepcopy__": "copy.deepcopy()",
}  # fmt: skip


def _call(name: str) -> str:
    return SPELLED.get(name, f".{name}()")


def _library_frame(frame: FrameType) -> bool:
    return ownership.of_library(frame.f_globals.get("__name__"), frame.f_code.co_filename)


def _functions() -> Iterator[str]:
    """The names of those that are running, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        yield frame.f_code.co_name
        frame = frame.f_back


def _user_line() -> str:
    """`file.py:12 in function`: the innermost frame of the user's own code, "" if there is none."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if not _library_frame(frame) and frame.f_globals.get("__name__") != "__main__":
            return f"{notebook.name_of(frame.f_code.co_filename)}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return ""
