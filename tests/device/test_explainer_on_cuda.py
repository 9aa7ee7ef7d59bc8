"""The explainer on the CUDA device without a GPU: kernels in the emulator, the network by ONNX Runtime in its turn."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest
from emulated_gpu import CALLERS, Enqueued, emulator, install
from fake_driver import FakeDriver, Faults

import gcpp_edge
from gcpp_edge.errors import DeviceLostError
from gcpp_edge.runtimes.onnxruntime import OnnxRuntime

pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "-")


@pytest.fixture
def faults() -> list[Faults]:
    """Of the next device."""
    return []


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch, faults: list[Faults]) -> list[FakeDriver]:
    """Of every device that is opened as "cuda"."""
    return install(monkeypatch, faults)


def same(found: gcpp_edge.Explanation, expected: gcpp_edge.Explanation) -> None:
    assert found.class_index == expected.class_index
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.heatmap(), expected.heatmap(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["gradcam", "gradcam++", "gradcam++-signed"])
def test_recorded_frames_explain_as_the_host_does(make_model, random_frame, drivers, method) -> None:
    path = make_model(constant=False, batch="N").path
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        for seed in range(5):
            for size in ((16, 12), (37, 50)):
                frame = random_frame(*size, seed=seed)
                same(gpu(frame, 3, method=method), host(frame, 3, method=method))
        found = gpu([random_frame(seed=seed) for seed in range(3)], -2, method=method)
        for seed, one in enumerate(found):
            same(one, host(random_frame(seed=seed), -2, method=method))
    (driver,) = drivers
    assert driver.counts["replay"] >= 7  # the larger frame moved the slot
    assert (driver.closings, driver.leaks) == (1, {})


def test_frames_of_a_runtime_that_cannot_be_recorded_go_call_by_call(
    make_model, random_frame, drivers, monkeypatch
) -> None:
    assert not OnnxRuntime.can_be_recorded  # its graph nodes would free and read host memory again with each replay
    monkeypatch.setattr(Enqueued, "can_be_recorded", False)
    path = make_model().path
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        for seed in range(4):
            frame = random_frame(30, 20, seed=seed)
            same(gpu(frame), host(frame))
            np.testing.assert_allclose(gpu.scores(frame), host.scores(frame), rtol=1e-5, atol=1e-5)
    assert drivers[0].counts["begin_capture"] == 0


def test_the_guided_image_and_the_scores_come_too(make_model, random_frame, drivers) -> None:
    path = make_model().path
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        for seed in range(4):
            frame = random_frame(30, 20, seed=seed)
            found, expected = gpu(frame, guided=True), host(frame, guided=True)
            same(found, expected)
            np.testing.assert_allclose(found.guided(), expected.guided(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(gpu.scores(frame), host.scores(frame), rtol=1e-5, atol=1e-5)


def test_nothing_is_allocated_a_frame(make_model, random_frame, drivers) -> None:
    with gcpp_edge.load(make_model().path, device="cuda") as gpu:
        for seed in range(20):
            gpu(random_frame(40, 30, seed=seed))
            if seed == 2:
                before = drivers[0].counts["allocate"], drivers[0].counts["allocate_host"]
        assert before == (drivers[0].counts["allocate"], drivers[0].counts["allocate_host"])


@pytest.mark.parametrize(("settings", "drawn"), [({}, True), ({"smooth_s": 0.5}, False)])
def test_a_stream_draws_on_the_gpu_what_its_sinks_show(make_model, random_frame, drivers, settings, drawn) -> None:
    path = make_model().path
    frames = [(random_frame(30, 20, seed=seed), seed / 25) for seed in range(6)]
    results = []
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        with gpu.stream(frames, policy="all", target=1, **settings) as stream:
            stream.add(results.append)
            stream.run()
        with host.stream(frames, policy="all", target=1, **settings) as stream:
            expected = list(stream.results())
    assert [bool(result.explanation.made) for result in results] == [drawn] * 6
    for one, other in zip(results, expected, strict=True):
        np.testing.assert_allclose(one.explanation.map, other.explanation.map, rtol=1e-4, atol=1e-6)
        assert np.abs(one.picture().astype(int) - other.picture()).max() <= 2
    assert (drivers[0].closings, drivers[0].leaks) == (1, {})


def test_frames_of_a_stream_take_turns_in_two_slots(make_model, random_frame, drivers) -> None:
    path = make_model().path
    frames = [random_frame(40, 30, seed=seed) for seed in range(12)]
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        for found, frame in zip(gpu.each(frames), frames, strict=True):
            same(found, host(frame))
    assert len(drivers[0].streams) == 2
    assert drivers[0].counts["replay"] >= 8


class OnGpu:
    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.dtype, self.ndim = array, array.shape, array.dtype, array.ndim
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (array.ctypes.data, False),
            "version": 3,
            "stream": None,
        }


def test_a_frame_on_the_gpu_stays_there(make_model, random_frame, drivers) -> None:
    path = make_model().path
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        for seed in range(4):
            frame = random_frame(40, 30, seed=seed)
            found, expected = gpu(OnGpu(frame)), host(frame)
            assert found.class_index == expected.class_index
            np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)


def test_a_stream_that_is_left_early_closes_once_its_frames_are_done(make_model, random_frame, drivers) -> None:
    """The network must not go while it works."""
    with gcpp_edge.load(make_model().path, device="cuda") as gpu:
        stream = gpu.each(random_frame(seed=seed) for seed in range(9))
        for _ in range(4):
            next(stream)
        stream.close()
    assert (drivers[0].closings, drivers[0].leaks) == (1, {})


def test_a_lost_gpu_is_one_error_and_the_model_loads_again(make_model, random_frame, drivers, faults) -> None:
    path, frame = make_model().path, random_frame()
    with gcpp_edge.load(path, device="cuda") as gpu:
        for _ in range(4):
            gpu(frame)
        total = len(drivers[0].calls)
    for lost_at in range(1, total, 7):
        faults.append(Faults(lost_at=lost_at))
        with pytest.raises(DeviceLostError), gcpp_edge.load(path, device="cuda") as gpu:
            for _ in range(4):
                gpu(frame)
        assert (drivers[-1].closings, drivers[-1].leaks) == (1, {}), lost_at
    with gcpp_edge.load(path, device="cuda") as gpu:
        gpu(frame)


def test_inputs_are_there_when_a_runtime_reads_them_at_once(make_model, random_frame, drivers, monkeypatch) -> None:
    """ONNX Runtime has nodes on the host, which do not wait for the device's stream."""
    read = []

    class Unrecorded(Enqueued):
        has_twins = can_be_recorded = False

        def run(self) -> None:
            if "target" in self._bound:
                read.append(ctypes.c_int64.from_address(self._bound["target"].address).value)
            super().run()

    monkeypatch.setattr(sys.modules["a_runtime"], "open_runtime", Unrecorded)
    with gcpp_edge.load(make_model().path, device="cuda") as gpu:
        for target in (3, -2, 5, 5):
            gpu(random_frame(), target)
    assert read == [3, -2, 5, 5]


