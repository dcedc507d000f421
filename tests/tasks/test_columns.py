"""Text and missing cells of tables: refused all at once, or prepared as scikit-learn would by the train split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lrsweep.errors import WrongInSpec
from lrsweep.tasks import TASKS, Task, describe
from lrsweep.tasks.columns import MISSING_CELLS

TABLE = """\
id,size,city,rooms,sold,price
a1,70,Oslo,3,true,10.5
a2,?,Bergen,2,false,9.25
a3,55,,2,true,8.5
a4,81,Oslo,NA,false,
a5,64,NA,4,true,7.5
"""


def csv(folder: Path, text: str = TABLE, **arguments: Any) -> Task:
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    given = {"target": "price", "split": "stored", "val": 1, "test": 0, "scale": "none", "target_scale": "none"}
    return TASKS["csv"](path=str(path), **(given | arguments))


def complaints(folder: Path, text: str = TABLE, **arguments: Any) -> list[tuple[str, str]]:
    """Which key of the task, and what is wrong, without the folder."""
    with pytest.raises(WrongInSpec) as caught:
        csv(folder, text, **arguments)
    return [(".".join(keys), wrong.replace(f"{folder}/", "")) for keys, wrong in caught.value.found]


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    assert [wrong.partition(" (")[0] for _, wrong in complaints(tmp_path)] == [
        "table.csv:2: column 'id': 5 of 5 cells are text, first 'a1'",
        "table.csv:3: column 'size': 1 cell is missing: '?'",
        "table.csv:2: column 'city': 4 of 5 cells are text, first 'Oslo'",
        "table.csv:4: column 'city': 1 cell is missing: ''",
        "table.csv:5: column 'rooms': 1 cell is missing: 'NA'",
        "table.csv:5: column 'price': 1 cell is missing: ''",
        "what drop, one_hot and missing do: lrsweep list tasks",
    ]


def test_what_is_wrong_with_the_shape_is_told_at_once(tmp_path: Path) -> None:
    text = "a,a,,b,b,y\n1,2,3,4,5,6\n1,2\n1,2,3,4,5,6\n1\n"
    assert [wrong for _, wrong in complaints(tmp_path, text, target="y")] == [
        "table.csv:1: column 3 of the header has no name",
        "table.csv:1: 2 columns of the header are named 'a'",
        "table.csv:1: 2 columns of the header are named 'b'",
        "table.csv:3: the row has 2 cells, but the header has 6 (2 such rows)",
    ]


def test_a_thousand_bad_columns_are_not_a_thousand_lines(tmp_path: Path) -> None:
    header = ",".join([*(f"c{i}" for i in range(1000)), "price"])
    row = ",".join(["x"] * 1000 + ["1.5"])
    found = complaints(tmp_path, f"{header}\n{row}\n{row}\n")
    assert len(found) == 32
    assert found[-2][1] == "and 970 more problems like these"


def test_what_a_message_says_to_write_helps(tmp_path: Path) -> None:
    """Following the keys that the messages name, from the bare spec on, ends in a task."""
    assert any("drop: [id]" in wrong for _, wrong in complaints(tmp_path))
    found = complaints(tmp_path, drop=["id"])
    assert any("one_hot: text_columns" in wrong for _, wrong in found)
    found = complaints(tmp_path, drop=["id"], one_hot="text_columns")
    assert all("missing: drop_rows" in wrong for _, wrong in found[:-1])
    assert csv(tmp_path, drop=["id"], one_hot="text_columns", missing="mean").notes["train"] == 3


def test_what_is_there_already_stays_in_what_to_write(tmp_path: Path) -> None:
    text = "a,b,c,price\nx,y,z,1.5\nx,y,z,2.5\n"
    found = complaints(tmp_path, text, one_hot=["a"], drop=["b"])
    assert found[0][1].endswith("first 'z' (write one_hot: [a, c], or drop: [b, c])")


@pytest.mark.parametrize("name", ["a b", "a, b", "null", "42", "x:y", "søk", '"'])
def test_a_name_that_a_message_says_to_write_is_yaml(tmp_path: Path, name: str) -> None:
    import yaml

    quoted = '"' + name.replace('"', '""') + '"'
    (_, wrong), _ = complaints(tmp_path, f"{quoted},b,price\nOslo,1,1.5\nRome,2,2.5\n")
    written = wrong.partition("drop: ")[2].removesuffix(")")
    assert yaml.safe_load(written) == [name]


@pytest.mark.parametrize(
    ("arguments", "key", "wrong"),
    [
        ({"drop": ["idd"]}, "task.drop", "no column 'idd' (did you mean id?)"),
        ({"one_hot": ["town"]}, "task.one_hot", "no column 'town'"),
        ({"drop": ["price"]}, "task.drop", "'price' is the target"),
        ({"one_hot": ["price"]}, "task.one_hot", "'price' is the target"),
        ({"drop": ["city"], "one_hot": ["city"]}, "task.one_hot", "'city' is left out by drop"),
        ({"drop": ["id", "size", "city", "rooms", "sold"]}, "task.drop", "drop leaves no inputs"),
    ],
)
def test_keys_that_fit_no_column(tmp_path: Path, arguments: dict[str, Any], key: str, wrong: str) -> None:
    ((at, text),) = complaints(tmp_path, **arguments)
    assert at == key
    assert wrong in text


def test_names_and_numbers_of_a_prepared_table(tmp_path: Path) -> None:
    task = csv(tmp_path, drop=["id"], one_hot="text_columns", missing="mean")
    assert task.notes["inputs"] == [
        "size", "size is missing", "city=Bergen", "city=Oslo", "city is missing", "rooms", "sold",
    ]  # fmt: skip
    # The fourth row has no target. The city NA of the last row is a name like any other, unknown to the train split.
    assert task.train[0].tolist() == [[70, 0, 0, 1, 0, 3, 1], [62.5, 1, 1, 0, 0, 2, 0], [55, 0, 0, 0, 1, 2, 1]]
    assert task.val[0].tolist() == [[64, 0, 0, 0, 0, 4, 1]]
    assert task.notes["prepared"] == [
        "left out: id",
        "1 row without a target left out",
        "one-hot: city (2 values)",
        "2 missing cells filled in: size, city",
    ]
    assert "left out: id; 1 row without a target left out; one-hot: city" in describe(task)


def test_rows_with_missing_cells_can_be_left_out(tmp_path: Path) -> None:
    task = csv(tmp_path, drop=["id"], one_hot=["city"], missing="drop_rows")
    assert torch.cat([task.train[0], task.val[0]]).tolist() == [[70, 1, 3, 1], [64, 0, 4, 1]]
    assert task.notes["prepared"][1:3] == ["1 row without a target left out", "2 of 5 rows with missing cells left out"]
    ((key, wrong),) = complaints(tmp_path, "a,b,price\n1,,1.5\n,2,2.5\n", missing="drop_rows")
    assert (key, wrong) == ("task.missing", "table.csv: every row has a missing cell, so drop_rows leaves none")


def test_a_target_stays_text_when_its_only_words_are_left_out(tmp_path: Path) -> None:
    text = "a,b,kind\n1,1,NA\n,2,pear\n3,3,1\n4,4,2\n"
    task = csv(tmp_path, text, target="kind", missing="drop_rows")
    assert task.notes["classes"] == ["1", "2", "NA"]
    assert task.train[1].tolist() == [2, 0]


def test_numbers_that_are_names_can_be_encoded(tmp_path: Path) -> None:
    text = "zip,price\n0150,1.5\n150,2.5\n0150,3.5\n5003,4.5\n"
    task = csv(tmp_path, text, one_hot=["zip"])
    assert task.notes["inputs"] == ["zip=0150", "zip=150"]
    assert (task.train[0].tolist(), task.val[0].tolist()) == ([[1, 0], [0, 1], [1, 0]], [[0, 0]])


def test_an_indicator_is_not_scaled_and_a_number_is(tmp_path: Path) -> None:
    task = csv(tmp_path, drop=["id"], one_hot="text_columns", missing="mean", scale="standard")
    assert task.train[0][:, 1:5].tolist() == [[0, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert task.train[0][:, 0].tolist() == pytest.approx(StandardScaler().fit_transform([[70], [62.5], [55]])[:, 0])


@pytest.mark.parametrize("arguments", [{}, {"drop": [], "one_hot": [], "missing": None}])
def test_a_table_of_numbers_says_nothing_of_it(tmp_path: Path, arguments: dict[str, Any]) -> None:
    task = csv(tmp_path, "a,price\n1,1.5\n2,2.5\n", **arguments)
    assert task.notes["prepared"] == []
    assert task.notes["inputs"] == ["a"]


def test_columns_that_are_odd_to_encode_are_pointed_out(tmp_path: Path) -> None:
    rows = "".join(f"{'three' if i == 7 else i % 5},name {i},{i}.5\n" for i in range(80))
    task = csv(tmp_path, f"rooms,name,price\n{rows}", one_hot=["rooms", "name"])
    assert task.notes["warnings"] == [
        "column 'rooms' is one-hot encoded as text, but 79 of its 80 cells are numbers; 'three' is not one of them",
        "column 'name' has 79 values, a 0/1 input each (drop: [name] leaves it out)",
    ]


@pytest.mark.parametrize("odd", [1, 31, 39])
def test_text_columns_encodes_no_column_of_more_numbers_unless_it_is_named(tmp_path: Path, odd: int) -> None:
    """One bad cell would make an input of each number."""
    rows = "".join(f"{'three' if 7 <= i < 7 + odd else i % 5},{'ab'[i % 2]},{i}.5\n" for i in range(80))
    text = f"rooms,name,price\n{rows}"
    found = complaints(tmp_path, text, one_hot="text_columns")
    cells = "1 of 80 cells is not a number: 'three'; correct it" if odd == 1 else f"{odd} of 80 cells are not numbers: "
    assert len(found) == 1
    assert found[0][0] == "task.one_hot"
    assert found[0][1].startswith(f"table.csv:9: column 'rooms': {cells}")
    assert found[0][1].endswith(" (if it is text, name all columns of text: one_hot: [rooms, name]; or drop: [rooms])")
    assert csv(tmp_path, text, one_hot=["rooms", "name"]).notes["inputs"][-2:] == ["name=a", "name=b"]
    assert csv(tmp_path, text, one_hot="text_columns", drop=["rooms"]).notes["inputs"] == ["name=a", "name=b"]
    # Without one_hot at all the way out is the same, not text_columns.
    assert any("write one_hot: [rooms, name], or drop: [rooms]" in wrong for _, wrong in complaints(tmp_path, text))


def test_text_columns_encodes_a_column_of_as_much_text(tmp_path: Path) -> None:
    rows = "".join(f"{'two' if i % 2 else i % 5},{i}.5\n" for i in range(80))
    assert csv(tmp_path, f"rooms,price\n{rows}", one_hot="text_columns").notes["inputs"][0] == "rooms=0"


def test_typing_errors_among_numbers_are_told_as_such(tmp_path: Path) -> None:
    """First to correct them: encoding them as text would make an input of each number."""
    area = {7: "71,5", 30: "6O.2", 31: "?"}
    rows = "".join(f'"{area.get(i, i)}",{i}.5\n' for i in range(80))
    found = complaints(tmp_path, f"area m2,price\n{rows}")
    assert [wrong.rpartition(" (")[0] for _, wrong in found[:-1]] == [
        "table.csv:9: column 'area m2': 2 of 80 cells are not numbers: '71,5' (line 9), '6O.2' (line 32); correct them",
        "table.csv:33: column 'area m2': 1 cell is missing: '?'",
    ]
    assert found[0][1].endswith("; correct them (if that is meant, write one_hot: [area m2], or drop: [area m2])")
    rows = rows.replace("6O.2", "60.2")
    assert (
        "9: column 'area m2': 1 of 80 cells is not a number: '71,5'; correct it ("
        in complaints(tmp_path, f"area m2,price\n{rows}")[0][1]
    )


def test_a_column_without_a_number_in_the_train_split_has_no_mean(tmp_path: Path) -> None:
    text = "a,b,price\n,1,1.5\n,2,2.5\n3,3,3.5\n"
    assert complaints(tmp_path, text, missing="mean") == [
        (
            "task.missing",
            "table.csv: column 'a' has no number in the train split, so there is no mean (drop: [a] leaves it out)",
        )
    ]
    (_, wrong), _ = complaints(tmp_path, text.replace("3,3,", ",3,"), missing="mean")
    assert "column 'a': every cell is missing (write drop: [a])" in wrong


cells = st.sampled_from(["", "Oslo", "Bergen", "NA", "æ", "1", "Vardø"])
numbers = st.one_of(st.sampled_from(sorted(MISSING_CELLS)), st.integers(-99, 99).map(lambda n: str(n / 4)))
rows = st.lists(st.tuples(numbers, cells, numbers, cells), min_size=6, max_size=25)


@given(rows, st.integers(1, 3), st.sampled_from(["none", "standard"]))
def test_inputs_are_those_of_scikit_learn_fitted_on_the_train_split(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], held: int, scale: str
) -> None:
    train = slice(0, len(rows) - held)
    table = [("1.5", "x", "2.5", "y"), *rows]  # a number in each column of numbers of the train split
    text = "a,b,c,d,price\n" + "".join(",".join((*row, f"{i}.5")) + "\n" for i, row in enumerate(table))
    given = {"one_hot": ["b", "d"], "missing": "mean", "val": held, "scale": scale}
    task = csv(tmp_path_factory.mktemp("csv"), text, **given)
    ours = dict(zip(task.notes["inputs"], torch.cat([task.train[0], task.val[0]]).double().T.numpy(), strict=True))
    train, theirs = slice(0, len(table) - held), {}
    for name, place in (("a", 0), ("c", 2)):
        values = np.array([[np.nan if row[place] in MISSING_CELLS else float(row[place])] for row in table])
        filled = SimpleImputer().fit(values[train]).transform(values)
        theirs[name] = (
            StandardScaler().fit(filled[train]).transform(filled)[:, 0] if scale == "standard" else filled[:, 0]
        )
        marks = MissingIndicator(features="missing-only", error_on_new=False).fit(values[train]).transform(values)
        theirs |= {f"{name} is missing": mark.astype(float) for mark in marks.T}
    for name, place in (("b", 1), ("d", 3)):
        values = np.array([[row[place] or None] for row in table], dtype=object)
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(values[train])
        titles = [f"{name} is missing" if value is None else f"{name}={value}" for value in encoder.categories_[0]]
        theirs |= dict(zip(titles, encoder.transform(values).T, strict=True))
    assert ours.keys() == theirs.keys()
    for name, values in theirs.items():
        assert ours[name] == pytest.approx(values, abs=1e-4), name


@given(rows, st.data())
def test_the_train_split_does_not_know_the_others(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, ...]], data: st.DataObject
) -> None:
    """Whatever stands in the rows of val and test, the train split is the same to the bit."""
    head = [("1.5", "x", "2.5", "y"), *rows[:-2]]

    def trained(tail: list[tuple[str, ...]]) -> tuple[list[str], torch.Tensor]:
        table = [*head, *tail]
        text = "a,b,c,d,price\n" + "".join(",".join((*row, f"{i}.5")) + "\n" for i, row in enumerate(table))
        given = {"one_hot": ["b", "d"], "missing": "mean", "val": 1, "test": 1, "scale": "standard"}
        task = csv(tmp_path_factory.mktemp("csv"), text, **given)
        return task.notes["inputs"], task.train[0]

    names, inputs = trained(rows[-2:])
    other = data.draw(st.lists(st.tuples(numbers, cells, numbers, cells), min_size=2, max_size=2))
    others, again = trained(other)
    assert names == others
    assert torch.equal(inputs, again)
