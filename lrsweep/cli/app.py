"""The command line. Each command parses, calls one function and prints; nothing else in the package prints.

Heavy modules (torch, pandas, matplotlib, pydantic) are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from lrsweep.cli.help import CommandGroup, PlainFlagsCommand
from lrsweep.cli.options import (
    AddressOption,
    CompileMode,
    Config,
    Device,
    DeviceOption,
    ExecutorName,
    ExecutorOption,
    ExportFormat,
    Folder,
    ImageFormat,
    OneFolder,
    OwnTask,
    ProgressStyle,
    ResultsDir,
    SetOption,
    kinds,
    labels,
    progress_style,
    show_version,
    worker_count,
)
from lrsweep.cli.submit import submit
from lrsweep.cli.terminal import EXIT_LIMITS_BROKEN, EXIT_SOME_FAILED
from lrsweep.cli.terminal import say as _say
from lrsweep.errors import LimitError, LrsweepError, StorageError, UsageError, WrongOption, printable
from lrsweep.system import limits, process
from lrsweep.system.process import exit_without_teardown, few_collections
from lrsweep.system.signals import leave_at_once

if TYPE_CHECKING:
    from lrsweep.results.results import Results
    from lrsweep.sweep.publish import Finished

app = typer.Typer(
    name="lrsweep",
    cls=CommandGroup,
    help="Learning-rate sensitivity sweeps for PyTorch: one YAML file in; tidy CSVs and U-curves out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
command = partial(app.command, cls=PlainFlagsCommand)
Range = tuple[float, float]
WITH_TORCH = ("run", "submit", "range-test", "list", "schema")


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    limits.require_memory(limits.LEAST_FOR_TORCH if ctx.invoked_subcommand in WITH_TORCH else limits.LEAST)


@command()
def run(
    config: Config,
    results: ResultsDir = Path("results"),
    device: DeviceOption = Device.auto,
    workers: Annotated[
        str, typer.Option(metavar="N|auto", help="Number of training processes; auto: cores / threads.")
    ] = "auto",
    threads: Annotated[
        int,
        typer.Option(
            metavar="N", help="Threads per process; raise it for large models if there are fewer runs than cores."
        ),
    ] = 1,
    executor: ExecutorOption = ExecutorName.local,
    address: AddressOption = None,
    set_: SetOption = None,
    compile_: Annotated[
        CompileMode,
        typer.Option("--compile", metavar="auto|on|off", help="Compile training steps with torch.compile (auto: off)."),
    ] = CompileMode.auto,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Train the first run of each group alone too, in plain torch, and compare."),
    ] = False,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine", help="Then add the suggested learning rates and repeat, up to 5 rounds. Kept until --fresh."
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be trained (runs, time, disk) and exit.")
    ] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Retrain everything; earlier results are set aside, not deleted. Rerun to resume."
        ),
    ] = False,
    progress: Annotated[
        ProgressStyle, typer.Option(metavar="auto|rich|plain|none", help="Progress bar, plain lines or nothing.")
    ] = ProgressStyle.auto,
) -> None:
    """Train missing runs; write tables, plots and a report.

    Writes results/NAME/: runs.csv, curves.csv, summary.csv, report.html,
    plots, spec.yaml, manifest.json and journal/. Prints the summary.
    Interrupt at any time; rerun to resume.

    Example:
      lrsweep run sweep.yaml --set seeds=5 --refine
    """
    from lrsweep.sweep import background

    with background.renderer(aside=not dry_run) as renderer:
        from lrsweep.cli import output
        from lrsweep.sweep import api
        from lrsweep.sweep import progress as display

        with display.reporter(progress_style(progress, executor)) as reporter, process.prints_aside():
            options: dict[str, Any] = {
                "results": results,
                "device": device.value,
                "workers": worker_count(workers),
                "threads": threads,
                "executor": executor.value,
                "address": address,
                "set": set_ or (),
                "compile": compile_.value,
                "verify": verify,
                "refine": refine,
                "fresh": fresh,
                "reporter": reporter,
            }
            found: Any = api.estimate(config, **options) if dry_run else None
            finished: Any = None if dry_run else api.execute(config, renderer=renderer, **options)
    if dry_run:
        _say(output.estimate(found))
        if found.errors:
            raise typer.Exit(EXIT_SOME_FAILED)
        return
    _print_finished(finished, quiet=progress is ProgressStyle.none)


def _print_finished(finished: Finished, *, quiet: bool) -> None:
    from lrsweep.cli import output

    if not finished.trained and not quiet:
        _say(output.nothing_to_train(finished.total), err=True)
    facts = finished.facts or _stored(finished.path).facts()
    _say(output.summary(facts, finished.shown, unicode=output.can_show_blocks()))
    if finished.failed:
        _say(output.failures(_stored(finished.path).runs, finished.place), err=True)
        raise typer.Exit(EXIT_SOME_FAILED)


def _stored(folder: Path) -> Results:
    from lrsweep.results import results  # and pandas, which a sweep that has just run does without

    return results.load(folder)


command()(submit)


@command()
def plot(
    results: Folder,
    metric: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of curves.csv to plot instead of the objective's.")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="WHEN", help="final, best, mean or last_K of that column.")] = None,
    format_: Annotated[
        list[ImageFormat] | None,
        typer.Option("--format", metavar="png|svg|pdf", help="May be repeated. (default: png)"),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="PLOT", help="This plot alone, such as u_curve. May be repeated.")
    ] = None,
    optimizer: Annotated[
        list[str] | None, typer.Option(metavar="LABEL", help="Show this optimizer alone. May be repeated.")
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="INCHES", help="Width of the figures, for example 3.25, 5.5 or 6.75.")
    ] = None,
    title: Annotated[bool, typer.Option("--title/--no-title", help="Title and setting above the panels.")] = True,
) -> None:
    """Redraw the plots from saved results, without training.

    Writes the plots beside the tables, for one sweep or for every sweep below
    RESULTS, and prints their paths. Plots of another metric, of some optimizers
    or of another width are named so, and replace none of the others; run, plot
    and report redraw them when the results have changed.

    Example:
      lrsweep plot results/quickstart --metric val_accuracy --at best
      lrsweep plot results/quickstart --only u_curve --width 3.25 --format pdf
    """
    from lrsweep import plot as drawing
    from lrsweep.results import tables

    formats = tuple(choice.value for choice in format_ or [ImageFormat.png])
    for folder in tables.sweeps_below(results):
        sweep = drawing.load(folder, metric=metric, at=at, optimizers=optimizer or (), width=width, titled=title)
        if reason := drawing.nothing(sweep.facts):
            _say(f"{reason}; nothing was drawn", err=True)
        paths = drawing.draw_sweep(sweep, folder, formats, only or ())
        if not sweep.suffix and not only:
            paths += drawing.redraw(folder, partial(_say, err=True))
        for path in paths:
            _say(str(path))


@command()
def report(results: Folder) -> None:
    """Write a self-contained report.html.

    Plots that are outdated or show another metric are redrawn.

    Example:
      lrsweep report results/quickstart
    """
    from lrsweep import plot as drawing
    from lrsweep.report import page as writing
    from lrsweep.results import tables

    for folder in tables.sweeps_below(results):
        formats = writing.stale(folder)
        _say(str(writing.write(folder, formats=formats)))
        if drawing.redraw(folder, partial(_say, err=True)) or formats:
            _say(f"plots in {folder} were outdated or showed another metric and were redrawn", err=True)


@command()
def export(
    results: OneFolder,
    to: Annotated[ExportFormat, typer.Option(metavar="FORMAT", help="tensorboard, mlflow, wandb, parquet or latex.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write here. (default: NAME-FORMAT)")] = None,
) -> None:
    """Write the results in the format of another tool.

    Writes a folder of event files, a store, an offline project, tables or a
    LaTeX table; repeating it replaces that. Outdated tables of RESULTS are
    rebuilt first, and nothing else there is written.

    Example:
      lrsweep export results/quickstart --to tensorboard
    """
    from lrsweep import export as exporting
    from lrsweep.results.results import load

    folder = exporting.export(load(results), to.value, out)
    _say(f"{folder}/")
    if then := exporting.next_step(to.value, folder):
        _say(f"next: {then}", err=True)


@command()
def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="Folder of the first sweep.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Folder of the second sweep.")],
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two sweeps, with intervals over seeds.

    Prints what changed from A to B, for each optimizer. Outdated tables are rebuilt first.

    Example:
      lrsweep compare results/before results/after
    """
    from lrsweep.results import compare as comparing

    found = comparing.compare(a, b)
    _say(json.dumps(found.as_json(), indent=2) if json_ else found.text())


