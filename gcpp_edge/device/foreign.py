"""Frames that already lie on a GPU: arrays of CuPy, PyTorch, Numba and others, by the two protocols that they share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.device.dlpack import CUDA, CUDA_MANAGED, from_capsule
from gcpp_edge.device.driver import LEGACY_STREAM
from gcpp_edge.errors import FrameError

STREAMS_SINCE = 3  # version of the CUDA array interface


class GpuArray(NamedTuple):
    """An array in a GPU's memory whose rows are packed. stream: what wrote it; None where nothing has to be waited for.

    pitch: bytes from row to row. holder: what keeps the memory.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    pitch: int
    stream: int | None
    holder: Any


def gpu_array(frame: Any, stream: int, ordinal: int) -> GpuArray | None:
    """The frame on the GPU, or None for one on the host. A producer by DLPack makes `stream` wait.

    Raises FrameError for elements that lie apart within a row, and for another GPU's memory.
    """
    if isinstance(frame, np.ndarray):
        return None
    if hasattr(frame, "__cuda_array_interface__"):
        return _by_interface(frame)
    if hasattr(frame, "__dlpack_device__"):
        kind, number = frame.__dlpack_device__()
        if int(kind) in (CUDA, CUDA_MANAGED):
            return _by_dlpack(frame, stream, number, ordinal)
    return None


def _by_interface(frame: Any) -> GpuArray:
    found = frame.__cuda_array_interface__
    if found.get("mask") is not None:
        raise FrameError("A frame with a mask cannot be taken.")
    shape, dtype = tuple(found["shape"]), np.dtype(found["typestr"])
    strides = found.get("strides") or _packed(shape, dtype.itemsize)
    pitch = _pitch(shape, tuple(strides), dtype)
    # Before version 3, and so in PyTorch, no stream is named: it was written on the default one most likely.
    stream = found.get("stream") if found.get("version", 0) >= STREAMS_SINCE else LEGACY_STREAM
    return GpuArray(int(found["data"][0]), shape, dtype, pitch, stream, frame)


def _by_dlpack(frame: Any, stream: int, number: int, ordinal: int) -> GpuArray:
    if number != ordinal:
        raise FrameError(f"The frame lies on GPU {number}, the network on GPU {ordinal}. Copy it there or to the host.")
    capsule = frame.__dlpack__(stream=stream)
    found = from_capsule(capsule)
    pitch = _pitch(found.shape, found.strides, found.dtype)
    return GpuArray(found.address, found.shape, found.dtype, pitch, None, capsule)


def _packed(shape: tuple[int, ...], item: int) -> tuple[int, ...]:
    return tuple(math.prod(shape[axis + 1 :]) * item for axis in range(len(shape)))


def _pitch(shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    packed = _packed(shape, dtype.itemsize)
    if math.prod(shape) == 0 or len(shape) == 0:
        return packed[0] if packed else dtype.itemsize
    apart = [axis for axis in range(1, len(shape)) if shape[axis] > 1 and strides[axis] != packed[axis]]
    pitch = strides[0] if shape[0] > 1 else packed[0]
    if apart or pitch < packed[0]:
        raise FrameError(
            f"The rows of a frame on the GPU must be packed and in order; found strides {strides} for shape {shape} "
            f"and {dtype.name}. Make it contiguous."
        )
    return pitch
