"""A module that looks like `tensorrt` and runs engines on the CPU, and a device whose memory is the host's.

It has the calls that gcpp_edge makes, with the signatures of NVIDIA's Python API documentation, and what differs from
release to release. An engine is an ONNX model with a header; ONNX Runtime runs it, at the addresses that are set, at
once or as work of a stream (`Fake.enqueue`).
`Fake.refuse` has a call answer as TensorRT does when it fails: None or False, and a line in the log.
"""

import ctypes
import enum
import pickle
import types
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime

MAGIC = b"fake engine\n"


class Severity(enum.Enum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64 = range(9)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(enum.Enum):
    DEVICE, HOST = range(2)


_OF_ONNX = {1: DataType.FLOAT, 2: DataType.UINT8, 6: DataType.INT32, 7: DataType.INT64, 9: DataType.BOOL}
_OF_ONNX |= {10: DataType.HALF, 16: DataType.BF16}
_NUMPY = {DataType.FLOAT: np.float32, DataType.HALF: np.float16, DataType.INT64: np.int64, DataType.INT32: np.int32}
_NUMPY |= {DataType.UINT8: np.uint8, DataType.BOOL: np.bool_}


class Fake:
    """What a release can do, and all that was asked of it: `calls` in order, `flags` of networks.

    refuse: {call: line in the log}. order: objects as they go.
    """

    def __init__(self, version: str, *, gpu_name: str = "Fake Orin") -> None:
        self.version, self.gpu_name = version, gpu_name
        self.refuse: dict[str, str] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.gone: list[str] = []
        self.contexts = 0
        self.logger: Any = None
        self.enqueue: Any = lambda stream, step: step()  # how a stream is given work

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])

    def fails(self, call: str) -> bool:
        self.calls.append((call,))
        if call not in self.refuse:
            return False
        self.logger.log(Severity.WARNING, "a warning is no reason")
        self.logger.log(Severity.ERROR, self.refuse[call])
        return True

    def module(self) -> types.ModuleType:
        """The module of this release."""
        fake = self
        made = types.ModuleType("tensorrt")
        made.__version__ = self.version  # type: ignore[attr-defined]
        bound = {
            name: type(name, (kind,), {"fake": fake})
            for name, kind in {"Builder": Builder, "OnnxParser": OnnxParser, "Runtime": Runtime}.items()
        }
        network_flags = ["STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"]
        builder_flags = ["TF32", "REFIT", "WEIGHT_STREAMING"]
        if self.major < 11:
            network_flags.insert(0, "EXPLICIT_BATCH")
            builder_flags += ["FP16", "INT8", "BF16"]
        made.__dict__.update(
            bound,
            ILogger=ILogger,
            IProgressMonitor=IProgressMonitor,
            IBuilderConfig=BuilderConfig,
            NetworkDefinitionCreationFlag=enum.IntEnum("NetworkDefinitionCreationFlag", network_flags, start=0),
            BuilderFlag=enum.Enum("BuilderFlag", builder_flags),
            DataType=DataType,
            TensorIOMode=TensorIOMode,
            TensorLocation=TensorLocation,
        )
        return made


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def __init__(self) -> None:
        self.is_base_ready = True


class IProgressMonitor:
    def __init__(self) -> None:
        self.is_base_ready = True


class NetworkTensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    dtype: DataType


def _tensor(value: Any) -> NetworkTensor:
    kind = value.type.tensor_type
    sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    return NetworkTensor(value.name, sizes, _OF_ONNX[kind.elem_type])


class Network:
    def __init__(self, fake: Fake, flags: int) -> None:
        self.fake, self.flags = fake, flags
        self.model: Any = None

    num_inputs = property(lambda self: len(self.model.graph.input))
    num_outputs = property(lambda self: len(self.model.graph.output))

    def get_input(self, index: int) -> NetworkTensor:
        return _tensor(self.model.graph.input[index])

    def get_output(self, index: int) -> NetworkTensor:
        return _tensor(self.model.graph.output[index])

    def unmark_output(self, tensor: NetworkTensor) -> None:
        names = [output.name for output in self.model.graph.output]
        del self.model.graph.output[names.index(tensor.name)]


class ParserError(NamedTuple):
    text: str
    node: str = ""

    def desc(self) -> str:
        return self.text

    def node_name(self) -> str:
        return self.node


