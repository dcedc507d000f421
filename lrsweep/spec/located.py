"""Where in the spec a mistake stands that only the data or the user's code show."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lrsweep.errors import Problem, UsageError, WrongInSpec
from lrsweep.spec.axes import is_whole, parts
from lrsweep.spec.model import Spec
from lrsweep.spec.yaml_tree import Keys, dotted


@contextmanager
def located(spec: Spec) -> Iterator[None]:
    """Within, a mistake with a path in the spec is told with its file, line and column."""
    try:
        yield
    except WrongInSpec as error:
        raise UsageError("\n".join(_told(spec, path, message) for path, message in error.found)) from error


def _told(spec: Spec, path: tuple[str, ...], message: str) -> str:
    if not path or spec.tree is None:
        return message
    keys = _written(spec, path)
    at = spec.tree.mark(keys, key=True)
    return str(Problem(file=at.file, line=at.line, column=at.column, path=dotted(keys), message=message))


def _written(spec: Spec, path: tuple[str, ...]) -> Keys:
    """Where a value was written: at the axis that sets it, else at its own key."""
    head, *below = path
    place: Keys = path
    if head == "optimizers":
        label, *below = below
        place = (head, [optimizer.label for optimizer in spec.optimizers].index(label), *below)
    for axis in spec.axes:
        if (head, *below)[: len(parts(axis))] == parts(axis) or (is_whole(axis) and parts(axis)[0] == head):
            return ("axes", axis)
    return place
