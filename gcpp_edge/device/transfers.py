"""What goes to a GPU and comes back on one stream: frames through slots, small inputs, and results through twins.

A slot holds a frame on its way in: page-locked memory and device memory, or on an integrated GPU one piece of mapped
memory. A twin is page-locked memory as large as an allocation, where its results arrive. All of it is kept for the next
frame, so that a frame allocates nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.device.buffer import Allocation, CudaBuffer, Owner
from gcpp_edge.device.driver import Bytes, Driver, HostBlock
from gcpp_edge.device.foreign import GpuArray, gpu_array

_ALIGNMENT = 256  # bytes: as cuMemAlloc aligns, so that views in the ring suit every kernel
_RING_BYTES = 1 << 16
_SCRATCH_BYTES = 1 << 16

COPIED, MAPPED, RESIDENT = "copied", "mapped", "resident"  # how a frame gets from `stage` to `send`


class StagedFrame(NamedTuple):
    """A frame in its slot. source: what `send` has to copy, or None."""

    buffer: CudaBuffer
    source: Bytes | None
    route: str


class _Slot:
    """Memory for a frame of up to `capacity` bytes."""

    def __init__(self) -> None:
        self.capacity = 0
        self.block: HostBlock | None = None
        self.memory: Allocation | None = None


class Transfers:
    """The traffic of one stream. on_move: called before memory that recordings know is given back."""

    def __init__(self, driver: Driver, owner: Owner, on_move: Callable[[], None]) -> None:
        self._driver, self._owner, self._on_move = driver, owner, on_move
        self.stream = owner.stream
        self._slots: dict[Hashable, _Slot] = {}
        self._staged: dict[Hashable, tuple[Any, ...]] = {}
        self._signature: tuple[Any, ...] | None = ()
        self._ring: HostBlock | None = None
        self._ring_used = 0
        self._scratch: list[Allocation] = []  # the last is the largest
        self._holders: list[Any] = []  # of frames on the GPU, until they are copied
        self.fetched: list[CudaBuffer] = []
        self.is_busy = False  # the stream was given work that nobody has waited for

    @property
    def signature(self) -> tuple[Any, ...]:
        """How every frame was staged: what a recording depends on besides its key."""
        if self._signature is None:
            self._signature = tuple(self._staged.items())
        return self._signature

    def wait(self) -> None:
        """Until everything on the stream is done."""
        if self.is_busy:
            self._driver.synchronize(self.stream)
            self.is_busy = False
            self._ring_used = 0
            self._holders.clear()

    def begin(self) -> None:
        """Work comes: what was fetched before is no longer what buffers hold."""
        self.fetched = []
        self.is_busy = True

    def allocate(self, nbytes: int) -> Allocation:
        """Zeros."""
        allocation = Allocation(self._owner, self._driver.allocate(nbytes), nbytes)
        if nbytes:
            self._driver.fill_zero(allocation.address, nbytes, self.stream)
            self.is_busy = True
        return allocation

    def free(self, allocation: Allocation) -> None:
        """Its twin too, once the stream is done with both."""
        if allocation.is_freed:
            return
        self._on_move()
        self.wait()
        allocation.is_freed = True
        self._driver.free(allocation.address)
        if allocation.twin is not None:
            self._driver.free_host(allocation.twin)
            allocation.twin = None

    def scratch(self, nbytes: int) -> int:
        """The address of so much memory for kernels to leave things in from one launch to the next of a call.

        It grows, and what it was before stays: recordings come back to it.
        """
        if not self._scratch or self._scratch[-1].nbytes < nbytes:
            size = max(nbytes, _SCRATCH_BYTES)
            self._scratch.append(Allocation(self._owner, self._driver.allocate(size), size))
        return self._scratch[-1].address

    def stage(self, name: Hashable, frame: Any) -> StagedFrame:
        """The frame, in the slot of this name; waits where the last frame may still be on its way."""
        found = gpu_array(frame, self.stream, self._owner.dlpack_device[1])
        slot = self._slots.setdefault(name, _Slot())
        if found is not None:
            staged = self._stage_resident(slot, found)
        else:
            self.wait()
            staged = self._stage_host(slot, np.asarray(frame))
        entry = (staged.route, staged.buffer.address, staged.buffer.shape, staged.buffer.dtype.str)
        if self._staged.get(name) != entry:
            self._staged[name] = entry
            self._signature = None
        return staged

    def send(self, staged: StagedFrame) -> CudaBuffer:
        """Enqueues the copy in, where there is one."""
        if staged.source is not None:
            self._driver.copy_in(staged.buffer.address, staged.source, self.stream)
            self.is_busy = True
        return staged.buffer

    def upload(self, array: NDArray[Any], buffer: CudaBuffer) -> None:
        """Through the ring: copied at once on the host, then in its turn to the device."""
        if array.shape != buffer.shape or array.dtype != buffer.dtype:
            raise ValueError(f"{buffer!r} cannot take {array.dtype.name} {array.shape}.")
        if array.nbytes == 0:
            return
        source = self._ring_space(array.nbytes)
        np.copyto(source.view(array.dtype).reshape(array.shape), array)
        self._driver.copy_in(buffer.address, source, self.stream)
        self.is_busy = True
        self.fetched = []

    def fetch(self, buffer: CudaBuffer) -> None:
        """Enqueues the copy out."""
        if buffer.nbytes:
            self._driver.copy_out(self._twin_of(buffer), buffer.address, self.stream)
            self.is_busy = True
        self.fetched.append(buffer)

    def download(self, buffer: CudaBuffer) -> NDArray[Any]:
        """What was fetched, or else is fetched now; a view of the twin."""
        if not self._is_fetched(buffer):
            self.fetch(buffer)
        self.wait()
        if not buffer.nbytes:
            return np.empty(buffer.shape, buffer.dtype)
        found: NDArray[Any] = self._twin_of(buffer).view(buffer.dtype).reshape(buffer.shape)
        return found

    def results(self) -> list[NDArray[Any]]:
        """Copies of all that was fetched since the frame began."""
        return [self.download(buffer).copy() for buffer in self.fetched]

    def _is_fetched(self, buffer: CudaBuffer) -> bool:
        end = buffer.address + buffer.nbytes
        return any(one.address <= buffer.address and end <= one.address + one.nbytes for one in self.fetched)

    def _twin_of(self, buffer: CudaBuffer) -> Bytes:
        allocation = buffer.allocation
        if allocation.twin is None:
            allocation.twin = self._driver.allocate_host(allocation.nbytes, mapped=False)
        start = buffer.address - allocation.address
        return allocation.twin.array[start : start + buffer.nbytes]

    def _stage_host(self, slot: _Slot, frame: NDArray[Any]) -> StagedFrame:
        is_integrated = self._driver.gpu.integrated
        self._reserve(slot, frame.nbytes, host=True, device=not is_integrated)
        assert slot.block is not None
        source = slot.block.array[: frame.nbytes]
        np.copyto(source.view(frame.dtype).reshape(frame.shape), frame)
        if is_integrated:
            mapped = Allocation(self._owner, slot.block.device_address, frame.nbytes)
            return StagedFrame(CudaBuffer(mapped, mapped.address, frame.shape, frame.dtype), None, MAPPED)
        return StagedFrame(self._slot_buffer(slot, frame.shape, frame.dtype), source, COPIED)

    def _stage_resident(self, slot: _Slot, frame: GpuArray) -> StagedFrame:
        """Copied now, within the device: a recording must not hold the address of a frame that is gone tomorrow."""
        nbytes = math.prod(frame.shape) * frame.dtype.itemsize
        self._reserve(slot, nbytes, host=False, device=True)
        buffer = self._slot_buffer(slot, frame.shape, frame.dtype)
        if frame.stream is not None:
            self._driver.follow(self.stream, frame.stream)
        if nbytes:
            rows = frame.shape[0] if frame.shape else 1
            row_bytes = nbytes // rows
            self._driver.copy_rows(buffer.address, frame.address, row_bytes, frame.pitch, rows, self.stream)
            self.is_busy = True
        if frame.stream is not None:
            self._driver.follow(frame.stream, self.stream)  # before it is written again
        self._holders.append(frame.holder)
        return StagedFrame(buffer, None, RESIDENT)

    def _slot_buffer(self, slot: _Slot, shape: tuple[int, ...], dtype: np.dtype[Any]) -> CudaBuffer:
        assert slot.memory is not None
        return CudaBuffer(slot.memory, slot.memory.address, shape, dtype)

    def _reserve(self, slot: _Slot, nbytes: int, *, host: bool, device: bool) -> None:
        """At least so much of the kinds that are needed."""
        if nbytes > slot.capacity:
            if slot.capacity:
                self._empty(slot)
            slot.capacity = nbytes
        if host and slot.block is None:
            slot.block = self._driver.allocate_host(slot.capacity, mapped=self._driver.gpu.integrated)
        if device and slot.memory is None:
            slot.memory = Allocation(self._owner, self._driver.allocate(slot.capacity), slot.capacity)

    def _empty(self, slot: _Slot) -> None:
        self._on_move()
        self.wait()
        block, slot.block = slot.block, None
        memory, slot.memory = slot.memory, None
        slot.capacity = 0
        if block is not None:
            self._driver.free_host(block)
        if memory is not None:
            self.free(memory)

    def _ring_space(self, nbytes: int) -> Bytes:
        """Page-locked memory that no copy is reading."""
        aligned = -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        if self._ring is None or aligned > len(self._ring.array):
            self.wait()
            old, self._ring = self._ring, None
            if old is not None:
                self._driver.free_host(old)
            self._ring = self._driver.allocate_host(max(_RING_BYTES, 2 * aligned), mapped=False)
            self._ring_used = 0
        if self._ring_used + aligned > len(self._ring.array):
            self.wait()
        start, self._ring_used = self._ring_used, self._ring_used + aligned
        return self._ring.array[start : start + nbytes]
