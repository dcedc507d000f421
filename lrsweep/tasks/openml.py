"""`openml`: a table of OpenML, through scikit-learn's fetch_openml and its cache."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Annotated, Any

import numpy as np
from annotated_types import Ge

from lrsweep.errors import UsageError, WrongInSpec
from lrsweep.tasks import room
from lrsweep.tasks.apart import read_apart
from lrsweep.tasks.columns import CELL, Column, Missing, OneHot, Place, Rules, listed, texts
from lrsweep.tasks.columns import table as columns_table
from lrsweep.tasks.splits import Array, Kind, Table, table_task

Number = Annotated[int, Ge(1)]


@table_task(scales_target=True)
def openml(
    *,
    dataset: str | Number,
    version: Number | None = None,
    target: str | None = None,
    kind: Kind | None = None,
    drop: list[str] | None = None,
    one_hot: OneHot | list[str] | None = None,
    missing: Missing | None = None,
) -> Table:
    """A table of OpenML by its name (`dataset: adult, version: 2`; version 1 unless given) or number (1590).

    The first use downloads it, through scikit-learn, which keeps it (scikit_learn_data in the home folder, or where the
    variable SCIKIT_LEARN_DATA says). `target` names a column if it is not the one that OpenML has for it.
    Text and missing cells, `drop`, `one_hot`, `missing` and `kind` are as for csv, but a numeric target is a regression
    even if all are whole numbers. Columns that OpenML marks as identifiers or to be ignored are left out.
    Runs are known by the name and version of the table, not by what is downloaded.
    """
    if isinstance(dataset, int) and version is not None:
        raise WrongInSpec((("task", "version"), f"{dataset} is the number of one version; leave version out"))
    called = f"openml {dataset}" if isinstance(dataset, int) else f"openml {dataset} version {version or 1}"
    rules = Rules(drop=drop or (), one_hot=one_hot or (), missing=missing)
    return read_apart(called, lambda: _table(called, dataset, version or 1, target, kind, rules))


def _table(called: str, dataset: str | int, version: int, target: str | None, kind: Kind | None, rules: Rules) -> Table:
    fetched, remarks = _fetched(called, dataset, version, target)
    frame = fetched.frame
    if len(fetched.target_names) != 1:
        known = listed(fetched.target_names) or "none"
        wrong = f"{called}: one column has to be the target, but OpenML names {known}"
        raise WrongInSpec((("task", "target"), f"{wrong} (columns: {listed(frame.columns)})"))
    rows = len(frame)
    words = [name for name in frame.columns if frame[name].dtype.kind not in "fiu"]
    needed = rows * (len(words) * CELL + (len(frame.columns) - len(words)) * room.NUMBER)
    room.check("dataset", needed, f"the {rows:,} rows with {len(frame.columns):,} columns of {called}", "use another")
    columns = [
        Column(name=str(name), given=_values(frame[name], name in words), declared=name in words)
        for name in frame.columns
    ]
    found = columns_table(called, columns, fetched.target_names[0], kind, rules, partial(_place, called))
    found.notes["warnings"] += remarks
    return found


def _place(called: str, row: int) -> Place:
    return Place(f"{called}, row {row + 1}", f"row {row + 1}")


def _values(series: Any, as_text: bool) -> Array:
    """A column of pandas: texts, or float64."""
    if not as_text:
        return np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan))
    return texts(None if empty else value for value, empty in zip(series.tolist(), series.isna().tolist(), strict=True))


def _fetched(called: str, dataset: str | int, version: int, target: str | None) -> tuple[Any, list[str]]:
    """What fetch_openml returns, and what it warns of."""
    from sklearn.datasets import fetch_openml  # takes seconds to import

    place: dict[str, Any] = {"data_id": dataset} if isinstance(dataset, int) else {"name": dataset, "version": version}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            # The other parser fails on classes that are whole numbers or true and false, and then deletes what it has
            # downloaded (scikit-learn 1.9.1 with pandas 3.1); this one tells numbers from classes as OpenML does.
            fetched = fetch_openml(**place, target_column=target or "default-target", as_frame=True, parser="liac-arff")
        except OSError as error:  # of urllib: no network, no answer, no such page
            wrong = f"{called}: cannot be downloaded ({error})"
            raise UsageError(f"{wrong}; the first use needs the network, later ones do not") from error
        except (ValueError, KeyError) as error:  # what fetch_openml refuses
            raise WrongInSpec((("task", "dataset"), f"{called}: {str(error).strip(chr(34))}")) from error
    return fetched, [f"{called}: {warning.message}" for warning in caught if warning.category is UserWarning]
