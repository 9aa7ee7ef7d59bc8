"""Tests that need a CUDA device: `pytest -m gpu`. Elsewhere all of them are skipped."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))
import rehearsal

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
EXPLAINED = FIXTURES / "explained-v1.onnx"  # one layer, one class, all three levels, 16 x 16


if rehearsal.IS_ON:
    rehearsal.prepare()


def cuda_devices() -> int:
    """How many the driver has; 0 without a driver. It loads no package and leaves no context."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def capability() -> str:
    """Of device 0, as "9.0"."""
    driver, parts = ctypes.CDLL("libcuda.so.1"), []
    for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR
        value = ctypes.c_int(0)
        assert driver.cuInit(0) == 0 and driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, 0) == 0
        parts.append(str(value.value))
    return ".".join(parts)


def why_not(runtime: str) -> str:
    """Why this machine cannot have it; "" where it must work."""
    from gcpp_edge.backends import BACKENDS
    from gcpp_edge.runtimes import tensorrt_library

    reason = BACKENDS[runtime].why_not()
    if rehearsal.IS_ON or reason or runtime != "tensorrt":
        return reason
    library, card = tensorrt_library.load_library(), capability()
    if library.flavour == tensorrt_library.TENSORRT_RTX and card not in library.capabilities():
        return f"{library.title} knows no GPU of compute capability {card}"
    return ""


@pytest.fixture(params=["cuda", "tensorrt"])
def gpu(request: pytest.FixtureRequest) -> str:
    """The name of each backend in turn."""
    reason = why_not(request.param)
    if reason:
        pytest.skip(reason)
    return str(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of this folder is marked, and skipped where there is nothing to run it on."""
    if rehearsal.IS_ON:
        return
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    if here and cuda_devices() == 0:
        for item in here:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="module")
def device() -> Iterator[Any]:
    """Device number 0, closed at the end."""
    from gcpp_edge.device import open_device

    opened = open_device("cuda")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def on(device: Any) -> Any:
    """`on(array)`: a buffer of the device that holds it."""

    def put(array: np.ndarray) -> Any:
        def work() -> Any:
            buffer = device.allocate(array.shape, array.dtype)
            device.upload(np.ascontiguousarray(array), buffer)
            return buffer

        return device.perform(work)

    return put


@pytest.fixture(scope="module")
def back(device: Any) -> Any:
    """`back(buffer)`: a copy of what it holds, once all work before it is done."""
    return lambda buffer: device.perform(lambda: np.array(device.download(buffer)))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines that the tests build are kept for this session, and never meet the user's."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    folder.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(folder))


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's libraries read this when they are loaded; benchmarks/gpu.sh sets it for the whole process too."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")


def free_memory() -> int:
    """Free bytes of device 0, by the driver's own count."""
    if rehearsal.IS_ON:
        return 0
    driver = ctypes.CDLL("libcuda.so.1")
    context, free, total = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    assert driver.cuInit(0) == 0
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    try:
        assert driver.cuCtxPushCurrent_v2(context) == 0
        assert driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)) == 0
        assert driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p())) == 0
    finally:
        driver.cuDevicePrimaryCtxRelease_v2(0)
    return free.value


@pytest.fixture
def free_device_bytes() -> Any:
    return free_memory


@pytest.fixture
def explained() -> Path:
    return EXPLAINED


@pytest.fixture
def frame() -> np.ndarray:
    """BGR, of a size that needs the model's resize and crop."""
    return np.random.default_rng(3).integers(0, 256, (20, 30, 3), np.uint8)
