"""`python -m tests.bench.million FOLDER [--runs 1000000] [--seeds] [--rows 4]`: write the results of a sweep of so many
runs without training any, for timing what comes after the training: status, tables, plots, report, check, run."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from tests.support import generated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--seeds", action="store_true", help="many seeds instead of axes")
    parser.add_argument("--rows", type=int, default=4, help="epochs, which are rows after the first of each curve")
    given = parser.parse_args()
    begun = time.perf_counter()
    try:
        path = generated.folder(given.folder, given.runs, axes=not given.seeds, rows=given.rows)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    size = sum(file.stat().st_size for file in (path / "journal").iterdir())
    print(f"{path}: {given.runs} runs, journal of {size / 1e6:.0f} MB, {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
