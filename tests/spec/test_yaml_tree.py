"""Reading YAML 1.2 with places, and writing what reads back the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrsweep.errors import SpecError, UsageError
from lrsweep.spec.yaml_tree import MAX_BYTES, Mark, dotted, dump, from_dict, parse, read_text

# The tables of YAML 1.2.2, section 10.3.2 (core schema), and the traps of YAML 1.1.
SCALARS: list[tuple[str, Any]] = [
    ("1e-6", 1e-6),
    ("1E-6", 1e-6),
    ("1.0e-6", 1e-6),
    ("0.000001", 1e-6),
    ("1e+3", 1000.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("-0.0", -0.0),
    ("+12e03", 12000.0),
    ("-2E+05", -200000.0),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("+.INF", math.inf),
    ("0", 0),
    ("-19", -19),
    ("+7", 7),
    ("010", 10),
    ("0o7", 7),
    ("0x3A", 58),
    ("true", True),
    ("True", True),
    ("FALSE", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("on", "on"),
    ("off", "off"),
    ("yes", "yes"),
    ("no", "no"),
    ("y", "y"),
    ("tRUE", "tRUE"),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("1_000", "1_000"),
    ("0b11", "0b11"),
    ("2001-12-14", "2001-12-14"),
    ("1e", "1e"),
    ("e3", "e3"),
    (".", "."),
    ("'1e-6'", "1e-6"),
    ('"true"', "true"),
    ("!!str 1e-6", "1e-6"),
    ("!!float 1", 1.0),
    ("=", "="),
]


@pytest.mark.parametrize(("text", "value"), SCALARS)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    read = parse(f"a: {text}\n", "f").data["a"]
    assert read == value
    assert type(read) is type(value)


def test_nan_is_a_float() -> None:
    assert math.isnan(parse("a: .nan", "f").data["a"])


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_every_spelling_of_a_float_is_the_same_float(value: float) -> None:
    spellings = {repr(value), f"{value:.17e}", f"{value:.17E}", f"{value:.16e}".replace("e", "E")}
    assert {parse(f"[{text}]", "f").data[0] for text in spellings} == {value}


def test_places_of_keys_and_values() -> None:
    tree = parse("a: 1\nb:\n  - x\n  - {c: 2, d: [3,  4]}\n", "f.yaml")
    assert tree.data == {"a": 1, "b": ["x", {"c": 2, "d": [3, 4]}]}
    assert tree.mark(("a",), key=True) == Mark(file="f.yaml", line=1, column=1)
    assert tree.mark(("a",)) == Mark(file="f.yaml", line=1, column=4)
    assert tree.mark(("b", 1, "d"), key=True) == Mark(file="f.yaml", line=4, column=12)
    assert tree.mark(("b", 1, "d", 1)) == Mark(file="f.yaml", line=4, column=20)


def test_a_missing_path_stands_at_its_nearest_parent() -> None:
    tree = parse("a:\n  b: 1\n", "f")
    assert tree.mark(("a", "x", "y")) == tree.mark(("a",)) == Mark(file="f", line=2, column=3)
    assert tree.mark(("zz",), key=True) == Mark(file="f", line=1, column=1)


def test_aliases_are_read_as_separate_copies() -> None:
    data = parse("a: &x {k: 1}\nb: *x\n", "f").data
    data["b"]["k"] = 2
    assert data["a"] == {"k": 1}


# text -> line, column, part of the message
REFUSED: dict[str, tuple[str, int, int, str]] = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", 3, 1, "given twice (first in line 1)"),
    "a key twice in a flow mapping": ("a: {x: 1, x: 2}\n", 1, 11, "given twice"),
    "a python tag": ("a: !!python/object/apply:os.system [ls]\n", 1, 4, "tag"),
    "a tag at the top": ("!!python/name:os.system\n", 1, 1, "tag"),
    "a local tag": ("a: !x 1\n", 1, 4, "tag"),
    "binary": ("a: !!binary aGk=\n", 1, 4, "tag"),
    "a set": ("a: !!set {x}\n", 1, 4, "tag"),
    "a tag that does not fit": ("a: !!int x\n", 1, 4, "is no int"),
    "a number as key": ("1: 2\n", 1, 1, "put the key in quotes"),
    "a list as key": ("[1]: 2\n", 1, 1, "put the key in quotes"),
    "a merge key": ("a: &x {k: 1}\nb:\n  <<: *x\n", 3, 3, "merge keys"),
    "an alias to itself": ("a: &x [1, *x]\n", 1, 4, "refers to itself"),
    "an undefined alias": ("a: *x\n", 1, 4, "undefined alias"),
    "two documents": ("a: 1\n---\nb: 2\n", 2, 1, "second document"),
    "a tab": ("a:\n\tb: 1\n", 2, 1, "indent with spaces"),
    "an open bracket": ("a: [1, 2\n", 2, 1, "began in line 1"),
    "an open quote": ("a: 'x\n", 2, 1, "quoted scalar"),
    "a stray colon": ("a: b: c\n", 1, 5, "mapping values"),
    "wrong indentation": ("a: 1\n  b: 2\n", 2, 4, "mapping values"),
    "a control character": ("a: 1\nb: \x07\n", 2, 4, "U+0007"),
    "a nul": ("\x00", 1, 1, "U+0000"),
    "a number of 5000 digits": (f"a: {'9' * 5000}\n", 1, 4, "too long"),
    "too deep": ("[" * 1000, 1, 41, "deeper than 40"),
    "too many values": (f"a: [{'1,' * 60_000}]", 1, 99_999, "more than 50000 values"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_refused_with_its_place(case: str) -> None:
    text, line, column, message = REFUSED[case]
    try:
        issue = parse(text, "f.yaml").refused[0].issue
    except SpecError as error:
        issue = error.issues[0]
    assert (issue.file, issue.line, issue.column) == ("f.yaml", line, column)
    assert message in issue.message


def test_all_doubled_keys_are_reported_at_once() -> None:
    refused = [one.issue for one in parse("a: 1\na: 2\nb: {c: 1, c: 2}\n", "f").refused]
    assert [(issue.path, issue.line) for issue in refused] == [("a", 2), ("b.c", 3)]


def test_an_alias_bomb_is_refused_by_its_size() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    with pytest.raises(SpecError, match="once aliases are expanded"):
        parse("\n".join(lines), "bomb")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_bytes(b"a: 1\n" * 2_000_000)
    with pytest.raises(SpecError, match=f"larger than {MAX_BYTES} bytes"):
        read_text(path)


def with_hint(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        read_text(path)
    return str(caught.value)


def test_what_is_no_text_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lrsweep init"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        read_text(tmp_path)
    assert "for example" not in with_hint(tmp_path)
    (tmp_path / "e1.yaml").write_text("task: iris\n")
    assert with_hint(tmp_path).endswith(f"for example {tmp_path / 'e1.yaml'}")
    for near in ("e1", "e1.yml"):
        assert with_hint(tmp_path / near).endswith(f"did you mean {tmp_path / 'e1.yaml'}?")
    (tmp_path / "spec.yaml").write_text("task: iris\n")
    (tmp_path / "a.yaml").write_text("task: iris\n")
    assert with_hint(tmp_path).endswith(f"for example {tmp_path / 'spec.yaml'}")
    (tmp_path / "latin.yaml").write_bytes("a: 1\nb: café\n".encode("latin-1"))
    with pytest.raises(SpecError) as caught:
        read_text(tmp_path / "latin.yaml")
    assert (caught.value.issues[0].line, caught.value.issues[0].column) == (2, 7)


def test_a_byte_order_mark_and_dos_line_ends_are_read(tmp_path: Path) -> None:
    path = tmp_path / "dos.yaml"
    path.write_bytes("\ufeffa: 1\r\nb: 2\r\n".encode())
    tree = parse(read_text(path), "f")
    assert tree.data == {"a": 1, "b": 2}
    assert tree.mark(("b",)).line == 2


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
KEYS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=12)
HARD = st.sampled_from(
    ["on", "1e-6", "1:30", "null", "~", "0o7", "0x1", ".nan", "true", "=", "<<", "- a", "a: b", " x ", "#"]
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS | HARD,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | HARD, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(KEYS | HARD, PLAIN, max_size=5))
def test_what_is_written_reads_back_the_same(data: dict[str, Any]) -> None:
    read = parse(dump(data), "f").data or {}
    assert read == data
    assert repr(read) == repr(data)  # order, and 1 apart from 1.0 apart from true


@pytest.mark.parametrize("character", ["\0", "\ud800"])
def test_a_text_that_no_table_can_hold_is_refused_at_its_place(character: str) -> None:
    escape = "\\0" if character == "\0" else "\\ud800"
    (refusal,) = parse(f'a: 1\nb: [x, "y{escape}"]\n', "f").refused
    message = f"f:2:8: b[1]: the character U+{ord(character):04X} cannot be stored in a table; remove it"
    assert str(refusal.issue) == message
    (refusal,) = from_dict({"b": ["x", f"y{character}"]}).refused
    assert refusal.path == ("b", 1)


def test_a_key_with_control_characters_is_refused_at_its_place() -> None:
    (refusal,) = parse('a: 1\n"b\\e[31m": 2\n', "f").refused
    assert str(refusal.issue) == r"f:2:1: spec: the key 'b\x1b[31m' has control characters; remove them"
    (refusal,) = from_dict({"task": {"b\n": 1}}).refused
    assert refusal.path == ("task",)


def test_floats_are_written_as_python_writes_them() -> None:
    assert dump({"lr": [1e-05, 1.0, 0.1, 1e22]}) == "lr: [1e-05, 1.0, 0.1, 1e+22]\n"


def test_dotted_paths() -> None:
    assert dotted(("optimizers", 1, "momentum")) == "optimizers[1].momentum"
    assert dotted(("axes", "train.batch_size", 0)) == "axes.train.batch_size[0]"
    assert dotted(()) == "spec"
