"""The GPU, asked by the driver itself: what it is, its free memory, and how fast it copies. No package is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

MAJOR, MINOR, MULTIPROCESSORS, INTEGRATED = 75, 76, 16, 18  # CU_DEVICE_ATTRIBUTE_...
COPIED = 1 << 28  # bytes: beyond any L2 cache
COPIES = 10


def cuda_devices() -> int:
    """How many the driver has; 0 without a driver."""
    try:
        driver = _driver()
    except OSError:
        return 0
    count = ctypes.c_int(0)
    found = driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0
    return count.value if found else 0


def card() -> dict[str, Any]:
    """Name, kind and memory of device 0, and the speed of a copy within it, reads and writes together."""
    driver, name = _driver(), ctypes.create_string_buffer(256)
    with _context():
        _check(driver.cuDeviceGetName(name, 256, 0))
        return {
            "name": name.value.decode(),
            "capability": f"{_attribute(MAJOR)}.{_attribute(MINOR)}",
            "multiprocessors": _attribute(MULTIPROCESSORS),
            "integrated": bool(_attribute(INTEGRATED)),
            "memory_bytes": _memory()[1],
            "copy_gbs": round(_copy_gbs(), 1),
        }


def free_bytes() -> int:
    """Of device 0."""
    with _context():
        return _memory()[0]


@cache
def _driver() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _check(result: int) -> None:
    if result:
        raise RuntimeError(f"CUDA error {result}")


@contextmanager
def _context() -> Iterator[None]:
    """The primary context, which all in this process share, current for a while."""
    driver, context = _driver(), ctypes.c_void_p()
    _check(driver.cuInit(0))
    _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0))
    _check(driver.cuCtxPushCurrent_v2(context))
    try:
        yield
    finally:
        driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
        driver.cuDevicePrimaryCtxRelease_v2(0)


def _attribute(number: int) -> int:
    value = ctypes.c_int(0)
    _check(_driver().cuDeviceGetAttribute(ctypes.byref(value), number, 0))
    return value.value


def _memory() -> tuple[int, int]:
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    _check(_driver().cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
    return free.value, total.value


def _copy_gbs() -> float:
    driver = _driver()
    source, target = ctypes.c_uint64(), ctypes.c_uint64()
    start, stop, took_ms = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
    for block in (source, target):
        _check(driver.cuMemAlloc_v2(ctypes.byref(block), ctypes.c_size_t(COPIED)))
    for event in (start, stop):
        _check(driver.cuEventCreate(ctypes.byref(event), 0))
    for index in range(3 + COPIES):  # the first ones warm up
        if index == 3:
            _check(driver.cuEventRecord(start, None))
        _check(driver.cuMemcpyDtoDAsync_v2(target, source, ctypes.c_size_t(COPIED), None))
    _check(driver.cuEventRecord(stop, None))
    _check(driver.cuEventSynchronize(stop))
    _check(driver.cuEventElapsedTime(ctypes.byref(took_ms), start, stop))
    for block in (source, target):
        _check(driver.cuMemFree_v2(block))
    for event in (start, stop):
        _check(driver.cuEventDestroy_v2(event))
    return 2 * COPIES * COPIED / (1e6 * took_ms.value)
