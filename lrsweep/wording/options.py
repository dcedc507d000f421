"""How options are named where lrsweep is used from Python."""

from __future__ import annotations

import re

_FLAGS = re.compile(r"--(fresh|refine|dry-run)\b")
_VALUES = re.compile(r"--(results|set|workers|threads|executor|address)\b")


def as_in_python(text: str) -> str:
    """A message with the options named as the arguments of `run`: `fresh=True` for `--fresh`, `set` for `--set`."""
    return _VALUES.sub(r"\1", _FLAGS.sub(lambda match: f"{match[1].replace('-', '_')}=True", text))
