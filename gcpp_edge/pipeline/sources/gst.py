"""GStreamer pipelines: `gst://v4l2src ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1`.

The format of frames is read from the caps before appsink: BGR, GRAY8, GRAY16_LE, NV12, BGRA, BGRx, RGBA, RGBx. Without
any, OpenCV negotiates BGR or GRAY8. live=0 or 1 says whether it is a camera; otherwise it is one unless it reads a file
or ends after num-buffers. Before OpenCV 4.8 there is no time-out: a pipeline that is silent is waited for.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

from numpy.typing import NDArray

from gcpp_edge.errors import CaptureError, InputError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Source
from gcpp_edge.pipeline.sources.opencv import Camera, checked, open_capture, require_backend
from gcpp_edge.pipeline.uris import Uri

FORMATS = {
    "BGR": "bgr",
    "GRAY8": "gray",
    "GRAY16_LE": "gray16",
    "NV12": "nv12",
    "BGRA": "bgra",
    "BGRX": "bgra",
    "RGBA": "rgba",
    "RGBX": "rgba",
}  # of caps, in capitals -> of frames.py
_CAPS_FORMAT = re.compile(r"format\s*=\s*(?:\(string\)\s*)?\"?(\w+|\{[^}]*\})")
_CHANGES_FORMAT = re.compile(r"conv|dec|src|bin|demux", re.IGNORECASE)
_ENDS = re.compile(r"\b(?:multi)?filesrc\b|\bnum-buffers\s*=|\bfile:/")
_ADVICE = "Put `videoconvert ! video/x-raw,format=BGR` before appsink"


def opener(uri: Uri, loop: int) -> Any:
    """What opens the pipeline."""
    uri.require_options(("live",))
    pipeline = uri.place
    if not re.search(r"!\s*appsink\b[^!]*$", pipeline):
        raise InputError(f"{uri.shown}: the pipeline has to end in `! appsink`, where frames are taken from.")
    format = format_of(pipeline, uri.shown)
    return partial(open_pipeline, pipeline, uri.shown, format, is_live=uri.flag("live", not _ENDS.search(pipeline)))


def open_pipeline(pipeline: str, shown: str, format: str | None, is_live: bool = True) -> Source:
    """A source that is this pipeline. format: None where OpenCV negotiates it."""
    require_backend("GSTREAMER", shown)
    capture = open_capture(pipeline, "GSTREAMER")
    if capture is None:
        raise CaptureError(
            f"{shown}: GStreamer cannot start this pipeline. Try it: gst-launch-1.0 with fakesink for appsink."
        )
    height = int(capture.get(opencv().CAP_PROP_FRAME_HEIGHT))
    return Camera(capture, shown, partial(_framed, format=format, height=height, name=shown), is_live=is_live)


def format_of(pipeline: str, shown: str) -> str | None:
    """The format of frames.py that reaches appsink, as far as the text says it; None where it says nothing.

    Raises InputError for a format that frames cannot have.
    """
    for part in reversed(pipeline.split("!")[:-1]):
        if "video/x-raw" in part:
            named = _CAPS_FORMAT.search(part)
            if named is None:
                continue
            if named[1].upper() not in FORMATS:
                raise InputError(
                    f"{shown}: frames of {named[1]} are not taken. Known: {', '.join(FORMATS)}. {_ADVICE}."
                )
            return FORMATS[named[1].upper()]
        if "image/jpeg" in part or "video/x-bayer" in part:
            raise InputError(f"{shown}: pictures have to be decoded before appsink. {_ADVICE}.")
        if _CHANGES_FORMAT.search(part.split()[0] if part.split() else ""):
            return None
    return None


def _framed(pixels: NDArray[Any], format: str | None, height: int, name: str) -> tuple[NDArray[Any], str]:
    if format is None:
        if pixels.ndim == 2 and 2 * pixels.shape[0] == 3 * height:
            raise CaptureError(f"{name}: frames of several planes, whose format the pipeline does not say. {_ADVICE}.")
        format = "gray" if pixels.ndim == 2 else "bgr"
    return checked(pixels, format, name)