@command()
def check(
    results: OneFolder,
    optimizer: Annotated[
        str | None, typer.Option(metavar="LABEL", help="Check this optimizer only.", autocompletion=labels)
    ] = None,
    min_basin_decades: Annotated[
        float | None, typer.Option(metavar="X", help="Smallest allowed width of the good range, in decades of lr.")
    ] = None,
    max_sensitivity: Annotated[float | None, typer.Option(metavar="S", help="Largest allowed sensitivity S.")] = None,
    max_diverged: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Largest allowed share of diverged runs, 0 to 1.")
    ] = None,
    best_lr_within: Annotated[
        Range | None, typer.Option(metavar="LOW HIGH", help="Range that must contain the best learning rate.")
    ] = None,
    recommended_lr_within: Annotated[
        Range | None, typer.Option(metavar="LOW HIGH", help="Range that must contain the recommended learning rate.")
    ] = None,
    max_default_regret: Annotated[
        float | None, typer.Option(metavar="X", help="Largest allowed regret at the default learning rate.")
    ] = None,
    min_unusable_from: Annotated[
        float | None, typer.Option(metavar="LR", help="Smallest allowed unusable_from (see summary.csv).")
    ] = None,
    worst_end: Annotated[
        bool, typer.Option("--worst-end", help="Use the worse interval end of the good range and of S.")
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Check results against limits (for CI); exits with 6 on failure.

    Prints a line per check. Outdated tables are rebuilt first.

    Example:
      lrsweep check results/quickstart --min-basin-decades 1 --max-diverged 0.1
    """
    from lrsweep.results import check as judging

    verdict = judging.check(
        results,
        optimizer=optimizer,
        min_basin_decades=min_basin_decades,
        max_sensitivity=max_sensitivity,
        max_diverged=max_diverged,
        best_lr_within=best_lr_within,
        recommended_lr_within=recommended_lr_within,
        max_default_regret=max_default_regret,
        min_unusable_from=min_unusable_from,
        worst_end=worst_end,
    )
    _say(json.dumps(verdict.as_json(), indent=2) if json_ else verdict.text())
    if not verdict.ok:
        raise typer.Exit(EXIT_LIMITS_BROKEN)


@command()
def status(results: Folder) -> None:
    """Show finished, pending and failed runs.

    And whether the job of a submitted sweep is queued, running or done. Works
    while the sweep is running. Writes nothing.

    Example:
      lrsweep status results
    """
    from lrsweep.cli import output
    from lrsweep.results import status as stored

    for one in stored.below(results):
        _say(output.status(one))


@command("range-test")
def range_test(
    config: Config,
    results: ResultsDir = Path("results"),
    device: DeviceOption = Device.auto,
    set_: SetOption = None,
    low: Annotated[float, typer.Option(metavar="LR", help="First learning rate.")] = 1e-7,
    high: Annotated[float, typer.Option(metavar="LR", help="Last learning rate.")] = 10.0,
    steps: Annotated[int, typer.Option(min=20, metavar="N", help="Number of training steps, at least 20.")] = 100,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the run.")] = 0,
) -> None:
    """Run an LR range test and compare its suggestions with the sweep.

    One run per optimizer, with a learning rate that grows from LOW to HIGH.
    Writes range_test.csv and range_test.png to results/NAME.

    Example:
      lrsweep range-test sweep.yaml --low 1e-6 --high 1
    """
    from lrsweep.cli import output
    from lrsweep.sweep import lr_finder

    found = process.prints_aside()(lr_finder.run)(
        config, results=results, device=device.value, overrides=set_ or (), low=low, high=high, steps=steps, seed=seed
    )
    if axes := output.range_test_axes(found):
        _say(axes, err=True)
    _say(output.range_test(found))


@command()
def init(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="File to write.")] = Path("lrsweep.yaml"),
    task: OwnTask = None,
) -> None:
    """Write a commented starter spec, ready to run.

    Never overwrites a file.

    Example:
      lrsweep init sweep.yaml --task mytask.py:make_task
    """
    from importlib.resources import files

    from lrsweep.store import atomic

    if path.exists():
        raise UsageError(f"{path} already exists; name another file")
    text = (files("lrsweep.cli") / "starter.yaml").read_text("utf-8")
    if task is not None:
        from lrsweep.sweep import starter

        text = starter.for_task(task, path)
        _say(text.split("\nname:")[0].replace("# ", ""))
    with atomic.storage_errors(path):
        path.write_text(text, "utf-8")
    _say(f"wrote {path}; next: lrsweep run {path}")


@command("list")
def list_(
    kind: Annotated[
        str | None,
        typer.Argument(
            metavar="KIND", help="tasks, models, optimizers or schedules; all by default.", autocompletion=kinds
        ),
    ] = None,
) -> None:
    """List the built-in tasks, models, optimizers and schedules.

    With the arguments of each and their defaults.

    Example:
      lrsweep list optimizers
    """
    from lrsweep import registry

    _say(registry.listing(kind))


@command()
def schema() -> None:
    """Print the JSON Schema of the spec, for editors.

    An editor that knows it completes and checks a spec while you write.

    Example:
      lrsweep schema > lrsweep.schema.json
    """
    from lrsweep.registry import known
    from lrsweep.spec.schema import json_schema

    _say(json.dumps(json_schema(known()), indent=2))


def _tell(error: Exception) -> int:
    """What the system refused, in one line; anything else is a bug."""
    if (refused := limits.refusal(error)) is not None:
        sys.stderr.write(f"{refused}\n")
        return LimitError.exit_code
    sys.stderr.write(printable(traceback.format_exc()))
    sys.stderr.write("\nThis is a bug in lrsweep. Nothing that was trained is lost: run the command again.\n")
    return 1


def _run() -> int:
    """Run the command line; turn what went wrong into one message and the contract's exit code."""
    try:
        leave_at_once()
        app(prog_name="lrsweep")
    except LrsweepError as error:
        text = error.on_command_line() if isinstance(error, WrongOption) else str(error)
        sys.stderr.write(f"{text}\n")
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _tell(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"the output could not be written: {error.strerror}\n")
        return StorageError.exit_code
    except SystemExit as end:  # how typer returns
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    except Exception as error:  # noqa: BLE001 - the last line of defence: say that it is ours, and show where
        return _tell(error)
    return 0


def main() -> NoReturn:
    """The command `lrsweep`."""
    process.prepare()
    with few_collections():
        exit_without_teardown(_run())
