"""The host: buffers are NumPy arrays, kernels are the C ones of this machine or, without a compiler, NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.kernels import MAX_THREADS, table

T = TypeVar("T")
_ALIGNMENT = 64  # bytes: a cache line, and the widest vector


def open_device(stream: int | None = None, threads: int = 1) -> HostDevice:
    """The host, which has no streams."""
    return HostDevice(threads)


class HostDevice:
    """Buffers in main memory, work at once on the caller's thread, with helpers for large pictures up to `threads`.

    GCPP_ISA chooses the kernels. threads: 0 for as many as there are cores, up to 4.
    """

    name = memory = "cpu"
    stream = 0
    synchronous = True
    slots = 1

    def __init__(self, threads: int = 1) -> None:
        self.kernels = table(threads=min(threads, MAX_THREADS))

    def perform(self, work: Callable[[], T]) -> T:
        """At once."""
        return work()

    def slot(self, number: int) -> HostDevice:
        """There is one."""
        return self

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Zeros, C-contiguous, at the start of a cache line."""
        size = int(np.prod(shape)) * dtype.itemsize
        memory = np.zeros(size + _ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % _ALIGNMENT
        return memory[start : start + size].view(dtype).reshape(shape)

    def free(self, buffer: NDArray[Any]) -> None:
        """Nothing: memory goes with its last reference."""

    def upload(self, array: NDArray[Any], buffer: NDArray[Any]) -> None:
        """Copy into the buffer."""
        np.copyto(buffer, array, casting="no")

    def download(self, buffer: NDArray[Any]) -> NDArray[Any]:
        """The buffer itself: it already lies on the host."""
        return buffer

    def wait(self) -> None:
        """It is done."""

    def stage(self, name: Hashable, array: NDArray[Any]) -> NDArray[Any]:
        """The array: it already lies where the kernels find it."""
        return array

    def send(self, staged: NDArray[Any]) -> NDArray[Any]:
        """What was staged."""
        return staged

    def fetch(self, buffer: NDArray[Any]) -> None:
        """Nothing to copy."""

    def replay(self, key: Hashable | None, work: Callable[[], None]) -> None:
        """Does the work."""
        work()

    def close(self) -> None:
        """Nothing to give back."""
