"""The driver through PyCUDA, against modules that note down how they are called.

Where PyCUDA and cuda-bindings are installed, against those themselves too, on a libcuda without a GPU: fake_libcuda.c.
"""

from __future__ import annotations

import enum
import os
import shutil
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gcpp_edge.device.pycuda_driver import PyCudaDriver, open_pycuda_driver
from gcpp_edge.device.worker import Worker
from gcpp_edge.errors import DeviceError, DeviceLostError, DeviceMemoryError, MissingDependencyError

STREAM_1, STREAM_2, CALLERS = 0x100, 0x101, 0x999


class Cuda:
    """pycuda.driver and cuda.bindings.driver: signatures as theirs, calls in `calls`, failures by name in `fails`."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.threads: set[str] = set()
        self.fails: dict[str, type[Exception]] = {}
        self.statuses: dict[str, str] = {}
        self.stack: list[str] = []
        self.retained = 0
        self.streams = iter(range(0x100, 0x200))
        self.pycuda = self._pycuda()
        self.bindings = self._bindings()

    def note(self, call: str) -> None:
        self.calls.append(call)
        self.threads.add(threading.current_thread().name)
        fault = self.fails.get(call.partition("(")[0])
        if fault is not None:
            raise fault(f"{call} failed: an error")
        if call != "init()" and "retain" not in call and call != "push()":
            assert self.stack, f"{call} without a context"

    def _pycuda(self) -> types.ModuleType:
        cuda = self
        module: Any = types.ModuleType("pycuda.driver")
        module.Error = type("Error", (Exception,), {})
        for name in ("MemoryError", "LogicError", "LaunchError", "RuntimeError"):
            setattr(module, name, type(name, (module.Error,), {}))

        class Context:
            def push(self) -> None:
                cuda.note("push()")
                cuda.stack.append("primary")

            @staticmethod
            def pop() -> None:
                cuda.note("pop()")
                cuda.stack.pop()

            def detach(self) -> None:
                cuda.calls.append("detach()")  # it never raises, and takes itself off the stack
                cuda.stack.clear()
                cuda.retained -= 1

            @staticmethod
            def synchronize() -> None:
                cuda.note("Context.synchronize()")

        class Device:
            def __init__(self, ordinal: int) -> None:
                assert ordinal == 0

            def retain_primary_context(self) -> Context:
                cuda.note("retain_primary_context()")
                cuda.retained += 1
                return Context()

            def name(self) -> str:
                cuda.note("name()")
                return "Stub GPU"

            def compute_capability(self) -> tuple[int, int]:
                return (8, 7)

            def total_memory(self) -> int:
                return 1 << 30

            def get_attribute(self, attribute: Any) -> int:
                values = {"MEMORY_CLOCK_RATE": 3_200_000, "GLOBAL_MEMORY_BUS_WIDTH": 256, "INTEGRATED": 1}
                return values.get(attribute, 8)

        class Allocation:
            def __init__(self, address: int) -> None:
                self.address = address

            def __int__(self) -> int:
                return self.address

            def free(self) -> None:
                cuda.note(f"free({self.address})")

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                cuda.note(f"Stream({flags})")
                self.handle = next(cuda.streams)

            def synchronize(self) -> None:
                cuda.note(f"synchronize({self.handle:#x})")

            def wait_for_event(self, event: Event) -> None:
                assert isinstance(event, Event)
                cuda.note(f"wait_for_event({self.handle:#x})")

        class Event:
            def __init__(self, flags: int = 0) -> None:
                cuda.note(f"Event({flags})")

            def record(self, stream: Stream | None = None) -> Event:
                assert isinstance(stream, Stream)
                cuda.note(f"record({stream.handle:#x})")
                return self

            def synchronize(self) -> Event:
                cuda.note("event.synchronize()")
                return self

            def time_since(self, event: Event) -> float:
                return 1.5

        class Function:
            def _launch_kernel(self, grid: tuple, block: tuple, buffer: bytes, shared: int, stream: Stream) -> None:
                assert isinstance(stream, Stream)
                cuda.note(f"launch({grid}, {block}, {len(buffer)}, {shared}, {stream.handle:#x})")

        class Module:
            def get_function(self, name: str) -> Function:
                cuda.note(f"get_function({name})")
                return Function()

        class HostAllocation:
            def get_device_pointer(self) -> int:
                cuda.note("get_device_pointer()")
                return 0xBEEF

        class Pinned(np.ndarray):
            base = HostAllocation()  # type: ignore[assignment]

        class Memcpy2D:
            def set_src_device(self, address: int) -> None:
                self.source = address

            def set_dst_device(self, address: int) -> None:
                self.target = address

            def __call__(self, stream: Stream) -> None:
                shape: Any = self
                cuda.note(f"Memcpy2D({shape.width_in_bytes}, {shape.height}, {shape.src_pitch}, {shape.dst_pitch})")

        def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
            cuda.note(f"pagelocked_empty({shape}, {mem_flags})")
            return np.zeros(shape, dtype).view(Pinned)

        def mem_alloc(nbytes: int) -> Allocation:
            cuda.note(f"mem_alloc({nbytes})")
            return Allocation(0xA000 + nbytes)

        def memcpy_htod_async(dest: int, src: Any, stream: Stream) -> None:
            cuda.note(f"htod({dest}, {memoryview(src).nbytes}, {stream.handle:#x})")

        def memcpy_dtoh_async(dest: Any, src: int, stream: Stream) -> None:
            assert not memoryview(dest).readonly
            cuda.note(f"dtoh({memoryview(dest).nbytes}, {src}, {stream.handle:#x})")

        def memcpy_dtod_async(dest: int, src: int, size: int, stream: Stream) -> None:
            cuda.note(f"dtod({dest}, {src}, {size}, {stream.handle:#x})")

        def memset_d8_async(dest: int, data: int, size: int, stream: Stream) -> None:
            cuda.note(f"memset({dest}, {data}, {size}, {stream.handle:#x})")

        def module_from_buffer(buffer: bytes) -> Module:
            cuda.note(f"module_from_buffer({len(buffer)})")
            return Module()

        def mem_get_info() -> tuple[int, int]:
            cuda.note("mem_get_info()")
            return (5000, 1 << 30)

        names = ("INTEGRATED", "MULTIPROCESSOR_COUNT", "MEMORY_CLOCK_RATE", "GLOBAL_MEMORY_BUS_WIDTH")
        module.device_attribute = types.SimpleNamespace(**{name: name for name in names})
        module.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2, PORTABLE=1)
        module.init = lambda flags=0: cuda.note("init()")
        module.get_driver_version = lambda: 12060
        module.get_version = lambda: (12, 6, 0)
        for part in (Context, Device, Stream, Event, Memcpy2D, pagelocked_empty, mem_alloc, memcpy_htod_async):
            setattr(module, part.__name__, part)
        for part in (memcpy_dtoh_async, memcpy_dtod_async, memset_d8_async, module_from_buffer, mem_get_info):
            setattr(module, part.__name__, part)
        return module

    def _bindings(self) -> types.ModuleType:
        module: Any = types.ModuleType("cuda.bindings.driver")
        Mode = enum.Enum("CUstreamCaptureMode", {f"CU_STREAM_CAPTURE_MODE_{n}": n for n in ("GLOBAL", "THREAD_LOCAL")})
        Status = enum.IntEnum("CUresult", {"CUDA_SUCCESS": 0, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED": 901})
        module.CUstreamCaptureMode = Mode
        module.CUstream = type("CUstream", (int,), {})

        def shown(one: Any) -> str:
            return f"{one:#x}" if isinstance(one, module.CUstream) else str(getattr(one, "name", one))

        def call(name: str, *values: Any) -> Callable[..., tuple[Any, ...]]:
            def run(*arguments: Any) -> tuple[Any, ...]:
                shown = (
                    f"{one:#x}" if isinstance(one, module.CUstream) else getattr(one, "name", one) for one in arguments
                )
                self.note(f"{name}({', '.join(map(str, shown))})")
                return (Status[self.statuses.get(name, "CUDA_SUCCESS")], *values)

            return run

        results = {"cuStreamEndCapture": "graph", "cuGraphInstantiate": "executable", "cuEventCreate": "event"}
        plain = "cuStreamBeginCapture cuGraphDestroy cuGraphExecDestroy cuGraphLaunch cuEventRecord cuStreamWaitEvent"
        for name in (*results, *plain.split(), "cuEventDestroy"):
            setattr(module, name, call(name, *([results[name]] if name in results else [])))
        return module


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    cuda = Cuda()
    package: Any = types.ModuleType("pycuda")
    package.driver = cuda.pycuda
    bindings: Any = types.ModuleType("cuda.bindings")
    bindings.driver = cuda.bindings
    root: Any = types.ModuleType("cuda")
    root.bindings = bindings
    modules = {"pycuda": package, "pycuda.driver": cuda.pycuda, "cuda": root, "cuda.bindings": bindings}
    for name, module in (modules | {"cuda.bindings.driver": cuda.bindings}).items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda


@pytest.fixture
def driver(cuda: Cuda):
    driver = PyCudaDriver()
    yield driver
    driver.close()
    assert cuda.stack == []
    assert cuda.retained == 0


def test_the_primary_context_is_pushed_and_popped_on_the_workers_thread(cuda: Cuda) -> None:
    worker = Worker(open_pycuda_driver)
    assert cuda.calls[:3] == ["init()", "retain_primary_context()", "push()"]
    worker.close()
    assert cuda.calls[-2:] == ["pop()", "detach()"]
    assert cuda.threads == {"gcpp-edge device"}
    assert (cuda.stack, cuda.retained) == ([], 0)
    assert "pycuda.autoinit" not in sys.modules


def test_the_gpu_is_described(driver: PyCudaDriver) -> None:
    gpu = driver.gpu
    assert (gpu.name, gpu.capability, gpu.integrated, gpu.memory_bytes) == ("Stub GPU", (8, 7), True, 1 << 30)
    assert (gpu.driver_version, gpu.toolkit_version, gpu.bandwidth) == ((12, 6), (12, 6), 204.8e9)


def test_memory_streams_kernels_and_copies_are_asked_for_as_pycuda_takes_them(cuda: Cuda, driver: PyCudaDriver) -> None:
    cuda.calls.clear()
    stream = driver.stream()
    address = driver.allocate(64)
    block, mapped = driver.allocate_host(64, mapped=False), driver.allocate_host(64, mapped=True)
    assert (block.device_address, mapped.device_address, len(block.array)) == (0, 0xBEEF, 64)
    driver.copy_in(address, block.array[:8], stream)
    driver.copy_out(block.array, address, stream)
    driver.copy_rows(1, 2, 10, 10, 5, stream)
    driver.copy_rows(1, 2, 10, 16, 5, stream)
    driver.fill_zero(address, 64, stream)
    function = driver.load(b"image")("gcpp_cam")
    driver.launch(function, (4, 2, 1), (128, 1, 1), 48, b"x" * 40, stream)
    driver.synchronize(stream)
    driver.free(address)
    driver.free_host(block)
    assert len(block.array) == 0
    assert cuda.calls == [
        "Stream(1)",
        "mem_alloc(64)",
        "pagelocked_empty(64, 0)",
        "pagelocked_empty(64, 2)",
        "get_device_pointer()",
        f"htod({address}, 8, 0x100)",
        f"dtoh(64, {address}, 0x100)",
        "dtod(1, 2, 50, 0x100)",
        "Memcpy2D(10, 5, 16, 10)",
        f"memset({address}, 0, 64, 0x100)",
        "module_from_buffer(5)",
        "get_function(gcpp_cam)",
        "launch((4, 2, 1), (128, 1, 1), 40, 48, 0x100)",
        "synchronize(0x100)",
        f"free({address})",
    ]


def test_a_capture_is_begun_ended_made_executable_and_replayed_in_order(cuda: Cuda, driver: PyCudaDriver) -> None:
    stream = driver.stream()
    cuda.calls.clear()
    driver.begin_capture(stream)
    graph = driver.end_capture(stream)
    driver.replay(graph, stream)
    driver.free_graph(graph)
    assert cuda.calls == [
        "cuStreamBeginCapture(0x100, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)",
        "cuStreamEndCapture(0x100)",
        "cuGraphInstantiate(graph, 0)",
        "cuGraphDestroy(graph)",
        "cuGraphLaunch(executable, 0x100)",
        "cuGraphExecDestroy(executable)",
    ]


def test_what_was_not_given_back_goes_when_it_closes_before_its_context(cuda: Cuda) -> None:
    driver = PyCudaDriver()
    stream = driver.stream()
    driver.allocate(64)
    driver.begin_capture(stream)
    driver.end_capture(stream)
    block = driver.allocate_host(64, mapped=False)
    cuda.calls.clear()
    driver.close()
    driver.close()
    assert cuda.calls == [
        "Context.synchronize()",
        "cuGraphExecDestroy(executable)",
        f"free({0xA000 + 64})",
        "pop()",
        "detach()",
    ]
    assert len(block.array) == 0


def test_the_context_stays_while_downloaded_arrays_are_read(cuda: Cuda) -> None:
    driver = PyCudaDriver()
    view = driver.allocate_host(64, mapped=False).array[:8]
    driver.close()
    assert cuda.stack == []
    assert cuda.retained == 1
    assert view.sum() == 0


def test_streams_follow_each_other_and_callers_through_events(cuda: Cuda, driver: PyCudaDriver) -> None:
    one, other = driver.stream(), driver.stream()
    cuda.calls.clear()
    driver.follow(one, other)
    assert cuda.calls == ["Event(2)", "record(0x101)", "wait_for_event(0x100)"]
    cuda.calls.clear()
    driver.follow(one, CALLERS)
    driver.follow(CALLERS, one)
    assert cuda.calls == [
        "cuEventCreate(2)",
        "cuEventRecord(event, 0x999)",
        "cuStreamWaitEvent(0x100, event, 0)",
        "cuEventDestroy(event)",
        "cuEventCreate(2)",
        "cuEventRecord(event, 0x100)",
        "cuStreamWaitEvent(0x999, event, 0)",
        "cuEventDestroy(event)",
    ]
    cuda.calls.clear()
    driver.follow(one, 2)  # per thread: ours would be another
    assert cuda.calls == ["Context.synchronize()"]
    assert driver.elapsed_ms(driver.event(one), driver.event(one)) == 1.5


def test_without_bindings_nothing_is_recorded_and_callers_are_waited_for(cuda: Cuda, monkeypatch) -> None:
    for name in ("cuda", "cuda.bindings", "cuda.bindings.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    driver = PyCudaDriver()
    stream = driver.stream()
    assert "pip install cuda-bindings" in driver.no_graphs
    with pytest.raises(DeviceError, match="pip install cuda-bindings"):
        driver.begin_capture(stream)
    driver.follow(stream, CALLERS)
    assert cuda.calls[-1] == "Context.synchronize()"
    driver.close()


def test_older_bindings_are_found_by_their_old_name(cuda: Cuda, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    sys.modules["cuda"].cuda = cuda.bindings  # type: ignore[attr-defined]
    driver = PyCudaDriver()
    assert driver.no_graphs == ""
    driver.close()


def test_out_of_memory_says_how_much_was_asked_for_and_is_free(cuda: Cuda, driver: PyCudaDriver) -> None:
    cuda.fails["mem_alloc"] = cuda.pycuda.MemoryError
    with pytest.raises(
        DeviceMemoryError, match="Stub GPU: 70,000 bytes of memory were asked for, 5,000 of 1,073,741,824"
    ):
        driver.allocate(70_000)


def test_an_error_that_stays_is_a_lost_device(cuda: Cuda, driver: PyCudaDriver) -> None:
    stream = driver.stream()
    cuda.fails["synchronize"] = cuda.pycuda.LaunchError
    with pytest.raises(DeviceError, match="running a frame failed") as caught:
        driver.synchronize(stream)
    assert not isinstance(caught.value, DeviceLostError)
    cuda.fails["Context.synchronize"] = cuda.pycuda.LogicError
    with pytest.raises(DeviceLostError, match="Load the model again"):
        driver.synchronize(stream)


@pytest.mark.parametrize("broken", ["pop", "Context.synchronize", "free", "cuGraphExecDestroy"])
def test_a_lost_device_closes_all_the_same(cuda: Cuda, broken: str) -> None:
    driver = PyCudaDriver()
    stream = driver.stream()
    driver.allocate(64)
    driver.begin_capture(stream)
    driver.end_capture(stream)
    cuda.fails[broken] = cuda.pycuda.LogicError
    driver.close()
    assert (cuda.stack, cuda.retained) == ([], 0)


def test_a_failed_capture_is_not_taken_for_a_lost_device(cuda: Cuda, driver: PyCudaDriver) -> None:
    stream = driver.stream()
    driver.begin_capture(stream)
    cuda.fails["mem_alloc"] = cuda.pycuda.LogicError
    cuda.calls.clear()
    with pytest.raises(DeviceError, match="CUDA cannot record this: allocating memory failed"):
        driver.allocate(64)
    assert "Context.synchronize()" not in cuda.calls  # which a capture forbids too
    cuda.statuses["cuStreamEndCapture"] = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"
    with pytest.raises(DeviceError, match="recording failed .*CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"):
        driver.end_capture(stream)


@pytest.mark.parametrize("broken", ["init", "retain_primary_context", "push", "name"])
def test_a_gpu_that_cannot_be_opened_leaves_no_context(cuda: Cuda, broken: str) -> None:
    cuda.fails[broken] = cuda.pycuda.RuntimeError
    with pytest.raises(DeviceError, match="No usable NVIDIA GPU|does not answer"):
        PyCudaDriver()
    assert (cuda.stack, cuda.retained) == ([], 0)


def test_a_missing_pycuda_names_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    monkeypatch.delitem(sys.modules, "pycuda.driver", raising=False)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gcpp-edge\[cuda\]'"):
        open_pycuda_driver()


REAL = """
import atexit, ctypes, os, struct, sys
sys.setdlopenflags(os.RTLD_LAZY | os.RTLD_GLOBAL)  # the library has only what we call
fake = ctypes.CDLL(sys.argv[1], ctypes.RTLD_GLOBAL)
fake.fake_report.restype = ctypes.c_char_p
atexit.register(lambda: print(fake.fake_report().decode(), flush=True))  # the last one to be called
sys.path.append(sys.argv[2])
import numpy as np
from gcpp_edge.device.cuda import open_on
from gcpp_edge.device.pycuda_driver import open_pycuda_driver
from gcpp_edge.errors import DeviceError, DeviceLostError

