"""The tables of a sweep as a set: written, checked against the journal, read back to the bit.

`runs.csv` and `curves.csv` are written row by row in run_tables.py.

Needs neither torch nor the user's code: the journal holds the resolved spec, the fingerprints of the user's files and
torch's default rates.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

from lrsweep import __version__
from lrsweep.errors import StorageError, UsageError, printable
from lrsweep.results import batch_job, manifest, merging
from lrsweep.run_result import Status
from lrsweep.store import atomic, foreign, journal, links, lock
from lrsweep.system.digests import of_file
from lrsweep.system.folders import given
from lrsweep.wording.words import plural

if TYPE_CHECKING:
    import pandas as pd

    from lrsweep.analysis.cells import Frames
    from lrsweep.analysis.facts import SweepFacts
    from lrsweep.plan import Plan
    from lrsweep.results.results import Results
    from lrsweep.spec.model import Spec
    from lrsweep.store.journal import Replay

RUNS, CURVES, SUMMARY, SPEC = "runs.csv", "curves.csv", "summary.csv", "spec.yaml"
STAMP = "tables.json"
"""In the journal's folder: which state of the journal the tables show, and the hashes of their bytes."""

FORMAT = 2
"""Of the summary: raised when its columns or their rules change, so that older tables are derived again."""

RESTORE = "restore it from a copy, or rerun `lrsweep run`, which trains again what is missing"

MOST_NAMES = 3
CHUNK_ROWS = 200_000
_TEXT = ("run_id", "optimizer", "status", "diagnosis", "error")
_WHOLE = ("seed", "steps", "step")

_log = logging.getLogger("lrsweep")


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a rebuild of the tables learned on its way."""

    replay: Replay
    hashes: dict[str, Any]
    sha256: dict[str, str]
    facts: SweepFacts


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the analysis makes of `runs.csv` and `curves.csv`; `header` and `rows` are those of `summary.csv`."""

    facts: SweepFacts
    header: list[str]
    rows: list[dict[str, Any]]


Summarise: TypeAlias = "Callable[[Path, Spec, dict[str, float]], Summary]"


def sweeps_below(folder: Path | str, *, submitted: bool = False) -> list[Path]:
    """`folder` itself if it is a sweep, else every sweep below it. Raises UsageError if there is none.

    With `submitted`, also those whose batch job has not begun yet.
    """
    folder = given(folder)

    def counts(path: Path) -> bool:
        return is_sweep(path) or (submitted and batch_job.is_submitted(path))

    if counts(folder):
        return [folder]
    _check_folder(folder)
    names = (RUNS, journal.FOLDER, *((batch_job.FOLDER,) if submitted else ()))
    parents = {path.parent for name in names for path in folder.rglob(name)}
    found = [path for path in sorted(parents) if counts(path)]
    if not found:
        raise UsageError(f"{folder}: no sweep in this folder or below it (a sweep has {RUNS} or a journal)")
    return found


def folder_of(results: Results | Path | str) -> Path:
    """The folder of a sweep that is given by its path or as Results. Raises UsageError for anything else."""
    path = getattr(results, "path", results)
    if not isinstance(path, str | os.PathLike):
        raise UsageError(f"{results!r} is no sweep; give the folder of one (<results>/<name>), or its Results")
    return given(path)


def _check_folder(folder: Path) -> None:
    """Raises UsageError if this is no folder at all."""
    if folder.is_file():
        raise UsageError(f"{folder}: this is a file; give the folder of a sweep (<results>/<name>)")
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; give the folder of a sweep (<results>/<name>)")


def is_sweep(folder: Path) -> bool:
    return (folder / RUNS).is_file() or journal.exists(folder)


def is_published(folder: Path) -> bool:
    """Whether there are tables of lrsweep and no journal."""
    if journal.exists(folder) or not (folder / RUNS).is_file():
        return False
    with atomic.storage_errors(folder / RUNS, "read"), (folder / RUNS).open("rb") as stream:
        return is_ours(RUNS, stream.readline(foreign.HEAD))


