"""What is shown of texts, and which names are near."""

from __future__ import annotations

import pytest

from lrsweep.errors import UsageError, on_one_line, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 日本, thin\u2009space", "plain, é, 日本, thin\u2009space"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b \x85 \r \0 \x7f", r"\x9b \x85 \r \x00 \x7f"),
        ("\u202e \u2028 \ufeff", r"\u202e \u2028 \ufeff"),
        ("\udce9", r"\udce9"),
    ],
)
def test_what_steers_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert str(UsageError(text)) == shown


def test_one_line_has_no_newlines() -> None:
    assert on_one_line("a\nb\tc\x1b") == r"a\nb\tc\x1b"