class Kernels:
    def __init__(self, launch, scratch):
        self.launch = launch
    def double(self, source, target):
        arguments = struct.pack("QQQ", source.address, target.address, source.size)
        self.launch("gcpp_double", (1, 1, 1), (32, 1, 1), 0, arguments)
    cam = heatmap = overlay = guided = preprocess = double

device = open_on(open_pycuda_driver, lambda capability: b"image", Kernels)
callers = ctypes.create_string_buffer(64)

class OnGpu:
    def __init__(self, array):
        self.array = array
        self.__cuda_array_interface__ = dict(
            shape=array.shape, typestr=array.dtype.str, strides=array.strides, version=3,
            data=(array.ctypes.data, False), stream=ctypes.addressof(callers),
        )

def frames():
    for slot in (device.slot(0), device.slot(1)):
        out = slot.allocate((4, 5), np.float32)
        for number in range(6):
            array = np.arange(40, dtype=np.float32).reshape(4, 10)[:, number // 2: 5 + number // 2] + number
            staged = slot.stage("frame", OnGpu(array) if number == 4 else array)
            def work():
                slot.kernels.implementation.double(slot.send(staged), out)
                slot.fetch(out)
            slot.replay("key", work)
            assert np.array_equal(slot.download(out), 2 * array), number
        start = slot.timestamp()
        assert slot.elapsed_ms(start, slot.timestamp()) == 1.5
        def refused():
            work()
            slot.allocate((3,), np.float32)  # which a capture forbids
        slot.replay("another", refused)
        slot.replay("another", refused)
        assert np.array_equal(slot.download(out), 2 * array)
        try:
            slot.allocate((1 << 40,), np.uint8)
        except DeviceError as error:
            print(error)

try:
    device.perform(frames)
except DeviceLostError as error:
    print("lost:", error)
exec(sys.argv[3])
"""


@pytest.fixture(scope="module")
def libcuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    missing = [name for name in ("pycuda", "cuda") if find_spec(name) is None]
    nvcc, gcc = shutil.which("nvcc"), shutil.which("gcc")
    if missing or not nvcc or not gcc:
        pytest.skip(f"needs PyCUDA, cuda-bindings, gcc and CUDA's headers; missing: {missing or 'gcc or nvcc'}")
    includes = [f"-I{folder / 'include'}" for folder in (Path(nvcc).resolve().parents[1], Path("/usr/local/cuda"))]
    library = tmp_path_factory.mktemp("libcuda") / "libcuda.so.1"
    source = Path(__file__).with_name("fake_libcuda.c")
    command = [gcc, "-shared", "-fPIC", "-Wall", "-Wextra", *includes, source, "-o", library, "-ldl"]
    subprocess.run([*command, "-Wl,-soname,libcuda.so.1"], check=True)
    return library


def run_real(libcuda: Path, end: str = "device.close()", **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", REAL, str(libcuda), str(Path(__file__).parent), end],
        env={**os.environ, "LD_LIBRARY_PATH": str(libcuda.parent), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_pycuda_and_cuda_bindings_themselves_do_all_of_it(libcuda: Path) -> None:
    done = run_real(libcuda)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("1,099,511,627,776 bytes of memory were asked for, 123,456 of 1,073,741,824 are free") == 2
    counts = dict(pair.split("=") for pair in done.stdout.splitlines()[-1].split())
    assert set(counts.values()) == {"0"}, counts
    assert "PyCUDA" not in done.stderr


ENDS = {
    "nobody closes it": ("", 0),
    "it is dropped": ("import gc; del device, frames; gc.collect()", 0),
    "an error ends the program": ("raise ValueError('oh')", 1),
    "an error in its work does": ("device.perform(lambda: 1 // 0)", 1),
    "the program exits in its work": ("device.perform(lambda: sys.exit(3))", 3),
}


@pytest.mark.parametrize("name", ENDS)
def test_everything_is_given_back_however_the_program_ends(libcuda: Path, name: str) -> None:
    end, status = ENDS[name]
    done = run_real(libcuda, end)
    assert done.returncode == status, done.stderr
    counts = dict(pair.split("=") for pair in done.stdout.splitlines()[-1].split())
    assert set(counts.values()) == {"0"}, counts
    assert "PyCUDA" not in done.stderr


def test_a_forked_child_leaves_cleanly(libcuda: Path) -> None:
    child = "import gc; child = os.fork() == 0\nif child: del device, frames; gc.collect(); sys.exit(0)\nos.wait()"
    done = run_real(libcuda, child)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("retained=0")


def test_downloaded_arrays_may_be_read_after_it_is_closed(libcuda: Path) -> None:
    end = (
        "kept = device.perform(lambda: device.download(device.allocate((1 << 20,), np.uint8)))\n"
        "device.close()\nassert kept.sum() == 0\nprint(fake.fake_report().decode())"
    )
    done = run_real(libcuda, end)
    assert done.returncode == 0, done.stderr
    assert "retained=1 depth=0 memory=0 pinned=1" in done.stdout  # its context stays for it


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("pop_fails", [False, True], ids=["pops", "does not pop"])
def test_a_lost_gpu_ends_in_one_error_and_a_clean_exit(libcuda: Path, number: int, pop_fails: bool) -> None:
    done = run_real(libcuda, FAKE_LOST=str(number), **({"FAKE_LOST_POP": "1"} if pop_fails else {}))
    assert done.returncode == 0, done.stderr
    assert "and this process can use the GPU no more" in done.stdout
    assert "retained=0" in done.stdout