def ensure(folder: Path | str) -> None:
    """Rebuild the tables and `spec.yaml` of a sweep from its journal where they are missing or outdated.

    A folder with tables and no journal is a published copy and left alone. Raises UsageError for a folder without a
    sweep, StorageError.
    """
    folder = given(folder)
    refuse_links(folder)
    if not journal.exists(folder):
        if not (folder / RUNS).is_file():
            _check_folder(folder)
            raise UsageError(f"{folder}: no sweep here ({RUNS} and a journal are missing)")
        if gone := lost(stamped(folder), journal.Replay()):
            raise StorageError(
                f"{folder / journal.FOLDER}: {gone}; {RESTORE}, or delete this folder to keep the tables alone"
            )
        return
    if current(folder):
        return
    with lock.tables(folder):
        running = lock.is_held(folder)
        before, replay = stamped(folder), journal.replay(folder)
        if gone := lost(before, replay):
            raise StorageError(f"{folder / journal.FOLDER}: {gone}; {RESTORE}")
        if running or lock.is_held(folder):
            replay.damage = [damage for damage in replay.damage if not damage.tail]  # a line that is being written
        news = journal.new_damage(replay)
        if replay.plan is None:
            if not replay.entries and (folder / RUNS).is_file():
                return
            raise StorageError(f"{folder / journal.FOLDER}: the journal has lost its plan; rerun `lrsweep run`")
        plan = planned(replay.plan, folder)
        if any(not damage.tail for damage in news) and any(run.run_id not in replay.entries for run in plan.runs):
            raise StorageError(f"{news[0]}; runs without a result may have had one there; {RESTORE}")
        for line in journal.damaged_lines(journal.keep_damaged(replay)):
            _log.warning("%s", printable(line))
        _log.info("rebuilding the tables of %s from its journal", printable(str(folder)))
        merging.disbelieve(plan.runs, replay)
        if text := merging.differing(replay):
            _log.warning("%s", printable(f"{folder / journal.FOLDER}: {text}"))
        write(folder, plan, replay, replay.plan)


def refuse_links(folder: Path) -> None:
    """Raise StorageError if the folder of a sweep leads elsewhere, see store/links.py."""
    links.refuse(folder, (SPEC, RUNS, CURVES, SUMMARY, manifest.FILE))


def stamped(folder: Path) -> dict[str, int]:
    """The bytes of the journal's files, by name, that the tables in `folder` were made from; empty if unknown."""
    sizes = _stamp(folder).get("journal")
    if not isinstance(sizes, dict):
        return {}
    return {str(name): size for name, size in sizes.items() if isinstance(size, int)}


def digests(folder: Path) -> dict[str, Any]:
    """The hashes of the tables as they were last written, by name; empty if unknown."""
    found = _stamp(folder).get("files")
    return found if isinstance(found, dict) else {}


def lost(before: Mapping[str, int], replay: Replay) -> str:
    """What is gone of the journal, as a clause; "" if nothing is. `before` is what `stamped` said before the replay."""
    gone = [name for name, size in before.items() if replay.sizes.get(name, 0) < size]
    if gone:
        more = f" and {plural(len(gone) - MOST_NAMES, 'more file')}" if len(gone) > MOST_NAMES else ""
        return f"the journal lost {', '.join(gone[:MOST_NAMES])}{more} (deleted or cut)"
    return f"the journal lost {replay.lost} (deleted or cut)" if replay.lost else ""


def planned(record: dict[str, Any], folder: Path) -> Plan:
    """The plan that a journal's `plan` record holds; `folder` is the sweep's, paths in the spec are relative to it.

    Raises StorageError if it holds none.
    """
    from lrsweep import plan

    spec = spec_of(record, folder)
    try:
        return plan.build(spec, record["fingerprints"])
    except UsageError as error:
        raise StorageError(_unreadable(folder, error)) from error


def spec_of(record: dict[str, Any], folder: Path) -> Spec:
    """The spec of such a record. Raises StorageError."""
    from lrsweep.spec.load import read_resolved

    try:
        return read_resolved(record["spec"], base_dir=folder)
    except UsageError as error:
        raise StorageError(_unreadable(folder, error)) from error


def _unreadable(folder: Path, error: UsageError) -> str:
    return (
        f"{folder / journal.FOLDER}: the plan of the sweep cannot be read ({error}); restore the journal from a copy, "
        "or rerun with --fresh, which sets it aside"
    )


def summary_of(runs: pd.DataFrame, curves: Frames, spec: Spec, rates: dict[str, float]) -> Summary:
    """Analyse the tables of a sweep; `rates` are torch's default ones by label."""
    from lrsweep.analysis import analyse
    from lrsweep.analysis.summary import summary_rows

    facts = analyse(runs, curves, spec, rates)
    header, rows = summary_rows(facts)
    return Summary(facts=facts, header=header, rows=rows)


def summarise(folder: Path, spec: Spec, rates: dict[str, float]) -> Summary:
    """The same from their files. Raises StorageError."""
    return summary_of(read_runs(folder), curve_chunks(folder), spec, rates)


