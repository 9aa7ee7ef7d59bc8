"""The host: buffers are NumPy arrays, kernels are the C ones of this machine or, without a compiler, NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.kernels import table

_ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def open_device() -> HostDevice:
    """The host."""
    return HostDevice()


class HostDevice:
    """Buffers in main memory. GCPP_ISA chooses the kernels."""

    name = "cpu"
    runtime = "onnxruntime"

    def __init__(self) -> None:
        self.kernels = table()

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Zeros, C-contiguous, at the start of a cache line."""
        size = int(np.prod(shape)) * dtype.itemsize
        memory = np.zeros(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + size].view(dtype).reshape(shape)

    def upload(self, array: NDArray[Any], buffer: NDArray[Any]) -> None:
        """Copy into the buffer."""
        np.copyto(buffer, array, casting="no")

    def download(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """The buffer itself: it already lies on the host."""
        return buffer