@pytest.mark.parametrize("format", ["bgr", "rgba"])
def test_pictures_are_drawn_on_the_gpu_and_alone_come_back(make_model, random_frame, drivers, format) -> None:
    path = make_model(constant=False).path
    with gcpp_edge.load(path, device="cuda") as gpu:
        for seed in range(4):
            frame = random_frame(37, 50, 4 if format == "rgba" else 3, seed=seed)
            found = gpu(frame, make=("heatmap", "overlay"), format=format)
            np.testing.assert_allclose(found.made["heatmap"], found.heatmap(), rtol=0, atol=1e-5)
            apart = np.abs(found.made["overlay"].astype(int) - found.overlay())
            assert apart.max() <= 3 and (apart > 1).mean() < 0.01  # a colour beside, where a value rounds the other way
            assert found.on_device["overlay"].shape == frame.shape
            assert set(found.on_device) == {"map", "heatmap", "overlay"}
    assert drivers[0].leaks == {}


def test_what_the_gpu_cannot_draw_is_drawn_on_the_host(make_model, random_frame, drivers) -> None:
    with gcpp_edge.load(make_model().path, device="cuda") as gpu:
        found = gpu(random_frame(20, 30, 0), make="overlay", format="gray")
        np.testing.assert_array_equal(found.made["overlay"], found.overlay())
        assert found.on_device == {}


def test_frames_of_a_stream_overlap_and_keep_their_order(make_model, random_frame, drivers) -> None:
    path, frames = make_model(constant=False).path, [random_frame(30, 40, seed=seed) for seed in range(7)]
    with gcpp_edge.load(path, device="cuda") as gpu, gcpp_edge.load(path, device="cpu") as host:
        taken: list[int] = []

        def source():
            for number, frame in enumerate(frames):
                taken.append(number)
                yield frame

        for number, found in enumerate(gpu.each(source(), make="overlay")):
            assert found.frame is frames[number]
            assert len(taken) == min(number + 3, 7)  # two are under way while the third is taken
            same(found, host(frames[number]))
            assert np.abs(found.made["overlay"].astype(int) - found.overlay()).max() <= 3
    assert drivers[0].leaks == {}


@pytest.mark.parametrize(("shape", "dtype"), [((30, 40), np.uint8), ((30, 40, 3), np.float32), ((3, 30, 40), np.uint8)])
def test_a_frame_on_the_gpu_of_another_kind_is_refused(make_model, drivers, shape, dtype) -> None:
    with (
        gcpp_edge.load(make_model().path, device="cuda") as gpu,
        pytest.raises(gcpp_edge.FrameError, match="on a GPU. Channels come last"),
    ):
        gpu(OnGpu(np.zeros(shape, dtype)))


def test_a_frame_on_the_gpu_is_refused_where_the_cpu_works(make_model, drivers) -> None:
    path = make_model().path
    with gcpp_edge.load(path, device="cpu") as host:
        frame = OnGpu(np.zeros((30, 40, 3), np.uint8))
        with pytest.raises(gcpp_edge.FrameError, match="lies on a GPU"):
            host(frame)


def test_frames_come_after_the_caller_s_stream_and_it_waits_for_them(make_model, random_frame, drivers) -> None:
    with gcpp_edge.load(make_model().path, device="cuda", stream=CALLERS) as gpu:
        for seed in range(4):
            gpu(random_frame(seed=seed))
    assert drivers[0].calls.count("follow") == 2 * 4
    assert drivers[0].foreign[CALLERS].given == 4
