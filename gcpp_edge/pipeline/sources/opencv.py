"""What sources that OpenCV captures have in common: what it can do here, how it is opened, and its cameras."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from gcpp_edge.errors import CaptureError, FrameError, MissingDependencyError
from gcpp_edge.frames import expected_frame, frame_fits
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Shot

TIMEOUT_S = 5.0  # of opening and of reading: a camera that is dead is lost, and the stream looks for it again

# An older one refuses whoever asks for time-outs; there, those of the pipeline's own elements count.
_GSTREAMER_TIMES_OUT = (4, 8)

_HOW = {
    "GSTREAMER": "pip's wheels have none. Use the system's (JetPack's, or apt install python3-opencv): make the venv "
    "with --system-site-packages and pip uninstall opencv-python-headless in it",
    "FFMPEG": "pip install opencv-python-headless has it",
    "V4L2": "it is on Linux alone: pip install opencv-python-headless",
}


def has_backend(backend: str) -> bool:
    """Whether this OpenCV captures by it: "FFMPEG", "GSTREAMER" or "V4L2"."""
    cv2 = opencv()
    return bool(cv2.videoio_registry.hasBackend(getattr(cv2, f"CAP_{backend}")))


def require_backend(backend: str, shown: str) -> None:
    """Raises MissingDependencyError, with what to install, where this OpenCV does not capture by it."""
    if not has_backend(backend):
        version = opencv().__version__
        raise MissingDependencyError(
            f"{shown}: needs {backend}, which this OpenCV ({version}) was built without: {_HOW[backend]}."
        )


def open_capture(place: str, backend: str, parameters: dict[str, float] | None = None) -> Any:
    """An open cv2.VideoCapture, or None. parameters: by name, without CAP_PROP_; time-outs are among them."""
    cv2 = opencv()
    chosen = dict(parameters or {})
    if backend == "FFMPEG" or (backend == "GSTREAMER" and _version(cv2) >= _GSTREAMER_TIMES_OUT):
        chosen |= {"OPEN_TIMEOUT_MSEC": 1000 * TIMEOUT_S, "READ_TIMEOUT_MSEC": 1000 * TIMEOUT_S}
    flat = [
        int(number)
        for name, value in chosen.items()
        if hasattr(cv2, f"CAP_PROP_{name}")
        for number in (getattr(cv2, f"CAP_PROP_{name}"), value)
    ]
    capture = cv2.VideoCapture(place, getattr(cv2, f"CAP_{backend}"), flat)
    if capture.isOpened():
        return capture
    capture.release()
    return None


def _version(cv2: ModuleType) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", cv2.__version__)[:2])


def checked(pixels: NDArray[Any], format: str, name: str) -> tuple[NDArray[Any], str]:
    """The pixels and their format. Raises FrameError where they are not of it."""
    if not frame_fits(pixels.shape, pixels.dtype, format):
        raise FrameError(f"{name}: expected {expected_frame(format)}, found {pixels.dtype} {pixels.shape}.")
    return pixels, format


Framing = Callable[[NDArray[Any]], "tuple[NDArray[Any], str]"]


class Camera:
    """A source that is an open cv2.VideoCapture.

    framing: makes a frame and its format of what OpenCV gives; raises FrameError. clock: when the frame that was
    grabbed at this time.monotonic() was taken, by the same clock. is_live: without it the end is an end, and timestamps
    are positions.
    """

    def __init__(
        self,
        capture: Any,
        name: str,
        framing: Framing,
        *,
        clock: Callable[[Any, float], float] = lambda _, grabbed: grabbed,
        is_live: bool = True,
    ) -> None:
        cv2 = opencv()
        self.name, self.is_live = name, is_live
        self.fps = max(0.0, float(capture.get(cv2.CAP_PROP_FPS)))
        self._capture, self._framing, self._clock = capture, framing, clock
        self._cv2: ModuleType = cv2
        self._good = time.monotonic()  # when the last frame came
        self._count = 0  # frames that were grabbed

    def read(self) -> Shot | None:
        """The next frame; None at the end of what is not live."""
        if not self._capture.grab():
            if self.is_live:
                raise CaptureError(f"{self.name}: no frame comes any more. Is it still connected, and free?")
            return None
        grabbed = time.monotonic()
        self._count += 1
        arrived = self._clock(self._capture, grabbed)
        pixels, format = self._framing(self._retrieve(grabbed))
        self._good = grabbed
        timestamp = time.time() - (time.monotonic() - arrived) if self.is_live else self._position()
        return Shot(pixels, format, timestamp, arrived)

    def _position(self) -> float:
        """By the count where the rate is known: what GStreamer tells is where it is itself, some frames ahead."""
        if self.fps:
            return (self._count - 1) / self.fps
        return float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000

    def _retrieve(self, grabbed: float) -> NDArray[Any]:
        reason = ""
        try:
            found, pixels = self._capture.retrieve()
        except self._cv2.error as error:
            found, pixels, reason = False, None, f" ({error.err})"
        if found:
            assert pixels is not None
            return pixels  # type: ignore[no-any-return]
        # a time-out of GStreamer is a frame that was grabbed and cannot be retrieved
        if grabbed - self._good > 0.9 * TIMEOUT_S:
            raise CaptureError(f"{self.name}: no frame for {grabbed - self._good:.0f} s{reason}.")
        raise FrameError(f"{self.name}: a frame that OpenCV cannot decode{reason}.")

    def close(self) -> None:
        """Release the device."""
        self._capture.release()
