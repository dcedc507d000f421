"""`csv` and `npz`: what is read, what is inferred, and what is refused with file and line."""

from __future__ import annotations

import csv as csv_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.tasks import TASKS


def csv(tmp_path, text, **arguments):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return TASKS["csv"](path=str(path), **{"target": "y", "split": "stored", "val": 1, "test": 0, **arguments})


def npz(tmp_path, arguments=None, **arrays):
    path = tmp_path / "table.npz"
    np.savez(path, **arrays)
    return TASKS["npz"](path=str(path), **{"target": "y", "split": "stored", "val": 1, "test": 0, **(arguments or {})})


def test_csv_inputs_and_text_classes_in_sorted_order(tmp_path):
    task = csv(tmp_path, "a,y,b\n1,pear,10\n 2 , apple ,20\n3,fig,30\n", scale="none")
    assert task.train[0].tolist() == [[1, 10], [2, 20]]
    assert task.val[0].tolist() == [[3, 30]]
    assert (task.train[1].tolist(), task.val[1].tolist()) == ([2, 0], [1])
    assert task.notes["classes"] == ["apple", "fig", "pear"]
    assert task.notes["num_outputs"] == 3
    assert task.notes["inputs"] == ["a", "b"]
    assert (task.notes["train"], task.notes["val"], task.notes["test"]) == (2, 1, 0)


@pytest.mark.parametrize(
    ("cells", "kind", "classes"),
    [
        (["3", "-1", "20"], "classification", [-1, 3, 20]),
        (["true", "False", "true"], "classification", [False, True]),
        (["b", "a", "B"], "classification", ["B", "a", "b"]),
        (["1", "x", "10"], "classification", ["1", "10", "x"]),
        (["NA", "SE", "NO"], "classification", ["NA", "NO", "SE"]),
        (["1.0", "2", "3"], "regression", None),
        (["1e3", "2", "3"], "regression", None),
    ],
)
def test_the_kind_is_inferred_from_the_target(tmp_path, cells, kind, classes):
    task = csv(tmp_path, "x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert task.notes["kind"] == kind
    assert task.notes["inferred"] is True
    assert task.notes.get("classes") == classes
    assert task.train[1].is_floating_point() == (kind == "regression")


def test_a_kind_that_is_given_is_not_inferred(tmp_path):
    text = "x,y\n0,1\n1,2\n2,4\n"
    task = csv(tmp_path, text, kind="regression", target_scale="none")
    assert (task.train[1].tolist(), task.notes["inferred"]) == ([[1.0], [2.0]], False)
    task = csv(tmp_path, text.replace("4", "4.5"), kind="classification")
    assert task.val[1].tolist() == [2]
    with pytest.raises(
        UsageError, match=r"csv:2: column 'y' \(the target\): 2 of 2 cells are not numbers: 'a' \(line 2\)"
    ):
        csv(tmp_path, "x,y\n0,a\n1,b\n", kind="regression")


def test_csv_is_standardised_by_train_rows(tmp_path):
    values = np.random.RandomState(0).normal(3, 20, size=(40, 3)).round(3)
    lines = "\n".join(",".join(map(str, row)) for row in values)
    task = csv(tmp_path, "a,b,y\n" + lines, val=10, test=5)
    scaler = StandardScaler().fit(values[:25])
    expected = torch.from_numpy(scaler.transform(values)).float()
    assert torch.allclose(task.train[0], expected[:25, :2], atol=1e-6)
    assert torch.allclose(task.val[0], expected[25:35, :2], atol=1e-6)
    assert torch.allclose(task.test[1], expected[35:, 2:], atol=1e-6)


def test_csv_details_that_spreadsheets_bring(tmp_path):
    text = b'\xef\xbb\xbf"a, first";y;flag\r\n1.5;u;TRUE\r\n\r\n"2.5";"v";false\r\n'
    task = csv(tmp_path, text, delimiter=";", scale="none")
    assert task.notes["inputs"] == ["a, first", "flag"]
    assert task.train[0].tolist() == [[1.5, 1.0]]
    assert task.val[0].tolist() == [[2.5, 0.0]]


words = (
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6).map(str.strip).filter(bool)
)
numbers = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 4))


