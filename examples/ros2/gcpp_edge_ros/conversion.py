"""sensor_msgs/Image to frames and back, without cv_bridge and without ROS: any object with the message's fields does.

Encodings are those of sensor_msgs/image_encodings.hpp.
"""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import FrameError

Pixels = NDArray[Any]


class Encoding(NamedTuple):
    """How an image's bytes lie, and the frame format that this is. element_bytes: of one value of one channel."""

    format: str
    channels: int
    element_bytes: int = 1


ENCODINGS = {
    "bgr8": Encoding("bgr", 3),
    "rgb8": Encoding("rgb", 3),
    "bgra8": Encoding("bgra", 4),
    "rgba8": Encoding("rgba", 4),
    "mono8": Encoding("gray", 1),
    "mono16": Encoding("gray16", 1, 2),
    "nv12": Encoding("nv12", 1),
}
_ENCODING_OF = {found.format: name for name, found in ENCODINGS.items() if found.channels > 1}


def frame_of(image: Any) -> tuple[Pixels, str]:
    """The image's pixels, a view of its data, and their frame format.

    Rows may be longer than their pixels (step); 16-bit values come in the byte order that the message says. NV12 has
    half as many rows again: brightness, then colour. Raises FrameError, one line.
    """
    encoding = ENCODINGS.get(image.encoding)
    if encoding is None:
        raise FrameError(
            f"image: encoding {image.encoding!r} is not taken; expected one of {', '.join(ENCODINGS)}. "
            "Choose another in the camera's driver, or convert it before (image_proc)."
        )
    height, width, step = image.height, image.width, image.step
    row_bytes = width * encoding.channels * encoding.element_bytes
    if height < 1 or width < 1:
        raise FrameError(f"image: expected at least 1 x 1 pixel, found {height} x {width} (height x width).")
    if encoding.format == "nv12":
        if height % 2 or width % 2:
            raise FrameError(f"image: nv12 has even sides, found {height} x {width} (height x width).")
        height = height * 3 // 2
    if step < row_bytes:
        raise FrameError(f"image: {width} pixels of {image.encoding} take {row_bytes} bytes a row, found step {step}.")
    if len(image.data) < height * step:
        raise FrameError(f"image: expected {height} rows of {step} bytes ({height * step}), found {len(image.data)}.")
    dtype = np.dtype(np.uint8) if encoding.element_bytes == 1 else np.dtype(">u2" if image.is_bigendian else "<u2")
    shape, strides = (height, width), (step, dtype.itemsize)
    if encoding.channels > 1:
        shape, strides = (*shape, encoding.channels), (step, encoding.channels, 1)
    return np.ndarray(shape, dtype, image.data, strides=strides), encoding.format


def fill_image(message: Any, header: Any, pixels: Pixels, encoding: str) -> Any:
    """The message, filled with pixels of 8 bits and with the header of the image that they were made of."""
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding, message.is_bigendian = encoding, 0
    message.step = pixels[0].nbytes
    message.data = array("B")  # the type that is taken as it is: any other sequence is checked number by number
    message.data.frombytes(np.ascontiguousarray(pixels).data.cast("B"))
    return message


def encoding_of(format: str) -> str:
    """The encoding of an overlay on frames of this format: grey and NV12 ones become BGR."""
    return _ENCODING_OF.get(format, "bgr8")


def seconds_of(stamp: Any) -> float:
    """For clocks alone: a float has no room for the nanoseconds of today, so messages get the stamp itself."""
    return float(stamp.sec) + 1e-9 * float(stamp.nanosec)