def write(
    folder: Path, plan: Plan, replay: Replay, record: dict[str, Any], summarise: Summarise = summarise
) -> Written:
    """Replace `spec.yaml` and the three tables by what the journal says. Raises StorageError.

    `summarise` is called when all but `summary.csv` are there.
    """
    from lrsweep.results import facts_file, run_tables

    _keep_others(folder, replay)
    atomic.replace(folder / SPEC, record["spec"])
    hashes = run_tables.write(folder, plan, replay)
    summary = summarise(folder, plan.spec, default_rates(record))
    run_tables.write_frame(folder / SUMMARY, summary.header, summary.rows)
    digests = {name: of_file(folder / name) for name in (SPEC, RUNS, CURVES, SUMMARY)}
    stamp: dict[str, Any] = {"lrsweep": __version__, "format": FORMAT, "journal": replay.sizes, "files": digests}
    if not replay.damage and not replay.lost:
        stamp |= {"changed": replay.changed, "name": plan.spec.name, "counts": counts_of(plan, replay)}
    atomic.replace(folder / journal.FOLDER / STAMP, json.dumps(stamp, indent=1) + "\n")
    facts_file.write(folder, _fingerprint(digests), summary.facts)
    return Written(replay=replay, hashes=hashes, sha256=digests, facts=summary.facts)


def counts_of(plan: Plan, replay: Replay) -> dict[str, int]:
    """The runs of the plan by their status, with their `total`, and those `outside` of it."""
    found = Counter(replay.entries[run.run_id].status for run in plan.runs if run.run_id in replay.entries)
    outside = len(replay.entries) - found.total()
    return {"total": len(plan.runs), **{name: found[name] for name in get_args(Status)}, "outside": outside}


def known_counts(folder: Path) -> tuple[str, dict[str, int]] | None:
    """The name of the sweep and these counts from when its tables were last written; None if a file of the journal has
    changed since then.

    So `status` need not read a journal of a million runs.
    """
    stamp = _stamp(folder)
    name, known = stamp.get("name"), stamp.get("counts")
    same = (
        (stamp.get("lrsweep"), stamp.get("format")) == (__version__, FORMAT)
        and stamp.get("journal") == journal.sizes(folder)
        and stamp.get("changed") == journal.changed(folder)
    )
    if not same or not isinstance(name, str) or not isinstance(known, dict):
        return None
    sound = known.keys() == {"total", "outside", *get_args(Status)} and all(type(n) is int for n in known.values())
    return (name, known) if sound else None


def default_rates(record: dict[str, Any]) -> dict[str, float]:
    """torch's default rate by label, from a `plan` record."""
    return {label: float(rate) for label, rate in record["default_lr"].items()}


def _keep_others(folder: Path, replay: Replay) -> None:
    """Keep beside what is no file of this sweep: a `spec.yaml` that was edited or is the user's own, other tables."""
    from lrsweep.spec.resolved import HEADER

    path = folder / SPEC
    if path.is_file():
        data = path.read_bytes()
        written = data.decode("utf-8", "replace")
        if written not in replay.specs and (_stamp(folder) or not written.startswith(HEADER)):
            kept = foreign.free_name(path, "edited")
            atomic.replace(kept, data)
            _log.warning(
                "%s was edited by hand; it will be rewritten (your version is kept as %s)",
                printable(str(path)),
                kept.name,
            )
    for name in (RUNS, CURVES, SUMMARY):
        foreign.keep(folder / name, functools.partial(is_ours, name))


def is_ours(name: str, head: bytes) -> bool:
    """Whether a table of this name begins as those do that lrsweep writes."""
    line = head.partition(b"\n")[0]
    if name == SUMMARY:
        return line.startswith(b"optimizer,") and b",best_lr," in line
    return line.startswith(b"run_id,optimizer,lr,seed,")


def current(folder: Path) -> bool:
    """Whether the tables show the journal as it is, byte for byte as they were written."""
    stamp = _stamp(folder)
    if (stamp.get("lrsweep"), stamp.get("format")) != (__version__, FORMAT):
        return False
    if stamp.get("journal") != journal.sizes(folder):
        return False
    try:
        return all(of_file(folder / name) == digests(folder)[name] for name in (SPEC, RUNS, CURVES, SUMMARY))
    except (OSError, KeyError):
        return False


def digest_of(folder: Path) -> str:
    """A hash of what plots and report show: `spec.yaml`, `runs.csv`, `curves.csv` and this version's way to read them.

    What is read later than this is called is at least as new. Raises StorageError.
    """
    found = {}
    for name in (SPEC, RUNS, CURVES):
        with atomic.storage_errors(folder / name, "read"):
            found[name] = of_file(folder / name)
    return _fingerprint(found)


