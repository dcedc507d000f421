"""The notebook whose kernel this process is, if it is one: Jupyter's, VS Code's or Colab's.

IPython is never imported. Where nothing else has imported it there is no notebook.
"""

from __future__ import annotations

import sys
import uuid
from html import escape
from pathlib import Path
from typing import Any

STYLE = "font-family: monospace; white-space: pre-wrap; margin: 0"


def shell() -> Any | None:
    """What runs the cells; None where there is no kernel, as in IPython on a terminal."""
    get = getattr(sys.modules.get("IPython"), "get_ipython", None)
    found = get() if get is not None else None
    return found if getattr(found, "kernel", None) is not None else None


def name_of(file: str) -> str:
    """A file with code as its reader knows it: `Cell In[3]` (`cell` where IPython is older than 8), or the last part of
    its path."""
    format_code_name = getattr(getattr(shell(), "compile", None), "format_code_name", None)
    label = format_code_name(file) if format_code_name is not None else None
    of_cell = shell() is not None and Path(file).parent.name.startswith("ipykernel_")
    return " ".join(label) if label else "cell" if of_cell else Path(file).name


def print_by_descriptors() -> None:
    """For a copy of a kernel: what it prints goes to its descriptors, which the kernel reads, in whole lines.

    The kernel's own streams send every argument of `print` by itself, in between those of other copies, through threads
    that each copy would first have to start.
    """
    if shell() is not None:
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            stream = open(descriptor, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
            setattr(sys, name, stream)


class CellOutput:
    """One output below the running cell, changed in place: lines of text and, while something runs, a bar."""

    def __init__(self, kernel_shell: Any) -> None:
        self._publisher = kernel_shell.display_pub
        self._id = f"lrsweep-{uuid.uuid4().hex}"
        self._shown = ""

    def show(self, lines: list[str], *, bar: str = "", share: float = 0.0) -> None:
        """`bar` is what is written beside it, `share` how much of it is full, from 0 to 1."""
        plain = "\n".join(filter(None, (*lines, f"{bar} ({share:.0%})" * bool(bar))))
        if plain == self._shown:
            return
        text = escape("\n".join(lines))
        meter = f'<progress value="{share:.4f}" max="1" style="width: 20em"></progress> {escape(bar)}'
        html = f'<pre style="{STYLE}">{text}</pre>' * bool(text) + meter * bool(bar)
        self._publisher.publish(
            data={"text/plain": plain, "text/html": html},
            metadata={},
            transient={"display_id": self._id},
            update=bool(self._shown),
        )
        self._shown = plain
