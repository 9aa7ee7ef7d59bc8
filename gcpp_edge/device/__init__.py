"""Where buffers live, and the kernels that work on them.

A device allocates buffers, moves arrays to and from them, and has a table of kernels for them. Buffers are indexed
and sliced along the batch like arrays. To add a device: a file here with an `open_device`, and its name in DEVICES.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from importlib import import_module
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError
from gcpp_edge.kernels import KernelTable

T = TypeVar("T")
# C-contiguous, with shape, dtype, ndim, nbytes and views along leading axes: a NumPy array or a CudaBuffer.
Buffer: TypeAlias = Any
Staged: TypeAlias = Any  # what `stage` gives and `send` takes


class Device(Protocol):
    """A place for buffers.

    All of it but `perform` and `close` is called on the device's thread, so within `perform`. A frame goes
    `stage` (and `upload`), `replay` of work that holds `send`, kernels, a runtime and `fetch`, then `download`.
    What one slot does is done in that order; slots do not wait for each other.

    synchronous: work is done when the call returns. slots: how many frames can be under way at once. memory: "cpu" or
    "cuda", where buffers lie, in ONNX Runtime's words. stream: the handle of the CUDA stream that work is done on.
    """

    name: str
    memory: str
    stream: int
    kernels: KernelTable
    synchronous: bool
    slots: int

    def perform(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, on the device's thread."""

    def slot(self, number: int) -> Device:
        """The device again, with a stream, staging memory and recordings of its own. The first is this device."""

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """A C-contiguous buffer of zeros."""

    def free(self, buffer: Buffer) -> None:
        """Give back what `allocate` gave; recordings that may use it are forgotten."""

    def upload(self, array: NDArray[Any], buffer: Buffer) -> None:
        """Copy an array of the same shape and dtype into a buffer, at once and outside of recorded work."""

    def download(self, buffer: Buffer) -> NDArray[Any]:
        """What a buffer holds, as a host array: waits; valid until the next replay, or until the buffer is written."""

    def wait(self) -> None:
        """Until all that this slot was given is done."""

    def stage(self, name: Hashable, array: Any) -> Staged:
        """A frame (rows may lie apart) where `send` finds it; outside of the work. One frame a name."""

    def send(self, staged: Staged) -> Buffer:
        """The frame as a buffer, C-contiguous on a GPU; inside the work."""

    def fetch(self, buffer: Buffer) -> None:
        """Start to copy a buffer to the host, for `download`; inside the work."""

    def replay(self, key: Hashable | None, work: Callable[[], None]) -> None:
        """Do the work, or what was recorded when work of this key was done before.

        Equal keys promise equal work: the same calls on the same buffers with the same numbers. None: never record.
        """

    def close(self) -> None:
        """Give everything back. More than once does no harm."""


DEVICES = {"cpu": "gcpp_edge.device.host", "cuda": "gcpp_edge.device.cuda"}


def open_device(name: str, stream: int | None = None, threads: int = 1) -> Device:
    """The device of this name.

    stream: of a GPU, the handle of the caller's stream: what the device does comes after what that stream holds, and
    that stream waits for it. threads: of the host, how many may work on one large picture; 0 leaves the number to it.
    Raises InputError for an unknown name, MissingDependencyError, DeviceError.
    """
    if name not in DEVICES:
        raise InputError(f"Unknown device {name!r}. Known: {', '.join(DEVICES)}.")
    opener: Callable[[int | None, int], Device] = import_module(DEVICES[name]).open_device
    return opener(stream, threads)
