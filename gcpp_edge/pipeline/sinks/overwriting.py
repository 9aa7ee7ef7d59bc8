"""What a stream would overwrite: an output may be neither its input nor its model, and no two may be the same."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from gcpp_edge.errors import InputError
from gcpp_edge.pictures import SUFFIXES
from gcpp_edge.pipeline.sinks.picture_files import NUMBER
from gcpp_edge.pipeline.uris import Uri


def refuse_overwriting(read: Sequence[Path], outputs: Iterable[Uri]) -> None:
    """Raises InputError for the first output that would destroy something, or be mixed with another one.

    read: files that are read, and folders of which every picture is.
    """
    inputs = _resolved(read)
    earlier: list[Uri] = []
    for output in outputs:
        if any(_clash(output, other) for other in earlier):
            raise InputError(f"{output.shown}: two outputs would write there. Name another.")
        earlier.append(output)
        written = _written(output)
        if written is None:
            continue
        for path in inputs:
            if written.holds(path):
                raise InputError(f"{output.shown}: {path} is read, and would be overwritten. Name another output.")
            if written.are_pictures and written.folder == path and path.is_dir():
                raise InputError(f"{output.shown}: its folder is read, and would be mixed. Name another folder.")


def _resolved(paths: Sequence[Path]) -> list[Path]:
    """Whole paths without links; a folder of many files is looked up once."""
    folders = {folder: _real(folder) for folder in {path.parent for path in paths}}
    return [
        _real(path) if path.is_symlink() or path.name == ".." else folders[path.parent] / path.name for path in paths
    ]


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve() raises over links that go round


class _Written(NamedTuple):
    """Files of an output. sample: the name of one of them."""

    folder: Path
    names: re.Pattern[str]
    sample: str
    are_pictures: bool

    def holds(self, path: Path) -> bool:
        return path.parent == self.folder and self.names.fullmatch(path.name) is not None


def _written(uri: Uri) -> _Written | None:
    """None where an output writes no file."""
    if uri.scheme not in ("file", "jsonl") or uri.place == "-":
        return None
    path = _real(Path(uri.place))
    name = path.name
    if uri.scheme == "jsonl":
        return _Written(path.parent, re.compile(re.escape(name)), name, False)
    if path.suffix.lower() not in SUFFIXES:  # a video: video.py says what else it writes
        names = rf"{re.escape(path.stem)}(\.\d+)?(\.part)?{re.escape(path.suffix)}"
        return _Written(path.parent, re.compile(names), name, False)
    before, found, after = _split(name)
    width = int(found[1:-1] or 1) if found else 0
    names = re.escape(before) + (rf"[ \d]{{{width},}}" if found else "") + re.escape(after)
    return _Written(path.parent, re.compile(names), before + ("9" * max(width, 9) if found else "") + after, True)


def _split(name: str) -> tuple[str, str, str]:
    """The name before the place for a number, that place or nothing, and what follows."""
    match = NUMBER.search(name)
    return (name[: match.start()], match[0], name[match.end() :]) if match else (name, "", "")


def _clash(one: Uri, other: Uri) -> bool:
    first, second = _written(one), _written(other)
    if first is None or second is None:
        # http://HOST:0 is a free port each time, and a taken one is refused when it is opened
        return one.scheme != "http" and (one.scheme, one.place) == (other.scheme, other.place)
    return first.holds(second.folder / second.sample) or second.holds(first.folder / first.sample)
