"""An NVIDIA GPU: buffers in its memory, CUDA kernels, and frames that are recorded as graphs.

Everything runs on one worker thread (worker.py), which `perform` hands work to. Each slot is a device of its own on the
same thread: a stream, staging memory and recordings. Two slots overlap when the caller begins a frame in one before it
downloads that of the other; a slot's own calls are done in their order, so nothing else has to be waited for.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gcpp_edge.device.buffer import CudaBuffer
from gcpp_edge.device.driver import Dimensions, Driver, Gpu, Launch
from gcpp_edge.device.recordings import Recordings
from gcpp_edge.device.transfers import StagedFrame, Transfers
from gcpp_edge.device.worker import Worker
from gcpp_edge.errors import DeviceError, DeviceLostError
from gcpp_edge.kernels import KernelTable
from gcpp_edge.kernels.interface import Implementation

T = TypeVar("T")

Scratch: TypeAlias = Callable[[int], int]  # the address of so many bytes of device memory, which stay until it closes
MakeKernels: TypeAlias = Callable[[Launch, Scratch], Implementation]  # one a slot: a stream's kernels share its scratch

SLOTS = 2

_log = logging.getLogger(__name__)


def open_device(stream: int | None = None, threads: int = 1) -> CudaDevice:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves.

    stream: the handle of a caller's stream. What the device does then comes after what that stream holds, and that
    stream waits for it: for callers that write frames there, or read buffers. threads: of the host, which has no part
    in this. Raises DeviceError, DeviceMemoryError, MissingDependencyError.
    """
    from gcpp_edge.device.pycuda_driver import open_pycuda_driver
    from gcpp_edge.kernels.cuda_image import image
    from gcpp_edge.kernels.cuda_table import CudaKernels

    return open_on(open_pycuda_driver, image, CudaKernels, stream)


def open_on(
    open_driver: Callable[[], Driver],
    image: Callable[[tuple[int, int]], bytes],
    kernels: MakeKernels,
    stream: int | None = None,
) -> CudaDevice:
    """A device on any driver. image: the kernels' code for a capability. kernels: makes the functions of a slot."""
    worker = Worker(open_driver)
    try:
        shared = worker.perform(lambda: _Shared(worker, image, kernels, stream))
        shared.slots.append(worker.perform(lambda: CudaDevice(shared)))
    except BaseException:
        worker.close()
        raise
    if worker.driver.no_graphs:
        _log.warning("Frames are not recorded as CUDA graphs: %s", worker.driver.no_graphs)
    return shared.slots[0]


class _Shared:
    """What the slots of a device have together."""

    def __init__(
        self,
        worker: Worker[Driver],
        image: Callable[[tuple[int, int]], bytes],
        kernels: MakeKernels,
        caller_stream: int | None,
    ) -> None:
        self.worker, self.driver, self.kernels, self.caller_stream = worker, worker.driver, kernels, caller_stream
        self.slots: list[CudaDevice] = []
        self._find = self.driver.load(image(self.driver.gpu.capability))
        self._functions: dict[str, int] = {}

    def function(self, name: str) -> int:
        """A kernel, looked up once."""
        if name not in self._functions:
            self._functions[name] = self._find(name)
        return self._functions[name]


