"""A driver whose device memory is host memory: for the tests of everything above drivers.

Streams are asynchronous: what a stream is given is done when somebody waits for it, so whoever reads too early, or
changes what has yet to be copied, gets wrong numbers. Faults are put in by name and count. What is not given back is
counted, and a call on a wrong thread, with a freed address, or in a capture where CUDA forbids it, fails.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.device.driver import Gpu, HostBlock
from gcpp_edge.errors import DeviceError, DeviceLostError, DeviceMemoryError

HOST = 1  # DLPack's number
POISON = 0xA5  # what new memory holds


def memory_at(address: int, nbytes: int) -> np.ndarray:
    """Host memory, as bytes."""
    return np.frombuffer((ctypes.c_uint8 * nbytes).from_address(address), np.uint8)


@dataclass
class Stream:
    todo: deque[Callable[[], None]] = field(default_factory=deque)
    given: int = 0
    done: int = 0


class Graph(NamedTuple):
    steps: list[Callable[[], None]]


@dataclass
class Faults:
    """at: calls that fail, by name and number (1 the first). lost_at: the number of the call that loses the GPU."""

    at: dict[str, int] = field(default_factory=dict)
    lost_at: int = 0
    no_capture: bool = False


class FakeDriver:
    """run_kernel: what a launch does when its turn comes, such as tests/kernels/emulator's `launch`."""

    dlpack_type = HOST

    def __init__(
        self,
        run_kernel: Callable[[str, Any, Any, int, bytes], None] | None = None,
        faults: Faults | None = None,
        integrated: bool = False,
        no_graphs: str = "",
    ) -> None:
        self.gpu = Gpu("Fake GPU", 0, (8, 7), integrated, 16, 1 << 30, 2e11, (13, 0), (13, 0))
        self.no_graphs = no_graphs
        self.run_kernel, self.faults = run_kernel, faults or Faults()
        self.calls: list[str] = []
        self.counts: Counter[str] = Counter()
        self.memory: dict[int, np.ndarray] = {}
        self.blocks: dict[int, np.ndarray] = {}
        self.graphs: list[Graph] = []
        self.streams: dict[int, Stream] = {}
        self.foreign: dict[int, Stream] = {}
        self.closings = 0
        self.is_lost = False
        self._handles = count(1000)
        self._names: list[str] = []
        self._thread = threading.get_ident()
        self._capture: tuple[int, list[Callable[[], None]]] | None = None
        self._is_spoilt = False

    # What tests ask

    @property
    def leaks(self) -> dict[str, int]:
        counts = {"memory": len(self.memory), "blocks": len(self.blocks), "graphs": len(self.graphs)}
        return {name: number for name, number in counts.items() if number}

    def caller_stream(self) -> int:
        """A stream that this driver did not make."""
        handle = next(self._handles)
        self.foreign[handle] = Stream()
        return handle

    def give_caller(self, handle: int, step: Callable[[], None]) -> None:
        self._enqueue(self.foreign[handle], step)

    def finish_caller(self, handle: int) -> None:
        self._drain(self.foreign[handle])

    def view(self, address: int, nbytes: int) -> np.ndarray:
        """Device memory, also a part of it; mapped memory too."""
        for start, array in (*self.memory.items(), *self.blocks.items()):
            if start <= address and address + nbytes <= start + len(array):
                return array[address - start : address - start + nbytes]
        raise AssertionError(f"no memory at {address:#x} + {nbytes}")

    def give_host_work(self, stream: int, step: Callable[[], None]) -> None:
        """What a runtime would enqueue: done in its turn, and recorded where the stream is."""
        self._note("host_work")
        self._give(stream, step)

    # The driver

    def allocate(self, nbytes: int) -> int:
        self._note("allocate", DeviceMemoryError(f"Fake GPU: {nbytes:,} bytes of memory were asked for, 0 are free."))
        self._not_captured("allocate")
        array = np.full(max(nbytes, 1), POISON, np.uint8)
        self.memory[array.ctypes.data] = array
        return array.ctypes.data

    def free(self, address: int) -> None:
        self._note("free")
        self._not_captured("free")
        del self.memory[address]

    def allocate_host(self, nbytes: int, mapped: bool) -> HostBlock:
        self._note("allocate_host", DeviceMemoryError("Fake GPU: no page-locked memory is left."))
        self._not_captured("allocate_host")
        array = np.full(max(nbytes, 1), POISON, np.uint8)
        self.blocks[array.ctypes.data] = array
        return HostBlock(array, array.ctypes.data if mapped else 0)

    def free_host(self, block: HostBlock) -> None:
        self._note("free_host")
        del self.blocks[block.array.ctypes.data]
        block.array = np.empty(0, np.uint8)

    def stream(self) -> int:
        self._note("stream")
        handle = next(self._handles)
        self.streams[handle] = Stream()
        return handle

    def copy_in(self, address: int, source: np.ndarray, stream: int) -> None:
        self._note("copy_in")
        self._page_locked(source)
        target = self.view(address, len(source))
        self._give(stream, lambda: np.copyto(target, source))

    def copy_out(self, target: np.ndarray, address: int, stream: int) -> None:
        self._note("copy_out")
        self._page_locked(target)
        source = self.view(address, len(target))
        self._give(stream, lambda: np.copyto(target, source))

    def copy_rows(self, target: int, source: int, row_bytes: int, source_pitch: int, rows: int, stream: int) -> None:
        self._note("copy_rows")
        into = self.view(target, row_bytes * rows).reshape(rows, row_bytes)

        def copy() -> None:
            for row in range(rows):
                into[row] = np.frombuffer(
                    (ctypes.c_uint8 * row_bytes).from_address(source + row * source_pitch), np.uint8
                )

        self._give(stream, copy)

    def fill_zero(self, address: int, nbytes: int, stream: int) -> None:
        self._note("fill_zero")
        target = self.view(address, nbytes)
        self._give(stream, lambda: target.fill(0))

    def load(self, image: bytes) -> Callable[[str], int]:
        self._note("load")
        assert image == b"image"

        def function(name: str) -> int:
            self._note("function")
            self._names.append(name)
            return len(self._names) - 1

        return function

    def launch(self, function: int, grid: Any, block: Any, shared_bytes: int, arguments: bytes, stream: int) -> None:
        self._note("launch", DeviceError("Fake GPU: starting a kernel failed."))
        assert all(side > 0 for side in (*grid, *block))
        name, run_kernel = self._names[function], self.run_kernel
        assert run_kernel is not None
        self._give(stream, lambda: run_kernel(name, grid, block, shared_bytes, arguments))

    def synchronize(self, stream: int) -> None:
        self._note("synchronize")
        self._not_captured("synchronize")
        self._drain(self.streams[stream])

    def follow(self, stream: int, other: int) -> None:
        self._note("follow")
        waiting, first = ({**self.streams, **self.foreign}[handle] for handle in (stream, other))
        so_far = first.given
        self._enqueue(waiting, lambda: self._drain(first, so_far))

    def event(self, stream: int) -> Any:
        self._note("event")
        return stream

    def elapsed_ms(self, start: Any, stop: Any) -> float:
        self._drain(self.streams[stop])
        return 1.0

    def begin_capture(self, stream: int) -> None:
        self._note("begin_capture")
        if self.faults.no_capture:
            raise DeviceError("Fake GPU: it does not record.")
        self._capture, self._is_spoilt = (stream, []), False

    def end_capture(self, stream: int) -> Graph:
        assert self._capture is not None
        (captured, steps), self._capture = self._capture, None
        self._note("end_capture")
        assert captured == stream
        if self._is_spoilt:
            raise DeviceError("Fake GPU: recording failed (CUDA_ERROR_STREAM_CAPTURE_INVALIDATED).")
        graph = Graph(steps)
        self.graphs.append(graph)
        return graph

    def replay(self, graph: Graph, stream: int) -> None:
        self._note("replay")
        assert any(graph is one for one in self.graphs)
        for step in graph.steps:
            self._give(stream, step)

    def free_graph(self, graph: Graph) -> None:
        self._note("free_graph")
        self.graphs = [one for one in self.graphs if one is not graph]

    def close(self) -> None:
        assert threading.get_ident() == self._thread
        self.calls.append("close")
        self.closings += 1
        self.graphs.clear()
        self.memory.clear()
        self.blocks.clear()

    # Within

    def _note(self, name: str, fault: DeviceError | None = None) -> None:
        assert threading.get_ident() == self._thread, f"{name} on a foreign thread"
        assert not self.closings, f"{name} after close"
        self.calls.append(name)
        self.counts[name] += 1
        if self.is_lost or len(self.calls) == self.faults.lost_at:
            self.is_lost = True
            raise DeviceLostError(f"Fake GPU: {name} failed, and this process can use the GPU no more. Load again.")
        if self.faults.at.get(name) == self.counts[name]:
            raise fault or DeviceError(f"Fake GPU: {name} failed.")

    def _not_captured(self, name: str) -> None:
        if self._capture is not None:
            self._is_spoilt = True
            raise DeviceError(f"CUDA cannot record this: {name}.")

    def _page_locked(self, array: np.ndarray) -> None:
        address = array.ctypes.data
        assert any(start <= address < start + len(block) for start, block in self.blocks.items()), "pageable memory"

    def _give(self, handle: int, step: Callable[[], None]) -> None:
        if self._capture is not None and self._capture[0] == handle:
            self._capture[1].append(step)
        else:
            self._enqueue(self.streams[handle], step)

    def _enqueue(self, stream: Stream, step: Callable[[], None]) -> None:
        stream.todo.append(step)
        stream.given += 1

    def _drain(self, stream: Stream, until: int | None = None) -> None:
        while stream.todo and (until is None or stream.done < until):
            step = stream.todo.popleft()
            stream.done += 1
            step()
