"""The GPU tests without a GPU: GCPP_GPU_REHEARSAL=1 pytest tests/gpu.

The device is the real one on the fake driver of tests/device, with the kernels in the emulator of tests/kernels;
networks run by ONNX Runtime, in their turn. It shows that the tests can pass, and nothing of a GPU.
"""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
IS_ON = os.environ.get("GCPP_GPU_REHEARSAL") == "1"
FRAMES = 300  # instead of 10,000


def prepare() -> None:
    """Puts the stand-ins where the package looks for devices and runtimes."""
    sys.path[:0] = [str(TESTS / "kernels"), str(TESTS / "device")]
    import emulator
    from fake_driver import FakeDriver

    from gcpp_edge import backends
    from gcpp_edge.device import DEVICES, open_device
    from gcpp_edge.device.cuda import CudaDevice, open_on
    from gcpp_edge.kernels.cuda_table import CudaKernels
    from gcpp_edge.runtimes import RUNTIMES
    from gcpp_edge.runtimes.onnxruntime import OnnxRuntime

    class Enqueued(OnnxRuntime):
        """A network whose run is work on the device's stream."""

        has_twins = can_be_recorded = True

        def __init__(self, model: Any, where: str, options: Any, device: CudaDevice) -> None:
            super().__init__(model, where, options, open_device("cpu"))
            self.name = "stand-in for TensorRT"
            self._opened, self._device = (model, where, options), device

        def run(self) -> None:
            self._device._driver.give_host_work(self._device.stream, super().run)

        def twin(self, device: CudaDevice) -> Enqueued:
            return Enqueued(*self._opened, device)

    device: Any = types.ModuleType("rehearsed device")
    device.open_device = lambda stream, threads: open_on(
        lambda: FakeDriver(emulator.launch), lambda _: b"image", CudaKernels, stream
    )
    runtime: Any = types.ModuleType("rehearsed runtime")
    runtime.open_runtime = Enqueued
    sys.modules |= {"rehearsed_device": device, "rehearsed_runtime": runtime}
    DEVICES["cuda"], RUNTIMES["rehearsed"] = "rehearsed_device", "rehearsed_runtime"
    for name in ("cuda", "tensorrt"):
        backends.BACKENDS[name] = backends.Backend("cuda", "rehearsed", lambda: "")