@given(st.lists(st.tuples(numbers, words), min_size=2, max_size=12).filter(lambda rows: len({r[1] for r in rows}) > 1))
def test_what_a_csv_writer_wrote_is_read_back(tmp_path_factory, rows):
    """Any labels at all: quotes, commas, line breaks, words that look like numbers or like nothing."""
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv_module.writer(file).writerows([("x", "label,\n'quoted'"), *((x, f"c{word}c") for x, word in rows)])
    task = TASKS["csv"](path=str(path), target="label,\n'quoted'", split="stored", val=1, test=0, scale="none")
    labels = [task.notes["classes"][code] for code in torch.cat([task.train[1], task.val[1]]).tolist()]
    assert labels == [f"c{word}c" for _, word in rows]
    assert task.notes["classes"] == sorted(set(labels))
    assert torch.cat([task.train[0], task.val[0]])[:, 0].tolist() == torch.tensor([x for x, _ in rows]).tolist()


def test_one_constant_column_is_safe(tmp_path):
    task = csv(tmp_path, "a,b,y\n1,0.1,0\n2,0.1,1\n3,0.1,0\n4,7,1\n")
    assert task.train[0][:, 1].tolist() == [0.0, 0.0, 0.0]
    assert torch.isfinite(task.val[0]).all()


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("", {}, "table.csv: holds no rows"),
        ("x,y\n", {}, "holds no rows"),
        ("x,label\n1,2\n", {"target": "lable"}, "no column 'lable' \\(did you mean label\\?\\)"),
        ("x,label\n1,2\n", {"target": "q"}, "there are: x, label"),
        ("y\n1\n2\n", {}, "'y' is the only column"),
        ("x,x,y\n1,2,3\n", {}, r"csv:1: 2 columns of the header are named 'x'"),
        ("x,,y\n1,2,3\n", {}, r"csv:1: column 2 of the header has no name"),
        ("x,y\n1,2\n3\n", {}, r"csv:3: the row has 1 cells, but the header has 2$"),
        ("x,y\n1,2\n3\n1,2\n4\n5\n", {}, r"csv:3: the row has 1 cells, but the header has 2 \(3 such rows\)"),
        ("x,y\n1,a\n,b\n", {}, r"csv:3: column 'x': 1 cell is missing: '' \(write missing: drop_rows .* drop: \[x\]"),
        ("x,y\n1,a\nNaN,b\n", {}, r"csv:3: column 'x': 1 cell is missing: 'NaN'"),
        ("x,y\n1,a\ninf,b\n", {}, r"csv:3: column 'x': 1 cell is infinite: 'inf'"),
        ("x,y\n1,a\n1_000,b\n", {}, r"csv:3: column 'x': 1 cell is text: '1_000'"),
        (
            "x,y\n1,a\nParis,b\nRome,a\n",
            {},
            r"csv:3: column 'x': 2 of 3 cells are text, first 'Paris' \(write one_hot: t",
        ),
        ("x,y\n1,a\n2,\n", {}, r"csv:3: column 'y': 1 cell is missing: '' \(it is the target"),
        ("x,y\n1,0.5\n2,NA\n", {}, r"csv:3: column 'y': 1 cell is missing: 'NA' \(it is the target"),
        ("x,y\n1,0.5\n2,inf\n", {}, r"csv:3: column 'y': 1 cell is infinite: 'inf' \(it is the target"),
        ("x,y\n1,a\n2,a\n", {}, "only one class \\(a\\)"),
        ('x,y\n1,"a\n2,b\n', {}, "csv:3: unexpected end of data"),
        (
            b"x,y\n1,a\n2,\xe6\n",
            {},
            r"csv:3: is not UTF-8 text \(byte 3 of the line is 0xe6\); save the file as UTF-8$",
        ),
        ("x,y\n1,a\n2,b\n", {"val": 2}, "leaving none for train"),
    ],
)
def test_a_bad_csv_is_refused_with_its_place(tmp_path, text, arguments, message):
    with pytest.raises(UsageError, match=message):
        csv(tmp_path, text, **arguments)


def test_a_missing_file_is_a_usage_error(tmp_path):
    for name in ("csv", "npz"):
        with pytest.raises(UsageError, match=r"gone: cannot be read: No such file"):
            TASKS[name](path=str(tmp_path / "gone"), target="y")


