"""What a model can run on: a device and a runtime on it, the best first; and why one cannot be used here.

To add one: its entry in BACKENDS, with a question that costs next to nothing where the answer is no.
"""

from __future__ import annotations

from collections.abc import Callable
from ctypes import CDLL
from importlib.util import find_spec
from typing import NamedTuple

from gcpp_edge.errors import InputError

AUTO = "auto"


class Backend(NamedTuple):
    """device, runtime: names in gcpp_edge.device.DEVICES and gcpp_edge.runtimes.RUNTIMES. why_not: "" if it may."""

    device: str
    runtime: str
    why_not: Callable[[], str]
    by_name_alone: bool = False  # auto leaves it out


def backends_for(name: str = AUTO) -> tuple[str, ...]:
    """The names to try in turn. Raises InputError for an unknown one."""
    if name == AUTO:
        return tuple(name for name, backend in BACKENDS.items() if not backend.by_name_alone)
    if name not in BACKENDS:
        raise InputError(f"Unknown device {name!r}. Known: {', '.join((AUTO, *BACKENDS))}.")
    return (name,)


def _no_gpu() -> str:
    try:
        CDLL("libcuda.so.1")
    except OSError:
        return "there is no NVIDIA driver (libcuda.so.1)"
    if find_spec("pycuda") is None:
        return "PyCUDA is not installed: pip install 'gcpp-edge[cuda]'"
    return ""


def _no_tensorrt() -> str:
    from gcpp_edge.runtimes.tensorrt_library import TITLES, is_installed

    reason = _no_gpu()
    if reason or any(map(is_installed, TITLES)):
        return reason
    return "TensorRT's Python module is not installed"


def _no_cuda_provider() -> str:
    return _no_provider("CUDA")


def _no_provider(name: str) -> str:
    reason = _no_gpu()
    if reason:
        return reason
    try:
        import onnxruntime
    except ImportError:
        return "ONNX Runtime is not installed: pip install onnxruntime-gpu"
    if f"{name}ExecutionProvider" not in onnxruntime.get_available_providers():
        return f"this ONNX Runtime has no {name} provider: pip install onnxruntime-gpu in its place"
    return ""


BACKENDS = {
    "tensorrt": Backend("cuda", "tensorrt", _no_tensorrt),
    "cuda": Backend("cuda", "onnxruntime", _no_cuda_provider),
    "cuda-tensorrt": Backend("cuda", "onnxruntime-tensorrt", lambda: _no_provider("Tensorrt"), by_name_alone=True),
    "cpu": Backend("cpu", "onnxruntime", lambda: ""),
}
