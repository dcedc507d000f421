"""From a spec to its runs, each known by the content of its own settings.

A run's id is a hash of what it trains: task, model, optimizer setting, rate, seed and the `train` section, with files
by their content instead of their path. Labels, the objective, the name of the sweep and other runs do not enter it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lrsweep import user_imports
from lrsweep.errors import UsageError
from lrsweep.registry import DATA_FILES, YOUNGER
from lrsweep.spec import axes as axis_rules
from lrsweep.spec.model import OptimizerSpec, Spec, canonical, map_paths, named_file
from lrsweep.spec.resolved import placed
from lrsweep.spec.yaml_tree import Keys


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkloadSpec:
    """What the runs of a group share. Plain values; paths are absolute. `key` is a hash of the content."""

    task: dict[str, Any]
    model: dict[str, Any] | None
    train: dict[str, Any]
    base_dir: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSetting:
    """One optimizer setting with its schedule. Plain values; paths are absolute. `key` is a hash of the content."""

    name: str
    args: dict[str, Any]
    schedule: dict[str, Any]
    independent_weight_decay: float | None
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training. `axes` holds a table cell per axis, in the order of the spec."""

    run_id: str
    label: str
    lr: float
    seed: int
    axes: tuple[Any, ...]
    workload_spec: WorkloadSpec
    setting: OptimizerSetting

    @property
    def built_in(self) -> bool:
        """Does it run no code of the user's?"""
        sections = (self.workload_spec.task, self.workload_spec.model or {}, self.setting.schedule)
        names = [self.setting.name, *(section.get("name", "") for section in sections)]
        return not any(":" in name for name in names)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All runs of a sweep: axis values slowest (in spec order), then optimizer, rate (ascending), seed."""

    spec: Spec
    runs: list[Run]
    axis_names: tuple[str, ...]
    fingerprints: dict[str, str]

    @cached_property
    def by_id(self) -> dict[str, Run]:
        return {run.run_id: run for run in self.runs}


def named_files(spec: Spec) -> Iterator[tuple[str, str]]:
    """The user's files that a spec names: (role, path as written). Roles do not depend on how a path is spelled."""
    for role, section in _sections(spec):
        if file := named_file(section["name"]):
            yield role, file
        key = DATA_FILES.get(section["name"])
        if key in section:
            yield f"{role}.{key}", section[key]
    for axis in spec.axes:
        if axis == f"task.{DATA_FILES.get(spec.task.name)}":
            yield from ((f"axes.{axis}.{i}", path) for i, path in enumerate(spec.axes[axis]))


def _sections(spec: Spec) -> Iterator[tuple[str, dict[str, Any]]]:
    for role, named in (("task", spec.task), ("model", spec.model), ("schedule", spec.schedule)):
        if named is not None:
            yield role, named.as_dict()
    for i, entry in enumerate(spec.optimizers):
        yield f"optimizers.{i}", {"name": entry.name}
        if entry.schedule is not None:
            yield f"optimizers.{i}.schedule", entry.schedule.as_dict()
    for axis, values in spec.axes.items():
        if axis_rules.is_whole(axis):
            yield from ((f"axes.{axis}.{i}", value) for i, value in enumerate(values))


def fingerprints(spec: Spec) -> dict[str, str]:
    """SHA-256 of every file that the spec names, by role. Raises UsageError if one cannot be read."""
    prints = {}
    for role, path in named_files(spec):
        file = Path(spec.base_dir, path)
        try:
            prints[role] = user_imports.fingerprint(file)
        except OSError as error:
            raise UsageError(placed(spec, _keys(role), f"cannot read {file}: {error.strerror}")) from None
    return prints


def _keys(role: str) -> Keys:
    """The path in the spec of what plays a role: `axes.task.name.0` is `("axes", "task.name", 0)`."""
    parts = [int(part) if part.isdigit() else part for part in role.split(".")]
    if parts[0] == "axes":
        number = next(place for place, part in enumerate(parts) if isinstance(part, int))
        parts[1:number] = [".".join(map(str, parts[1:number]))]
    return tuple(parts)


