"""From an ONNX file to a TensorRT engine: parsed, cut to what is wanted, built.

Networks are strongly typed: precision is what the file says. TensorRT prunes what no output needs, so a level is cut
by unmarking the outputs above it, without the onnx package.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from gcpp_edge.contract import AIMS, HEATMAP, PLAIN
from gcpp_edge.errors import InputError, ModelError, RuntimeFailure
from gcpp_edge.runtimes.tensorrt_library import TENSORRT_RTX, TITLES, Library, reason_text

MAX_BATCH = 4096

_DTYPES = {  # TensorRT's name: NumPy's
    "FLOAT": "float32",
    "HALF": "float16",
    "INT64": "int64",
    "INT32": "int32",
    "UINT8": "uint8",
    "INT8": "int8",
    "BOOL": "bool",
}


class Batch(NamedTuple):
    """Frames at once: the smallest, the usual and the largest count that an engine takes."""

    smallest: int = 1
    usual: int = 1
    largest: int = 1

    def __str__(self) -> str:
        return str(self.largest) if len(set(self)) == 1 else ":".join(map(str, self))


class Tensor(NamedTuple):
    """An input or output of an engine. A dimension that the batch decides is None. dtype: NumPy's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is built.

    level: "" leaves the outputs as they are. outputs: what the level promises. tf32: float32 products may be rounded
    to ten bits of mantissa. compute_capabilities: GPUs to build for, as "8.6"; empty for the one of this machine.
    """

    level: str = ""
    outputs: tuple[str, ...] = ()
    batch: Batch = Batch()
    tf32: bool = False
    compute_capabilities: tuple[str, ...] = ()


@dataclass(frozen=True)
class Built:
    """An engine in memory. profiles: the batch where the file leaves it open, by input: min, opt and max shape."""

    data: Any  # what holds its bytes: TensorRT's own memory
    seconds: float
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    unused: tuple[str, ...]
    profiles: dict[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    timings: bytes = b""

    @property
    def nbytes(self) -> int:
        """Bytes of the engine."""
        return int(self.data.nbytes)


class Progress(Protocol):
    """Who is told how a build goes. Steps count from 0. An exception of any of them cancels the build."""

    def start(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase begins, within another one or, for None, as the first."""

    def step(self, phase: str, step: int) -> None:
        """A step of it is done."""

    def finish(self, phase: str) -> None:
        """The phase is done."""


def batch_of(text: str) -> Batch:
    """A batch from "4" (that count alone) or "1:4:8". Raises InputError."""
    parts = text.split(":")
    try:
        numbers = [int(part) for part in parts]
    except ValueError:
        numbers = []
    batch = Batch(*numbers * 3) if len(numbers) == 1 else Batch(*numbers) if len(numbers) == 3 else None
    if batch is None or not 1 <= batch.smallest <= batch.usual <= batch.largest <= MAX_BATCH:
        raise InputError(
            f"batch: expected a count, as 1, or smallest:usual:largest, as 1:4:8, up to {MAX_BATCH}; found {text!r}."
        )
    return batch


def check_options(library: Library, options: BuildOptions) -> None:
    """Raises InputError for options that this TensorRT does not have."""
    if not options.compute_capabilities:
        return
    if not library.features.compute_capability:
        raise InputError(
            f"compute capability: {library.title} builds for the GPU that it runs on, and only {TITLES[TENSORRT_RTX]} "
            "for others. Build on the device itself."
        )
    known = library.capabilities()
    for capability in options.compute_capabilities:
        if capability not in known:
            raise InputError(
                f"compute capability: {library.title} builds for {', '.join(known)}; found {capability!r}."
            )


