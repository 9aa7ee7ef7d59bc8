"""The CUDA device on a driver whose memory is the host's: frames, recordings, slots, faults, nothing left behind."""

from __future__ import annotations

import gc
import logging
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from fake_driver import FakeDriver, Faults, Stream, memory_at

from gcpp_edge.device.cuda import CudaDevice, open_on
from gcpp_edge.device.driver import LEGACY_STREAM, Launch
from gcpp_edge.device.recordings import LIMIT
from gcpp_edge.errors import DeviceError, DeviceLostError, DeviceMemoryError, FrameError, RuntimeFailure

F32 = np.dtype(np.float32)
U8 = np.dtype(np.uint8)


class Kernels:
    """target = source + amount, on bytes: enough of a kernel to see what ran on what."""

    def __init__(self, launch: Launch, scratch: Callable[[int], int]) -> None:
        self._launch, self._scratch = launch, scratch

    def add(self, source: Any, target: Any, amount: int) -> None:
        arguments = struct.pack("QQQQ", source.address, target.address, source.nbytes, amount)
        self._launch("gcpp_add_cuda", (1, 1, 1), (32, 1, 1), 0, arguments)

    def add_twice(self, source: Any, target: Any, amount: int) -> None:
        """By way of scratch memory."""
        between = self._scratch(source.nbytes)
        for addresses in ((source.address, between), (between, target.address)):
            self._launch(
                "gcpp_add_cuda", (1, 1, 1), (32, 1, 1), 0, struct.pack("QQQQ", *addresses, source.nbytes, amount)
            )

    cam = heatmap = overlay = guided = preprocess = add


def run_kernel(name: str, grid: Any, block: Any, shared_bytes: int, arguments: bytes) -> None:
    source, target, nbytes, amount = struct.unpack("QQQQ", arguments)
    memory_at(target, nbytes)[:] = memory_at(source, nbytes) + np.uint8(amount)


class Opened:
    """A device, the driver under it, and a frame's work on it."""

    def __init__(self, stream: Callable[[FakeDriver], int] | None = None, **options: Any) -> None:
        self.drivers: list[FakeDriver] = []

        def open_driver() -> FakeDriver:
            self.drivers.append(FakeDriver(run_kernel, **options))
            return self.drivers[-1]

        self.device: CudaDevice = open_on(open_driver, lambda _: b"image", Kernels)

    @property
    def driver(self) -> FakeDriver:
        return self.drivers[-1]

    def frame(self, slot: CudaDevice, array: Any, out: Any, amount: int = 1, key: Any = "key") -> None:
        """Under way when it returns: `out` takes the frame plus `amount`."""
        staged = slot.stage("frame", array)

        def work() -> None:
            slot.kernels.implementation.add(slot.send(staged), out, amount)
            slot.fetch(out)

        slot.replay(key, work)


@pytest.fixture
def opened():
    made: list[Opened] = []

    def make(**options: Any) -> Opened:
        made.append(Opened(**options))
        return made[-1]

    yield make
    for one in made:
        one.device.close()
        assert one.driver.closings == 1
        assert not one.driver.leaks


