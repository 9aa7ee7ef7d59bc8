"""Cameras of Linux: `/dev/video0`, `v4l2://0`, `v4l2:///dev/v4l/by-id/...`.

Options: width and height, fps, fourcc. Grey frames (GREY, Y16) and NV12 come as the driver gives them, others as BGR.
"""

from __future__ import annotations

import glob
import os
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import CaptureError, FrameError, InputError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Source
from gcpp_edge.pipeline.sources.opencv import Camera, Framing, checked, open_capture, require_backend
from gcpp_edge.pipeline.uris import Uri

_RAW = {"GREY": "gray", "Y16": "gray16", "NV12": "nv12"}  # fourcc -> format of frames.py
_FOURCCS = ("MJPG", "YUYV", *_RAW)
_OLDEST_S = 2.0  # a driver's time further back than this is of another clock


class _Wish(NamedTuple):
    """What was asked for; 0 and "" for whatever the driver does."""

    width: int
    height: int
    fps: float
    fourcc: str


def opener(uri: Uri, loop: int) -> Any:
    """What opens the camera."""
    uri.require_options(("width", "height", "fps", "fourcc"))
    wish = _Wish(
        uri.whole_number("width", 0, 1, 16384),
        uri.whole_number("height", 0, 1, 16384),
        uri.number("fps", 0, 0.1, 1000),
        uri.choice("fourcc", "", _FOURCCS),
    )
    if bool(wish.width) != bool(wish.height):
        raise InputError(f"{uri.shown}: width and height are asked for together.")
    return partial(_open, f"/dev/video{uri.place}" if uri.place.isdigit() else uri.place, uri.shown, wish)


def _open(device: str, shown: str, wish: _Wish) -> Source:
    # how long a frame is waited for; OpenCV reads it once, at the first camera
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")
    require_backend("V4L2", shown)
    if not Path(device).exists():
        there = ", ".join(sorted(glob.glob("/dev/video*"))) or "none"
        raise CaptureError(f"{shown}: there is no {device}. Cameras here: {there}.")
    if not os.access(device, os.R_OK | os.W_OK):
        raise CaptureError(f"{shown}: {device} may not be opened. Add yourself to its group: usermod -aG video $USER.")
    capture = open_capture(device, "V4L2")
    if capture is None:
        raise CaptureError(f"{shown}: {device} gives no pictures, or another program has it (fuser {device}).")
    try:
        return Camera(capture, shown, _configured(capture, shown, wish), clock=driver_clock)
    except BaseException:
        capture.release()
        raise


def _configured(capture: Any, shown: str, wish: _Wish) -> Framing:
    """Asks the driver for what was wished, and says how frames come then."""
    cv2 = opencv()
    if wish.fourcc:
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter_fourcc(*wish.fourcc.ljust(4)))
    for name in ("width", "height"):
        if wish.width:
            capture.set(getattr(cv2, f"CAP_PROP_FRAME_{name.upper()}"), getattr(wish, name))
    if wish.fps:
        capture.set(cv2.CAP_PROP_FPS, wish.fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    given = fourcc_text(int(capture.get(cv2.CAP_PROP_FOURCC)))
    if wish.fourcc and given != wish.fourcc:
        raise CaptureError(
            f"{shown}: it gives {given}, not {wish.fourcc}. v4l2-ctl --list-formats-ext lists what it has."
        )
    if given not in _RAW:
        return partial(checked, format="bgr", name=shown)
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    width, height = (int(capture.get(prop)) for prop in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    return partial(raw_frame, width=width, height=height, format=_RAW[given], name=shown)


def raw_frame(pixels: NDArray[Any], width: int, height: int, format: str, name: str) -> tuple[NDArray[Any], str]:
    """The driver's bytes as a frame: OpenCV's releases shape them differently. Raises FrameError for too few."""
    rows = height * 3 // 2 if format == "nv12" else height
    dtype = np.dtype(np.uint16 if format == "gray16" else np.uint8)
    content = pixels.reshape(-1).view(np.uint8)
    size = rows * width * dtype.itemsize
    if content.size < size:
        raise FrameError(f"{name}: a frame of {content.size} bytes, where {format} of {width} x {height} has {size}.")
    return checked(content[:size].view(dtype).reshape(rows, width), format, name)


def driver_clock(capture: Any, grabbed: float) -> float:
    """When the driver had the frame, where its clock is that of time.monotonic(); else when it was grabbed."""
    taken = capture.get(opencv().CAP_PROP_POS_MSEC) / 1000
    return taken if isfinite(taken) and grabbed - _OLDEST_S <= taken <= grabbed else grabbed


def fourcc_text(code: int) -> str:
    """The letters of a code, without blanks at the end."""
    return bytes((code >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("latin-1").rstrip(" \0")