@pytest.mark.parametrize(
    ("text", "delimiter", "written"),
    [
        ("id;city;y\n1;Oslo;2\n", ",", "';'"),
        ("area;y\n71,5;2\n6,25;3\n", ",", "';'"),  # rows of more cells than the header has by commas
        ('"id";"y"\n"1";"2"\n', ",", "';'"),  # not well-formed by commas
        ("id;city\n1;Oslo\n", ",", "';'"),  # and the target is misspelled
        ("id\ty\n1\t2\n", ",", r'"\t"'),
        ("id,y\n1,2\n", ";", "','"),
    ],
)
def test_another_delimiter_is_told_in_one_line(tmp_path, text, delimiter, written):
    with pytest.raises(WrongInSpec) as caught:
        csv(tmp_path, text, delimiter=delimiter)
    ((keys, wrong),) = caught.value.found
    assert keys == ("task", "delimiter")
    assert wrong.endswith(f"; write delimiter: {written}")
    assert "table.csv:1: " in wrong


def test_a_delimiter_of_another_kind_within_a_name_is_no_delimiter(tmp_path):
    text = 'x,"a;b\nc",y\n1,2,u\n3,4,v\n'
    assert csv(tmp_path, text).notes["inputs"] == ["x", "a;b\nc"]


@pytest.mark.parametrize(("rows", "few"), [(60, "; 60 rows are too few examples to learn them from"), (180, "")])
def test_many_classes_are_pointed_out(tmp_path, rows, few):
    text = "x,y\n" + "".join(f"{i},{i % 60}\n" for i in range(rows))
    assert csv(tmp_path, text).notes["warnings"] == [
        f"the target has 60 whole values, taken as classes (else: kind: regression){few}"
    ]
    given = [f"the target has 60 classes{few}"] if few else []
    assert csv(tmp_path, text, kind="classification").notes["warnings"] == given
    text = "x,y\n" + "".join(f"{i},name {i % 60}\n" for i in range(rows))
    assert csv(tmp_path, text).notes["warnings"] == [f"the target has 60 different texts, a class each{few}"]


def mistyped(places, cells=60):
    """A table with a real target in which some cells are typing errors; row 0 is in line 2."""
    return "x,y\n" + "".join(f"{i},{i}.5{'O' * (i in places)}\n" for i in range(cells))


@pytest.mark.parametrize("kind", [None, "regression"])
def test_a_typing_error_in_a_real_target_is_no_class(tmp_path, kind):
    with pytest.raises(WrongInSpec) as caught:
        csv(tmp_path, mistyped([39]), kind=kind)
    ((keys, wrong),) = caught.value.found
    assert keys == ("task", "target")
    assert wrong.endswith(
        "table.csv:41: column 'y' (the target): 1 of 60 cells is not a number: '39.5O'; correct it, or write "
        "kind: classification if the values are class names"
    )


def test_the_first_of_many_typing_errors_are_listed_with_their_lines(tmp_path):
    with pytest.raises(
        UsageError, match=r"7 of 60 cells are not numbers: '10\.5O' \(line 12\), .*and 2 more; correct them"
    ):
        csv(tmp_path, mistyped(range(10, 17)))


def test_what_is_said_of_a_typing_error_helps(tmp_path):
    task = csv(tmp_path, mistyped([39]), kind="classification")
    assert len(task.notes["classes"]) == 60
    assert csv(tmp_path, mistyped([])).notes["kind"] == "regression"


@pytest.mark.parametrize(
    "cells",
    [
        [*map(str, range(20)), "4O"],  # whole numbers may be names, such as postal codes
        ["true", "false"] * 10 + ["unknown"],
        ["0.5", "1.5", "low", "high", "none"],  # most are text
    ],
)
def test_a_target_of_names_stays_one_if_some_look_like_numbers(tmp_path, cells):
    task = csv(tmp_path, "x,y\n" + "".join(f"{i},{cell}\n" for i, cell in enumerate(cells)))
    assert task.notes["classes"] == sorted(set(cells))


def test_npz_reads_images_and_classes(tmp_path):
    images = np.arange(3 * 2 * 4 * 4, dtype=np.uint8).reshape(3, 2, 4, 4)
    task = npz(tmp_path, {"scale": "none"}, X=images, y=np.array([7, 5, 7], dtype=np.uint16))
    assert task.train[0].shape == (2, 2, 4, 4)
    assert task.train[0].dtype == torch.float32
    assert torch.equal(task.val[0][0], torch.from_numpy(images[2]).float())
    assert (task.train[1].tolist(), task.notes["classes"]) == ([1, 0], [5, 7])


