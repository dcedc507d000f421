"""The command line. Each command parses, calls one function and prints; nothing else in the package prints.

Heavy modules (torch, pandas, matplotlib, pydantic) are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from lrsweep.errors import LrsweepError, StorageError, UsageError
from lrsweep.system import process
from lrsweep.system.process import few_collections, leave
from lrsweep.system.signals import leave_at_once

if TYPE_CHECKING:
    from lrsweep.results.results import Results


class _PlainWords(TyperGroup):
    """Tells of a wrong option without the words of the library that checks it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            text = re.sub(r", unable to parse.*", "", error.message.removeprefix("Value error, "))
            error.message = text.replace("a valid integer", "a whole number").replace("a valid ", "a ")
            error.message = error.message.replace("Input should be", "must be")
            raise


app = typer.Typer(
    name="lrsweep",
    cls=_PlainWords,
    help="Learning-rate sensitivity sweeps for PyTorch: one YAML file in; tidy CSVs and U-curves out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXIT_SOME_FAILED = 3
EXIT_LIMITS_BROKEN = 6
REFINE = "Then add the rates the summary asks for, until it asks for none: at most 5 rounds. They stay until --fresh."
EXECUTOR = "Where the training processes live: local is this machine; ray is not part of this version."

Device = StrEnum("Device", ["auto", "cpu", "cuda"])
Executor = StrEnum("Executor", ["local", "ray"])
Compile = StrEnum("Compile", ["auto", "on", "off"])
Progress = StrEnum("Progress", ["auto", "rich", "plain", "none"])
Format = StrEnum("Format", ["png", "svg", "pdf"])

Config = Annotated[Path, typer.Argument(help="The experiment spec, a YAML file.")]
Folder = Annotated[Path, typer.Argument(help="The folder of one sweep, or a folder with sweeps below it.")]
ResultsDir = Annotated[Path, typer.Option("--results", help="Where sweeps are kept; this one goes to <DIR>/<name>.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one value of the spec, e.g. train.epochs=5. Repeatable."),
]
DeviceOption = Annotated[Device, typer.Option(help="Where to train; auto takes CUDA where there is one.")]


def _version(wanted: bool) -> None:
    if wanted:
        from lrsweep import __version__

        typer.echo(f"lrsweep {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


@app.command()
def run(
    config: Config,
    results: ResultsDir = Path("results"),
    device: DeviceOption = Device.auto,
    workers: Annotated[str, typer.Option(metavar="N|auto", help="Training processes, one thread each.")] = "auto",
    executor: Annotated[Executor, typer.Option(help=EXECUTOR)] = Executor.local,
    set_: SetOption = None,
    compile_: Annotated[
        Compile, typer.Option("--compile", help="torch.compile; auto uses it only where it pays for itself.")
    ] = Compile.auto,
    refine: Annotated[bool, typer.Option("--refine", help=REFINE)] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and stop.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set earlier results aside and train everything.")] = False,
    progress: Annotated[Progress, typer.Option(help="A bar, plain lines, or nothing.")] = Progress.auto,
) -> None:
    """Train what is missing, write tables and pictures, print the summary."""
    from lrsweep.sweep import background

    with background.renderer(aside=not dry_run) as renderer:
        from lrsweep.cli import output
        from lrsweep.sweep import api
        from lrsweep.sweep import progress as display

        with display.reporter(progress.value) as reporter:
            finished = api.execute(
                config,
                results=results,
                device=device.value,
                workers=_worker_count(workers),
                executor=executor.value,
                overrides=set_ or (),
                compile=compile_.value,
                refine=refine,
                dry_run=dry_run,
                fresh=fresh,
                reporter=reporter,
                renderer=renderer,
            )
    if finished.estimate is not None:
        typer.echo(output.estimate(finished.estimate))
        return
    if not finished.trained and progress is not Progress.none:
        typer.echo(f"nothing to train: all {finished.total} runs are done (--fresh trains them anew)", err=True)
    facts = finished.facts or _stored(finished.path).facts()
    typer.echo(output.summary(facts, finished.path, unicode=_unicode()))
    if finished.failed:
        typer.echo(output.failures(_stored(finished.path).runs), err=True)
        raise typer.Exit(EXIT_SOME_FAILED)


def _stored(folder: Path) -> Results:
    from lrsweep.results import results  # and pandas, which a sweep that has just run does without

    return results.load(folder)


def _unicode() -> bool:
    """Can stdout show block characters?"""
    return "utf" in (sys.stdout.encoding or "").lower()


def _worker_count(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"--workers {text}: give a whole number from 1, or auto")
    return int(text)


@app.command()
def plot(
    results: Folder,
    metric: Annotated[str | None, typer.Option(help="Draw this curve column instead of the objective's.")] = None,
    at: Annotated[str | None, typer.Option(help="final, best, mean or last_K of that column.")] = None,
    format_: Annotated[list[Format] | None, typer.Option("--format", help="Repeatable; png if not given.")] = None,
) -> None:
    """Redraw the pictures from the files alone."""
    from lrsweep import plot as drawing
    from lrsweep.results import tables

    for folder in tables.sweeps_below(results):
        for path in drawing.draw_all(folder, tuple(f.value for f in format_ or [Format.png]), metric=metric, at=at):
            typer.echo(str(path))
    if metric is not None or at is not None:
        typer.echo(
            "the pictures show what was asked for now; without --metric and --at they show the objective", err=True
        )


@app.command()
def report(results: Folder) -> None:
    """Write report.html: one file, no network. Pictures beside it that show another objective are drawn anew."""
    from lrsweep.report import page as writing
    from lrsweep.results import tables

    for folder in tables.sweeps_below(results):
        formats = writing.stale(folder)
        typer.echo(str(writing.write(folder, formats=formats)))
        if formats:
            typer.echo(f"the pictures beside it showed another objective ({folder}): drawn anew", err=True)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="The folder of the first sweep.")],
    b: Annotated[Path, typer.Argument(help="The folder of the second sweep.")],
) -> None:
    """Say what moved between two sweeps, with intervals."""
    from lrsweep.results import compare as comparing

    typer.echo(comparing.compare(a, b).text())


