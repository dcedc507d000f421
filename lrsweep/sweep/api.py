"""Running a sweep and asking what is stored of it: the functions that the command line and `import lrsweep` call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lrsweep.errors import UsageError
from lrsweep.results.status import Status, status, with_refined
from lrsweep.sweep.progress import Reporter, Silent
from lrsweep.system.process import few_collections
from lrsweep.system.signals import Stopping
from lrsweep.workers import executors

if TYPE_CHECKING:
    from lrsweep.results.results import Results
    from lrsweep.spec.model import Spec
    from lrsweep.sweep.background import LocalRenderer
    from lrsweep.sweep.dry_run import Estimate
    from lrsweep.sweep.runner import Finished

__all__ = ["Status", "execute", "run", "status"]

_log = logging.getLogger("lrsweep")


def run(
    config: Path | str | Mapping[str, Any] | Spec,
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
) -> Results | Estimate:
    """Train what is missing of a sweep and return its results; options as on the command line.

    `config` is a path, a dict or a loaded spec. `set` overrides values of it (`["train.epochs=5"]`, or one such text).
    `progress` is None (what the command line would tell goes to the `lrsweep` logger), a style of the command line, or
    a Reporter. With `dry_run` nothing is trained or written and an Estimate comes back. Failed and diverged runs are in
    the tables, never raised.

    Raises SpecError, UsageError, StorageError, BusyError, and StoppedError after Ctrl-C.
    """
    from lrsweep.results.results import load

    with ExitStack() as stack:
        reporter = _reporter(progress, stack)
        finished = execute(
            config,
            results=results,
            device=device,
            workers=workers,
            executor=executor,
            overrides=set,
            compile=compile,
            refine=refine,
            dry_run=dry_run,
            fresh=fresh,
            reporter=reporter,
        )
    return finished.estimate if finished.estimate is not None else load(finished.path)


class _Logged(Silent):
    """The reporter of a sweep run from Python: notes go to the logger, the rest nowhere."""

    def note(self, text: str) -> None:
        _log.warning("%s", text)


def _reporter(progress: Reporter | str | None, stack: ExitStack) -> Reporter:
    if progress is None:
        return _Logged()
    if isinstance(progress, str):
        from lrsweep.sweep import progress as display

        return stack.enter_context(display.reporter(progress))
    return progress


def execute(
    config: Path | str | Mapping[str, Any] | Spec,
    *,
    results: Path | str,
    device: str,
    workers: int | str,
    executor: str,
    overrides: Sequence[str],
    compile: str,
    refine: bool,
    dry_run: bool,
    fresh: bool,
    reporter: Reporter,
    renderer: LocalRenderer | None = None,
) -> Finished:
    """As `run`, for the command line: tells the reporter, returns counts. `drawer`: who draws, if not this process."""
    from lrsweep.spec.load import load_spec

    stopping = Stopping()
    with stopping.installed():
        _check_options(workers, executor, compile)
        with few_collections(), stopping.importing():
            from lrsweep.spec.resolved import located
            from lrsweep.sweep.runner import Options, Sweep

        spec = load_spec(Path(config) if isinstance(config, str) else config, overrides=overrides)
        for warning in spec.warnings:
            reporter.note(warning)
        options = Options.of(device=device, workers=workers, executor=executor, compile=compile)
        sweep = Sweep(Path(results) / spec.name, options, reporter, stopping, renderer)
        if dry_run:
            if refine:
                reporter.note(
                    "--dry-run does not count the rates that --refine would add: they follow from the results"
                )
            with located(spec):
                return sweep.dry_run(with_refined(spec, sweep.folder, fresh), fresh)
        with located(spec):
            return sweep.run(spec, refine=refine, fresh=fresh)


def _check_options(workers: int | str, executor: str, compile: str) -> None:
    if workers != "auto" and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise UsageError(f"workers={workers!r}: give a whole number from 1, or auto")
    if executor in executors.NOT_YET:
        raise UsageError(f"--executor {executor}: {executors.NOT_YET[executor]}")
    if executor not in executors.EXECUTORS:
        raise UsageError(f"executor {executor!r}: there is no such executor ({', '.join(executors.EXECUTORS)})")
    if compile not in ("auto", "on", "off"):
        raise UsageError(f"compile={compile!r}: give auto, on or off")