@pytest.mark.parametrize(
    ("values", "kind", "shape"),
    [
        (np.array([True, False, True]), "classification", (2,)),
        (np.array(["b", "a", "b"]), "classification", (2,)),
        (np.array([[1], [2], [1]], dtype=">i4"), "classification", (2,)),
        (np.array([1, 2, 3], dtype=np.float16), "regression", (2, 1)),
        (np.array([[1.0, 2.0], [2.0, 3.0], [0.0, 1.0]]), "regression", (2, 2)),
    ],
)
def test_npz_kind_is_inferred_from_the_type(tmp_path, values, kind, shape):
    task = npz(tmp_path, X=np.eye(3), y=values)
    assert task.notes["kind"] == kind
    assert task.train[1].shape == shape
    assert task.notes["num_outputs"] == (2 if kind == "classification" else shape[1])


def test_npz_target_is_the_key_named_target_unless_told(tmp_path):
    path = tmp_path / "t.npz"
    np.savez(path, X=np.arange(4.0), target=np.array([0, 1, 0, 1]))
    assert TASKS["npz"](path=str(path), val=1, test=0).train[0].shape == (3, 1)


@pytest.mark.parametrize(
    ("arrays", "arguments", "message"),
    [
        ({"x": np.eye(3), "y": np.arange(3)}, {}, "no array 'X'"),
        ({"X": np.eye(3), "labels": np.arange(3)}, {"target": "label"}, "did you mean labels"),
        ({"X": np.eye(3), "y": np.arange(4)}, {}, r"X has shape \(3, 3\) and y \(4,\)"),
        ({"X": np.eye(3), "y": np.float64(1)}, {}, "both need the same rows"),
        (
            {"X": np.array([[1.0], [np.nan]]), "y": np.arange(2)},
            {},
            r"X: 1 value is missing \(nan\) .*, first in row 1",
        ),
        (
            {"X": np.eye(2), "y": np.array([1.0, np.inf])},
            {},
            r"y: 1 value is missing \(nan\) or infinite, first in row 1",
        ),
        ({"X": np.array(["a", "b"]), "y": np.arange(2)}, {}, r"X is <U1, but must be numbers$"),
        ({"X": np.array([1, None], dtype=object), "y": np.arange(2)}, {}, r"X holds Python objects, which are never"),
        ({"X": np.eye(2), "y": np.array(["a", None])}, {}, r"y holds Python objects, which are never loaded"),
        (
            {"X": np.eye(2), "y": np.array(["2026", "2027"], dtype="M8[Y]")},
            {},
            r"y is datetime64.*, but must be numbers or",
        ),
        ({"X": np.eye(2), "y": np.eye(2, dtype=int)}, {}, "must be one column"),
    ],
)
def test_a_bad_npz_is_refused(tmp_path, arrays, arguments, message):
    with pytest.raises(UsageError, match=message):
        npz(tmp_path, arguments, **arrays)


@pytest.mark.parametrize(
    ("arrays", "wrong"),
    [
        ({"x": np.eye(3), "Y": np.arange(3)}, ["there is no array 'X'", "there is no array 'y'"]),
        (
            {"X": np.array(["a", "b"]), "y": np.array([{}, 1, 2])},
            ["X is <U1, but", "y holds Python objects", "X has shape (2,) and y (3,)"],
        ),
        (
            {"X": np.array([[np.nan, 1], [np.inf, np.nan]]), "y": np.array([1.0, np.nan])},
            ["X: 3 values are missing (nan) or infinite, first in row 0", "y: 1 value is missing"],
        ),
    ],
)
def test_all_that_is_wrong_with_an_npz_is_told_at_once(tmp_path, arrays, wrong):
    with pytest.raises(WrongInSpec) as caught:
        npz(tmp_path, **arrays)
    texts = [text for _, text in caught.value.found]
    assert len(texts) == len(wrong)
    assert all(part in text for part, text in zip(wrong, texts, strict=True))


def test_an_array_of_objects_is_never_unpickled(tmp_path):
    np.savez(tmp_path / "table.npz", X=np.array([Evil()], dtype=object), y=np.arange(1))
    with pytest.raises(UsageError, match=r"X holds Python objects"):
        TASKS["npz"](path=str(tmp_path / "table.npz"), target="y")
    assert not Evil.loaded


class Evil:
    loaded = False

    def __setstate__(self, state):
        Evil.loaded = True

    def __getstate__(self):
        return {"x": 1}


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "t.npz"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"t\.npz: "):
        TASKS["npz"](path=str(path), target="y")
    np.save(tmp_path / "one.npy", np.eye(2))
    with pytest.raises(UsageError, match="single array"):
        TASKS["npz"](path=str(tmp_path / "one.npy"), target="y")
