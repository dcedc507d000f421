"""Errors a user can cause or meet. Each knows the exit code of the command line (contract: Commands)."""

from __future__ import annotations

import difflib
import itertools
import re
import traceback
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_UNSEEN = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode's categories of control and format characters, lone surrogates, and separators of lines and paragraphs."""


def printable(text: str) -> str:
    """`text` with escapes such as `\\x1b` for what a terminal obeys or a page cannot hold. Newlines and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c in "\n\t" or unicodedata.category(c) not in _UNSEEN else _escape(c) for c in text)


def on_one_line(text: str) -> str:
    """The same with escapes for newlines and tabs too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


LONGEST_PARAGRAPH = 400
_PLACE = re.compile(r" \([^()\n]+:\d+ in [^()\n]+\)$")  # where in the user's file, at the end of what it raised


def paragraph(text: str) -> str:
    """The first paragraph of an error's text, shortened, with the place in the user's file where it names one."""
    place = found[0] if (found := _PLACE.search(text)) else ""
    whole = text.removesuffix(place).strip()
    first = re.split(r"\n\s*\n", whole, maxsplit=1)[0].rstrip()
    if len(first) > LONGEST_PARAGRAPH:
        first = first[:LONGEST_PARAGRAPH].rsplit(None, 1)[0]
    return f"{first}{' ...' if first != whole else ''}{place}"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """From the cell of a notebook on: what runs the cells comes first."""
    frames = list(traceback.extract_tb(error.__traceback__))
    cells = [
        number for number, frame in enumerate(frames) if frame.name == "<module>" or frame.name.startswith("<cell")
    ]
    return frames[cells[0] :] if cells else frames


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(Path(__file__).parent)


class LrsweepError(Exception):
    """Base of every error that is shown to the user without a traceback. Its text has no control characters.

    >>> try:
    ...     results = lrsweep.run("sweep.yaml")
    ... except lrsweep.LrsweepError as error:
    ...     raise SystemExit(error.exit_code)  # that of the command line
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback: where the user called lrsweep, and the text."""
        frames = itertools.takewhile(lambda frame: not _is_ours(frame.filename), _frames(self))
        calls = [f"line {frame.lineno}, in {frame.name}\n    {frame.line}" for frame in frames]
        return [*calls, f"{type(self).__name__}: {self}"]


class UsageError(LrsweepError):
    """The command, the spec or the user's own task is wrong; the text says how to correct it.

    >>> try:
    ...     lrsweep.load("results/nothing")
    ... except lrsweep.UsageError as error:
    ...     print(error)
    results/nothing: no such folder; give the folder of a sweep (<results>/<name>)
    """

    exit_code = 2


class WrongOption(UsageError):
    """A value that an option cannot have; named as Python has it, or as the command line has it.

    >>> try:
    ...     lrsweep.check("results/sweep", max_diverged=2)
    ... except lrsweep.WrongOption as error:
    ...     print(error)
    max_diverged=2: must be a fraction of the runs, from 0 to 1
    """

    def __init__(self, option: str, value: object, wrong: str) -> None:
        super().__init__(option, value, wrong)
        self.option: str = option
        self.value: object = value
        self.wrong: str = wrong

    def __str__(self) -> str:
        return printable(f"{self.option}={self.value!r}: {self.wrong}")

    def on_command_line(self) -> str:
        """`--max-diverged 2.0: must be ...`"""
        value = " ".join(map(str, self.value)) if isinstance(self.value, tuple) else str(self.value)
        return printable(f"--{self.option.replace('_', '-')} {value}: {self.wrong}")


class WrongInSpec(UsageError):
    """A valid spec that does not fit the data, the model or the user's code: pairs (path in the spec, what is wrong).

    The path is empty if no key of the spec is to blame; an optimizer goes by its label.
    """

    def __init__(self, *found: tuple[tuple[str, ...], str]) -> None:
        super().__init__(*found)
        self.found = found

    def __str__(self) -> str:
        return printable("\n".join(message for _, message in self.found))


SET = "--set "


@dataclass(frozen=True, kw_only=True)
class SpecIssue:
    """One thing wrong with a spec: where it is written, which key, what is allowed.

    `line` is 0 where there are none: in a dict, and in an override, whose `file` is the option `--set KEY=VALUE`.

    >>> try:
    ...     lrsweep.load_spec({"task": "blobs", "optimizers": ["adam"], "train": {"epochs": 0}})
    ... except lrsweep.SpecError as error:
    ...     print(error.issues[0].path, "|", error.issues[0].message)
    train.epochs | must be an integer from 1 or null, not 0
    """

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        if self.file.startswith(SET):
            known = self.path == "spec" or self.file.startswith(f"{SET}{self.path}=")
            return printable(f"{self.file}: {'' if known else f'{self.path}: '}{self.message}")
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else ""
        return printable(f"{place}{self.path}: {self.message}")


class SpecError(UsageError):
    """Everything wrong with a spec, found before anything is trained.

    >>> try:
    ...     lrsweep.load_spec("sweep.yaml", overrides=["seeds=0", "train.epochs=-1"])
    ... except lrsweep.SpecError as error:
    ...     print(len(error.issues), "mistakes:", [issue.path for issue in error.issues])
    2 mistakes: ['seeds', 'train.epochs']
    """

    def __init__(self, issues: Sequence[SpecIssue]) -> None:
        self.issues: tuple[SpecIssue, ...] = tuple(issues)
        super().__init__("\n".join(str(issue) for issue in self.issues))


class StorageError(LrsweepError):
    """The results folder cannot be read or written (disk full, permissions, a newer format).

    >>> try:
    ...     results = lrsweep.run("sweep.yaml")
    ... except lrsweep.StorageError:
    ...     results = lrsweep.run("sweep.yaml", results="elsewhere")
    """

    exit_code = 4


class LimitError(LrsweepError):
    """The system refused memory, files or processes."""

    exit_code = 4


class BusyError(LrsweepError):
    """Another process runs this sweep.

    >>> try:
    ...     results = lrsweep.run("sweep.yaml")
    ... except lrsweep.BusyError:
    ...     results = lrsweep.load("results/sweep")  # what is finished so far
    """

    exit_code = 5


class StoppedError(LrsweepError):
    """The sweep was asked to stop by a signal; the exit code is 128 + its number, 130 after Ctrl-C.

    What is finished is saved, and the next `run` goes on from there.

    >>> try:
    ...     results = lrsweep.run("sweep.yaml")
    ... except lrsweep.StoppedError:
    ...     results = lrsweep.load("results/sweep")  # what is finished so far
    """

    def __init__(self, message: str = "stopped", exit_code: int = 130) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def nearest(text: str, names: Iterable[str]) -> str | None:
    """The name that `text` was probably meant to be, upper and lower case alike; None if none is near.

    Near is a letter or two that differ, the same letters in another order, or the beginning of the name.
    """
    lower, text = {name.lower(): name for name in names}, text.lower()
    near = difflib.get_close_matches(text, lower, n=1, cutoff=0.75)
    swapped = [name for name in lower if sorted(name) == sorted(text)]
    begun = [name for name in lower if len(text) >= 3 and name.startswith(text)]
    return next((lower[name] for name in (*near, *swapped, *begun)), None)


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """`did you mean X?` if a name is near, else nothing."""
    near = nearest(text, names)
    return f"did you mean {near}?" if near else ""
