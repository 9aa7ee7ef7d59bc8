"""Video files, here or at an address: every frame, with its position in the file, as often as is asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import isfinite
from typing import Any

from numpy.typing import NDArray

from gcpp_edge.errors import CaptureError, FrameError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Shot

_FPS = 30.0  # of a file that does not say it
_MISSED = 0.02  # share of the frames that a whole file may lack by its own count, which some containers only estimate


class Video:
    """A source that is a video file. open_capture: opens it, once for each time that it is played.

    remark: at the end, that its tail is missing. Timestamps go on from one time to the next.
    Raises CaptureError where it cannot be opened or holds no frame.
    """

    is_live = False

    def __init__(self, open_capture: Callable[[], Any], name: str, loop: int) -> None:
        cv2 = opencv()
        self.name, self.remark = name, ""
        self._open, self._left = open_capture, loop - 1 if loop else -1
        self._capture = open_capture()
        self._position, self._retrieve_error = cv2.CAP_PROP_POS_MSEC, cv2.error
        fps = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = fps if isfinite(fps) and 0 < fps <= 1000 else _FPS
        self._count = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        self._played, self._start, self._last = 0, 0.0, -1.0
        self._ahead: Shot | None = self._first_frame()

    def read(self) -> Shot | None:
        """The next frame; None after the last of the last time."""
        if self._ahead is not None:
            shot, self._ahead = self._ahead, None
            return shot._replace(arrived=time.monotonic())
        return self._grabbed() or (self._grabbed() if self._begins_again() else None)

    def close(self) -> None:
        """Close the file."""
        self._capture.release()

    def _first_frame(self) -> Shot:
        """Read at once, so that a file without any is refused when it is opened."""
        try:
            shot = self._grabbed()
        except FrameError:
            shot = None
        if shot is None:
            self.close()
            raise CaptureError(f"{self.name}: no frame can be read from it. Is it a whole video file?")
        return shot

    def _grabbed(self) -> Shot | None:
        if not self._capture.grab():
            self._check_tail()
            return None
        timestamp = self._timestamp()
        self._played, self._last = self._played + 1, timestamp
        return Shot(self._pixels(), "bgr", timestamp, time.monotonic())

    def _pixels(self) -> NDArray[Any]:
        try:
            found, pixels = self._capture.retrieve()
        except self._retrieve_error as error:
            raise FrameError(f"{self.name}: frame {self._played} cannot be decoded ({error.err}).") from error
        if not found:
            raise FrameError(f"{self.name}: frame {self._played} cannot be decoded.")
        return pixels  # type: ignore[no-any-return]

    def _timestamp(self) -> float:
        """By the file, where that goes forwards; else by the count of frames."""
        position = self._start + float(self._capture.get(self._position)) / 1000
        if isfinite(position) and self._last < position < self._last + 3600:
            return position
        return self._last + 1 / self.fps if self._last >= 0 else 0.0

    def _begins_again(self) -> bool:
        if self._left == 0:
            return False
        self._left -= 1
        self._capture.release()
        self._capture = self._open()
        self._played, self._start = 0, self._last + 1 / self.fps
        return True

    def _check_tail(self) -> None:
        if self._count - self._played > max(2.0, _MISSED * self._count):
            frames = f"{self._played} of {self._count:.0f} frames"
            self.remark = f"{self.name}: it ends after {frames}; the rest is missing or damaged."
