"""ONNX Runtime: on the CPU, the embedded default, and on CUDA.

Buffers are bound by address: ONNX Runtime reads and writes them in place, on the host or on the GPU. On CUDA it works
on the device's own stream and does not wait for it. Its work is enqueued anew each frame: operators (Concat, Split,
batched MatMul) copy their arguments from host memory that a run gives back at its end, by a call in the stream. A
recording would copy from it when it holds something else, and give it back once a replay.
Sources: onnxruntime.ai/docs/performance/tune-performance/iobinding.html,
onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html,
github.com/microsoft/onnxruntime/pull/32121 and 32081 (recordings)
"""

from __future__ import annotations

import io
import re
from collections.abc import Hashable
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gcpp_edge.device import Device
from gcpp_edge.errors import DeviceError, MissingDependencyError, ModelError, RuntimeFailure
from gcpp_edge.kernels.arguments import address_of
from gcpp_edge.runtimes import RuntimeOptions, TensorInfo

CUDA = "cuda"
CUDA_PROVIDER = "CUDAExecutionProvider"
_FATAL_ONLY = 4  # errors are raised; ONNX Runtime would print them as well
_DTYPES: dict[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}


def open_runtime(model: str | bytes, where: str, options: RuntimeOptions, device: Device) -> OnnxRuntime:
    """The network, loaded; see gcpp_edge.runtimes.open_runtime."""
    return OnnxRuntime(model, where, options, device)


class OnnxRuntime:
    """One ONNX Runtime session and its binding."""

    max_batch: int | None = None
    has_twins = False  # a session works on one stream
    cuts_levels = False
    can_be_recorded = False

    def __init__(self, model: str | bytes, where: str, options: RuntimeOptions, device: Device) -> None:
        onnxruntime = _import_onnxruntime()
        self._where, self._memory = where, device.memory
        self.name = f"ONNX Runtime {self._memory.upper()}"
        self._failures = _failures()
        self._bound: dict[str, Any] = {}  # also keeps the buffers alive: ONNX Runtime holds bare addresses
        if self._memory == CUDA:
            _preload_libraries(onnxruntime)
        try:
            self._session = onnxruntime.InferenceSession(
                model,
                _session_options(onnxruntime, options, str(Path(where).resolve().parent)),
                providers=self.providers(device, options),
                enable_fallback=0,  # it would try the same again, and print that to standard output
            )
            self.inputs = tuple(_info(value, where) for value in self._session.get_inputs())
            self.outputs = tuple(_info(value, where) for value in self._session.get_outputs())
        except self._failures as error:
            raise ModelError(_load_failure(where, error)) from error
        if self._memory == CUDA and CUDA_PROVIDER not in self._session.get_providers():
            self.close()
            raise DeviceError(  # it goes on without, on the CPU, and would be handed addresses of the GPU
                f"ONNX Runtime {onnxruntime.__version__} cannot use the GPU: its CUDA provider does not load. It needs "
                f"the libraries of CUDA {getattr(onnxruntime, 'cuda_version', '') or '12'} and cuDNN 9: pip install "
                "'onnxruntime-gpu[cuda,cudnn]', or name their folder in LD_LIBRARY_PATH."
            )
        self._run_options = self._new_run_options()
        self._has_graphs = options.cuda_graph and self._memory == CUDA
        self._graphs: dict[Hashable, Any] = {}  # run options by what is bound
        self._is_changed = False  # whether something was bound since the last run
        self._binding = self._session.io_binding()
        self._input_names = {value.name for value in self.inputs}

    def providers(self, device: Device, options: RuntimeOptions) -> list[Any]:
        """ONNX Runtime's words for where to work."""
        if device.memory != CUDA:
            return ["CPUExecutionProvider"]
        chosen = {
            "device_id": "0",
            "user_compute_stream": str(device.stream),
            "use_tf32": str(int(options.tf32)),
            "cudnn_conv_algo_search": "EXHAUSTIVE",  # once a shape, before the first frame
            "enable_cuda_graph": str(int(options.cuda_graph)),
        }
        return [(CUDA_PROVIDER, chosen), "CPUExecutionProvider"]

    def bind(self, name: str, buffer: Any) -> None:
        """Read or write this C-contiguous buffer; binding the same one again costs nothing."""
        if self._bound.get(name) is buffer:
            return
        self._require_open()
        if not buffer.flags.c_contiguous:
            raise RuntimeFailure(f"{self._where}: the buffer bound to {name!r} must be C-contiguous.")
        bind = self._binding.bind_input if name in self._input_names else self._binding.bind_output
        try:
            bind(name, self._memory, 0, buffer.dtype, buffer.shape, address_of(buffer))
        except self._failures as error:
            raise RuntimeFailure(
                f"{self._where}: cannot bind {name!r} as {buffer.dtype} {buffer.shape} ({_first_line(error)})."
            ) from error
        self._bound[name] = buffer
        self._is_changed = True

    def _options_of_graph(self) -> Any:
        """A graph replays addresses and shapes, unasked: each set of them has a number of its own."""
        bound = frozenset((name, address_of(buffer), buffer.shape) for name, buffer in self._bound.items())
        if bound not in self._graphs:
            number = len(self._graphs) + 1  # 0 is ONNX Runtime's own
            self._graphs[bound] = self._new_run_options(gpu_graph_id=str(number))
        return self._graphs[bound]

    def _new_run_options(self, **entries: str) -> Any:
        result = _import_onnxruntime().RunOptions()
        result.log_severity_level = _FATAL_ONLY
        # its own default: release 1.32 asks for it at every run, and raises and drops an error where it is not said
        entries.setdefault("gpu_graph_id", "0")
        if self._memory == CUDA:  # the caller waits for its stream, once a frame
            entries["disable_synchronize_execution_providers"] = "1"
        for key, value in entries.items():
            result.add_run_config_entry(key, value)
        return result

    def run(self) -> None:
        """Runs the network. Raises RuntimeFailure with ONNX Runtime's own reason."""
        self._require_open()
        if self._has_graphs and self._is_changed:
            self._run_options, self._is_changed = self._options_of_graph(), False
        try:
            self._session.run_with_iobinding(self._binding, self._run_options)
        except self._failures as error:
            raise RuntimeFailure(f"{self._where}: ONNX Runtime failed ({_first_line(error)}).") from error

    def twin(self, device: Device) -> OnnxRuntime:
        """Not to be had."""
        raise RuntimeFailure(f"{self._where}: an ONNX Runtime session works on one stream.")

    def close(self) -> None:
        """Give back the session's memory."""
        self._binding = self._session = None
        self._bound.clear()

    def _require_open(self) -> None:
        if self._session is None:
            raise RuntimeFailure(f"{self._where}: closed. Load it again.")


