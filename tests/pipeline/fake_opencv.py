"""A cv2 with cameras that are made up, for backends and devices that a test machine does not have."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import cv2
import pytest

from gcpp_edge import pictures

NAMES = (
    *(
        "FRAME_WIDTH",
        "FRAME_HEIGHT",
        "FRAME_COUNT",
        "FPS",
        "FOURCC",
        "BUFFERSIZE",
        "CONVERT_RGB",
        "POS_MSEC",
        "N_THREADS",
    ),
    *("OPEN_TIMEOUT_MSEC", "READ_TIMEOUT_MSEC"),
)
PROPERTIES = {getattr(cv2, f"CAP_PROP_{name}"): name for name in NAMES}


class FakeCapture:
    """A VideoCapture. frames: what grab() gets, None for one that cannot be retrieved; it fails after the last.

    properties: by name, numbers or functions that give them. fixed: those that the driver does not change.
    """

    def __init__(
        self, frames: list[Any], properties: dict[str, Any] | None = None, fixed: tuple[str, ...] = ()
    ) -> None:
        self.frames, self.fixed, self.is_open = list(frames), fixed, True
        self.properties = {"FPS": 30.0, **(properties or {})}
        self.asked: dict[str, float] = {}
        self._current: Any = None

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's own name
        return self.is_open

    def grab(self) -> bool:
        if not self.frames:
            return False
        self._current = self.frames.pop(0)
        return True

    def retrieve(self) -> tuple[bool, Any]:
        if isinstance(self._current, cv2.error):
            raise self._current
        return self._current is not None, self._current

    def get(self, number: int) -> float:
        value = self.properties.get(PROPERTIES[number], 0.0)
        return float(value() if callable(value) else value)

    def set(self, number: int, value: float) -> bool:
        name = PROPERTIES[number]
        self.asked[name] = value
        if name not in self.fixed:
            self.properties[name] = value
        return True

    def release(self) -> None:
        self.is_open = False


class FakeOpencv:
    """The module. opened: what VideoCapture was called with: place, backend and properties by name."""

    error = cv2.error

    def __init__(self, capture: FakeCapture | None, backends: str, version: str) -> None:
        self.__version__, self.capture = version, capture
        self.opened: list[tuple[str, int, dict[str, int]]] = []
        numbers = [getattr(cv2, f"CAP_{name}") for name in backends.split()]
        self.videoio_registry = SimpleNamespace(hasBackend=lambda number: number in numbers)

    def __getattr__(self, name: str) -> Any:
        return getattr(cv2, name)

    def VideoCapture(self, place: str, backend: int, parameters: Any = ()) -> FakeCapture:  # noqa: N802
        pairs = zip(parameters[::2], parameters[1::2], strict=True)
        self.opened.append((place, backend, {PROPERTIES[number]: value for number, value in pairs}))
        if self.capture is None:
            closed = FakeCapture([])
            closed.release()
            return closed
        return self.capture


def use(
    monkeypatch: pytest.MonkeyPatch,
    capture: FakeCapture | None,
    backends: str = "GSTREAMER FFMPEG V4L2",
    version: str = "4.8.0",
) -> FakeOpencv:
    """Put a module in the place of cv2 for the test. capture: None for one that cannot be opened."""
    fake = FakeOpencv(capture, backends, version)
    monkeypatch.setitem(sys.modules, "cv2", fake)
    assert pictures.opencv() is fake
    return fake
