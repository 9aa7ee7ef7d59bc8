"""Frames as they come from a source, and what is remembered of how they came."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray


class Capture(NamedTuple):
    """When and as which a frame was taken; an explanation of a stream carries it to the end.

    id: counts the frames of a stream from 0, those that were dropped too. timestamp: seconds, as the source has them:
    Unix time of a camera's frame, position in a file, what submit() was given. arrived: time.monotonic() when the frame
    was there, where latencies begin; by the driver's own clock where that is known.
    """

    id: int
    timestamp: float
    arrived: float


class Shot(NamedTuple):
    """One frame of a source: pixels in a format of frames.py. The pixels are the receiver's from then on."""

    pixels: NDArray[Any]
    format: str
    timestamp: float
    arrived: float


class Source(Protocol):
    """Where frames come from. Opened, read and closed in one thread.

    name: as it was asked for, without a password. is_live: frames come at their own pace, and one that is not taken is
    lost. fps: frames a second as the source says, 0 where it does not. A source may have a `remark` besides, one line
    that is told when it has ended: that a file's tail is missing.
    """

    name: str
    is_live: bool
    fps: float

    def read(self) -> Shot | None:
        """The next frame, waited for; None at the end.

        Raises FrameError or PictureError for a frame that cannot be used, while the next may be; CaptureError where the
        source is lost. Returns or raises within seconds, also when nothing comes, so that a stream can end.
        """

    def close(self) -> None:
        """Give it back. More than once does no harm."""
