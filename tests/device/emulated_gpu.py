"""The CUDA device without a GPU: kernels in the emulator, the network by ONNX Runtime in its turn."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
from fake_driver import FakeDriver, Faults, Stream

from gcpp_edge import backends
from gcpp_edge.device import DEVICES, open_device
from gcpp_edge.device.cuda import CudaDevice, open_on
from gcpp_edge.runtimes import RUNTIMES
from gcpp_edge.runtimes.onnxruntime import OnnxRuntime

cuda_table = pytest.importorskip("gcpp_edge.kernels.cuda_table", reason="needs the CUDA kernels")
emulator = pytest.importorskip("emulator", reason="needs the emulator of the CUDA kernels")

CALLERS = 4711  # the handle of a stream of the caller's


class Enqueued(OnnxRuntime):
    """A network whose run is work on the device's stream."""

    has_twins = can_be_recorded = True

    def __init__(self, model: Any, where: str, options: Any, device: CudaDevice) -> None:
        super().__init__(model, where, options, open_device("cpu"))
        self._opened, self._device = (model, where, options), device

    def run(self) -> None:
        self._device._driver.give_host_work(self._device.stream, super().run)

    def twin(self, device: CudaDevice) -> Enqueued:
        return Enqueued(*self._opened, device)


def install(monkeypatch: pytest.MonkeyPatch, faults: list[Faults], integrated: bool = False) -> list[FakeDriver]:
    """Makes "cuda" such a device. Returns a list that every driver is added to as it is opened.

    faults: of the next device. integrated: as on a Jetson.
    """
    opened: list[FakeDriver] = []

    def open_driver() -> FakeDriver:
        fault = faults.pop() if faults else None
        opened.append(FakeDriver(emulator.launch, faults=fault, integrated=integrated))
        opened[-1].foreign[CALLERS] = Stream()
        return opened[-1]

    device: Any = types.ModuleType("a cuda device")
    device.open_device = lambda stream, *of_the_host: open_on(
        open_driver, lambda _: b"image", cuda_table.CudaKernels, stream
    )
    runtime: Any = types.ModuleType("a runtime")
    runtime.open_runtime = Enqueued
    monkeypatch.setitem(sys.modules, "a_cuda_device", device)
    monkeypatch.setitem(sys.modules, "a_runtime", runtime)
    monkeypatch.setitem(DEVICES, "cuda", "a_cuda_device")
    monkeypatch.setitem(RUNTIMES, "enqueued", "a_runtime")
    monkeypatch.setitem(backends.BACKENDS, "cuda", backends.Backend("cuda", "enqueued", lambda: ""))
    return opened
