"""The three tables as Parquet files, floats to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lrsweep.results.results import Results


def write(sweep: Results, folder: Path) -> None:
    """`runs.parquet`, `curves.parquet` and `summary.parquet`, with the columns of the CSV files."""
    for name, frame in (("runs", sweep.runs), ("curves", sweep.curves), ("summary", sweep.summary)):
        frame.to_parquet(folder / f"{name}.parquet", engine="pyarrow", index=False)
