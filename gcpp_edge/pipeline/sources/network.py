"""Cameras and files at an address: `rtsp://user:password@host/stream`, `http://host/video.mjpg`, `https://host/clip.mp4`.

Options of ours: backend=ffmpeg or gstreamer (rtsp), threads of FFmpeg's decoder. Other options are the camera's own.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from gcpp_edge.errors import CaptureError, MissingDependencyError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.capture import Source
from gcpp_edge.pipeline.sources.gst import open_pipeline
from gcpp_edge.pipeline.sources.opencv import TIMEOUT_S, Camera, checked, has_backend, open_capture, require_backend
from gcpp_edge.pipeline.sources.video import Video
from gcpp_edge.pipeline.uris import Uri

_OURS = ("backend", "threads")


def opener(uri: Uri, loop: int) -> Any:
    """What opens the address."""
    backend = uri.choice("backend", "", ("ffmpeg", "gstreamer"))
    # each further thread decodes a frame ahead, and so delays the stream by a frame
    threads = uri.whole_number("threads", 1, 1, 64)
    address = uri.without(*_OURS)
    if uri.scheme.startswith("rtsp"):
        return partial(_open_rtsp, address, uri.shown, backend, threads)
    return partial(_open_http, address, uri.shown, threads, loop)


def rtsp_pipeline(address: str) -> str:
    """What GStreamer is given: RTSP over TCP, decoded by what the machine has, the newest frame kept."""
    quoted = address.replace("\\", "\\\\").replace('"', '\\"')
    microseconds = int(TIMEOUT_S * 1e6)
    return (
        f'rtspsrc location="{quoted}" protocols=tcp latency=100 tcp-timeout={microseconds} timeout={microseconds} ! '
        "decodebin ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def _open_rtsp(address: str, shown: str, backend: str, threads: int) -> Source:
    if not backend:
        backend = "ffmpeg" if has_backend("FFMPEG") else "gstreamer"
        if backend == "gstreamer" and not has_backend("GSTREAMER"):
            raise MissingDependencyError(
                f"{shown}: needs an OpenCV with FFmpeg or GStreamer: pip install opencv-python-headless has FFmpeg."
            )
    if backend == "gstreamer":
        return open_pipeline(rtsp_pipeline(address), shown, "bgr")
    return Camera(_connected(address, shown, threads), shown, partial(checked, format="bgr", name=shown))


def _open_http(address: str, shown: str, threads: int, loop: int) -> Source:
    """A camera, or a file where the server says how many frames there are."""
    capture = _connected(address, shown, threads)
    if capture.get(opencv().CAP_PROP_FRAME_COUNT) > 0:
        capture.release()
        return Video(partial(_connected, address, shown, threads), shown, loop)
    return Camera(capture, shown, partial(checked, format="bgr", name=shown))


def _connected(address: str, shown: str, threads: int) -> Any:
    """By FFmpeg, which takes RTSP over TCP where OPENCV_FFMPEG_CAPTURE_OPTIONS does not say otherwise."""
    require_backend("FFMPEG", shown)
    began = time.monotonic()
    capture = open_capture(address, "FFMPEG", {"N_THREADS": threads})
    if capture is None:
        waited = time.monotonic() - began
        reason = f"no answer within {waited:.0f} s" if waited > 0.9 * TIMEOUT_S else "it is not there, or refuses"
        raise CaptureError(f"{shown}: cannot be opened ({reason}). Check the address, user and password.")
    return capture
