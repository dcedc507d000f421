"""What the command line and `import lrsweep` call to run a sweep, to see what it would cost, and to find a rate."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import numbers
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, Unpack, overload

from lrsweep.errors import LrsweepError, UsageError, WrongOption
from lrsweep.results.status import SweepStatus, status, with_refined
from lrsweep.sweep.progress import STYLES, Notes, Reporter, Silent
from lrsweep.system import child, notebook, warned
from lrsweep.system.folders import absolute, given
from lrsweep.system.process import few_collections
from lrsweep.system.signals import Stopping
from lrsweep.wording.options import as_in_python

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

REPORTER = ("start", "update", "note", "finish")
"""What a Reporter has."""

_log = logging.getLogger("lrsweep")


class RunOptions(TypedDict, total=False):
    """The options of `run`, all but `dry_run`."""

    results: Path | str
    device: str
    workers: int | str
    threads: int
    executor: str
    address: str | None
    set: Sequence[str]
    compile: str
    verify: bool
    refine: bool
    fresh: bool
    progress: Reporter | str | None


@overload
def run(config: Config, *, dry_run: Literal[False] = False, **options: Unpack[RunOptions]) -> Results: ...


@overload
def run(config: Config, *, dry_run: Literal[True], **options: Unpack[RunOptions]) -> CostEstimate: ...


@overload
def run(config: Config, *, dry_run: bool, **options: Unpack[RunOptions]) -> Results | CostEstimate: ...


def run(
    config: Config,
    *,
    results: Path | str = "results",
    device: str = "auto",
    workers: int | str = "auto",
    threads: int = 1,
    executor: str = "local",
    address: str | None = None,
    set: Sequence[str] = (),
    compile: str = "auto",
    verify: bool = False,
    refine: bool = False,
    dry_run: bool = False,
    fresh: bool = False,
    progress: Reporter | str | None = None,
) -> Results | CostEstimate:
    """Run a sweep (only missing runs) and return its Results; options as on the command line.

    `config` is a path, a dict or a loaded spec. In a dict, task, model and optimizers may be functions and classes,
    of a notebook, too: they are known by their source text. `set` overrides values of the spec (`["train.epochs=5"]`,
    or one such text).

    `progress` is None (a bar in a notebook; elsewhere what the command line would tell goes to the `lrsweep` logger),
    a style of the command line, or a Reporter. With `dry_run` a CostEstimate comes back, see `dry_run`. Failed and
    diverged runs are in the tables, never raised. The folders of the user's own files stay at the end of `sys.path`;
    nothing else of this process is left changed.

    Raises SpecError, UsageError, StorageError, BusyError, and StoppedError after Ctrl-C or another signal that ends it.

    >>> results = lrsweep.run("sweep.yaml", set=["seeds=3"], workers=2)
    >>> print(results.recommended["optimizer"], results.recommended["recommended_lr"])
    adam 0.01
    """
    from lrsweep.results.results import load

    flags = {"verify": verify, "refine": refine, "fresh": fresh, "dry_run": dry_run}
    _check_types(results=results, set=set, progress=progress, **flags)
    options: dict[str, Any] = {
        "results": results,
        "device": device,
        "workers": workers,
        "threads": threads,
        "executor": executor,
        "address": address,
        "compile": compile,
        "verify": verify,
    }
    with _in_python(), _reporter(progress) as reporter:
        if dry_run:
            return estimate(config, set=set, refine=refine, fresh=fresh, reporter=reporter, **options)
        finished = execute(config, set=set, refine=refine, fresh=fresh, reporter=reporter, **options)
        found = load(finished.path)
        if failed := found.failures():
            reporter.note(f"{failed}; see the column `error` of `runs`")
        return found


def dry_run(config: Config, **options: Unpack[RunOptions]) -> CostEstimate:
    """What `run` would train and how long it would take, with the same options; nothing is trained or written.

    Raises what `run` raises.

    >>> estimate = lrsweep.dry_run("sweep.yaml", set=["seeds=5"])
    >>> print(estimate.to_do, "of", estimate.runs, "runs to train")
    16 of 40 runs to train
    >>> estimate.seconds < 60
    True
    """
    return run(config, dry_run=True, **options)


def lr_finder(
    config: Config,
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

    `config` is a path, a dict or a loaded spec, as in `run`. Writes `range_test.png` and `range_test.csv` into the
    folder of the sweep, and compares with it where it was run.

    Raises SpecError, UsageError, StorageError.

    >>> for ramp in lrsweep.lr_finder("sweep.yaml").results:
    ...     print(ramp.label, "between 0.1 and 10:", 0.1 < ramp.suggested["steepest"] < 10)
    sgd between 0.1 and 10: True
    adam between 0.1 and 10: False
    """
    from lrsweep.system.caller import restored

    _check_types(results=results, set=set)
    for name, value, kind, allowed in (
        ("low", low, numbers.Real, "a number"),
        ("high", high, numbers.Real, "a number"),
        ("steps", steps, numbers.Integral, "a whole number"),
        ("seed", seed, numbers.Integral, "a whole number"),
    ):
        if not isinstance(value, kind) or isinstance(value, bool):
            raise WrongOption(name, value, f"give {allowed}")
    if seed < 0:
        raise WrongOption("seed", seed, "give a whole number from 0")
    with _in_python(), restored():
        from lrsweep.sweep import lr_finder as finder

        return finder.run(
            config, results=results, device=device, overrides=set, low=low, high=high, steps=steps, seed=seed
        )