def build_engine(
    library: Library,
    model: str | bytes,
    where: str,
    options: BuildOptions,
    progress: Progress | None = None,
    timings: bytes = b"",
) -> Built:
    """The engine of a model: the path of a file, or its bytes, which refer to weights in the folder of `where`.

    timings: what an earlier build measured of the same GPU.
    Raises ModelError for a model that TensorRT does not take, RuntimeFailure where it cannot be built, InputError.
    """
    check_options(library, options)
    began = time.perf_counter()
    builder = library.create("Builder", where)
    network, _parser = parse(library, builder, model, where)  # the parser must outlive the network
    cut_network(network, options, where)
    config = builder.create_builder_config()
    profiles = _add_profile(library, builder, network, config, options.batch, where)
    _configure(library, config, options)
    monitor = _monitor(library, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    timing_cache = _timing_cache(library, config, timings)
    with library.errors() as lines:
        engine = builder.build_serialized_network(network, config)
        if engine is None and library.features.user_allocation and (monitor is None or monitor.failure is None):
            # sizes that hang on the data: the engine allocates as it runs then, and frames are not recorded
            lines.clear()
            config.clear_flag(library.module.BuilderFlag.REQUIRE_USER_ALLOCATION)
            engine = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.failure is not None:
        raise monitor.failure
    if engine is None:
        raise RuntimeFailure(f"{where}: {library.title} cannot build it ({reason_text(lines)}).")
    values = [[tensor_of(library, get(i), where) for i in range(count)] for get, count in _ends(network)]
    return Built(
        data=engine,
        seconds=time.perf_counter() - began,
        inputs=tuple(values[0]),
        outputs=tuple(values[1]),
        unused=unused_inputs([value.name for value in values[0]], options.level),
        profiles=profiles,
        timings=bytes(timing_cache.serialize()) if timing_cache is not None else b"",
    )


def parse(library: Library, builder: Any, model: str | bytes, where: str) -> tuple[Any, Any]:
    """The network of a model, strongly typed, and its parser. Raises ModelError with what the parser says."""
    module = library.module
    flags = module.NetworkDefinitionCreationFlag.STRONGLY_TYPED if library.features.strongly_typed_flag else None
    network = builder.create_network(0 if flags is None else 1 << int(flags))
    parser = module.OnnxParser(network, library.log)
    with library.errors() as lines:
        # from the file, so that weights beside it are found
        is_parsed = parser.parse_from_file(model) if isinstance(model, str) else parser.parse(model, where)
    if not is_parsed:
        raise ModelError(f"{where}: {library.title} cannot load it ({reason_text(_parser_errors(parser) or lines)}).")
    return network, parser


def cut_network(network: Any, options: BuildOptions, where: str) -> None:
    """Unmark the outputs that are not wanted: what only they need is then not built.

    The portable heatmap never is: the kernels draw it.
    """
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    there = {output.name for output in outputs}
    promised = set(options.outputs) or there
    if missing := promised - there:
        raise ModelError(f"{where}: its contract promises {min(missing)!r}, which its graph lacks. Export it again.")
    for output in outputs:
        if output.name not in promised - {HEATMAP}:
            network.unmark_output(output)


def unused_inputs(names: list[str], level: str) -> tuple[str, ...]:
    """Inputs that the level does not read. TensorRT leaves them in the engine, and wants memory for them."""
    return tuple(name for name in names if level == PLAIN and name in AIMS)


def tensor_of(library: Library, value: Any, where: str) -> Tensor:
    """What a tensor of a network is like. Raises ModelError for a type that no buffer has."""
    return Tensor(value.name, known_sizes(value.shape), dtype_of(library, value.dtype, value.name, where))


def known_sizes(shape: Any) -> tuple[int | None, ...]:
    """A shape with None where TensorRT says -1."""
    return tuple(None if size < 0 else int(size) for size in shape)


def dtype_of(library: Library, dtype: Any, name: str, where: str) -> str:
    """NumPy's name of a type of TensorRT's."""
    kinds = library.module.DataType
    for its_name, ours in _DTYPES.items():
        if getattr(kinds, its_name, None) == dtype:
            return ours
    raise ModelError(f"{where}: {name!r} is {dtype}. Known: {', '.join(_DTYPES.values())}.")


def _ends(network: Any) -> tuple[tuple[Callable[[int], Any], int], tuple[Callable[[int], Any], int]]:
    return (network.get_input, network.num_inputs), (network.get_output, network.num_outputs)


def _parser_errors(parser: Any) -> list[str]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return [f"node {error.node_name()!r}: {error.desc()}" if error.node_name() else error.desc() for error in errors]


def _add_profile(
    library: Library, builder: Any, network: Any, config: Any, batch: Batch, where: str
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """Tells the builder which batches there will be. Files of one batch need no profile."""
    shapes = {}
    for index in range(network.num_inputs):
        value = network.get_input(index)
        sizes = tuple(value.shape)
        if any(size < 0 for size in sizes[1:]):
            raise ModelError(
                f"{where}: its input {value.name!r} has the open shape {sizes}. Export it with fixed sizes."
            )
        if sizes and sizes[0] < 0:
            shapes[value.name] = tuple((count, *map(int, sizes[1:])) for count in batch)
    if not shapes:
        return {}
    profile = builder.create_optimization_profile()
    with library.errors() as lines:
        try:
            for name, three in shapes.items():
                profile.set_shape(name, *three)
            index = config.add_optimization_profile(profile)
        except (RuntimeError, ValueError) as error:
            raise RuntimeFailure(f"{where}: {library.title} refuses the batch {batch} ({error}).") from error
    if index < 0:
        raise RuntimeFailure(f"{where}: {library.title} refuses the batch {batch} ({reason_text(lines)}).")
    return shapes


def _configure(library: Library, config: Any, options: BuildOptions) -> None:
    if library.features.tf32_flag:
        (config.set_flag if options.tf32 else config.clear_flag)(library.module.BuilderFlag.TF32)
    if library.features.user_allocation:
        config.set_flag(library.module.BuilderFlag.REQUIRE_USER_ALLOCATION)  # what stream capture asks for
    if options.compute_capabilities:
        known = library.capabilities()
        config.num_compute_capabilities = len(options.compute_capabilities)
        for index, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(known[capability], index)


def _timing_cache(library: Library, config: Any, timings: bytes) -> Any:
    """Levels of a network share most layers: what was timed for one is not timed again for the next."""
    if not library.features.timing_cache:
        return None
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, False):  # False: not from another kind of GPU
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _monitor(library: Library, progress: Progress | None) -> Any:
    if progress is None or not library.features.progress_monitor:
        return None
    base: Any = library.module.IProgressMonitor
    told: Progress = progress

    class Monitor(base):  # type: ignore[misc]
        """No exception may pass through TensorRT, so the first is kept, and the build is cancelled.

        TensorRT may call from threads of its own; who is told is told one thing at a time.
        """

        def __init__(self) -> None:
            base.__init__(self)
            self._lock = threading.Lock()
            self.failure: BaseException | None = None

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._tell(lambda: told.start(phase_name, parent_phase, num_steps))

        def step_complete(self, phase_name: str, step: int) -> bool:
            return self._tell(lambda: told.step(phase_name, step))

        def phase_finish(self, phase_name: str) -> None:
            self._tell(lambda: told.finish(phase_name))

        def _tell(self, what: Callable[[], None]) -> bool:
            with self._lock:
                if self.failure is None:
                    try:
                        what()
                    except BaseException as error:  # noqa: BLE001, also an interrupt: it is raised behind the build
                        self.failure = error
                return self.failure is None

    return Monitor()
