"""The thin layer under a CUDA device: raw memory, streams, kernels, graphs.

pycuda_driver.py is the real one; the tests have one whose device memory is host memory. A driver is opened, used and
closed on one thread (worker.py). Addresses and streams are integers; a stream is a cudaStream_t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[np.uint8]  # one axis, contiguous
Dimensions: TypeAlias = tuple[int, int, int]
Launch: TypeAlias = Callable[
    [str, Dimensions, Dimensions, int, bytes], None
]  # kernel, grid, block, shared bytes, arguments

Module: TypeAlias = Callable[[str], int]  # from a kernel's name to what `launch` takes

LEGACY_STREAM = 1  # the default stream; ours do not wait for it by themselves
PER_THREAD_STREAM = 2  # means another stream on every thread, so nothing on our thread can wait for the caller's


class Gpu(NamedTuple):
    """What a GPU is. bandwidth: bytes a second of its memory, 0 where unknown. Versions are (major, minor)."""

    name: str
    ordinal: int
    capability: tuple[int, int]
    integrated: bool
    multiprocessors: int
    memory_bytes: int
    bandwidth: float
    driver_version: tuple[int, int]
    toolkit_version: tuple[int, int]


class HostBlock:
    """Page-locked host memory. array: all of it. device_address: where the GPU sees it; 0 unless it is mapped."""

    __slots__ = ("array", "device_address")

    def __init__(self, array: Bytes, device_address: int) -> None:
        self.array, self.device_address = array, device_address


class Driver(Protocol):
    """Calls raise DeviceError, DeviceMemoryError or DeviceLostError. All but allocations and waits only enqueue.

    dlpack_type: DLPack's number for this memory. no_graphs: why work cannot be captured, "" where it can.
    """

    gpu: Gpu
    dlpack_type: int
    no_graphs: str

    def allocate(self, nbytes: int) -> int:
        """The address of device memory, not cleared."""

    def free(self, address: int) -> None:
        """Give back what `allocate` gave."""

    def allocate_host(self, nbytes: int, mapped: bool) -> HostBlock:
        """Page-locked memory, which copies overlap with; mapped: kernels may read and write it as well."""

    def free_host(self, block: HostBlock) -> None:
        """Empties the block. Its memory goes with the last array that looks at it."""

    def stream(self) -> int:
        """A new stream, which does not wait for the default stream."""

    def copy_in(self, address: int, source: Bytes, stream: int) -> None:
        """From page-locked memory, which must stay as it is until the stream has come that far."""

    def copy_out(self, target: Bytes, address: int, stream: int) -> None:
        """To page-locked memory."""

    def copy_rows(self, target: int, source: int, row_bytes: int, source_pitch: int, rows: int, stream: int) -> None:
        """Within device memory: rows that lie `source_pitch` bytes apart, packed."""

    def fill_zero(self, address: int, nbytes: int, stream: int) -> None:
        """Clears device memory."""

    def load(self, image: bytes) -> Module:
        """A fatbin, cubin or PTX."""

    def launch(
        self, function: int, grid: Dimensions, block: Dimensions, shared_bytes: int, arguments: bytes, stream: int
    ) -> None:
        """Run a kernel that takes one struct by value."""

    def synchronize(self, stream: int) -> None:
        """Wait until the stream has done all it was given."""

    def follow(self, stream: int, other: int) -> None:
        """What `stream` is given from now on waits for what `other` holds now. One of the two may be a caller's."""

    def event(self, stream: int) -> Any:
        """A point in a stream, for elapsed_ms."""

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        """Milliseconds on the GPU between two points; waits for the second."""

    def begin_capture(self, stream: int) -> None:
        """From now on what the stream is given is noted down and not done; other threads may go on using CUDA."""

    def end_capture(self, stream: int) -> Any:
        """What was noted down, as a graph. Raises DeviceError where something could not be captured."""

    def replay(self, graph: Any, stream: int) -> None:
        """Do what a graph holds."""

    def free_graph(self, graph: Any) -> None:
        """Give a graph back."""

    def close(self) -> None:
        """Give everything back, also when the device is lost. Never raises."""
