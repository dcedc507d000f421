"""A finished sweep in the formats of other tools. Exports only read the results folder; repeating one replaces it.

A format is a module with `write(sweep, folder)`, which fills an empty folder, and a line in `FORMATS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lrsweep.errors import UsageError
from lrsweep.store import atomic

if TYPE_CHECKING:
    from lrsweep.results.results import Results

MARK = ".lrsweep-export"
"""A file in every exported folder: only a folder that has it is ever replaced."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """`library` has to be importable, which `extra` of lrsweep installs; both are "" where nothing is needed. `then` is
    what to do with the folder."""

    library: str = ""
    extra: str = ""
    then: str = ""


FORMATS = {
    "tensorboard": Format(library="tensorboard", extra="tensorboard", then="tensorboard --logdir {folder}"),
    "mlflow": Format(
        library="mlflow", extra="mlflow", then="mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"
    ),
    "wandb": Format(library="wandb", extra="wandb", then="wandb sync {folder}/wandb/offline-run-*"),
    "parquet": Format(library="pyarrow", extra="parquet"),
    "latex": Format(),
}


def export(sweep: Results, to: str, out: Path | str | None = None) -> Path:
    """Write `sweep` in the format `to` into the folder `out` (by default `<name>-<to>`), which is returned.

    A folder that an export made is replaced as a whole. Raises UsageError for an unknown format, a library that is not
    installed, and a folder that holds anything else; StorageError where it cannot be written.
    """
    if to not in FORMATS:
        raise UsageError(f"export: no format {to!r} (have: {', '.join(FORMATS)})")
    wanted = FORMATS[to]
    if wanted.library and importlib.util.find_spec(wanted.library) is None:
        raise UsageError(f'--to {to} needs {wanted.library}: pip install "lrsweep[{wanted.extra}]"')
    folder = Path(out) if out is not None else Path(f"{sweep.spec.name}-{to}")
    _refuse_strangers(folder)
    with atomic.storage_errors(folder):
        folder = folder.absolute()
        parent = folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=atomic.TEMPORARY, dir=parent))
        try:
            (made / MARK).write_text(f"{to}\n", encoding="utf-8")
            importlib.import_module(f"lrsweep.export.{to}").write(sweep, made)
            made.chmod(0o755)
            if folder.exists():
                shutil.rmtree(folder)
            made.rename(folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return Path(out) if out is not None else Path(f"{sweep.spec.name}-{to}")


def next_step(to: str, folder: Path) -> str:
    """The command that shows what was exported; "" where there is none."""
    return FORMATS[to].then.format(folder=folder)


def _refuse_strangers(folder: Path) -> None:
    """Raises UsageError where `folder` is something that no export made."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"--out {folder}: this is not a folder; choose another name")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise UsageError(f"--out {folder}: this folder holds files that no export made; choose another name")
