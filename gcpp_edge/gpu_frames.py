"""Frames that lie on a GPU already: checked like those of the host, and never copied to it.

They have the CUDA array interface (PyTorch, CuPy, Numba, PyCUDA) or DLPack (these, TensorFlow, JAX).
Sources: numba.readthedocs.io/en/stable/cuda/cuda_array_interface.html, dmlc.github.io/dlpack/latest/python_spec.html
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.device.dlpack import CUDA, CUDA_MANAGED
from gcpp_edge.errors import FrameError
from gcpp_edge.frames import expected_frame, frame_fits


class GpuFrame(NamedTuple):
    """A frame as it was passed, with the shape and dtype of an array."""

    original: Any
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def is_on_gpu(frame: Any) -> bool:
    """Whether it is an array in a GPU's memory."""
    if isinstance(frame, np.ndarray):
        return False
    if hasattr(frame, "__cuda_array_interface__"):
        return True
    return hasattr(frame, "__dlpack_device__") and int(frame.__dlpack_device__()[0]) in (CUDA, CUDA_MANAGED)


def check_gpu_frame(frame: Any, format: str, where: str = "frame") -> GpuFrame:
    """The frame described. Raises FrameError for another dtype or shape than the format's."""
    interface = getattr(frame, "__cuda_array_interface__", None)
    if interface is not None:
        found = GpuFrame(frame, tuple(interface["shape"]), np.dtype(interface["typestr"]))
    else:  # libraries spell dtypes their own way: "torch.uint8"
        found = GpuFrame(frame, tuple(frame.shape), np.dtype(str(frame.dtype).rpartition(".")[2]))
    if not frame_fits(found.shape, found.dtype, format):
        raise FrameError(
            f"{where}: expected {expected_frame(format)}, found {found.dtype} {found.shape} on a GPU. "
            "Channels come last, pixels are 0 to 255."
        )
    return found
