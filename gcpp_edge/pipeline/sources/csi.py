"""Cameras on a Jetson's CSI ports: `csi://0`, through NVIDIA's nvarguscamerasrc.

Options: width, height and fps of a mode of the sensor, flip, format=nv12 (as it comes) or bgr.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.sources.gst import open_pipeline
from gcpp_edge.pipeline.uris import Uri

# names of jetson-inference, in the order of nvvidconv's flip-method
FLIPS = (
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal",
    "upper-right-diagonal",
    "vertical",
    "upper-left-diagonal",
)
_TO_FORMAT = {
    "nv12": "video/x-raw,format=NV12",
    "bgr": "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR",
}


def opener(uri: Uri, loop: int) -> Any:
    """What opens the camera."""
    uri.require_options(("width", "height", "fps", "flip", "format"))
    if not uri.place.isdigit():
        raise InputError(f"{uri.shown}: expected the number of a sensor, as in csi://0.")
    format = uri.choice("format", "nv12", _TO_FORMAT)
    return partial(open_pipeline, pipeline_of(uri, format), uri.shown, format)


def pipeline_of(uri: Uri, format: str) -> str:
    """What GStreamer is given. The newest frame is kept, others are dropped before they are copied."""
    width, height = uri.whole_number("width", 1280, 1, 16384), uri.whole_number("height", 720, 1, 16384)
    fps = uri.whole_number("fps", 30, 1, 1000)
    flip = FLIPS.index(uri.choice("flip", "none", FLIPS))
    return (
        f"nvarguscamerasrc sensor-id={uri.place} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 ! "
        f"nvvidconv flip-method={flip} ! {_TO_FORMAT[format]} ! appsink drop=true max-buffers=1 sync=false"
    )