class CudaDevice:
    """A slot of a GPU; see the Device protocol. Made by open_device, the others by `slot`."""

    name = "cuda"
    memory = "cuda"
    synchronous = False
    slots = SLOTS

    def __init__(self, shared: _Shared) -> None:
        driver = shared.driver
        self._shared, self._driver = shared, driver
        self.stream = driver.stream()
        self.dlpack_device = (driver.dlpack_type, driver.gpu.ordinal)
        self._transfers = Transfers(driver, self, self._forget)
        self._recordings = Recordings(driver, self._transfers)
        self._is_working = False
        self.kernels = KernelTable("cuda", shared.kernels(self._launch, self._transfers.scratch))

    @property
    def is_open(self) -> bool:
        """Until it is closed."""
        return not self._shared.worker.is_closed

    @property
    def gpu(self) -> Gpu:
        """What it is."""
        return self._driver.gpu

    def perform(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises, on the worker thread. Raises DeviceError once the device is closed."""
        return self._shared.worker.perform(work)

    def slot(self, number: int) -> CudaDevice:
        """One of two, with a stream of its own. Buffers and networks belong to the slot that they are used on."""
        slots = self._shared.slots
        while len(slots) <= number:
            self.perform(lambda: slots.append(CudaDevice(self._shared)))
        return slots[number]

    def allocate(self, shape: tuple[int, ...], dtype: DTypeLike) -> CudaBuffer:
        """Zeros. Raises DeviceMemoryError."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        allocation = self._transfers.allocate(nbytes)
        return CudaBuffer(allocation, allocation.address, shape, dtype)

    def free(self, buffer: CudaBuffer) -> None:
        """What `allocate` gave, and every view of it; recordings are forgotten. More than once does no harm."""
        try:
            self._transfers.free(buffer.allocation)
        except DeviceLostError as error:  # what could not be given back goes when the device is closed
            _log.debug("while freeing a buffer: %s", error)

    def upload(self, array: NDArray[Any], buffer: CudaBuffer) -> None:
        """The array may be changed at once. Not within work that is recorded: it would be its values for good."""
        if self._is_working:
            raise DeviceError("upload within replayed work: stage what changes from frame to frame, or upload before.")
        self._transfers.upload(array, buffer)

    def download(self, buffer: CudaBuffer) -> NDArray[Any]:
        """A view of the buffer's twin in page-locked memory; copy what must outlive the next frame or the device."""
        return self._transfers.download(buffer)

    def wait(self) -> None:
        """Until the slot's stream is empty. Raises DeviceLostError."""
        self._transfers.wait()

    def stage(self, name: Hashable, array: Any) -> StagedFrame:
        """A host array, or one on this GPU by __cuda_array_interface__ or DLPack, which never sees the host.

        One on the GPU is copied in its turn: after the stream that it names. It must stay as it is until that stream
        comes to it again, or with DLPack until the frame's results are there. Raises FrameError.
        """
        caller = self._shared.caller_stream
        if caller is not None and not isinstance(array, np.ndarray):  # one on the GPU is copied now, not in `replay`
            self._driver.follow(self.stream, caller)
        return self._transfers.stage(name, array)

    def send(self, staged: StagedFrame) -> CudaBuffer:
        """The frame's buffer, once the copy is enqueued; on an integrated GPU the kernels read the slot itself."""
        return self._transfers.send(staged)

    def fetch(self, buffer: CudaBuffer) -> None:
        """Enqueue the copy out."""
        self._transfers.fetch(buffer)

    def replay(self, key: Hashable | None, work: Callable[[], None]) -> None:
        """The first time the work is done as it is, the second time recorded too and checked, then replayed.

        That second time it is called twice, or three times. Work that cannot be recorded, and a recording whose results
        differ by more than recordings.TOLERANCE, are done call by call from then on; a warning on the log says so, once
        a key.
        """
        if self._is_working:
            raise DeviceError("replay within replayed work.")
        caller = self._shared.caller_stream
        if caller is not None:
            self._driver.follow(self.stream, caller)
        self._is_working = True
        try:
            if key is None or self._driver.no_graphs:
                self._transfers.begin()
                work()
            else:
                self._recordings.run((key, self._transfers.signature), work)
        finally:
            self._is_working = False
        if caller is not None:
            self._driver.follow(caller, self.stream)

    def stop_recording(self, why: str) -> None:
        """From now on frames of every slot are done call by call. On the device's thread."""
        self._driver.no_graphs = why
        self._forget()

    def timestamp(self) -> Any:
        """A point in the slot's stream."""
        return self._driver.event(self.stream)

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        """Milliseconds on the GPU from one point to another; waits for it."""
        return self._driver.elapsed_ms(start, stop)

    def hand_over(self, stream: int | None) -> None:
        """Make a consumer's stream wait for this slot's work; None: wait for it here. On any thread."""
        if stream is None:
            self.perform(self._transfers.wait)
        else:
            self.perform(lambda: self._driver.follow(stream, self.stream))

    def close(self) -> None:
        """Everything goes: buffers, slots, recordings, the thread. Arrays that were downloaded must not be read."""
        self._shared.worker.close()

    def _forget(self) -> None:
        for slot in self._shared.slots:
            slot._recordings.forget()

    def _launch(self, name: str, grid: Dimensions, block: Dimensions, shared_bytes: int, arguments: bytes) -> None:
        if not self._is_working:
            self._transfers.begin()  # what was fetched before may be old after this
        self._driver.launch(self._shared.function(name), grid, block, shared_bytes, arguments, self.stream)
