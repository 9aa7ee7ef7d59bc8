"""The CUDA driver, through PyCUDA; recordings and callers' streams through cuda-bindings, since PyCUDA has neither.

The primary context is used, which PyTorch, TensorRT and ONNX Runtime use too. It is pushed when the driver is opened
and popped when it is closed, both on the worker's thread; pycuda.autoinit is never imported.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from gcpp_edge.device.dlpack import CUDA
from gcpp_edge.device.driver import PER_THREAD_STREAM, Bytes, Dimensions, Gpu, HostBlock, Module
from gcpp_edge.errors import DeviceError, DeviceLostError, DeviceMemoryError, MissingDependencyError

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: the stream does not wait for the default stream
_DISABLE_TIMING = 2  # CU_EVENT_DISABLE_TIMING
_EMPTY = np.empty(0, np.uint8)


def _guarded(
    what: str,
) -> Callable[[Callable[Concatenate[PyCudaDriver, P], R]], Callable[Concatenate[PyCudaDriver, P], R]]:
    """Turns CUDA's errors into ours; `what` says what was going on."""

    def decorate(method: Callable[Concatenate[PyCudaDriver, P], R]) -> Callable[Concatenate[PyCudaDriver, P], R]:
        @wraps(method)
        def guarded(self: PyCudaDriver, /, *args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return method(self, *args, **kwargs)
            except (self.cuda.Error, _BindingsError) as error:
                raise self.failure(what, error) from error

        return guarded

    return decorate


class _BindingsError(Exception):
    """A call of cuda-bindings that did not succeed."""


class PyCudaDriver:
    """A driver.Driver on a real GPU. CUDA_VISIBLE_DEVICES chooses which is the first."""

    dlpack_type = CUDA

    def __init__(self, ordinal: int = 0) -> None:
        self.cuda = _import_pycuda()
        self._bindings = _import_bindings()
        self.no_graphs = "" if self._bindings else "cuda-bindings is not installed: pip install cuda-bindings"
        self._is_capturing = False
        self._allocations: dict[int, Any] = {}
        self._blocks: set[HostBlock] = set()
        self._streams: dict[int, Any] = {}
        self._modules: list[Any] = []
        self._functions: list[Any] = []
        self._graphs: list[Any] = []
        self._pinned: list[weakref.ref[Any]] = []
        self._context: Any = None
        device = self._open(ordinal)
        try:
            self.gpu = _describe(self.cuda, device, ordinal)
        except self.cuda.Error as error:
            self.close()
            raise DeviceError(f"The GPU does not answer ({error}).") from error

    def _open(self, ordinal: int) -> Any:
        """Makes the primary context current on this thread."""
        try:
            self.cuda.init()
            device = self.cuda.Device(ordinal)
            self._context = device.retain_primary_context()
            self._context.push()
        except self.cuda.Error as error:
            if self._context is not None:
                self._context.detach()
            raise DeviceError(
                f"No usable NVIDIA GPU ({error}). nvidia-smi says what the driver sees, and CUDA_VISIBLE_DEVICES what "
                "this process may use."
            ) from error
        return device

    def allocate(self, nbytes: int) -> int:
        try:
            allocation = self.cuda.mem_alloc(max(nbytes, 1))
        except self.cuda.MemoryError as error:
            raise self._no_memory(nbytes, error) from error
        except self.cuda.Error as error:
            raise self.failure("allocating memory", error) from error
        address = int(allocation)
        self._allocations[address] = allocation
        return address

    @_guarded("freeing memory")
    def free(self, address: int) -> None:
        self._allocations.pop(address).free()

    @_guarded("allocating page-locked memory")
    def allocate_host(self, nbytes: int, mapped: bool) -> HostBlock:
        flags = self.cuda.host_alloc_flags.DEVICEMAP if mapped else 0
        array = self.cuda.pagelocked_empty(max(nbytes, 1), np.uint8, mem_flags=flags)
        block = HostBlock(array, int(array.base.get_device_pointer()) if mapped else 0)
        self._blocks.add(block)
        self._pinned = [one for one in self._pinned if one() is not None] + [weakref.ref(array)]
        return block

    def free_host(self, block: HostBlock) -> None:
        self._blocks.discard(block)
        block.array = _EMPTY  # PyCUDA frees it here and now, unless an array that was given out looks at it

    @_guarded("making a stream")
    def stream(self) -> int:
        stream = self.cuda.Stream(_NON_BLOCKING)
        self._streams[stream.handle] = stream
        return int(stream.handle)

    @_guarded("copying to the GPU")
    def copy_in(self, address: int, source: Bytes, stream: int) -> None:
        self.cuda.memcpy_htod_async(address, source, self._streams[stream])

    @_guarded("copying from the GPU")
    def copy_out(self, target: Bytes, address: int, stream: int) -> None:
        self.cuda.memcpy_dtoh_async(target, address, self._streams[stream])

    @_guarded("copying on the GPU")
    def copy_rows(self, target: int, source: int, row_bytes: int, source_pitch: int, rows: int, stream: int) -> None:
        if source_pitch == row_bytes:
            self.cuda.memcpy_dtod_async(target, source, row_bytes * rows, self._streams[stream])
            return
        copy = self.cuda.Memcpy2D()
        copy.set_src_device(source)
        copy.set_dst_device(target)
        copy.src_pitch, copy.dst_pitch = source_pitch, row_bytes
        copy.width_in_bytes, copy.height = row_bytes, rows
        copy(self._streams[stream])

    @_guarded("clearing memory")
    def fill_zero(self, address: int, nbytes: int, stream: int) -> None:
        self.cuda.memset_d8_async(address, 0, nbytes, self._streams[stream])

    @_guarded("loading the kernels")
    def load(self, image: bytes) -> Module:
        self._modules.append(self.cuda.module_from_buffer(image))
        return partial(self._function, len(self._modules) - 1)

    @_guarded("finding a kernel")
    def _function(self, module: int, name: str) -> int:
        self._functions.append(self._modules[module].get_function(name))
        return len(self._functions) - 1

    @_guarded("starting a kernel")
    def launch(
        self, function: int, grid: Dimensions, block: Dimensions, shared_bytes: int, arguments: bytes, stream: int
    ) -> None:
        # What all of PyCUDA's own calls come to, without the deprecated cuFuncSetBlockShape before it.
        self._functions[function]._launch_kernel(grid, block, arguments, shared_bytes, self._streams[stream])

    @_guarded("running a frame")
    def synchronize(self, stream: int) -> None:
        self._streams[stream].synchronize()

    @_guarded("waiting for another stream")
    def follow(self, stream: int, other: int) -> None:
        mine, theirs = self._streams.get(stream), self._streams.get(other)
        if mine is not None and theirs is not None:
            mine.wait_for_event(self.cuda.Event(_DISABLE_TIMING).record(theirs))
        elif self._bindings is None or PER_THREAD_STREAM in (stream, other):
            self.cuda.Context.synchronize()
        else:
            self._follow_foreign(stream, other)

    @_guarded("taking the time")
    def event(self, stream: int) -> Any:
        return self.cuda.Event().record(self._streams[stream])

    @_guarded("taking the time")
    def elapsed_ms(self, start: Any, stop: Any) -> float:
        return float(stop.synchronize().time_since(start))

    @_guarded("starting to record")
    def begin_capture(self, stream: int) -> None:
        bindings = self._bindings
        if bindings is None:
            raise DeviceError(self.no_graphs)
        # This thread's calls alone are watched: others may allocate meanwhile.
        mode = bindings.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", bindings.CUstream(stream), mode)
        self._is_capturing = True

    @_guarded("recording")
    def end_capture(self, stream: int) -> Any:
        bindings: Any = self._bindings
        self._is_capturing = False
        graph = self._call("cuStreamEndCapture", bindings.CUstream(stream))
        try:
            executable = self._call("cuGraphInstantiate", graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        self._graphs.append(executable)
        return executable

    @_guarded("replaying a recording")
    def replay(self, graph: Any, stream: int) -> None:
        bindings: Any = self._bindings
        self._call("cuGraphLaunch", graph, bindings.CUstream(stream))

    @_guarded("freeing a recording")
    def free_graph(self, graph: Any) -> None:
        self._graphs = [one for one in self._graphs if one is not graph]
        self._call("cuGraphExecDestroy", graph)

    def close(self) -> None:
        if self._context is None:
            return
        self._try(self.cuda.Context.synchronize)
        for graph in list(self._graphs):
            self._try(partial(self.free_graph, graph))
        for block in list(self._blocks):
            self.free_host(block)
        for allocation in self._allocations.values():
            self._try(allocation.free)
        self._allocations.clear()
        self._functions.clear()
        self._modules.clear()
        self._streams.clear()
        self._leave()

    def failure(self, what: str, error: Exception) -> DeviceError:
        """Ours for CUDA's. An error that stays, whatever is called, means that the context is lost."""
        if self._is_capturing:
            return DeviceError(f"CUDA cannot record this: {what} failed ({error}).")
        if isinstance(error, self.cuda.MemoryError):
            return DeviceMemoryError(f"{self.gpu.name}: not enough memory while {what} ({error}). Use smaller batches.")
        try:
            self.cuda.Context.synchronize()
        except self.cuda.Error:
            return DeviceLostError(
                f"{self.gpu.name}: {what} failed ({error}), and this process can use the GPU no more. Load the model "
                "again; if that fails too, start the process again."
            )
        return DeviceError(f"{self.gpu.name}: {what} failed ({error}).")

    def _no_memory(self, nbytes: int, error: Exception) -> DeviceError:
        try:
            free, total = self.cuda.mem_get_info()
        except self.cuda.Error:
            return self.failure("allocating memory", error)
        return DeviceMemoryError(
            f"{self.gpu.name}: {nbytes:,} bytes of memory were asked for, {free:,} of {total:,} are free. Use smaller "
            "batches, or close what else uses the GPU."
        )

    def _follow_foreign(self, stream: int, other: int) -> None:
        bindings: Any = self._bindings
        event = self._call("cuEventCreate", _DISABLE_TIMING)
        try:
            self._call("cuEventRecord", event, bindings.CUstream(other))
            self._call("cuStreamWaitEvent", bindings.CUstream(stream), event, 0)
        finally:
            self._call("cuEventDestroy", event)  # at once where it is over, else when it is

    def _call(self, name: str, *arguments: Any) -> Any:
        """What a call of cuda-bindings gives besides its status."""
        try:
            status, *values = getattr(self._bindings, name)(*arguments)
        except RuntimeError as error:  # the driver is older than the bindings
            raise _BindingsError(f"{name}: {error}") from error
        if int(status) != 0:
            raise _BindingsError(f"{name}: {getattr(status, 'name', status)}")
        return values[0] if values else None

    def _try(self, give_back: Callable[[], Any]) -> None:
        """While closing: of a lost device nothing can be given back, and the rest must go on."""
        try:
            give_back()
        except (self.cuda.Error, DeviceError) as error:
            _log.debug("while closing the GPU: %s", error)

    def _leave(self) -> None:
        """Pops the context: PyCUDA aborts the process where a thread ends with one on its stack."""
        context, self._context = self._context, None
        with suppress(self.cuda.Error):  # of a lost device; `detach` takes it off the stack then
            context.pop()
        if any(array() is not None for array in self._pinned):  # somebody reads what was downloaded, and may go on
            _log.debug("arrays in page-locked memory are still in use: the context stays")
            return
        context.detach()


def open_pycuda_driver() -> PyCudaDriver:
    """The first GPU. Raises MissingDependencyError, DeviceError."""
    return PyCudaDriver()


def _import_pycuda() -> Any:
    try:
        import pycuda.driver
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "A GPU needs PyCUDA, which is not installed. Install it, with the CUDA toolkit at hand: "
            "pip install 'gcpp-edge[cuda]'"
        ) from error
    except ImportError as error:
        raise DeviceError(
            f"PyCUDA does not load ({error}). It needs NVIDIA's driver (libcuda.so.1), and to be built for it: "
            "pip install --force-reinstall --no-cache-dir pycuda"
        ) from error
    return pycuda.driver


def _import_bindings() -> Any:
    """cuda-bindings' driver module, or None. Releases before 12.6 call it cuda.cuda."""
    try:
        from cuda.bindings import driver
    except ImportError:
        try:
            from cuda import cuda
        except ImportError:
            return None
        return cuda
    return driver


def _describe(cuda: Any, device: Any, ordinal: int) -> Gpu:
    attribute = cuda.device_attribute
    version = int(cuda.get_driver_version())
    try:
        clock_khz = device.get_attribute(attribute.MEMORY_CLOCK_RATE)
        bandwidth = 2e3 * clock_khz * device.get_attribute(attribute.GLOBAL_MEMORY_BUS_WIDTH) / 8  # double data rate
    except (cuda.Error, AttributeError):
        bandwidth = 0.0
    return Gpu(
        name=device.name(),
        ordinal=ordinal,
        capability=tuple(device.compute_capability()),
        integrated=bool(device.get_attribute(attribute.INTEGRATED)),
        multiprocessors=int(device.get_attribute(attribute.MULTIPROCESSOR_COUNT)),
        memory_bytes=int(device.total_memory()),
        bandwidth=float(bandwidth),
        driver_version=(version // 1000, version % 1000 // 10),
        toolkit_version=tuple(cuda.get_version())[:2],
    )
