"""Frames from Python: an iterable of arrays or (array, timestamp) pairs, a callable that gives the next, a Source."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from math import inf, isfinite
from numbers import Real
from typing import Any

from gcpp_edge.errors import FrameError, InputError
from gcpp_edge.frames import FORMATS
from gcpp_edge.pipeline.capture import Shot, Source


def source_of(given: Any, *, format: str = "bgr") -> Source:
    """The source that this object is.

    An iterable ends where it ends. A callable is called for each frame, is taken for a camera, and ends with None. Each
    frame needs an array of its own, since others are explained while it is made. Without a timestamp it gets Unix time;
    one whose timestamp is not finite is unreadable. Raises InputError for anything else.
    """
    if format not in FORMATS:
        raise FrameError(f"Unknown frame format {format!r}. Known: {', '.join(FORMATS)}.")
    if callable(getattr(given, "read", None)) and callable(getattr(given, "close", None)) and hasattr(given, "is_live"):
        source: Source = given
        return source
    if callable(given):
        return _FromPython(given, format, _name_of(given), is_live=True)
    if isinstance(given, Iterable) and not hasattr(given, "dtype"):
        frames = iter(given)
        return _FromPython(lambda: next(frames, None), format, _name_of(given), is_live=False, frames=frames)
    raise InputError(
        f"source: expected an address, an iterable of frames or a callable, found {type(given).__name__}. "
        "A single frame is explained by explain()."
    )


class _FromPython:
    def __init__(
        self,
        take: Callable[[], Any],
        format: str,
        name: str,
        is_live: bool,
        frames: Iterator[Any] | None = None,
    ) -> None:
        self.name, self.is_live, self.fps = name, is_live, 0.0
        self._take, self._format, self._frames = take, format, frames

    def read(self) -> Shot | None:
        item = self._take()
        if item is None:
            return None
        arrived = time.monotonic()
        if isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Real):
            return Shot(item[0], self._format, self._seconds(item[1]), arrived)
        return Shot(item, self._format, time.time(), arrived)

    def _seconds(self, stamp: Real) -> float:
        """Raises FrameError for what is no time: a video could not place the frame."""
        try:
            seconds = float(stamp)
        except OverflowError:
            seconds = inf
        if not isfinite(seconds):
            raise FrameError(f"{self.name}: timestamp: expected finite seconds, found {seconds}.")
        return seconds

    def close(self) -> None:
        """Ends a generator, so that what it holds is let go."""
        close = getattr(self._frames, "close", None)
        if close is not None:
            close()


def _name_of(given: Any) -> str:
    return str(getattr(given, "__name__", type(given).__name__))
