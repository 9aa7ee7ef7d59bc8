"""Files: a video (`clip.mp4`), or pictures: `photos/`, `'photos/*.jpg'`, `frames/%06d.png`.

Option of pictures: fps, their pace, 30 otherwise.
"""

from __future__ import annotations

import glob
from functools import partial
from pathlib import Path
from typing import Any

from gcpp_edge.errors import CaptureError
from gcpp_edge.pictures import SUFFIXES
from gcpp_edge.pipeline.capture import Source
from gcpp_edge.pipeline.sources.opencv import has_backend, open_capture
from gcpp_edge.pipeline.sources.pictures import Pictures, found_pictures, is_numbered
from gcpp_edge.pipeline.sources.video import Video
from gcpp_edge.pipeline.uris import Uri


def opener(uri: Uri, loop: int) -> Any:
    """What opens the file or the pictures."""
    if _is_pictures(uri.place):
        uri.require_options(("fps",))
        return partial(Pictures, uri.place, uri.shown, uri.number("fps", 30, 0.001, 1000), loop)
    uri.require_options(())
    return partial(_open_video, uri.place, uri.shown, loop)


def paths_of(uri: Uri) -> list[Path]:
    """What is read for this address: a folder, a file, or the files that fit a pattern; nothing for other kinds."""
    if uri.scheme != "file":
        return []
    if Path(uri.place).exists() or not _is_pictures(uri.place):
        return [Path(uri.place)]
    try:
        return found_pictures(uri.place, uri.shown)
    except CaptureError:
        return []


def _is_pictures(place: str) -> bool:
    path = Path(place)
    if path.exists():
        return path.is_dir() or path.suffix.lower() in SUFFIXES
    return path.suffix.lower() in SUFFIXES or is_numbered(place) or glob.has_magic(place)


def _open_video(place: str, shown: str, loop: int) -> Source:
    path = Path(place)
    if not path.exists():
        camera = f" A camera is v4l2://{place}." if place.isdigit() else ""
        raise CaptureError(f"{shown}: there is no such file.{camera}")
    if not path.is_file():
        raise CaptureError(f"{shown}: not a file. Cameras are /dev/video0 or v4l2://0.")
    return Video(partial(_opened, path, shown), shown, loop)


def _opened(path: Path, shown: str) -> Any:
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise CaptureError(f"{shown}: cannot be read ({error.strerror}).") from error
    has_ffmpeg = has_backend("FFMPEG")
    # a whole path: "a:b.mp4" would be an address to FFmpeg
    capture = open_capture(str(path.resolve()), "FFMPEG" if has_ffmpeg else "ANY")
    if capture is None:
        reason = (
            "Is it a whole video file?"
            if has_ffmpeg
            else "It has no FFmpeg: pip install opencv-python-headless has it."
        )
        raise CaptureError(f"{shown}: OpenCV cannot read it as a video. {reason}")
    return capture