def _fingerprint(digests: Mapping[str, str]) -> str:
    text = " ".join([__version__, str(FORMAT), *(digests[name] for name in (SPEC, RUNS, CURVES))])
    return hashlib.sha256(text.encode()).hexdigest()


def _stamp(folder: Path) -> dict[str, Any]:
    return atomic.read_object(folder / journal.FOLDER / STAMP)


def read_runs(folder: Path | str) -> pd.DataFrame:
    """`runs.csv`; floats to the bit, text columns (axes with any text too) as text. Raises UsageError, StorageError."""
    return next(_frames(Path(folder) / RUNS, None))


def read_curves(folder: Path | str) -> pd.DataFrame:
    """`curves.csv` as one frame; `curve_chunks` reads it in pieces. Raises UsageError, StorageError."""
    return next(_frames(Path(folder) / CURVES, None))


def curve_chunks(folder: Path | str) -> Iterator[pd.DataFrame]:
    """`curves.csv` in frames of at most CHUNK_ROWS rows."""
    return _frames(Path(folder) / CURVES, CHUNK_ROWS)


def read_summary(folder: Path | str) -> pd.DataFrame:
    """`summary.csv`. Raises UsageError, StorageError."""
    return next(_frames(Path(folder) / SUMMARY, None))


def _frames(path: Path, rows: int | None) -> Iterator[pd.DataFrame]:
    import pandas as pd

    if not path.is_file():
        raise UsageError(f"{path}: no such file; {_cure(path)}")
    types = _types(path)
    numbers = [name for name, kind in types.items() if kind == "float64"]
    options: dict[str, Any] = {
        "dtype": types,
        "keep_default_na": False,
        "na_values": {name: ["", "nan"] for name in numbers},
        "encoding": "utf-8",
    }
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):  # later ones read floats to the bit anyway
        options["float_precision"] = "round_trip"
    with atomic.storage_errors(path, "read"):
        try:
            if rows is None:
                yield pd.read_csv(path, **options)
            else:
                with pd.read_csv(path, chunksize=rows, **options) as reader:
                    yield from reader
        except (ValueError, pd.errors.ParserError) as error:
            raise StorageError(f"{path} cannot be read ({error}); {_cure(path)}") from error


def _cure(table: Path) -> str:
    """What to do about a table that is damaged or missing: only a journal gives it again."""
    folder = table.parent
    if journal.exists(folder):
        return "delete it and rerun the command"
    if not (folder / RUNS).is_file():
        return "run the sweep first"
    return (
        f"{folder} has no journal to make it from again: copy the file again from where the folder came from, "
        "or train the sweep again with `lrsweep run`"
    )


def _types(path: Path) -> dict[str, str]:
    """The type of every column: ours by name, axes and the summary by what all their cells hold, metrics are floats."""
    header = _header(path)
    if path.name == SUMMARY:
        found = _held(path, header[1:])
        return {name: found.get(name, "str") for name in header}
    # The axes stand between the seed and the first column of the run; runs.csv tells of both tables and is the shorter.
    axes = header[header.index("seed") + 1 : header.index("step" if "step" in header else "status")]
    shorter = path.with_name(RUNS)
    found = _held(shorter if shorter.is_file() else path, axes)
    kinds = {name: "str" if name in _TEXT else found.get(name, "float64") for name in header}
    return {**kinds, **{name: "int64" for name in _WHOLE if name in kinds}}


def _header(path: Path) -> list[str]:
    with atomic.storage_errors(path, "read"), path.open(encoding="utf-8", newline="") as stream:
        header = next(csv.reader(stream), [])
    wanted = ["optimizer"] if path.name == SUMMARY else ["seed", "step" if path.name == CURVES else "status"]
    if not set(wanted) <= set(header):
        raise StorageError(f"{path} has no column {wanted[-1]!r}: it is damaged; {_cure(path)}")
    return header


def _held(path: Path, names: list[str]) -> dict[str, str]:
    """What the cells of the columns hold: int64, float64, bool or, for anything else, str."""
    if not names:
        return {}
    values: dict[str, set[str]] = {name: set() for name in names}
    with atomic.storage_errors(path, "read"), path.open(encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        places = [(header.index(name), values[name]) for name in names]
        for row in filter(None, rows):  # of a million rows, so nothing is made of any
            for place, found in places:
                found.add(row[place] if place < len(row) else "")
    return {name: _kind(texts) for name, texts in values.items()}


def _kind(texts: set[str]) -> str:
    if texts <= {"True", "False"}:
        return "bool" if texts else "str"
    if all(text.isascii() and text.removeprefix("-").isdigit() for text in texts):
        return "int64"
    return "float64" if texts != {""} and all(_is_number(text or "nan") for text in texts) else "str"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