@app.command()
def check(
    results: Annotated[Path, typer.Argument(help="The folder of one sweep.")],
    optimizer: Annotated[str | None, typer.Option(metavar="LABEL", help="Check this optimizer only.")] = None,
    min_basin_decades: Annotated[float | None, typer.Option(help="The good range must span this much.")] = None,
    max_sensitivity: Annotated[float | None, typer.Option(help="Sensitivity S may not exceed this.")] = None,
    max_diverged: Annotated[float | None, typer.Option(help="Largest share of diverged runs, 0 to 1.")] = None,
    best_lr_within: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="The best rate must lie in this range.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON on stdout.")] = False,
) -> None:
    """Give a verdict for CI; exit code 6 when a limit is broken."""
    from lrsweep.results import check as judging

    verdict = judging.check(
        results,
        optimizer=optimizer,
        min_basin_decades=min_basin_decades,
        max_sensitivity=max_sensitivity,
        max_diverged=max_diverged,
        best_lr_within=best_lr_within,
    )
    typer.echo(json.dumps(verdict.as_json(), indent=2) if json_ else verdict.text())
    if not verdict.ok:
        raise typer.Exit(EXIT_LIMITS_BROKEN)


@app.command()
def status(results: Folder) -> None:
    """Say what is done, to do, failed."""
    from lrsweep.cli import output
    from lrsweep.results import status as stored
    from lrsweep.results import tables

    for folder in tables.sweeps_below(results):
        typer.echo(output.status(stored.status(folder)))


@app.command("range-test")
def range_test(
    config: Config,
    results: ResultsDir = Path("results"),
    device: DeviceOption = Device.auto,
    set_: SetOption = None,
    low: Annotated[float, typer.Option(help="First rate of the ramp.")] = 1e-7,
    high: Annotated[float, typer.Option(help="Last rate of the ramp.")] = 10.0,
    steps: Annotated[int, typer.Option(min=20, help="Updates of the ramp.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
) -> None:
    """Run the one-ramp LR finder and hold its rules against the sweep's U-curve."""
    from lrsweep.cli import output
    from lrsweep.sweep import lr_finder

    found = lr_finder.run(
        config, results=results, device=device.value, overrides=set_ or (), low=low, high=high, steps=steps, seed=seed
    )
    if axes := output.range_test_axes(found):
        typer.echo(axes, err=True)
    typer.echo(output.range_test(found))


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("lrsweep.yaml"),
) -> None:
    """Write a commented starter spec."""
    from importlib.resources import files

    from lrsweep.store import atomic

    if path.exists():
        raise UsageError(f"{path} exists already; name another file")
    with atomic.storage_errors(path):
        path.write_bytes((files("lrsweep.cli") / "starter.yaml").read_bytes())
    typer.echo(f"wrote {path}; next: lrsweep run {path}")


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="tasks, models, optimizers or schedules; all if not given.")
    ] = None,
) -> None:
    """List the names a spec may use and their arguments."""
    from lrsweep import registry

    typer.echo(registry.listing(kind))


@app.command()
def schema() -> None:
    """Print the JSON Schema of the spec, for editors."""
    from lrsweep.registry import known
    from lrsweep.spec.load import json_schema

    typer.echo(json.dumps(json_schema(known()), indent=2))


def _tell_a_bug() -> int:
    traceback.print_exc()
    sys.stderr.write("\nThis is a bug in lrsweep. Nothing that was trained is lost: run the command again.\n")
    return 1


def _run() -> int:
    """Run the command line; turn what went wrong into one message and the contract's exit code."""
    try:
        leave_at_once()
        app()
    except LrsweepError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _tell_a_bug()
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.stderr.write(f"the output could not be written: {error.strerror}\n")
        return StorageError.exit_code
    except SystemExit as end:  # how typer returns
        if not isinstance(end.code, int | None):
            raise
        return end.code or 0
    except Exception:  # noqa: BLE001 - the last line of defence: say that it is ours, and show where
        return _tell_a_bug()
    return 0


def main() -> NoReturn:
    """The command `lrsweep`."""
    process.prepare()
    with few_collections():
        leave(_run())


if __name__ == "__main__":
    main()
