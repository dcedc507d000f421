"""The journal's record of a plan, and what differs from the one before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lrsweep.plan import Plan
    from lrsweep.store.journal import Replay


def plan_record(plan: Plan, folder: Path, before: dict[str, Any] | None) -> dict[str, Any]:
    """What rebuilds the tables without the user's code: the spec, fingerprints, and default rates by label."""
    from lrsweep.spec.resolved import dump_resolved

    record = {"kind": "plan", "spec": dump_resolved(plan.spec, folder), "fingerprints": plan.fingerprints}
    if before is not None and same(before, record):
        return before
    return {**record, "default_lr": _default_rates(plan)}


def same(before: dict[str, Any] | None, record: dict[str, Any]) -> bool:
    return before is not None and all(before[key] == record[key] for key in ("spec", "fingerprints"))


def _default_rates(plan: Plan) -> dict[str, float]:
    from lrsweep import optimizers

    base_dir = plan.spec.base_dir
    return {
        entry.label: optimizers.default_lr(optimizers.lookup(entry.name, base_dir)) for entry in plan.spec.optimizers
    }


def note(before: dict[str, Any], plan: Plan, replay: Replay, folder: Path) -> str:
    """One line that names the keys of the recipe that changed since the runs in the journal were trained, or ""."""
    from lrsweep.spec.load import read_resolved
    from lrsweep.spec.resolved import changed_keys, resolved_dict

    old = resolved_dict(read_resolved(before["spec"], base_dir=folder), folder)
    keys = changed_keys(old, resolved_dict(plan.spec, folder))
    prints = before["fingerprints"]
    keys += [
        f"the {role} file"
        for role, digest in plan.fingerprints.items()
        if role in prints and prints[role] != digest and not any(key.startswith(role) for key in keys)
    ]
    kept = len(replay.entries) - sum(run.run_id in replay.entries for run in plan.runs)
    if not keys or not kept:
        return ""
    runs, stay = ("run", "stays") if kept == 1 else ("runs", "stay")
    return (
        f"changed since the last run of this sweep: {', '.join(dict.fromkeys(keys))}; affected runs will be "
        f"trained again ({kept} {runs} with the old settings {stay} in the journal)"
    )
