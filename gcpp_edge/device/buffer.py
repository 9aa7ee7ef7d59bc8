"""Buffers in a GPU's memory: shape, dtype, address, and views along leading axes; nothing is computed here.

Other libraries take them without a copy, through __cuda_array_interface__ (CuPy, Numba, PyTorch) or DLPack.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import index
from typing import Any, NamedTuple, NoReturn, Protocol

import numpy as np
from numpy.typing import DTypeLike

from gcpp_edge.device.dlpack import to_capsule
from gcpp_edge.device.driver import HostBlock
from gcpp_edge.errors import DeviceError


class Owner(Protocol):
    """Whose memory it is.

    dlpack_device: DLPack's device type and number. stream: where the owner works on it.
    """

    dlpack_device: tuple[int, int]
    stream: int

    @property
    def is_open(self) -> bool:
        """Until everything was given back."""

    def hand_over(self, stream: int | None) -> None:
        """Make what comes on a consumer's stream wait for the work on this memory; None: wait for it here."""


class Allocation:
    """Device memory, with a twin on the host once something was copied out. Views hold it; its device frees it."""

    __slots__ = ("address", "is_freed", "nbytes", "owner", "twin")

    def __init__(self, owner: Owner, address: int, nbytes: int) -> None:
        self.owner, self.address, self.nbytes = owner, address, nbytes
        self.twin: HostBlock | None = None
        self.is_freed = False


class Flags(NamedTuple):
    """As of a NumPy array."""

    c_contiguous: bool = True
    writeable: bool = True
    aligned: bool = True


class CudaBuffer:
    """An array in device memory, C-contiguous. `address` is where it begins."""

    __slots__ = ("__weakref__", "address", "allocation", "dtype", "shape")
    __hash__ = object.__hash__

    def __init__(self, allocation: Allocation, address: int, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self.allocation, self.address = allocation, address
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

    @property
    def ndim(self) -> int:
        """How many axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """How many elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.size * self.dtype.itemsize

    @property
    def strides(self) -> tuple[int, ...]:
        """Bytes from one element to the next along each axis."""
        return tuple(math.prod(self.shape[axis + 1 :]) * self.dtype.itemsize for axis in range(self.ndim))

    @property
    def flags(self) -> Flags:
        """What a kernel's checks ask: contiguous, writeable and aligned, always."""
        return Flags()

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a buffer without axes")
        return self.shape[0]

    def __getitem__(self, key: Any) -> CudaBuffer:
        """A view: numbers along leading axes, then one slice at most (any further slice must take all or one)."""
        address, shape, keys = self.address, list(self.shape), key if isinstance(key, tuple) else (key,)
        if len(keys) > self.ndim:
            raise IndexError(f"Too many indices: {len(keys)} for a buffer of shape {self.shape}.")
        kept: list[int] = []
        for one, length, stride in zip(keys, self.shape, self.strides, strict=False):
            first, count = _range(one, length, self.shape)
            if any(side != 1 for side in kept) and count != length:
                raise IndexError(f"[{key}] of a buffer of shape {self.shape} is not contiguous. Index axis by axis.")
            address += first * stride
            if isinstance(one, slice):
                kept.append(count)
        return CudaBuffer(self.allocation, address, (*kept, *shape[len(keys) :]), self.dtype)

    def __iter__(self) -> Iterator[CudaBuffer]:
        return (self[number] for number in range(len(self)))

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError(f"{self!r} lies on the GPU. Copy it to the host with device.download(buffer).")

    def __repr__(self) -> str:
        return f"CudaBuffer({self.dtype.name} {self.shape} at 0x{self.address:x})"

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3: `stream` is what a reader has to wait for."""
        self._require_memory()
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address if self.size else 0, False),
            "strides": None,
            "version": 3,
            "stream": self.allocation.owner.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's type and number of the device."""
        return self.allocation.owner.dlpack_device

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule of this memory, once the consumer's stream waits for it (-1: it will see to that itself)."""
        self._require_memory()
        if copy or dl_device not in (None, self.__dlpack_device__()):
            raise BufferError("A buffer is handed over as it lies: no copy, and to no other device.")
        if stream != -1:
            self.allocation.owner.hand_over(stream)
        return to_capsule(self.address, self.__dlpack_device__(), self.shape, self.dtype, self)

    def _require_memory(self) -> None:
        if self.allocation.is_freed or not self.allocation.owner.is_open:
            raise DeviceError(f"{self!r} was freed, with its device or by it. Copy what outlives an explainer.")


def _range(key: Any, length: int, shape: tuple[int, ...]) -> tuple[int, int]:
    """First index and how many."""
    if isinstance(key, slice):
        first, stop, step = key.indices(length)
        if step != 1:
            raise IndexError("A slice of a buffer takes steps of 1: its elements lie together.")
        return first, max(stop - first, 0)
    number = index(key)
    if not -length <= number < length:
        raise IndexError(f"Index {number} is out of range for a buffer of shape {shape}.")
    return number % length, 1
