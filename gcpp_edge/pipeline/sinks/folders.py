"""Whether a file can be written where it is to be, found out before there is anything to write."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gcpp_edge.errors import SinkError


def make_parent(name: str, path: Path) -> None:
    """The folder of the file at `path`, made where it is missing. Raises SinkError, beginning with `name`."""
    if path.is_dir():
        raise SinkError(f"{name}: there is a folder of this name. Name another file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "there is a file of this name" if path.parent.exists() else error.strerror
        raise SinkError(f"{name}: {path.parent} cannot be made a folder ({reason}). Name another.") from error


@contextmanager
def trial_folder(name: str, path: Path) -> Iterator[Path]:
    """A folder for trials beside the file at `path`, removed afterwards.

    Raises SinkError, beginning with `name`, where the file could not be written.
    """
    make_parent(name, path)
    try:
        trial = tempfile.TemporaryDirectory(prefix=".gcpp-edge-", dir=path.parent)
    except OSError as error:
        raise SinkError(f"{name}: {path.parent} cannot be written to ({error.strerror}). Name another.") from error
    with trial as folder:
        yield Path(folder)


def require_folder(name: str, path: Path) -> None:
    """Raises SinkError, beginning with `name`, where a file at `path` could not be written."""
    with trial_folder(name, path):
        pass