def _import_onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            "Running a model needs ONNX Runtime, which is not installed. "
            "Install it: pip install 'gcpp-edge[onnxruntime]'"
        ) from error
    return onnxruntime


def _preload_libraries(onnxruntime: Any) -> None:
    """CUDA's libraries and cuDNN out of pip's packages, where the loader does not look. Else the system's are found."""
    preload, packages = getattr(onnxruntime, "preload_dlls", None), find_spec("nvidia")
    if preload is None or packages is None:
        return
    for folder in packages.submodule_search_locations or ():
        with redirect_stdout(io.StringIO()):  # where it says what is missing; the session shows whether that matters
            for part in Path(folder).glob("*/lib"):
                preload(directory=str(part))


def _session_options(onnxruntime: Any, options: RuntimeOptions, weights_folder: str) -> Any:
    result = onnxruntime.SessionOptions()
    result.log_severity_level = _FATAL_ONLY
    result.intra_op_num_threads = options.threads
    result.inter_op_num_threads = 1  # the graph is a chain: a second pool has nothing to do
    result.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spin else "0")
    result.add_session_config_entry("session.model_external_initializers_file_folder_path", weights_folder)
    return result


def _failures() -> tuple[type[Exception], ...]:
    """ONNX Runtime's own exceptions, which share no base class, and those of its Python layer."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = (value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception))
    return (*own, RuntimeError, ValueError, TypeError)


def _info(value: Any, where: str) -> TensorInfo:
    if value.type not in _DTYPES:
        raise ModelError(f"{where}: {value.name!r} is a {value.type}. Known: {', '.join(_DTYPES)}.")
    shape = tuple(side if isinstance(side, int) and side > 0 else None for side in value.shape)
    return TensorInfo(value.name, shape, _DTYPES[value.type])


def _load_failure(where: str, error: Exception) -> str:
    """Weights that lie beside the file are what is forgotten when it is copied."""
    found = re.search(r"(External (data|initializer)\b.*)", str(error))
    if found is None:
        return f"{where}: ONNX Runtime cannot load it ({_first_line(error)})."
    return f"{where}: its weights beside the file cannot be read ({found[1]}). Copy them too, into the same folder."


def _first_line(error: Exception) -> str:
    """Its message without the code and the prefix that ONNX Runtime puts before it."""
    line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .* failed: ?)?", "", line)
