"""What the command line and `import lrsweep` call to run a sweep, to see what it would cost, and to find a rate."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from lrsweep.results.status import SweepStatus, status, with_refined
from lrsweep.sweep.progress import Reporter, Silent
from lrsweep.system.process import few_collections
from lrsweep.system.signals import Stopping

if TYPE_CHECKING:
    from lrsweep.analysis.lr_finder import RangeTest
    from lrsweep.results.results import Results
    from lrsweep.spec.model import Spec
    from lrsweep.sweep.background import LocalRenderer
    from lrsweep.sweep.context import Context
    from lrsweep.sweep.dry_run import CostEstimate
    from lrsweep.sweep.publish import Finished

    Config: TypeAlias = Path | str | Mapping[str, Any] | Spec

__all__ = ["SweepStatus", "dry_run", "estimate", "execute", "lr_finder", "run", "status"]

_log = logging.getLogger("lrsweep")


def run(
    config: Config,
    *,
    results: Path | str = "results",
    device: str = "auto",
    workers: int | str = "auto",
    executor: str = "local",
    set: Sequence[str] = (),
    compile: str = "auto",
    refine: bool = False,
    dry_run: bool = False,
    fresh: bool = False,
    progress: Reporter | str | None = None,
) -> Results | CostEstimate:
    """Run a sweep (only missing runs) and return its Results; options as on the command line.

    `config` is a path, a dict or a loaded spec. `set` overrides values of it (`["train.epochs=5"]`, or one such text).
    `progress` is None (what the command line would tell goes to the `lrsweep` logger), a style of the command line, or
    a Reporter. With `dry_run` a CostEstimate comes back, see `dry_run`. Failed and diverged runs are in the tables,
    never raised. The folders of the user's own files stay at the end of `sys.path`; nothing else of this process is
    left changed.

    Raises SpecError, UsageError, StorageError, BusyError, and StoppedError after Ctrl-C.

        results = lrsweep.run("sweep.yaml", set=["seeds=3"], workers=2)
        results.summary[["optimizer", "best_lr", "sensitivity"]]
    """
    from lrsweep.results.results import load

    options: dict[str, Any] = {
        "results": results,
        "device": device,
        "workers": workers,
        "executor": executor,
        "compile": compile,
    }
    with _reporter(progress) as reporter:
        if dry_run:
            return estimate(config, set=set, refine=refine, fresh=fresh, reporter=reporter, **options)
        finished = execute(config, set=set, refine=refine, fresh=fresh, reporter=reporter, **options)
    return load(finished.path)


def dry_run(config: Config, **options: Any) -> CostEstimate:
    """What `run` would train and how long it would take, with the same options; nothing is trained or written.

    Raises what `run` raises.

        lrsweep.dry_run("sweep.yaml").seconds
    """
    found = run(config, **{**options, "dry_run": True})
    return found  # type: ignore[return-value]


def lr_finder(
    config: Path | str,
    *,
    results: Path | str = "results",
    device: str = "auto",
    set: Sequence[str] = (),
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    seed: int = 0,
) -> RangeTest:
    """Train each optimizer once while its rate rises from `low` to `high` in `steps` updates, and suggest rates.

    Writes `range_test.png` and `range_test.csv` into the folder of the sweep, and compares with it where it was run.

    Raises SpecError, UsageError, StorageError.

        for ramp in lrsweep.lr_finder("sweep.yaml").results:
            print(ramp.label, ramp.suggested)
    """
    from lrsweep.system.caller import restored

    with restored():
        from lrsweep.sweep import lr_finder as finder

        return finder.run(
            config, results=results, device=device, overrides=set, low=low, high=high, steps=steps, seed=seed
        )


def execute(
    config: Config, *, refine: bool, fresh: bool, renderer: LocalRenderer | None = None, **options: Any
) -> Finished:
    """As `run`, for the command line: tells the reporter, returns counts. `renderer`: who draws, here if None."""
    with _opened(config, renderer=renderer, **options) as (spec, context):
        from lrsweep.sweep.runner import run_sweep

        return run_sweep(spec, context, refine=refine, fresh=fresh)


def estimate(config: Config, *, refine: bool, fresh: bool, **options: Any) -> CostEstimate:
    """As `dry_run`, for the command line."""
    with _opened(config, **options) as (spec, context):
        from lrsweep.sweep.dry_run import dry_run

        if refine:
            context.notes.note(
                "--dry-run cannot count the learning rates that --refine would add, which depend on the results"
            )
        return dry_run(with_refined(spec, context.folder, fresh), context, fresh=fresh)


@contextmanager
def _opened(
    config: Config,
    *,
    results: Path | str,
    set: Sequence[str],
    reporter: Reporter,
    renderer: LocalRenderer | None = None,
    **options: Any,
) -> Iterator[tuple[Spec, Context]]:
    """The spec, and the context to run it in; signals are ours meanwhile, and errors name their place in the spec."""
    stopping = Stopping()
    with stopping.installed(), ExitStack() as stack:
        with few_collections(), stopping.importing():
            from lrsweep.system.caller import restored

            stack.enter_context(restored())
            from lrsweep.spec.load import load_spec
            from lrsweep.spec.resolved import located
            from lrsweep.sweep import runner
            from lrsweep.sweep.context import Context, Options
            from lrsweep.sweep.progress import Notes

            del runner
        resolved = Options.of(**options)
        spec = load_spec(Path(config) if isinstance(config, str) else config, overrides=set)
        notes = Notes(reporter)
        for warning in spec.warnings:
            notes.note(warning)
        context = Context(folder=Path(results) / spec.name, options=resolved, notes=notes, stopping=stopping)
        if renderer is not None:
            context = dataclasses.replace(context, renderer=renderer)
        stack.enter_context(located(spec))
        yield spec, context


class _Logged(Silent):
    """The reporter of a sweep run from Python: notes go to the logger, the rest nowhere."""

    def note(self, text: str) -> None:
        _log.warning("%s", text)


@contextmanager
def _reporter(progress: Reporter | str | None) -> Iterator[Reporter]:
    if isinstance(progress, str):
        from lrsweep.sweep.progress import reporter

        with reporter(progress) as chosen:
            yield chosen
    else:
        yield progress or _Logged()