class OnnxParser:
    fake: Fake

    def __init__(self, network: Network, logger: Any) -> None:
        self.network, self.errors = network, []  # type: ignore[var-annotated]

    num_errors = property(lambda self: len(self.errors))

    def get_error(self, index: int) -> ParserError:
        return self.errors[index]

    def parse_from_file(self, model: str) -> bool:
        return self._parse(lambda: onnx.load(model))

    def parse(self, model: bytes, path: str | None = None) -> bool:
        return self._parse(lambda: onnx.load_model_from_string(model))

    def _parse(self, load: Any) -> bool:
        if self.fake.fails("parse"):
            self.errors.append(ParserError(self.fake.refuse["parse"], "head"))
            return False
        try:
            self.network.model = load()
        except Exception:  # noqa: BLE001, whatever protobuf raises
            self.errors.append(ParserError("Failed to parse the ONNX model."))
            return False
        return True


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class HostMemory(bytes):
    nbytes = property(len)


class TimingCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> HostMemory:
        return HostMemory(self.data + b"t")


class BuilderConfig:
    hardware_compatibility_level = progress_monitor = None

    def __init__(self, fake: Fake) -> None:
        self.fake, self.profiles, self.set_flags = fake, [], set()  # type: ignore[var-annotated]
        self.timing_cache: Any = None

    def create_timing_cache(self, data: bytes) -> Any:
        return None if data == b"damaged" else TimingCache(data)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        self.fake.calls.append(("timing_cache", bytes(cache.data), ignore_mismatch))
        return True

    def add_optimization_profile(self, profile: Profile) -> int:
        if self.fake.fails("add_optimization_profile"):
            return -1
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_flag(self, flag: enum.Enum) -> None:
        self.fake.calls.append(("set_flag", flag.name))

    def clear_flag(self, flag: enum.Enum) -> None:
        self.fake.calls.append(("clear_flag", flag.name))


class Builder:
    fake: Fake

    def __init__(self, logger: Any) -> None:
        if self.fake.logger is None:
            self.fake.logger = logger
        assert logger is self.fake.logger, "TensorRT ignores a second logger"
        assert logger.is_base_ready
        if self.fake.fails("Builder"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def create_network(self, flags: int = 0) -> Network:
        self.fake.calls.append(("create_network", flags))
        return Network(self.fake, flags)

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self.fake)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> HostMemory | None:
        if self.fake.fails("build_serialized_network"):
            return None
        monitor = config.progress_monitor
        if monitor is not None:
            assert monitor.is_base_ready
            monitor.phase_start("Building", None, 2)
            if not (monitor.step_complete("Building", 0) and monitor.step_complete("Building", 1)):
                self.fake.logger.log(Severity.ERROR, "Build canceled by user")
                return None
            monitor.phase_finish("Building")
        shapes = config.profiles[0].shapes if config.profiles else {}
        state = (self.fake.version, self.fake.gpu_name, network.model.SerializeToString(), shapes)
        return HostMemory(MAGIC + pickle.dumps(state))


class Runtime:
    fake: Fake

    def __init__(self, logger: Any) -> None:
        if self.fake.logger is None:
            self.fake.logger = logger
        if self.fake.fails("Runtime"):
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, serialized_engine: Any) -> "CudaEngine | None":
        data = bytes(serialized_engine)
        if self.fake.fails("deserialize_cuda_engine"):
            return None
        version, gpu_name, model, shapes = pickle.loads(data.removeprefix(MAGIC))
        if (version, gpu_name) != (self.fake.version, self.fake.gpu_name):
            self.fake.logger.log(Severity.ERROR, f"Serialization: built by {version} for {gpu_name}")
            return None
        return CudaEngine(self.fake, onnx.load_model_from_string(model), shapes, self)

    def __del__(self) -> None:
        self.fake.gone.append("runtime")


