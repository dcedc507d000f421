"""What a file or a folder of data holds, as a SHA-256."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


def of_data(path: Path) -> str:
    """Of a file or a folder. Raises OSError."""
    return of_folder(path) if path.is_dir() else of_file(path)


def of_file(path: Path) -> str:
    """Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def of_folder(path: Path) -> str:
    """The names and the contents of all files below a folder. Raises OSError.

    Hidden files and folders do not count, nor the caches that the library `datasets` writes beside its data.
    """
    digest = hashlib.sha256()
    for file in sorted(files_below(path), key=lambda file: file.relative_to(path).as_posix()):
        if not (file.name.startswith("cache-") and file.suffix == ".arrow"):
            digest.update(f"{file.relative_to(path).as_posix()}\n{of_file(file)}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def files_below(path: Path) -> Iterator[Path]:
    """Every file below a folder that is not hidden. Links are followed, each folder once. Raises OSError."""

    def refuse(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for place, folders, names in os.walk(path, onerror=refuse, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))
