"""The TensorRT runtime on the CUDA device without a GPU: recorded frames, two slots, engines by ONNX Runtime."""

import sys
import types
from typing import Any

import numpy as np
import pytest
from fake_driver import FakeDriver
from fake_tensorrt import Fake

import gcpp_edge
from gcpp_edge import backends
from gcpp_edge.device import DEVICES
from gcpp_edge.device.cuda import open_on
from gcpp_edge.errors import RuntimeFailure

cuda_table = pytest.importorskip("gcpp_edge.kernels.cuda_table", reason="needs the CUDA kernels")
emulator = pytest.importorskip("emulator", reason="needs the emulator of the CUDA kernels")
pytestmark = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "-")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A release whose work waits on the streams of the driver, which is `fake.driver`."""
    fake: Any = Fake("10.3.0")

    def open_driver() -> FakeDriver:
        fake.driver = FakeDriver(emulator.launch)
        fake.gpu_name = fake.driver.gpu.name
        fake.enqueue = fake.driver.give_host_work
        return fake.driver

    device: Any = types.ModuleType("a cuda device")
    device.open_device = lambda stream, threads: open_on(
        open_driver, lambda _: b"image", cuda_table.CudaKernels, stream
    )
    monkeypatch.setitem(sys.modules, "tensorrt", fake.module())
    monkeypatch.setitem(sys.modules, "a_cuda_device", device)
    monkeypatch.setitem(DEVICES, "cuda", "a_cuda_device")
    monkeypatch.setitem(backends.BACKENDS, "tensorrt", backends.Backend("cuda", "tensorrt", lambda: ""))
    return fake


def same(found: gcpp_edge.Explanation, expected: gcpp_edge.Explanation) -> None:
    assert found.class_index == expected.class_index
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("guided", [False, True])
def test_recorded_frames_explain_as_the_host_does(fake, shared_model, random_frame, guided: bool) -> None:
    with (
        gcpp_edge.load(shared_model.path, device="tensorrt") as gpu,
        gcpp_edge.load(shared_model.path, device="cpu") as host,
    ):
        assert gpu.backend == "tensorrt" and gpu.runtime_name.startswith("TensorRT 10.3.0")
        for seed in range(6):
            frame = random_frame(seed=seed)
            found, expected = gpu(frame, guided=guided), host(frame, guided=guided)
            same(found, expected)
            if guided:
                np.testing.assert_allclose(found.guided(), expected.guided(), atol=1e-4)
        runs = fake.calls.count(("execute_async_v3",))
        gpu(random_frame(seed=7), guided=guided)
        assert fake.calls.count(("execute_async_v3",)) == runs  # a replay asks TensorRT for nothing
        frames = [random_frame(seed=seed) for seed in range(5)]
        for one, expected in zip(gpu(frames), host(frames), strict=True):
            same(one, expected)
        np.testing.assert_allclose(gpu.scores(frames), host.scores(frames), atol=1e-5)


def test_closing_gives_everything_back_contexts_first(fake, shared_model, random_frame) -> None:
    explainer = gcpp_edge.load(shared_model.path, device="tensorrt")
    frames = [random_frame(seed=seed) for seed in range(4)]
    explainer(frames)
    explainer.scores(frames)
    explainer.close()
    assert fake.driver.leaks == {}
    assert fake.gone.count("engine") == fake.gone.count("runtime") == 2  # a level each
    first_engine = fake.gone.index("engine")
    assert fake.gone[:first_engine] and set(fake.gone[:first_engine]) == {"context"}


def test_a_run_that_tensorrt_refuses_leaves_an_explainer_that_can_be_closed(fake, shared_model, random_frame) -> None:
    with gcpp_edge.load(shared_model.path, device="tensorrt") as explainer:
        fake.refuse["execute_async_v3"] = "an illegal memory access"
        with pytest.raises(RuntimeFailure, match="an illegal memory access"):
            explainer(random_frame())
        fake.refuse.clear()
        explainer(random_frame())
    assert fake.driver.leaks == {}
