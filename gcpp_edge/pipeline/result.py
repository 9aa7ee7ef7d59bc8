"""What a stream makes of a frame, as sinks get it."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.explanation import NO_CLASS, Explanation
from gcpp_edge.frames import picture_of
from gcpp_edge.made import OVERLAY
from gcpp_edge.pictures import encode_picture, opencv
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.events import Event
from gcpp_edge.pipeline.settings import Settings

TOP = 5  # classes in a record
_FLIPPED = ("rgb", "rgba")


class Result:
    """One frame with its explanation. Sinks of several threads share it; what is drawn or encoded is so once.

    explanation: smoothed where the stream smooths. is_fresh: False where the map is an earlier frame's, carried over.
    latency_ms: from the frame's arrival to its map. events: of the monitor, on this frame.
    """

    def __init__(
        self,
        explanation: Explanation,
        capture: Capture,
        settings: Settings,
        latency_ms: float,
        is_fresh: bool = True,
        events: tuple[Event, ...] = (),
    ) -> None:
        self.explanation, self.capture, self.settings = explanation, capture, settings
        self.latency_ms, self.is_fresh, self.events = latency_ms, is_fresh, events
        self._lock = threading.Lock()
        self._picture: NDArray[np.uint8] | None = None
        self._jpegs: dict[int, bytes] = {}

    def picture(self) -> NDArray[np.uint8]:
        """The overlay, (H, W, 3) uint8 BGR whatever the frame's format. Shared: do not draw on it."""
        with self._lock:
            if self._picture is None:
                self._picture = self._drawn()
            return self._picture

    def jpeg(self, quality: int = 80) -> bytes:
        """The overlay as a JPEG file. quality: 1 to 100. Raises PictureError for what OpenCV cannot encode."""
        picture = self.picture()
        with self._lock:
            if quality not in self._jpegs:
                self._jpegs[quality] = encode_picture(picture, ".jpg", opencv().IMWRITE_JPEG_QUALITY, quality)
            return self._jpegs[quality]

    def record(self) -> dict[str, Any]:
        """What is known of the frame, ready for JSON."""
        found, settings = self.explanation, self.settings
        if found.class_index == NO_CLASS:
            of_class: dict[str, Any] = {"class_index": NO_CLASS, "label": found.label}
        else:
            top = [{"class_index": i, "label": label, "probability": chance} for i, label, chance in found.top(TOP)]
            of_class = {
                "class_index": found.class_index,
                "label": found.label,
                "score": found.score,
                "probability": found.probability,
                "top": top,
            }
        return {
            **self.capture._asdict(),
            "latency_ms": self.latency_ms,
            "is_fresh": self.is_fresh,
            **of_class,
            "evidence": found.evidence,
            "peak": found.peak,
            "method": found.method,
            "target": settings.target,
            "ms": found.timings_ms,
            "events": [event._asdict() for event in self.events],
        }

    def frame_bgr(self) -> NDArray[np.uint8]:
        """The frame itself, (H, W, 3) uint8 BGR."""
        found = self.explanation
        return self._bgr(picture_of(found.frame, found.drawing.format, found.drawing.kernels))

    def _drawn(self) -> NDArray[np.uint8]:
        found, settings = self.explanation, self.settings
        made = found.made.get(OVERLAY)
        return self._bgr(found.overlay(settings.colormap, settings.alpha) if made is None else made)

    def _bgr(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A picture in the frame's order of colours, without transparency and as BGR."""
        picture = picture[:, :, :3]
        return np.ascontiguousarray(picture[:, :, ::-1] if self.explanation.drawing.format in _FLIPPED else picture)
