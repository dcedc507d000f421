"""What is shown of texts, and which names are near."""

from __future__ import annotations

import linecache

import pytest

from lrsweep.errors import LONGEST_PARAGRAPH, SpecError, UsageError, nearest, on_one_line, paragraph, printable


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


PLACE = " (task.py:12 in loss)"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ValueError: bad", "ValueError: bad"),
        ("ValueError: bad" + PLACE, "ValueError: bad" + PLACE),
        ("RuntimeError: first\nsecond\n\nthird" + PLACE, "RuntimeError: first\nsecond ..." + PLACE),
        ("RuntimeError: first\n \t\nthird", "RuntimeError: first ..."),
    ],
)
def test_an_error_is_kept_to_its_first_paragraph_and_its_place(text: str, kept: str) -> None:
    assert paragraph(text) == kept


def test_a_long_paragraph_is_cut_between_words() -> None:
    kept = paragraph("RuntimeError: " + "word " * 500 + PLACE)
    assert len(kept) <= LONGEST_PARAGRAPH + len(" ..." + PLACE)
    assert kept.endswith("word word ..." + PLACE)


@pytest.mark.parametrize(
    ("text", "names", "meant"),
    [
        ("adm", ["sgd", "adam", "adamw"], "adam"),
        ("mpl", ["linear", "mlp"], "mlp"),
        ("ACC", ["loss", "accuracy"], "accuracy"),
        ("epoch", ["epochs", "steps"], "epochs"),
        ("extra", ["name", "task", "train"], None),
        ("sparseadam", ["adam", "radam", "sgd"], None),
        ("x", ["max", "min"], None),
    ],
)
def test_only_a_name_that_is_really_near_is_suggested(text: str, names: list[str], meant: str | None) -> None:
    assert nearest(text, names) == meant


CELL = """
import lrsweep

def sweep(**options):
    return lrsweep.run({"name": "x", "lrr": 3}, **options)

sweep()
"""


def test_a_notebook_shows_where_lrsweep_was_called_and_none_of_its_own_frames() -> None:
    """IPython shows what `_render_traceback_` of an exception gives in place of its traceback."""
    name = "/tmp/ipykernel_1/5.py"
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(True), name)
    with pytest.raises(SpecError) as info:
        exec(compile(CELL, name, "exec"), {})
    call, within, said = info.value._render_traceback_()
    assert call == "line 7, in <module>\n    sweep()"
    assert within == 'line 5, in sweep\n    return lrsweep.run({"name": "x", "lrr": 3}, **options)'
    assert said == f"SpecError: {info.value}"