def execute(
    config: Config, *, refine: bool, fresh: bool, renderer: LocalRenderer | None = None, **options: Any
) -> Finished:
    """As `run`, for the command line: tells the reporter, returns counts. `renderer`: who draws, here if None."""
    with _opened(config, renderer=renderer, trains=True, **options) as (spec, context):
        from lrsweep.sweep.runner import run_sweep

        if child.must_fork():
            _refuse_given_code(context)
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
    trains: bool = False,
    **options: Any,
) -> Iterator[tuple[Spec, Context]]:
    """The spec, and the context to run it in; signals are ours meanwhile, and errors name their place in the spec."""
    stopping = Stopping()
    with stopping.installed(), ExitStack() as stack:
        with few_collections(), stopping.importing():
            from lrsweep.sweep.context import Context, Options, check_counts
            from lrsweep.workers import executors

            place = executors.place(options["executor"], options.get("address"))
            stack.callback(place.close)
            if trains:  # it starts while torch is imported
                workers, threads = options["workers"], options.get("threads", 1)
                check_counts(workers, threads)
                place.begin(workers, options["device"], threads)
            from lrsweep.system.caller import restored

            stack.enter_context(restored())
            from lrsweep.compiler.torch_private import make_products_ignore_place
            from lrsweep.spec.given import names
            from lrsweep.spec.load import load_spec
            from lrsweep.spec.resolved import located, resolved_dict
            from lrsweep.sweep import runner

            del runner
        resolved = Options.of(place=place, **options)
        spec = load_spec(config, overrides=set)
        notes = Notes(reporter)
        for warning in spec.warnings:
            notes.note(warning)
        shown = given(results) / spec.name
        context = Context(
            folder=absolute(shown), shown=shown, options=resolved, notes=notes, place=place, stopping=stopping
        )
        if renderer is not None:  # the command line's: this process is our own, and its workers are copies of it
            make_products_ignore_place()
            context = dataclasses.replace(context, renderer=renderer)
        stack.enter_context(warned.told(notes.once))
        stack.enter_context(located(spec))
        if any(names(resolved_dict(spec, spec.base_dir))):
            stack.enter_context(child.forks_only())
        yield spec, context


def _refuse_given_code(context: Context) -> None:
    """Raises UsageError where no process that trains can have it."""
    chosen = context.options.executor
    instead = "write it into a file and name that in the spec: my_task.py:make"
    if chosen not in ("local", "in-process"):
        raise WrongOption("executor", chosen, f"code that is given in Python trains on this machine only: {instead}")
    if context.options.device != "cpu":
        wrong = f"code that is given in Python trains on the CPU only: choose cpu, or {instead}"
        raise WrongOption("device", context.options.device, wrong)
    if sys.platform != "linux" or multiprocessing.current_process().daemon:
        raise UsageError(f"code can be given in Python only on Linux, in a process that may start others; {instead}")


def _check_types(*, results: object, set: Any, progress: object = None, **flags: object) -> None:
    """Raises WrongOption for a value of another type than an option has; Python checks none."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise WrongOption(name, value, "give True or False")
    if not isinstance(results, str | os.PathLike):
        raise WrongOption("results", results, "give the path of a folder")
    several = isinstance(set, Sequence) and not isinstance(set, bytes)
    if not several or not all(isinstance(text, str) for text in set):
        raise WrongOption("set", set, "give a list of texts such as 'train.epochs=5'")
    if not isinstance(progress, str | None) and not all(hasattr(progress, name) for name in REPORTER):
        raise WrongOption("progress", progress, f"give {', '.join(STYLES)}, None or a Reporter")


@contextmanager
def _in_python() -> Iterator[None]:
    """Errors that are raised within name options as Python has them."""
    try:
        yield
    except LrsweepError as error:
        error.args = tuple(as_in_python(part) if isinstance(part, str) else part for part in error.args)
        raise


class _Logged(Silent):
    """The reporter of a sweep run from Python: notes go to the logger, the rest nowhere."""

    def note(self, text: str) -> None:
        _log.warning("%s", text)


class _InPython:
    """A reporter whose notes name options as Python has them."""

    def __init__(self, to: Reporter) -> None:
        self._to = to
        self.start, self.update, self.finish = to.start, to.update, to.finish

    def note(self, text: str) -> None:
        self._to.note(as_in_python(text))


@contextmanager
def _reporter(progress: Reporter | str | None) -> Iterator[Reporter]:
    """Nobody sees the log of a notebook while a cell runs, so there it is the bar unless something else is wanted."""
    if progress is None and notebook.shell() is not None:
        progress = "auto"
    if isinstance(progress, str):
        from lrsweep.sweep.progress import reporter

        with reporter(progress) as chosen:
            yield _InPython(chosen)
    else:
        yield _InPython(progress or _Logged())
