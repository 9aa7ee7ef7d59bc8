"""Video files."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError, SinkError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.sinks.folders import trial_folder
from gcpp_edge.pipeline.sinks.slots import FASTEST_FPS, Slots, rate_of
from gcpp_edge.pipeline.uris import Uri

RESERVE_MB = 32  # of free disk, at which a video ends while its index can still be written
WATCH_S = 1.0  # how often the free disk is looked at
MOST_PARTS = 100  # files of one video, whose frames change their size
TRIAL_SIZE = (64, 64)

# the first is what OpenCV's wheels can write; the others are offered where the one that was asked for is missing
_MPEG4 = ("mp4v", "avc1", "hvc1")
_CODECS = {
    ".mp4": _MPEG4,
    ".m4v": _MPEG4,
    ".mov": _MPEG4,
    ".avi": ("MJPG", "XVID"),
    ".mkv": ("mp4v", "MJPG", "VP80", "VP90", "FFV1"),
}

IN_TIME, EACH_FRAME = "time", "frames"


def opened(uri: Uri, control: Control) -> Video:
    """A video file. Options: fps, else the source's; codec, four letters; pace, time or frames.

    Raises InputError for options, SinkError where the folder or the codec cannot be used.
    """
    uri.require_options(("fps", "codec", "pace"))
    path = Path(uri.place).absolute()  # FFmpeg takes "a:b.mp4" for a protocol
    fps = uri.number("fps", rate_of(control.fps), 0.1, FASTEST_FPS)
    codec = uri.options.get("codec", _CODECS[path.suffix.lower()][0])
    if len(codec) != 4 or not codec.isascii():
        raise InputError(f"{uri.shown}: codec: expected four letters such as mp4v or MJPG, found {codec!r}.")
    paced = uri.choice("pace", IN_TIME, (IN_TIME, EACH_FRAME)) == IN_TIME
    with trial_folder(uri.shown, path) as folder:
        _try_codec(uri.shown, folder / f"trial{path.suffix}", codec)
    return Video(uri.shown, path, codec, fps, paced)


def _try_codec(name: str, path: Path, codec: str) -> None:
    """Raises SinkError, naming codecs that can be had, where this OpenCV cannot write such a file."""
    if _writer(path, codec, 30.0, TRIAL_SIZE) is not None:
        return
    possible = [other for other in _CODECS[path.suffix.lower()] if _writer(path, other, 30.0, TRIAL_SIZE) is not None]
    advice = f"Choose one with ?codec=: {', '.join(possible)}." if possible else "Write pictures: FOLDER/%06d.jpg."
    raise SinkError(f"{name}: OpenCV {opencv().__version__} here cannot write {path.suffix} as {codec}. {advice}")


def _writer(path: Path, codec: str, fps: float, size: tuple[int, int]) -> Any:
    """OpenCV's writer of a file, width and height given; None where it cannot."""
    cv2 = opencv()
    for backend in (cv2.CAP_FFMPEG, cv2.CAP_GSTREAMER):
        writer = cv2.VideoWriter(str(path), backend, cv2.VideoWriter_fourcc(*codec), fps, size)
        if writer.isOpened():
            return writer
    return None


