"""Frames that lie on a GPU already: checked like those of the host, and never copied to it.

What counts is the CUDA array interface, which PyTorch, CuPy, Numba, PyCUDA and OpenCV's GpuMat wrappers have.
Source: numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.errors import FrameError
from gcpp_edge.frames import expected_frame, frame_fits


class GpuFrame(NamedTuple):
    """A frame as it was passed, with the shape and dtype of an array."""

    original: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def is_on_gpu(frame: Any) -> bool:
    """Whether it has the CUDA array interface."""
    return not isinstance(frame, np.ndarray) and hasattr(frame, "__cuda_array_interface__")


def check_gpu_frame(frame: Any, format: str, where: str = "frame") -> GpuFrame:
    """The frame described. Raises FrameError for another dtype or shape than the format's."""
    interface = frame.__cuda_array_interface__
    found = GpuFrame(frame, tuple(interface["shape"]), np.dtype(interface["typestr"]))
    if not frame_fits(found.shape, found.dtype, format):
        raise FrameError(
            f"{where}: expected {expected_frame(format)}, found {found.dtype} {found.shape} on a GPU. "
            "Channels come last, pixels are 0 to 255."
        )
    return found