def picture(seed: int, shape: tuple[int, ...] = (4, 6, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 200, shape, np.uint8)


def test_buffers_begin_as_zeros_and_take_what_is_uploaded(opened) -> None:
    device = opened().device

    def work() -> None:
        buffer = device.allocate((2, 3), F32)
        assert not device.download(buffer).any()
        array = np.arange(6, dtype=np.float32).reshape(2, 3)
        device.upload(array, buffer)
        array[:] = -1  # the device took it already
        device.upload(np.full(3, 9, np.float32), buffer[1])
        assert device.download(buffer).tolist() == [[0, 1, 2], [9, 9, 9]]
        assert device.download(buffer[0]).tolist() == [0, 1, 2]
        assert device.download(device.allocate((0, 3), F32)).shape == (0, 3)
        with pytest.raises(ValueError, match="cannot take float64"):
            device.upload(np.zeros((2, 3)), buffer)

    device.perform(work)


def test_many_uploads_never_overwrite_one_that_is_still_to_be_copied(opened) -> None:
    device = opened().device

    def work() -> None:
        buffers = [device.allocate((3000,), F32) for _ in range(20)]
        for number, buffer in enumerate(buffers):
            device.upload(np.full(3000, number, np.float32), buffer)
        large = device.allocate((100_000,), F32)
        device.upload(np.full(100_000, 7, np.float32), large)
        for number, buffer in enumerate(buffers):
            assert (device.download(buffer) == number).all()
        assert (device.download(large) == 7).all()

    device.perform(work)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_frames_are_right_uncaptured_recorded_and_replayed(opened, integrated: bool) -> None:
    one = opened(integrated=integrated)
    device, driver = one.device, one.driver

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        for number in range(6):
            frame = picture(number)
            expected = frame + 1
            one.frame(device, frame, out)
            frame[:] = 0  # staged: the caller may go on
            assert np.array_equal(device.download(out), expected), number

    device.perform(work)
    assert driver.counts["begin_capture"] == 1
    assert driver.counts["replay"] == 5
    assert driver.counts["copy_in"] == (0 if integrated else 3)  # as it is, recorded, and to check the recording
    assert driver.counts["launch"] == 3


def test_nothing_is_allocated_once_a_frame_was_recorded(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        out, target = device.allocate((4, 6, 3), U8), device.allocate((1,), np.dtype(np.int64))
        for number in range(1000):
            device.upload(np.array([number]), target)
            one.frame(device, picture(number), out)
            device.download(out)
            if number == 2:
                before = driver.counts["allocate"], driver.counts["allocate_host"], len(driver.graphs)
        assert before == (driver.counts["allocate"], driver.counts["allocate_host"], len(driver.graphs))
        assert device.download(target)[0] == 999

    device.perform(work)


def test_scratch_memory_grows_and_older_recordings_keep_theirs(opened) -> None:
    one = opened()
    device = one.device

    def work() -> None:
        for number in range(4):
            for size in (100, 70_000, 200_000):
                source, out = (buffers.setdefault((name, size), device.allocate((size,), U8)) for name in "so")
                device.upload(np.full(size, number, np.uint8), source)
                device.replay(size, lambda s=source, o=out: device.kernels.implementation.add_twice(s, o, 3))
                assert (device.download(out) == number + 6).all()

    buffers: dict[Any, Any] = {}
    device.perform(work)
    assert one.driver.counts["replay"] == 9


def test_a_frame_whose_rows_lie_apart_is_packed(opened) -> None:
    one = opened()
    frame = picture(1, (4, 8, 3))[:, 1:7]

    def work() -> None:
        out = one.device.allocate((4, 6, 3), U8)
        one.frame(one.device, frame, out)
        assert np.array_equal(one.device.download(out), frame + 1)

    one.device.perform(work)


def test_frames_of_other_sizes_are_recorded_for_themselves(opened) -> None:
    one = opened()
    device = one.device

    def work() -> None:
        out = device.allocate((40, 6, 3), U8)
        for number in range(24):
            frame = picture(number, (4 + number % 3 * 7, 6, 3))  # the slot grows twice
            one.frame(device, frame, out, key="the same for all")
            assert np.array_equal(device.download(out)[: len(frame)], frame + 1)

    device.perform(work)
    assert one.driver.counts["replay"] > 10


def test_recordings_that_are_not_used_are_given_back(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        for number in range(3 * LIMIT):
            for _ in range(3):
                one.frame(device, picture(number), out, key=number)
            assert len(driver.graphs) <= LIMIT
            assert np.array_equal(device.download(out), picture(number) + 1)

    device.perform(work)
    assert driver.counts["free_graph"] >= 2 * LIMIT


def test_freeing_a_buffer_forgets_recordings_and_its_twin(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        for number in range(3):
            out = device.allocate((4, 6, 3), U8)
            for _ in range(4):
                one.frame(device, picture(number), out)
                assert np.array_equal(device.download(out), picture(number) + 1)
            assert len(driver.graphs) == 1
            device.free(out)
            device.free(out)
            assert not driver.graphs

    device.perform(work)


def test_a_key_of_none_is_never_recorded(opened) -> None:
    one = opened()

    def work() -> None:
        out = one.device.allocate((4, 6, 3), U8)
        for number in range(4):
            one.frame(one.device, picture(number), out, key=None)
            assert np.array_equal(one.device.download(out), picture(number) + 1)

    one.device.perform(work)
    assert not one.driver.counts["begin_capture"]


def test_what_was_fetched_is_not_taken_for_what_came_later(opened) -> None:
    one = opened()
    device = one.device

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        one.frame(device, picture(1), out)
        device.download(out)
        device.kernels.implementation.add(out, out, 5)
        assert np.array_equal(device.download(out), picture(1) + 6)
        device.upload(picture(2), out)
        assert np.array_equal(device.download(out), picture(2))

    device.perform(work)


@pytest.mark.parametrize(
    "fault",
    [Faults(no_capture=True), Faults(at={"begin_capture": 1}), Faults(at={"end_capture": 1}), Faults(at={"launch": 3})],
    ids=["never", "at its begin", "at its end", "within"],
)
def test_a_refused_capture_is_named_once_and_frames_go_on(opened, fault: Faults, caplog) -> None:
    one = opened(faults=fault)

    def work() -> None:
        out = one.device.allocate((4, 6, 3), U8)
        for number in range(5):
            one.frame(one.device, picture(number), out)
            assert np.array_equal(one.device.download(out), picture(number) + 1)

    with caplog.at_level(logging.WARNING):
        one.device.perform(work)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "cannot be recorded as a CUDA graph" in caplog.text
    assert one.driver.counts["begin_capture"] == 1


def test_work_that_refuses_only_while_it_is_recorded_runs_call_by_call(opened, caplog) -> None:
    """As a runtime does that waits, or allocates."""
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        out = device.allocate((4,), U8)

        def frame() -> None:
            if driver._capture is not None:
                raise RuntimeFailure("the runtime waits here")
            device.kernels.implementation.add(out, out, 1)
            device.fetch(out)

        for number in range(4):
            device.replay("key", frame)
            assert (device.download(out) == number + 1).all()

    device.perform(work)
    assert "the runtime waits here" in caplog.text


def test_an_error_of_the_work_itself_leaves_the_stream_usable(opened) -> None:
    one = opened()
    device = one.device

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        one.frame(device, picture(0), out)

        def fail() -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            device.replay(("key"), fail)
        assert not one.driver.graphs
        one.frame(device, picture(3), out, key="another")
        assert np.array_equal(device.download(out), picture(3) + 1)

    device.perform(work)


def test_a_recording_with_other_results_is_not_used(opened, caplog) -> None:
    one = opened()
    device, driver = one.device, one.driver
    amounts = iter(range(1, 100))

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        staged = device.stage("frame", picture(0))

        def frame() -> None:
            device.kernels.implementation.add(device.send(staged), out, next(amounts))
            device.fetch(out)

        for expected in (1, 4, 5, 6):  # 2 was done as it is, and 3 recorded
            device.replay("key", frame)
            assert np.array_equal(device.download(out), picture(0) + np.uint8(expected))

    device.perform(work)
    assert "gives other results" in caplog.text
    assert not driver.graphs


def test_without_graphs_every_frame_runs_call_by_call(opened, caplog) -> None:
    one = opened(no_graphs="cuda-bindings is not installed")

    def work() -> None:
        out = one.device.allocate((4, 6, 3), U8)
        for number in range(3):
            one.frame(one.device, picture(number), out)
            assert np.array_equal(one.device.download(out), picture(number) + 1)

    one.device.perform(work)
    assert caplog.text.count("cuda-bindings is not installed") == 1


def test_uploads_and_replays_within_work_are_refused(opened) -> None:
    device = opened().device

    def work() -> None:
        out = device.allocate((4,), U8)
        with pytest.raises(DeviceError, match="upload within"):
            device.replay(None, lambda: device.upload(np.zeros(4, np.uint8), out))
        with pytest.raises(DeviceError, match="replay within"):
            device.replay(None, lambda: device.replay(None, lambda: None))

    device.perform(work)


def test_two_slots_keep_their_frames_apart_while_both_are_under_way(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver
    assert device.slots == 2
    assert device.slot(0) is device
    assert device.slot(1) is device.slot(1)

    def work() -> None:
        slots = [device.slot(number) for number in range(2)]
        outs = [slot.allocate((4, 6, 3), U8) for slot in slots]
        for number in range(10):
            slot = number % 2
            if number >= 2:
                assert np.array_equal(slots[slot].download(outs[slot]), picture(number - 2) + 1)
            waits = driver.counts["synchronize"]
            one.frame(slots[slot], picture(number), outs[slot])
            if number > 3:
                assert driver.counts["synchronize"] == waits  # the other slot's frame is not waited for

    device.perform(work)
    assert len(set(driver.streams)) == 2


def test_a_slot_that_is_staged_again_waits_for_the_frame_before(opened) -> None:
    """Nobody downloaded it: its copy must be over before the slot is written."""
    one = opened()

    def work() -> None:
        outs = [one.device.allocate((4, 6, 3), U8) for _ in range(2)]
        for number, out in enumerate(outs):
            one.frame(one.device, picture(number), out, key=number)
        assert np.array_equal(one.device.download(outs[0]), picture(0) + 1)
        assert np.array_equal(one.device.download(outs[1]), picture(1) + 1)

    one.device.perform(work)


class OnGpu:
    """A frame of another library: host memory that says it is on the GPU."""

    def __init__(self, array: np.ndarray, stream: int | None = None) -> None:
        self.array = array
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            "version": 3,
            "stream": stream,
        }


class ByDlpack:
    """The same by DLPack."""

    def __init__(self, array: np.ndarray, number: int = 0) -> None:
        self._array, self._number, self.asked = array, number, []

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, self._number)

    def __dlpack__(self, stream: int | None = None) -> Any:
        self.asked.append(stream)
        return self._array.__dlpack__()


@pytest.mark.parametrize("wrap", [OnGpu, ByDlpack])
@pytest.mark.parametrize("columns", [slice(None), slice(1, 5)], ids=["packed", "rows apart"])
def test_a_frame_on_the_gpu_never_comes_to_the_host(opened, wrap, columns) -> None:
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        frames = [picture(number)[:, columns] for number in range(4)]
        out = device.allocate(frames[0].shape, U8)
        for frame in frames:
            one.frame(device, wrap(frame), out)
            assert np.array_equal(device.download(out), frame + 1)

    device.perform(work)
    assert driver.counts["copy_in"] == 0
    assert driver.counts["replay"] == 3


def test_frames_of_both_kinds_may_take_turns(opened) -> None:
    one = opened()
    device = one.device

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        for number in range(16):
            frame = picture(number)
            one.frame(device, OnGpu(frame) if number % 3 else frame, out)
            assert np.array_equal(device.download(out), frame + 1), number

    device.perform(work)


def test_a_frame_on_the_gpu_is_taken_after_the_stream_that_writes_it(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        stream = driver.caller_stream()
        memory = np.zeros((4, 6, 3), np.uint8)
        for number in range(4):
            driver.give_caller(stream, lambda number=number: np.copyto(memory, picture(number)))
            one.frame(device, OnGpu(memory, stream), out)
            driver.give_caller(stream, lambda: memory.fill(0))  # it waits for our copy
            driver.finish_caller(stream)
            assert np.array_equal(device.download(out), picture(number) + 1)

    device.perform(work)


def test_a_frame_that_names_no_stream_for_want_of_a_word_comes_after_the_default_one(opened) -> None:
    one = opened()
    device, driver = one.device, one.driver
    default = driver.foreign[LEGACY_STREAM] = Stream()

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        memory = np.zeros((4, 6, 3), np.uint8)
        frame = OnGpu(memory)
        del frame.__cuda_array_interface__["stream"]
        frame.__cuda_array_interface__["version"] = 2
        driver.give_caller(LEGACY_STREAM, lambda: np.copyto(memory, picture(3)))
        one.frame(device, frame, out)
        driver.give_caller(LEGACY_STREAM, lambda: memory.fill(0))
        driver.finish_caller(LEGACY_STREAM)
        assert np.array_equal(device.download(out), picture(3) + 1)

    device.perform(work)
    assert default.done == default.given


def test_dlpack_is_asked_to_make_our_stream_wait(opened) -> None:
    device = opened().device
    frame = ByDlpack(picture(0))
    device.perform(lambda: device.stage("frame", frame))
    assert frame.asked == [device.stream]


def test_frames_that_cannot_be_taken_are_named(opened) -> None:
    device = opened().device
    with pytest.raises(FrameError, match="GPU 1, the network on GPU 0"):
        device.perform(lambda: device.stage("frame", ByDlpack(picture(0), 1)))
    with pytest.raises(FrameError, match="packed"):
        device.perform(lambda: device.stage("frame", OnGpu(picture(0)[:, ::2])))


def test_a_frame_on_the_gpu_is_taken_after_the_caller_s_stream() -> None:
    driver = FakeDriver(run_kernel)
    memory = np.zeros((4, 6, 3), np.uint8)

    def open_driver() -> FakeDriver:
        driver._thread = threading.get_ident()
        return driver

    stream = driver.caller_stream()
    device = open_on(open_driver, lambda _: b"image", Kernels, stream=stream)

    def work() -> None:
        out = device.allocate((4, 6, 3), U8)
        driver.give_caller(stream, lambda: np.copyto(memory, picture(5)))
        staged = device.stage("frame", OnGpu(memory))

        def frame() -> None:
            device.kernels.implementation.add(device.send(staged), out, 1)
            device.fetch(out)

        device.replay("key", frame)
        assert np.array_equal(device.download(out), picture(5) + 1)

    device.perform(work)
    device.close()


def test_a_device_on_a_callers_stream_works_between_what_that_holds() -> None:
    drivers: list[FakeDriver] = []

    def open_driver() -> FakeDriver:
        drivers.append(FakeDriver(run_kernel))
        assert drivers[0].caller_stream() == 1000
        return drivers[0]

    device = open_on(open_driver, lambda _: b"image", Kernels, stream=1000)
    driver = drivers[0]
    seen: list[np.ndarray] = []

    def work() -> None:
        source, out = device.allocate((4,), U8), device.allocate((4,), U8)
        for number in range(4):
            driver.give_caller(1000, lambda number=number: driver.view(source.address, 4).fill(number))
            device.replay("key", lambda: device.kernels.implementation.add(source, out, 1))
            driver.give_caller(1000, lambda: seen.append(driver.view(out.address, 4).copy()))
            driver.give_caller(1000, lambda: driver.view(source.address, 4).fill(99))
            driver.finish_caller(1000)

    device.perform(work)
    device.close()
    assert [int(values[0]) for values in seen if len(values)] == [1, 2, 3, 4]


def test_numpy_reads_a_buffer_through_dlpack_once_its_work_is_done(opened) -> None:
    device = opened().device

    def work() -> Any:
        buffer = device.allocate((3,), F32)
        device.upload(np.arange(3, dtype=np.float32), buffer)
        return buffer

    buffer = device.perform(work)
    assert np.from_dlpack(buffer).tolist() == [0, 1, 2]
    device.close()
    with pytest.raises(DeviceError, match="was freed, with its device"):
        buffer.__dlpack__()


def test_the_time_between_two_points_is_taken(opened) -> None:
    device = opened().device
    assert device.perform(lambda: device.elapsed_ms(device.timestamp(), device.timestamp())) == 1.0


def frames_until_it_fails(one: Opened) -> int:
    """Both slots, a frame that grows, frames on the GPU, a buffer that is freed. Returns the calls before that."""
    device = one.device

    def work() -> int:
        slots = [device.slot(0), device.slot(1)]
        outs = [slot.allocate((9, 6, 3), U8) for slot in slots]
        for number in range(8):
            slot, out = slots[number % 2], outs[number % 2]
            frame = picture(number, (4 + number, 6, 3) if number < 4 else (7, 6, 3))
            slot.upload(np.zeros((3, 3), np.uint8), out[8, 3:6])
            one.frame(slot, OnGpu(frame) if number == 5 else frame, out)
            assert np.array_equal(slot.download(out)[: len(frame)], frame + 1)
        calls = len(one.driver.calls)
        device.free(outs[0])
        return calls

    return device.perform(work)


def test_whatever_fails_wherever_it_is_one_clear_error_and_nothing_is_left() -> None:
    whole = Opened()
    total, names = frames_until_it_fails(whole), whole.driver.counts
    whole.device.close()
    assert not whole.driver.leaks
    for lost_at in range(1, total + 1):
        faulty = Faults(lost_at=lost_at)
        drivers: list[FakeDriver] = []
        with pytest.raises(DeviceLostError, match="Load again"):
            _open_and_run(faulty, drivers)
        assert (drivers[0].closings, drivers[0].leaks) == (1, {}), lost_at
    for name, number in names.items():
        for place in range(1, number + 1):
            drivers = []
            with suppress(DeviceError):  # a capture that fails is not an error
                _open_and_run(Faults(at={name: place}), drivers)
            assert (drivers[0].closings, drivers[0].leaks) == (1, {}), (name, place)


def _open_and_run(faults: Faults, drivers: list[FakeDriver]) -> None:
    one = Opened.__new__(Opened)
    one.drivers = drivers

    def open_driver() -> FakeDriver:
        drivers.append(FakeDriver(run_kernel, faults=faults))
        return drivers[0]

    one.device = open_on(open_driver, lambda _: b"image", Kernels)
    try:
        frames_until_it_fails(one)
    finally:
        one.device.close()


def test_a_failed_allocation_leaves_the_device_usable(opened) -> None:
    one = opened(faults=Faults(at={"allocate": 2}))
    device = one.device

    def work() -> None:
        first = device.allocate((4, 6, 3), U8)
        with pytest.raises(DeviceMemoryError, match="72 bytes of memory were asked for, 0 are free"):
            device.allocate((4, 6, 3), U8)
        one.frame(device, picture(0), first)
        assert np.array_equal(device.download(first), picture(0) + 1)

    device.perform(work)


def test_a_device_that_nobody_holds_gives_everything_back() -> None:
    one = Opened()
    driver = one.driver
    frames_until_it_fails(one)
    del one
    gc.collect()
    assert driver.closings == 1
    assert not driver.leaks


def test_a_closed_device_says_so(opened) -> None:
    device = opened().device
    device.close()
    device.close()
    with pytest.raises(DeviceError, match="closed"):
        device.perform(lambda: None)
