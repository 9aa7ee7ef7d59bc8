"""ONNX Runtime with its own TensorRT provider, and CUDA for what that does not take.

Its engines are kept beside ours. Their names begin with a digest of the model and the level: without one, ONNX Runtime
names them by the graph alone, and takes the engine of one set of weights for another.
Source: onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from gcpp_edge.device import Device
from gcpp_edge.engine_cache import model_digest
from gcpp_edge.engine_store import open_folder
from gcpp_edge.runtimes import RuntimeOptions
from gcpp_edge.runtimes.onnxruntime import CUDA, OnnxRuntime


def open_runtime(model: str | bytes, where: str, options: RuntimeOptions, device: Device) -> OnnxRuntimeTensorRt:
    """The network, loaded; see gcpp_edge.runtimes.open_runtime."""
    return OnnxRuntimeTensorRt(model, where, options, device)


class OnnxRuntimeTensorRt(OnnxRuntime):
    """A session whose engines TensorRT builds the first time."""

    def __init__(self, model: str | bytes, where: str, options: RuntimeOptions, device: Device) -> None:
        self._prefix = _digest(model, where, options)
        super().__init__(model, where, options, device)
        self.name = f"{self.name} with TensorRT"

    def providers(self, device: Device, options: RuntimeOptions) -> list[Any]:
        """TensorRT before CUDA."""
        others = super().providers(device, options)
        if device.memory != CUDA:
            return others
        folder = str(open_folder())
        chosen = {
            "device_id": "0",
            "user_compute_stream": str(device.stream),
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": folder,
            "trt_engine_cache_prefix": f"onnxruntime-{self._prefix}",
            "trt_timing_cache_enable": "1",
            "trt_cuda_graph_enable": str(int(options.cuda_graph)),
            "trt_timing_cache_path": folder,
        }
        return [("TensorrtExecutionProvider", chosen), *others]


def _digest(model: str | bytes, where: str, options: RuntimeOptions) -> str:
    """Of the file with its weights, and of how it is asked for."""
    if Path(where).is_file():
        file = model_digest(Path(where), open_folder())
    else:
        file = hashlib.sha256(model if isinstance(model, bytes) else Path(model).read_bytes()).hexdigest()
    return hashlib.sha256(f"{file} {options.level} {options.tf32}".encode()).hexdigest()[:16]
