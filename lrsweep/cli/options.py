"""Arguments and options that commands share, what they may be, and what a shell completes them with."""

from __future__ import annotations

import csv
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from lrsweep.errors import WrongOption, printable

Device = StrEnum("Device", ["auto", "cpu", "cuda"])
Cluster = StrEnum("Cluster", ["slurm", "local", "debug"])
ExecutorName = StrEnum("ExecutorName", {"local": "local", "in_process": "in-process", "ray": "ray"})
CompileMode = StrEnum("CompileMode", ["auto", "on", "off"])
ProgressStyle = StrEnum("ProgressStyle", ["auto", "rich", "plain", "none"])
ImageFormat = StrEnum("ImageFormat", ["png", "svg", "pdf"])
ExportFormat = StrEnum("ExportFormat", ["tensorboard", "mlflow", "wandb", "parquet", "latex"])
KINDS = ("tasks", "models", "optimizers", "schedules")


def labels(ctx: typer.Context, incomplete: str) -> list[str]:
    """The optimizer labels of the sweep that is being checked, for shell completion."""
    folder = ctx.params.get("results") or next(iter(ctx.args), ".")  # what is unparsed as the option has no value yet
    try:
        with open(Path(folder, "summary.csv"), encoding="utf-8", newline="") as file:
            labels = {row["optimizer"] for row in csv.DictReader(file)}
    except (KeyError, OSError, ValueError):
        return []
    return sorted(label for label in labels if label.startswith(incomplete) and label == printable(label))


def kinds(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def worker_count(text: str) -> int | str:
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise WrongOption("workers", text, "give a whole number from 1, or auto")
    return int(text)


def progress_style(wanted: ProgressStyle, executor: ExecutorName) -> str:
    """A bar would write over the prompt of a debugger."""
    debugging = executor is ExecutorName.in_process and wanted is ProgressStyle.auto
    return (ProgressStyle.plain if debugging else wanted).value


def show_version(wanted: bool) -> None:
    if wanted:
        from lrsweep import __version__

        typer.echo(f"lrsweep {__version__}")
        raise typer.Exit


Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The spec, a YAML file.")]
Folder = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="Folder of one sweep, or a folder that contains several.")
]
OneFolder = Annotated[Path, typer.Argument(metavar="RESULTS", help="Folder of one sweep.")]
OwnTask = Annotated[
    str | None, typer.Option(metavar="PATH:FUNCTION", help="Try a task of your own and write a spec for it.")
]
ResultsDir = Annotated[Path, typer.Option("--results", metavar="DIR", help="Results go to DIR/NAME.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a value of the spec, e.g. train.epochs=5. May be repeated."
    ),
]
ExecutorOption = Annotated[
    ExecutorName,
    typer.Option(
        metavar="local|in-process|ray",
        help="Train in processes of this machine, in the command's own (to debug or profile; a crash ends the "
        "command), or in a Ray cluster.",
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", metavar="HOST:PORT", help="Ray cluster to join. (default: this machine alone)"),
]
DeviceOption = Annotated[Device, typer.Option(metavar="auto|cpu|cuda", help="Device; auto uses CUDA if available.")]