class CudaEngine:
    def __init__(self, fake: Fake, model: Any, shapes: Any, runtime: Runtime) -> None:
        self.fake, self.model, self.shapes, self.runtime = fake, model, shapes, runtime
        self.tensors = {value.name: _tensor(value) for value in (*model.graph.input, *model.graph.output)}
        self.input_names = {value.name for value in model.graph.input}
        self.contexts = 0
        self.location = TensorLocation.DEVICE

    num_io_tensors = property(lambda self: len(self.tensors))

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.tensors[name].shape

    def get_tensor_dtype(self, name: str) -> DataType:
        return self.tensors[name].dtype

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.input_names else TensorIOMode.OUTPUT

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if "host memory" in self.fake.refuse else TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return list(self.shapes[name])

    def create_runtime_config(self) -> types.SimpleNamespace:
        """Of TensorRT for RTX."""
        return types.SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="LAZY")

    def create_execution_context(self, runtime_config: Any = None) -> "ExecutionContext | None":
        strategy = getattr(runtime_config, "dynamic_shapes_kernel_specialization_strategy", None)
        self.fake.calls.append(("kernels", strategy))
        if self.fake.fails("create_execution_context"):
            return None
        self.contexts += 1
        return ExecutionContext(self.fake, self, 0 if self.contexts == 1 else -1)

    def __del__(self) -> None:
        self.fake.gone.append("engine")


class ExecutionContext:
    def __init__(self, fake: Fake, engine: CudaEngine, profile: int) -> None:
        self.fake, self.engine, self.active_optimization_profile = fake, engine, profile
        self.addresses: dict[str, int] = {}
        self.shapes = {name: engine.tensors[name].shape for name in engine.input_names}
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            engine.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if self.fake.fails("set_optimization_profile_async"):
            raise RuntimeError("Error in set optimization profile async.")
        self.active_optimization_profile = profile_index
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        if self.fake.fails("set_input_shape"):
            return False
        smallest, _, largest = self.engine.shapes[name]
        if not all(low <= size <= high for low, size, high in zip(smallest, shape, largest, strict=True)):
            return False
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if self.fake.fails("set_tensor_address"):
            return False
        self.addresses[name] = int(memory)
        return name in self.engine.tensors

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        count = next((shape[0] for shape in self.shapes.values() if shape), 1)
        return tuple(count if size == -1 else size for size in self.engine.tensors[name].shape)

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self.fake.fails("execute_async_v3"):
            return False
        self.fake.calls.append(("stream", stream_handle))
        assert self.active_optimization_profile == 0, "a context without a profile"
        missing = [name for name in self.engine.tensors if not self.addresses.get(name)]
        assert not missing, f"no address: {missing}"
        counts = {shape[0] for name, shape in self.shapes.items() if -1 in self.engine.tensors[name].shape}
        assert len(counts) <= 1 and -1 not in counts, f"batches that do not agree: {self.shapes}"
        # what is bound now counts, whatever is bound by the time that the stream comes to it
        arrays = {name: self._array(name) for name in self.engine.tensors}
        self.fake.enqueue(stream_handle, lambda: self._compute(arrays))
        return True

    def _compute(self, arrays: dict[str, np.ndarray]) -> None:
        inputs = {value.name: arrays[value.name] for value in self.session.get_inputs()}
        for value, result in zip(self.session.get_outputs(), self.session.run(None, inputs), strict=True):
            arrays[value.name][...] = result

    def _array(self, name: str) -> np.ndarray:
        """What lies at the address of a tensor."""
        shape, dtype = self.get_tensor_shape(name), np.dtype(_NUMPY[self.engine.tensors[name].dtype])
        shape = self.shapes.get(name, shape)
        memory = (ctypes.c_uint8 * (int(np.prod(shape)) * dtype.itemsize)).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(shape)

    def __del__(self) -> None:
        self.fake.gone.append("context")


class Gpu(NamedTuple):
    name: str = "Fake Orin"
    capability: tuple[int, int] = (8, 7)


class HostBuffer:
    """A buffer with an address, as the CUDA device's have one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    address = property(lambda self: self.array.ctypes.data)
    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    flags = property(lambda self: self.array.flags)


class FakeGpuDevice:
    """As much of a CUDA device as a runtime needs."""

    name, runtime, stream = "cuda", "tensorrt", 77

    def __init__(self, gpu: Gpu = Gpu()) -> None:  # noqa: B008
        self.gpu = gpu
        self.allocated: list[HostBuffer] = []

    def perform(self, work: Any) -> Any:
        return work()

    def allocate(self, shape: tuple[int, ...], dtype: Any) -> HostBuffer:
        self.allocated.append(HostBuffer(np.zeros(shape, dtype)))
        return self.allocated[-1]

    def free(self, buffer: HostBuffer) -> None:
        self.allocated.remove(buffer)
