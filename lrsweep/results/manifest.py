"""`manifest.json`: everything that may differ between two equal sweeps, and what identifies this one."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Sequence, Set
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep import __version__
from lrsweep.store import atomic, foreign, journal
from lrsweep.store.journal import Group, Replay

if TYPE_CHECKING:
    from lrsweep.plan import Plan
    from lrsweep.results.tables import Written

FILE = "manifest.json"
PACKAGES = ("torch", "numpy", "pandas", "scikit-learn", "matplotlib")


def command() -> list[str]:
    """The command line, with the program by its name alone."""
    return [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []


def session(*, begun: float, ended: float, training_seconds: float, trained: int, **options: Any) -> dict[str, Any]:
    """One run of the command; times are seconds since 1970."""
    return {
        "command": command(),
        "started": begun,
        "ended": ended,
        "training_seconds": training_seconds,
        "runs_trained": trained,
        **options,
        "machine": platform.machine(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def write(
    folder: Path,
    plan: Plan,
    *,
    session: dict[str, Any],
    written: Written,
    tasks: dict[str, Any],
) -> None:
    """Replace the manifest; sessions and task notes of earlier runs of the command are kept. Raises StorageError."""
    foreign.keep(folder / FILE, lambda head: b'"lrsweep"' in head)
    before = read(folder)
    notes_before, sessions = before.get("tasks"), before.get("sessions")
    all_sessions = [*(sessions if isinstance(sessions, list) else []), session]
    # Those that ended before the journal was begun wrote into one that `--fresh` has set aside.
    begun = journal.begun(folder)
    told = [one for one in all_sessions if isinstance(one, dict) and not _is_before(one.get("ended"), begun)]
    wanted = {run.run_id for run in plan.runs}
    kept = _trained_by(written.replay, wanted)
    facts = {
        "lrsweep": __version__,
        "name": plan.spec.name,
        "device": session["device"],
        "engines": _engines(kept),
        "notes": sorted({group.reason for group in kept if group.reason}),
        "grid": {entry.label: list(plan.spec.rates(entry)) for entry in plan.spec.optimizers},
        "seeds": list(plan.spec.seeds),
        "fingerprints": plan.fingerprints,
        "tasks": {**(notes_before if isinstance(notes_before, dict) else {}), **tasks},
        "determinism": {"threads_per_worker": _threads(told), "initial_weights_and_batches": written.hashes},
        "audits": _audits(told),
        "company": _company(told),
        "tables": written.sha256,
        "groups": [
            {"id": g.id, "engine": g.engine, "compile": g.compile, "reason": g.reason, "runs": list(g.runs)}
            for g in kept
        ],
        "sessions": all_sessions,
    }
    atomic.replace(folder / FILE, json.dumps(facts, indent=1, default=str) + "\n")


def _threads(sessions: Sequence[dict[str, Any]]) -> Any:
    """Of the workers that trained: their number, or a list where sessions had different ones."""
    trained = [one for one in sessions if one.get("runs_trained")] or sessions[-1:]
    found = list(dict.fromkeys(one.get("threads", 1) for one in trained))
    return found[0] if len(found) == 1 else found


def _audits(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How often user code was computed alone for comparison, how often that failed, and where."""
    known = {"count": int, "failed": int, "where": list}  # a manifest from elsewhere may hold anything
    told = [one.get("audits") for one in sessions]
    each = [one for one in told if isinstance(one, dict) and all(type(one.get(key)) is known[key] for key in known)]
    return {
        "count": sum(one["count"] for one in each),
        "failed": sum(one["failed"] for one in each),
        "where": [text for one in each for text in one["where"]],
    }


def _company(sessions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Is a run the same to the bit whatever runs it trained with, on one kind of machine? If not: why."""
    each = [one.get("company") for one in sessions]
    texts = list(dict.fromkeys(str(text) for one in each if isinstance(one, list) for text in one))
    return {"same_bits": not texts, "why_not": texts}


def _is_before(ended: Any, begun: float) -> bool:
    return isinstance(ended, int | float) and ended < begun


def read(folder: Path) -> dict[str, Any]:
    """The manifest as it is; empty if there is none or it cannot be read."""
    return atomic.read_object(folder / FILE)


def tables_of(folder: Path) -> dict[str, Any]:
    """The hashes of the tables that the manifest was written with; empty if unknown."""
    found = read(folder).get("tables")
    return found if isinstance(found, dict) else {}


def _trained_by(replay: Replay, wanted: Set[str]) -> list[Group]:
    """The groups with the runs that came out of each; not those that were given up for others."""
    last = {run_id: group.id for group in replay.groups.values() for run_id in group.runs}
    of_run = {**last, **{run_id: entry.group for run_id, entry in replay.entries.items()}}
    runs = {group.id: tuple(run for run in group.runs if run in wanted and of_run[run] == group.id)
            for group in replay.groups.values()}  # fmt: skip
    return [replace(group, runs=runs[group.id]) for group in replay.groups.values() if runs[group.id]]


def _engines(groups: Sequence[Group]) -> dict[str, Any]:
    engines: dict[str, Any] = {}
    for group in groups:
        entry = engines.setdefault(group.engine, {"groups": 0, "runs": 0})
        entry["groups"] += 1
        entry["runs"] += len(group.runs)
    return engines
