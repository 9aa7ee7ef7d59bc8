"""Picture files as frames, in the order of their names or numbers."""

from __future__ import annotations

import re
import time
from pathlib import Path

from gcpp_edge.errors import CaptureError, PictureError
from gcpp_edge.pictures import find_pictures, read_picture
from gcpp_edge.pipeline.capture import Shot

_NUMBER = re.compile(r"%(?:0(\d+))?d")


class Pictures:
    """A source that is picture files, of whatever sizes. Frame n has the timestamp n / fps.

    After a PictureError the next read goes on behind it. Raises CaptureError where there is no picture, and at the end
    of a round in which none could be read.
    """

    is_live = False

    def __init__(self, place: str, name: str, fps: float, loop: int) -> None:
        self.name, self.fps = name, fps
        self._paths = found_pictures(place, name)
        self._left = loop * len(self._paths) if loop else -1
        self._number, self._readable = 0, False

    def read(self) -> Shot | None:
        """The next picture; None after the last of the last time."""
        number, index = self._number, self._number % len(self._paths)
        if number and not index and not self._readable:
            raise CaptureError(f"{self.name}: none of its {len(self._paths)} pictures can be read.")
        if number == self._left:
            return None
        self._number += 1
        pixels = read_picture(self._paths[index])
        self._readable = True
        return Shot(pixels, "bgr", number / self.fps, time.monotonic())

    def close(self) -> None:
        """Nothing is held."""


def is_numbered(place: str) -> bool:
    """Whether the file name has a place for a number, as frames/%06d.png."""
    return _NUMBER.search(Path(place).name) is not None


def found_pictures(place: str, name: str) -> list[Path]:
    """The files, in the order in which they are played. Raises CaptureError where there is none."""
    if is_numbered(place) and not Path(place).exists():
        return _numbered(Path(place), name)
    try:
        found = find_pictures([place])
    except PictureError as error:
        raise CaptureError(str(error)) from error
    if not found[0].exists():
        raise CaptureError(f"{name}: there is no such file.")
    return found


def _numbered(pattern: Path, name: str) -> list[Path]:
    """Files whose names fit, by their numbers, which may have gaps."""
    before, after = (re.escape(text) for text in _NUMBER.split(pattern.name, maxsplit=1)[::2])
    width = _NUMBER.search(pattern.name)[1]  # type: ignore[index]
    fitting = re.compile(f"{before}(\\d{{{width or 1},}}){after}")
    inside = pattern.parent.iterdir() if pattern.parent.is_dir() else ()
    found = [(int(match[1]), path) for path in inside if (match := fitting.fullmatch(path.name))]
    if not found:
        raise CaptureError(f"{name}: no file fits this pattern.")
    return [path for _, path in sorted(found)]
