"""What commands print, and the exit codes that no error has."""

from __future__ import annotations

import typer

from lrsweep.errors import printable

EXIT_SOME_FAILED, EXIT_LIMITS_BROKEN = 3, 6


def say(text: str, err: bool = False) -> None:
    """One text on stdout, or on stderr; no name or value in it can steer the terminal."""
    typer.echo(printable(text), err=err)
