"""Frames as callers have them: checks, and a picture to draw on.

A frame is an array as a camera or OpenCV gives it, named by its format:

    bgr, rgb     (H, W, 3) uint8        gray     (H, W) uint8
    bgra, rgba   (H, W, 4) uint8        gray16   (H, W) uint16
                                        nv12     (H * 3 / 2, W) uint8, both sides of the picture even
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import FrameInput
from gcpp_edge.errors import FrameError, ShapeError
from gcpp_edge.geometry import stretch_axis
from gcpp_edge.kernels import KernelTable
from gcpp_edge.kernels.reference import frame_size
from gcpp_edge.reuse import matches

__all__ = [
    "FORMATS",
    "check_frame",
    "expected_frame",
    "frame_fits",
    "frame_shape",
    "frame_size",
    "has_colors",
    "list_frames",
    "picture_of",
    "require_taken",
]

Frame = NDArray[Any]

_SHAPES = {"bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4, "gray": None, "gray16": None, "nv12": None}
FORMATS = tuple(_SHAPES)
_KEEP, _ZERO = np.ones(3, np.float32), np.zeros(3, np.float32)


def list_frames(frames: Any, format: str) -> tuple[list[Any], bool]:
    """The frames of a call, and whether they came as a batch: a list or a tuple."""
    if format not in _SHAPES:
        raise FrameError(f"Unknown frame format {format!r}. Known: {', '.join(FORMATS)}.")
    if isinstance(frames, (list, tuple)):
        return list(frames), True
    return [frames], False


def check_frame(frame: Any, format: str, where: str = "frame") -> Frame:
    """The frame as the kernels take it: without a copy, unless the pixels of a row lie apart.

    Raises FrameError for another type, dtype or shape than the format's, and for an empty frame.
    """
    expected = expected_frame(format)
    if not isinstance(frame, np.ndarray) and hasattr(frame, "__cuda_array_interface__"):
        raise FrameError(
            f"{where}: it lies on a GPU, where this explainer does not run and pictures are not drawn afterwards. Load "
            "the model with device='cuda' or 'tensorrt', ask for pictures in the call (make=), or pass a NumPy array."
        )
    if not isinstance(frame, np.ndarray):
        raise FrameError(f"{where}: expected {expected}, found {type(frame).__name__}. Pass numpy.asarray(...) of it.")
    dtype = np.dtype(np.uint16 if format == "gray16" else np.uint8)
    if frame.dtype.newbyteorder("=") != dtype:
        raise FrameError(f"{where}: expected {expected}, found {_found(frame)}. {_dtype_advice(frame, format)}")
    channels = _SHAPES[format]
    if channels is None and frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[:, :, 0]
    if frame.ndim != (2 if channels is None else 3) or (channels is not None and frame.shape[2] != channels):
        raise FrameError(f"{where}: expected {expected}, found {_found(frame)}. {_shape_advice(frame)}")
    if frame.size == 0:
        raise FrameError(f"{where}: expected {expected}, found an empty one, {frame.shape}. Did the camera deliver?")
    if format == "nv12" and (frame.shape[0] % 3 or frame.shape[1] % 2):
        raise FrameError(f"{where}: expected {expected}, found {_found(frame)}.")
    return frame if _has_whole_rows(frame) else np.ascontiguousarray(frame, dtype)


def frame_shape(frame: FrameInput) -> tuple[int, ...]:
    """(H, W, C) of the frames that a file takes, (H, W) of grey ones."""
    channels = _SHAPES[frame.format]
    return (frame.height, frame.width) if channels is None else (frame.height, frame.width, channels)


def require_taken(frame: Frame, format: str, taken: FrameInput, where: str = "frame") -> None:
    """Raises FrameError for a frame that a file with frames for its input does not take."""
    if format != taken.format or frame.shape != frame_shape(taken):
        raise FrameError(
            f"{where}: this file takes {taken.format} frames of {taken.height} x {taken.width} (height x width) alone, "
            f"found {format} {frame.shape}. Convert it, or export without --frame-input, which takes any."
        )


def has_colors(format: str) -> bool:
    """Whether frames of this format are pictures with channels, as overlays are drawn on."""
    return _SHAPES[format] is not None


def picture_of(
    frame: Frame,
    format: str,
    kernels: KernelTable,
    out: NDArray[np.uint8] | None = None,
    planes: NDArray[np.float32] | None = None,
) -> Frame:
    """The frame as a colour picture: itself for the colour formats, else (H, W, 3) uint8 BGR made from it.

    out: where to make it. planes: (3, H, W) float32, room to work in. Raises ShapeError.
    """
    if has_colors(format):
        return frame
    height, width = frame_size(frame, format)
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    elif not matches(out, (height, width, 3), np.uint8):
        raise ShapeError(f"out: expected uint8 {(height, width, 3)}, found {out.dtype} {out.shape}.")
    if planes is None:
        planes = np.empty((3, height, width), np.float32)
    rows, columns = stretch_axis(height, height), stretch_axis(width, width)
    kernels.preprocess(frame, format, rows, columns, "bgr", _KEEP, _ZERO, _ZERO, planes)
    np.rint(planes, out=planes)
    np.copyto(np.moveaxis(out, 2, 0), planes, casting="unsafe")
    return out


def frame_fits(shape: tuple[int, ...], dtype: np.dtype[Any], format: str) -> bool:
    """Whether an array of this shape and dtype, and not empty, is a frame of the format."""
    channels = _SHAPES[format]
    if dtype != np.dtype(np.uint16 if format == "gray16" else np.uint8) or 0 in shape:
        return False
    if len(shape) != (2 if channels is None else 3) or (channels is not None and shape[2] != channels):
        return False
    return format != "nv12" or not (shape[0] % 3 or shape[1] % 2)


def expected_frame(format: str) -> str:
    """A frame of this format in words."""
    if format == "nv12":
        return "an nv12 frame, uint8 (height * 3 / 2, width) with even height and width"
    channels = _SHAPES[format]
    shape = "(height, width)" if channels is None else f"(height, width, {channels})"
    return f"a {format} frame, {'uint16' if format == 'gray16' else 'uint8'} {shape}"


def _found(frame: Frame) -> str:
    return f"{frame.dtype} {frame.shape}"


def _dtype_advice(frame: Frame, format: str) -> str:
    if frame.dtype == np.uint16:
        return "16-bit grey is format='gray16'."
    if format == "gray16":
        return "8-bit grey is format='gray'."
    if frame.dtype.kind == "f" and np.isnan(frame).any():
        return "It holds NaN. Pass the camera's uint8 pixels: the network's own normalisation is in the model."
    return "Pass pixels of 0 to 255 as uint8: the network's own normalisation is in the model."


def _shape_advice(frame: Frame) -> str:
    by_channels = {3: "'bgr' or 'rgb'", 4: "'bgra' or 'rgba'"}
    if frame.ndim == 2:
        return "Two axes are format='gray', 'gray16' or 'nv12'."
    if frame.ndim == 3 and frame.shape[2] in by_channels:
        return f"{frame.shape[2]} channels are format={by_channels[frame.shape[2]]}."
    return "Several frames are passed as a list: list(frames)."


def _has_whole_rows(frame: Frame) -> bool:
    """Whether the pixels of each row stand together, and aligned; rows may lie apart, as in a cut-out."""
    return bool(frame[0].flags.c_contiguous and frame.flags.aligned and frame.dtype.isnative)