class Video:
    """The overlays as a video of constant rate, (H, W, 3); of odd sides OpenCV leaves out the last row or column.

    in_time: frames are repeated or left out by their timestamps, so that it plays in real time (slots.py); each frame
    of a file falls into a slot of its own. Otherwise each frame is written once, however long it took.

    A file OUT.part.mp4 grows beside OUT.mp4 and is renamed when it is finished and opens with all of its frames. So
    a run that fails destroys nothing, and what a killed process leaves is found, though of .mp4 and .mov only special
    tools can open it: .mkv and .avi can be played up to where they end.
    Where frames change their size, OUT.2.mp4 goes on, and `remark` says so.
    """

    is_viewer = False

    def __init__(self, name: str, path: Path, codec: str, fps: float, in_time: bool) -> None:
        self.name, self.remark = name, ""
        self._path, self._codec, self._fps = path, codec, fps
        self._slots = Slots(fps) if in_time else None
        self._held: NDArray[np.uint8] | None = None  # the frame that is shown until the next one
        self._writer: Any = None
        self._parts = self._count = 0  # files begun, and frames in the present one
        self._size = (0, 0)  # width and height
        self._next_watch = 0.0

    def write(self, result: Result) -> None:
        """Raises SinkError where the file cannot be written any more; close() then saves what can be."""
        repeats = self._slots.step(result.capture.timestamp) if self._slots else 1
        if self._held is not None:
            self._watch_disk()
            self._put(self._held, repeats)
        self._held = result.picture()

    def _put(self, picture: NDArray[np.uint8], repeats: int) -> None:
        size = picture.shape[1], picture.shape[0]
        if self._writer is None or size != self._size:
            self._begin(size)
        for _ in range(repeats):
            # OpenCV 4 returns None, and what it could not write is seen in _finish
            if self._writer.write(picture) is False:
                raise SinkError(f"{self.name}: cannot be written any more. {self._room()} {self._rest()}")
            self._count += 1

    def _begin(self, size: tuple[int, int]) -> None:
        """Starts a file for frames of this size, the one before being finished."""
        before = self._size
        self._finish()
        if self._parts == MOST_PARTS:
            raise SinkError(f"{self.name}: frames changed their size {MOST_PARTS} times. Write pictures instead.")
        self._parts, self._size, self._count = self._parts + 1, size, 0
        self._writer = _writer(self._partial, self._codec, self._fps, size)
        if self._writer is None:
            raise SinkError(
                f"{self.name}: OpenCV cannot write frames of {size[0]} x {size[1]} as {self._codec}. {self._room()}"
            )
        if self._parts > 1:
            sizes = f"{before[0]} x {before[1]} to {size[0]} x {size[1]}"
            self.remark = f"Frames changed their size from {sizes}: {self._present} holds those that followed."

    @property
    def _present(self) -> Path:
        """The file that is written now, as it will be called."""
        return self._path if self._parts < 2 else self._path.with_suffix(f".{self._parts}{self._path.suffix}")

    @property
    def _partial(self) -> Path:
        """The same until it is finished. FFmpeg wants the suffix."""
        return self._present.with_suffix(f".part{self._path.suffix}")

    def _watch_disk(self) -> None:
        """Raises SinkError before the disk is full, for OpenCV may not notice, and the index comes last."""
        if monotonic() < self._next_watch:
            return
        self._next_watch = monotonic() + WATCH_S
        if self._free_mb() < RESERVE_MB:
            raise SinkError(f"{self.name}: the disk is almost full, so the video ends here. {self._room()}")

    def _free_mb(self) -> float:
        try:
            found = os.statvfs(self._path.parent)
        except OSError as error:
            raise SinkError(f"{self.name}: its folder cannot be used any more ({error.strerror}).") from error
        return found.f_bavail * found.f_frsize / 1e6

    def _room(self) -> str:
        return f"{self._path.parent} has {self._free_mb():.0f} MB left."

    def _rest(self) -> str:
        return f"What there is of it is in {self._partial}."

    def close(self) -> None:
        """Finishes the file, if there was a frame. Raises SinkError where that fails."""
        held, self._held = self._held, None
        try:
            if held is not None:
                self._put(held, 1)
        finally:
            self._finish()

    def _finish(self) -> None:
        """Ends the present file and gives it its name, once it is known to open."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.release()
        if self._count == 0:
            self._partial.unlink(missing_ok=True)
            return
        found = _frames_in(self._partial, self._count)
        if found < self._count:
            raise SinkError(
                f"{self.name}: could not be finished ({found} of {self._count} frames can be read). "
                f"{self._room()} {self._rest()}"
            )
        try:
            self._partial.replace(self._present)
        except OSError as error:
            raise SinkError(f"{self.name}: cannot be renamed ({error.strerror}). {self._rest()}") from error


def _frames_in(path: Path, expected: int) -> int:
    """Frames of a video by its index, which is written last; 0 where there is none, or the last frame is missing.

    Without a word from OpenCV an index may list frames whose bytes no longer found room.
    """
    cv2 = opencv()
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened() or (path.suffix.lower() == ".avi" and not _holds_its_chunk(path)):
            return 0
        count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        video.set(cv2.CAP_PROP_POS_FRAMES, expected - 1)
        return max(count, 0) if video.read()[0] else 0
    finally:
        video.release()


def _holds_its_chunk(path: Path) -> bool:
    """Whether an AVI file is as long as its first chunk says: a picture with its end missing would decode."""
    with open(path, "rb") as file:
        header = file.read(8)
        return int.from_bytes(header[4:], "little") + 8 <= os.fstat(file.fileno()).st_size
