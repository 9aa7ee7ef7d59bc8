"""Where buffers live, and the kernels that work on them.

A device allocates buffers, moves arrays to and from them, and has a table of kernels for them. Buffers are indexed
and sliced along the batch like arrays. To add a device: a file here with an `open_device`, and its name in DEVICES.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError
from gcpp_edge.kernels import KernelTable


class Device(Protocol):
    """A place for buffers. `runtime` names the runtime that reads them (gcpp_edge.runtimes.RUNTIMES)."""

    name: str
    runtime: str
    kernels: KernelTable

    def allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        """A C-contiguous buffer of zeros."""

    def upload(self, array: NDArray[Any], buffer: Any) -> None:
        """Copy an array of the same shape and dtype into a buffer."""

    def download(self, buffer: Any) -> NDArray[Any]:
        """What a buffer holds, as a host array: valid until the buffer is written again."""


DEVICES = {"cpu": "gcpp_edge.device.host"}
AUTO = "auto"


def open_device(name: str = AUTO) -> Device:
    """The device of this name, or with "auto" the best of this machine. Raises InputError for an unknown name."""
    chosen = "cpu" if name == AUTO else name
    if chosen not in DEVICES:
        raise InputError(f"Unknown device {name!r}. Known: {', '.join((AUTO, *DEVICES))}.")
    opener: Callable[[], Device] = import_module(DEVICES[chosen]).open_device
    return opener()