class _Identity:
    """Sections with absolute paths to train from, and with file contents to hash."""

    def __init__(self, spec: Spec, prints: Mapping[str, str]) -> None:
        self.base_dir = os.path.abspath(spec.base_dir)
        self.content: dict[str, str] = {}
        for role, path in named_files(spec):
            if role not in prints:
                raise UsageError(f"{role}: no fingerprint of {path}; run the sweep where its files are available")
            self.content[path] = f"sha256:{prints[role]}"

    def absolute(self, section: Mapping[str, Any]) -> dict[str, Any]:
        return map_paths(section, lambda path: os.path.normpath(os.path.join(self.base_dir, path)))

    def hashable(self, section: Mapping[str, Any]) -> dict[str, Any]:
        return map_paths(section, self.content.__getitem__)


def build(spec: Spec, prints: Mapping[str, str]) -> Plan:
    """Every run of the spec. Pure: `prints` are the `fingerprints` of the files it names."""
    identity = _Identity(spec, prints)
    workload_specs: dict[str, WorkloadSpec] = {}
    settings: dict[str, OptimizerSetting] = {}
    runs: list[Run] = []
    rates = [spec.rates(optimizer) for optimizer in spec.optimizers]
    texts = {axis: axis_rules.cells(axis, values) for axis, values in spec.axes.items()}
    for chosen in axis_rules.products(spec.axes):
        workload_spec = _workload_spec(spec, chosen, identity, workload_specs)
        ordered = tuple(texts[axis][canonical(chosen[axis])] for axis in spec.axes)
        for optimizer, grid in zip(spec.optimizers, rates, strict=True):
            setting = _setting(spec, optimizer, chosen, identity, settings)
            start = hashlib.sha256(f"{workload_spec.key} {setting.key}".encode())
            for lr in grid:
                for seed in spec.seeds:
                    digest = start.copy()
                    digest.update(f" {lr!r} {seed}".encode())
                    runs.append(
                        Run(
                            run_id=digest.hexdigest()[:16],
                            label=optimizer.label,
                            lr=lr,
                            seed=seed,
                            axes=ordered,
                            workload_spec=workload_spec,
                            setting=setting,
                        )
                    )
    return Plan(spec=spec, runs=runs, axis_names=tuple(spec.axes), fingerprints=dict(prints))


def _workload_spec(
    spec: Spec, chosen: Mapping[str, Any], identity: _Identity, made: dict[str, WorkloadSpec]
) -> WorkloadSpec:
    task = axis_rules.applied(spec.task.as_dict(), "task", chosen)
    model = axis_rules.applied(spec.model.as_dict() if spec.model else None, "model", chosen)
    train = axis_rules.applied(asdict(spec.train), "train", chosen)
    key = _digest(
        [
            _without_unset(identity.hashable(task), YOUNGER.get(task["name"], ())),
            model and identity.hashable(model),
            _without_unset({**train, "tf32": train["tf32"] or None}, ("eval_batch_size", "tf32")),
        ]
    )
    if key not in made:
        made[key] = WorkloadSpec(
            task=identity.absolute(task),
            model=model and identity.absolute(model),
            train=train,
            base_dir=identity.base_dir,
            key=key,
        )
    return made[key]


def _without_unset(section: Mapping[str, Any], younger: Sequence[str]) -> dict[str, Any]:
    """A section without the keys `younger` than stored results that are not set: so runs keep their ids."""
    return {key: value for key, value in section.items() if key not in younger or value is not None}


def _setting(
    spec: Spec,
    optimizer: OptimizerSpec,
    chosen: Mapping[str, Any],
    identity: _Identity,
    made: dict[str, OptimizerSetting],
) -> OptimizerSetting:
    values = axis_rules.setting(spec, optimizer, chosen)
    inert = values.pop("inert")

    def content(value: Any) -> Any:
        return identity.hashable(value) if isinstance(value, dict) and "name" in value else value

    key = _digest(
        {
            **values,
            "name": identity.hashable({"name": values["name"]})["name"],
            "schedule": identity.hashable(values["schedule"]),
            # An axis that changes nothing for this optimizer still tells its rows apart.
            **({"inert": {axis: content(value) for axis, value in inert.items()}} if inert else {}),
        }
    )
    if key not in made:
        values["name"] = identity.absolute({"name": values["name"]})["name"]
        made[key] = OptimizerSetting(**{**values, "schedule": identity.absolute(values["schedule"])}, key=key)
    return made[key]


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()
