"""A picture file a frame, or the newest alone."""

from __future__ import annotations

import re
from pathlib import Path

from gcpp_edge.errors import InputError, PictureError, SinkError
from gcpp_edge.pictures import encode_picture, opencv, write_whole
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.sinks.folders import require_folder
from gcpp_edge.pipeline.uris import Uri

# name, usual value and range of what a format can be asked for
_OPTIONS = {".png": ("compression", 1, 0, 9), ".jpg": ("quality", 90, 1, 100)}
NUMBER = re.compile(r"%(0?[1-9]\d?)?d")


def opened(uri: Uri, control: Control) -> PictureFiles:
    """Files of this pattern. Raises InputError for another pattern, SinkError for a folder that cannot be used."""
    path = Path(uri.place)
    option, usual, low, high = _OPTIONS[".png" if path.suffix.lower() == ".png" else ".jpg"]
    uri.require_options((option,))
    strength = uri.whole_number(option, usual, low, high)
    require_pattern(uri)
    opencv()
    require_folder(uri.shown, path)
    return PictureFiles(uri.shown, path, strength)


def require_pattern(uri: Uri) -> None:
    """Raises InputError unless the name has a place for the number of the frame, or none for anything."""
    path = Path(uri.place)
    if "%" in str(path.parent) or "%" in NUMBER.sub("", path.name, count=1):
        raise InputError(
            f"{uri.shown}: expected one %d or %06d, for the number of the frame, in the file's name and no other %."
        )


class PictureFiles:
    """The overlay of each frame in a file, numbered by frame id; without %d in the name the newest, in one file.

    Files appear whole or not at all, so that whoever shows the newest never reads half of it.
    """

    def __init__(self, name: str, path: Path, strength: int) -> None:
        self.name, self.is_viewer = name, "%" not in path.name
        self._path, self._strength = path, strength

    def write(self, result: Result) -> None:
        """Raises SinkError where the disk is full or the folder is gone for good."""
        path = self._path
        if not self.is_viewer:
            path = path.with_name(path.name % result.capture.id)
        try:
            write_whole(path, self._content(result))
        except OSError as error:
            raise SinkError(f"{self.name}: {path} cannot be written ({error.strerror}).") from error
        except (InputError, PictureError) as error:
            raise SinkError(f"{self.name}: {error}") from error

    def _content(self, result: Result) -> bytes:
        if self._path.suffix.lower() != ".png":
            return result.jpeg(self._strength)
        return encode_picture(result.picture(), ".png", opencv().IMWRITE_PNG_COMPRESSION, self._strength)

    def close(self) -> None:
        """Every file is finished already."""
