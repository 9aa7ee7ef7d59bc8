"""The GPU's clock and what holds it down, asked while it works: cheap calls of NVML, or on a Jetson the kernel.

NVML comes with the driver and needs no package. Source: nvml.h and docs.nvidia.com/deploy/nvml-api
"""

from __future__ import annotations

import os
from ctypes import CDLL, byref, c_uint, c_ulonglong, c_void_p
from pathlib import Path
from typing import Any

from gcpp_edge.bench.machine import ROOT, number, read_text

SLOWED = {  # nvmlClocksEventReason...
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x20: "heat",
    0x40: "heat",
    0x80: "power brake",
}
_SM_CLOCK = 1  # NVML_CLOCK_SM
_JETSON_GPUS = ("gpu", "ga10b", "gv11b", "gp10b", "gb10b")  # how devfreq names them


class GpuClock:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves, by NVML's order. Where nothing says, the clock is 0."""

    def __init__(self, root: Path = ROOT, library: str = "libnvidia-ml.so.1") -> None:
        self._files = [path / "cur_freq" for path in sorted((root / "sys/class/devfreq").glob("*")) if _is_gpu(path)]
        self._nvml, self._device = _opened(library)

    def mhz(self) -> float:
        """Now."""
        value = c_uint(0)
        if self._nvml is not None and self._nvml.nvmlDeviceGetClockInfo(self._device, _SM_CLOCK, byref(value)) == 0:
            return float(value.value)
        return max((number(read_text(path)) / 1e6 for path in self._files), default=0.0)

    def slowed_by(self) -> set[str]:
        """What holds it down now, besides having nothing to do."""
        bits = c_ulonglong(0)
        if self._nvml is None:
            return set()
        if self._nvml.nvmlDeviceGetCurrentClocksThrottleReasons(self._device, byref(bits)) != 0:
            return set()
        return {reason for bit, reason in SLOWED.items() if bits.value & bit}


def _is_gpu(path: Path) -> bool:
    return any(name in path.name for name in _JETSON_GPUS)


def _opened(library: str) -> tuple[Any, c_void_p]:
    """NVML and its handle of the GPU; None where there is no such library or GPU."""
    device = c_void_p()
    try:
        nvml: Any = CDLL(library)
        if nvml.nvmlInit_v2() == 0 and nvml.nvmlDeviceGetHandleByIndex_v2(c_uint(_index()), byref(device)) == 0:
            return nvml, device
    except (OSError, AttributeError):  # an NVML without one of these calls, as some boards have, is none
        pass
    return None, device


def _index() -> int:
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return int(first) if first.isdigit() else 0
