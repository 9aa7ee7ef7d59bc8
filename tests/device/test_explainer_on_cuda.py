"""The explainer on the CUDA device without a GPU: kernels in the emulator, the network by ONNX Runtime in its turn."""

from __future__ import annotations

import sys
import types
from typing import Any

import numpy as np
import pytest
from fake_driver import FakeDriver

import gcpp_edge
from gcpp_edge import backends
from gcpp_edge.device import DEVICES, open_device
from gcpp_edge.device.cuda import CudaDevice, open_on
from gcpp_edge.runtimes import RUNTIMES
from gcpp_edge.runtimes.onnxruntime import OnnxRuntime

cuda_table = pytest.importorskip("gcpp_edge.kernels.cuda_table", reason="needs the CUDA kernels")
emulator = pytest.importorskip("emulator", reason="needs the emulator of the CUDA kernels")
pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "-")


class Enqueued(OnnxRuntime):
    """A network whose run is work on the device's stream."""

    has_twins = True

    def __init__(self, model: Any, where: str, options: Any, device: CudaDevice) -> None:
        super().__init__(model, where, options, open_device("cpu"))
        self._opened, self._device = (model, where, options), device

    def run(self) -> None:
        self._device._driver.give_host_work(self._device.stream, super().run)

    def twin(self, device: CudaDevice) -> Enqueued:
        return Enqueued(*self._opened, device)


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> list[FakeDriver]:
    """Of every device that is opened as "cuda"."""
    opened: list[FakeDriver] = []

    def open_driver() -> FakeDriver:
        opened.append(FakeDriver(emulator.launch))
        return opened[-1]

    device: Any = types.ModuleType("a cuda device")
    device.open_device = lambda: open_on(open_driver, lambda _: b"image", cuda_table.CudaKernels)
    runtime: Any = types.ModuleType("a runtime")
    runtime.open_runtime = Enqueued
    monkeypatch.setitem(sys.modules, "a_cuda_device", device)
    monkeypatch.setitem(sys.modules, "a_runtime", runtime)
    monkeypatch.setitem(DEVICES, "cuda", "a_cuda_device")
    monkeypatch.setitem(RUNTIMES, "enqueued", "a_runtime")
    monkeypatch.setitem(backends.BACKENDS, "cuda", backends.Backend("cuda", "enqueued", lambda: ""))
    return opened


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
