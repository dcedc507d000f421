"""How help and usage errors of the command line look."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from lrsweep.errors import printable

EPILOG = """\
 Start with:
   lrsweep init sweep.yaml      write a commented spec
   lrsweep run sweep.yaml       train it; results go to results/NAME
   lrsweep COMMAND --help       options, and what each command writes

 Exit codes:
   0          done
   1          a bug in lrsweep
   2          bad usage or spec
   3          finished, but some runs failed (diverged is not failed)
   4          results cannot be read or written
   5          the sweep is being run by another process
   6          results are outside the limits of `check`
   128 + n    stopped by signal n; 130 after Ctrl-C, 143 after SIGTERM

 Messages go to stderr, results to stdout."""


class PlainFlagsCommand(TyperCommand):
    """A command whose flags are shown without `<bool>`."""

    def get_params(self, ctx: Any) -> Any:
        return _without_bool(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """The group of commands; reports a wrong option in plain words, without pydantic's."""

    def get_params(self, ctx: Any) -> Any:
        return _without_bool(super().get_params(ctx))

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        typer.echo(EPILOG)

    def make_context(self, *args: Any, **more: Any) -> Any:
        with _plain_words():
            return super().make_context(*args, **more)

    def invoke(self, ctx: Any) -> Any:
        with _plain_words():
            return super().invoke(ctx)


@contextmanager
def _plain_words() -> Iterator[None]:
    """Errors of usage that are raised within get the words of this package, without control characters."""
    try:
        yield
    except typer.BadParameter.__base__ as error:  # type: ignore[misc]  # the base of all errors of usage, vendored or not
        text = printable(error.message)
        if isinstance(error, typer.BadParameter):
            text = re.sub(r", unable to parse.*", "", text.removeprefix("Value error, "))
            text = re.sub(r"^'.*' is not a (valid )?(?=float|int)", "must be a ", text)  # typer before 0.29
            text = re.sub(r"\ba (valid )?int\w*( range)?", "a whole number", text).replace("a float", "a number")
            text = text.replace("a valid ", "a ").replace("Input should be", "must be")
        error.message = text
        raise


def _without_bool(params: list[Any]) -> list[Any]:
    for param in params:
        if getattr(param, "is_bool_flag", False):
            param.metavar = ""
    return params
