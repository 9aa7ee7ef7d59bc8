"""TensorRT on an NVIDIA GPU: releases 10 and 11, and TensorRT for RTX.

Buffers are the device's, bound by address; `run` enqueues on the device's stream and waits for nothing. Engines come
out of the cache, or are built the first time. All of it runs on the device's own thread.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from gcpp_edge import engine_cache
from gcpp_edge.contract import Contract
from gcpp_edge.device import Device
from gcpp_edge.engine_cache import Fresh
from gcpp_edge.engine_store import Entry, Gpu, Recipe, open_folder
from gcpp_edge.errors import InputError, RuntimeFailure
from gcpp_edge.model_file import ModelFile, read_model_file
from gcpp_edge.runtimes import RuntimeOptions, TensorInfo
from gcpp_edge.runtimes.tensorrt_build import (
    Batch,
    BuildOptions,
    Built,
    Progress,
    Tensor,
    batch_of,
    build_engine,
    dtype_of,
    known_sizes,
    unused_inputs,
)
from gcpp_edge.runtimes.tensorrt_library import Library, load_library, reason_text

_logger = logging.getLogger("gcpp_edge.tensorrt")


def open_runtime(model: str | bytes, where: str, options: RuntimeOptions, device: Any) -> TensorRtRuntime:
    """The network, loaded; see gcpp_edge.runtimes.open_runtime. Bytes are built each time, a file once."""
    library = load_library()
    gpu = gpu_of(device)
    batch = batch_of(f"1:{options.max_batch}:{options.max_batch}")
    if isinstance(model, bytes):
        build = BuildOptions(level=options.level, batch=batch, tf32=options.tf32)
        engine = Engine(library, build_engine(library, model, where, build).data, where)
    else:
        file = read_model_file(model)
        level = options.level or file.levels[-1]
        engine, _, _ = obtain_engine(library, file, options_for(file, level, batch, options.tf32), gpu, load=True)
    return TensorRtRuntime(engine, options.level, where, device)


def gpu_of(device: Any) -> Gpu:
    """The GPU of a device. Raises InputError for a device that has none."""
    gpu = getattr(device, "gpu", None)
    if gpu is None:
        raise InputError(f"TensorRT runs on an NVIDIA GPU, not on the device {device.name!r}. Use device='cuda'.")
    return Gpu(str(gpu.name), (".".join(map(str, gpu.capability)),))


def options_for(
    file: ModelFile, level: str, batch: Batch, tf32: bool, compute_capabilities: tuple[str, ...] = ()
) -> BuildOptions:
    """How a level of a file is built. Raises ModelError if the file lacks the level."""
    file.require_level(level)
    return BuildOptions(level, file.contract.levels[level].outputs, batch, tf32, compute_capabilities)


def obtain_engine(
    library: Library, file: ModelFile, options: BuildOptions, gpu: Gpu, *, load: bool, progress: Progress | None = None
) -> tuple[Any, Entry, bool]:
    """The engine of a level, its entry in the cache, and whether it was built just now.

    load: as an Engine on the GPU; otherwise None stands in its place, and no GPU is needed.
    Raises ModelError, RuntimeFailure, InputError.
    """
    recipe = recipe_of(library, file, options, gpu)
    where = str(file.path)

    def build(timings: bytes) -> Fresh:
        if progress is None:
            _logger.warning(
                "%s: building a %s engine for the level %r, once; that can take minutes (gcpp-edge build does it ahead "
                "of time)",
                where,
                library.title,
                options.level,
            )
        built = build_engine(library, where, where, options, progress, timings)
        return Fresh(built.data, document_of(built, file.contract), built.timings)

    def loaded(data: Any, document: dict[str, Any]) -> Engine | None:
        return Engine(library, data, where) if load else None

    return engine_cache.obtain(recipe, str(file.path.resolve()), build, loaded)


def recipe_of(library: Library, file: ModelFile, options: BuildOptions, gpu: Gpu) -> Recipe:
    """What the engine depends on."""
    try:
        folder: Path | None = open_folder()
    except InputError:  # obtain says so
        folder = None
    return Recipe(
        model=engine_cache.model_digest(file.path, folder),
        level=options.level,
        flavour=library.flavour,
        version=library.version,
        gpu=gpu,
        batch=(options.batch.smallest, options.batch.usual, options.batch.largest),
        tf32=options.tf32,
    )


def document_of(built: Built, contract: Contract) -> dict[str, Any]:
    """What the document beside an engine says of it besides its recipe: enough to run it without the ONNX file."""
    return {
        "seconds": round(built.seconds, 3),
        "inputs": [tensor._asdict() for tensor in built.inputs],
        "outputs": [tensor._asdict() for tensor in built.outputs],
        "unused_inputs": list(built.unused),
        "profiles": built.profiles,
        "contract": json.loads(contract.to_json()),
    }


class Engine:
    """An engine on the GPU, shared by the runtimes that hold it; the last of them gives it back."""

    def __init__(self, library: Library, data: Any, where: str) -> None:
        self.library = library
        self._where = where
        self._users = 0
        self._runtime = library.create("Runtime", where)
        with library.errors() as lines:
            self._engine = self._runtime.deserialize_cuda_engine(data)
        if self._engine is None:
            self._runtime = None
            raise RuntimeFailure(f"{where}: {library.title} cannot load its engine ({reason_text(lines)}).")
        self.inputs, self.outputs = self._tensors()

    def new_context(self, stream: int) -> Any:
        """A context for one runtime, which calls `release` once it has let go of it."""
        with self.library.errors() as lines:
            context = self._engine.create_execution_context(*self._context_settings())
            # only the first context of an engine is given the profile by itself
            if context is not None and context.active_optimization_profile != 0:
                try:
                    context.set_optimization_profile_async(0, stream)
                except RuntimeError:  # how its binding says no; the reason is in the log
                    context = None
        if context is None:
            if not self._users:
                self._close()
            raise RuntimeFailure(
                f"{self._where}: {self.library.title} cannot make room for running the engine ({reason_text(lines)})."
            )
        self._users += 1
        return context

    def _context_settings(self) -> tuple[Any, ...]:
        """TensorRT for RTX would make kernels for the shapes at hand while frames run, and then change to them."""
        if not self.library.features.eager_kernels:
            return ()
        settings = self._engine.create_runtime_config()
        strategies = self.library.module.DynamicShapesKernelSpecializationStrategy
        settings.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return (settings,)

    def release(self) -> None:
        """One runtime less. The engine goes before TensorRT's runtime, and both behind the contexts."""
        self._users -= 1
        if not self._users:
            self._close()

    def batch_range(self, name: str) -> tuple[int, int]:
        """The smallest and the largest batch of an input."""
        smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
        return int(tuple(smallest)[0]), int(tuple(largest)[0])

    def _close(self) -> None:
        self._engine = None
        self._runtime = None

    def _tensors(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        engine, module = self._engine, self.library.module
        found: dict[bool, list[Tensor]] = {True: [], False: []}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            if engine.get_tensor_location(name) != module.TensorLocation.DEVICE:
                raise RuntimeFailure(
                    f"{self._where}: its engine wants {name!r} in host memory. Export the model again."
                )
            dtype = dtype_of(self.library, engine.get_tensor_dtype(name), name, self._where)
            is_input = engine.get_tensor_mode(name) == module.TensorIOMode.INPUT
            found[is_input].append(Tensor(name, known_sizes(engine.get_tensor_shape(name)), dtype))
        return tuple(found[True]), tuple(found[False])


class TensorRtRuntime:
    """One execution context of an engine, and what is bound to it."""

    has_twins = True
    cuts_levels = True
    can_be_recorded = True

    def __init__(self, engine: Engine, level: str, where: str, device: Any) -> None:
        self.name = engine.library.title
        self._engine, self._level, self._where, self._device = engine, level, where, device
        self._tensors = {tensor.name: tensor for tensor in (*engine.inputs, *engine.outputs)}
        self._unused = unused_inputs([tensor.name for tensor in engine.inputs], level)
        self.inputs = tuple(_info(tensor) for tensor in engine.inputs if tensor.name not in self._unused)
        self.outputs = tuple(map(_info, engine.outputs))
        self._dynamic = [tensor.name for tensor in engine.inputs if tensor.shape[:1] == (None,)]
        self._range = engine.batch_range(self._dynamic[0]) if self._dynamic else (0, 0)
        self.max_batch = self._range[1] or None
        self._bound: dict[str, Any] = {}  # also keeps the buffers alive: TensorRT holds bare addresses
        self._spare: dict[str, Any] = {}
        self._is_settled = False  # whether shapes and addresses have been checked since something was bound
        self._context = engine.new_context(device.stream)

    def bind(self, name: str, buffer: Any) -> None:
        """Read or write this C-contiguous buffer of the device; binding the same one again costs nothing."""
        if self._bound.get(name) is buffer:
            return
        self._require_open()
        self._require_fit(name, buffer)
        with self._engine.library.errors() as lines:
            is_taken = self._set_shape(name, buffer.shape) and self._context.set_tensor_address(name, buffer.address)
        if not is_taken:
            raise RuntimeFailure(f"{self._where}: {self.name} does not take {name!r} ({reason_text(lines)}).")
        self._bound[name] = buffer
        self._is_settled = False

    def run(self) -> None:
        """Enqueues the network on the device's stream. Raises RuntimeFailure with TensorRT's own reason."""
        self._require_open()
        if not self._is_settled:
            self._settle()
        with self._engine.library.errors() as lines:
            is_enqueued = self._context.execute_async_v3(self._device.stream)
        if not is_enqueued:
            raise RuntimeFailure(f"{self._where}: {self.name} failed ({reason_text(lines)}).")

    def twin(self, device: Device) -> TensorRtRuntime:
        """A runtime on the same engine, with a context, and so with scratch memory and bindings, of its own."""
        self._require_open()
        return TensorRtRuntime(self._engine, self._level, self._where, device)

    def close(self) -> None:
        """Give back the context, and the engine where no twin holds it. More than once does no harm."""
        if self._context is None:
            return
        self._context = None
        self._bound.clear()
        for buffer in self._spare.values():
            self._device.free(buffer)
        self._spare.clear()
        self._engine.release()

    def _require_open(self) -> None:
        if self._context is None:
            raise RuntimeFailure(f"{self._where}: closed. Load it again.")

    def _require_fit(self, name: str, buffer: Any) -> None:
        """Raises RuntimeFailure: TensorRT would write past the end of a buffer that is too small."""
        tensor = self._tensors.get(name)
        if tensor is None or name in self._unused:
            known = ", ".join(repr(one) for one in self._tensors if one not in self._unused)
            raise RuntimeFailure(f"{self._where}: cannot bind {name!r}. The engine has {known}.")
        if not buffer.flags.c_contiguous:
            raise RuntimeFailure(f"{self._where}: the buffer bound to {name!r} must be C-contiguous.")
        sizes = tuple(buffer.shape)
        fits = len(sizes) == len(tensor.shape) and all(
            wanted in (None, size) for wanted, size in zip(tensor.shape, sizes, strict=True)
        )
        if not fits or buffer.dtype != np.dtype(tensor.dtype):
            expected = "(" + ", ".join("N" if size is None else str(size) for size in tensor.shape) + ")"
            raise RuntimeFailure(
                f"{self._where}: cannot bind {name!r} as {buffer.dtype} {sizes}: the engine takes {tensor.dtype} "
                f"{expected}."
            )
        smallest, largest = self._range
        if name in self._dynamic and not smallest <= sizes[0] <= largest:
            raise RuntimeFailure(
                f"{self._where}: a batch of {sizes[0]}; the engine was built for {smallest} to {largest}. "
                "Ask for a larger max_batch, or build it with --batch."
            )

    def _set_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return name not in self._dynamic or bool(self._context.set_input_shape(name, tuple(shape)))

    def _settle(self) -> None:
        """Batches agree, every tensor has memory, and outputs are as large as they will be."""
        missing = [info.name for info in self.inputs if info.name not in self._bound]
        if missing:
            raise RuntimeFailure(f"{self._where}: nothing is bound to the input {missing[0]!r}.")
        counts = {name: self._bound[name].shape[0] for name in self._dynamic if name in self._bound}
        if len(set(counts.values())) > 1:
            raise RuntimeFailure(f"{self._where}: its inputs are bound with batches of different sizes: {counts}.")
        count = next(iter(counts.values()), 1)
        for name in self._tensors:
            if name not in self._bound:
                self._bind_spare(name, count)
        for info in self.outputs:
            expected = tuple(self._context.get_tensor_shape(info.name))
            found = tuple(self._bound[info.name].shape) if info.name in self._bound else expected
            if found != expected:
                raise RuntimeFailure(
                    f"{self._where}: the buffer bound to {info.name!r} is {found}; a batch of {count} gives {expected}."
                )
        self._is_settled = True

    def _bind_spare(self, name: str, count: int) -> None:
        """Memory that nobody reads: TensorRT wants an address for what the level does not use, too."""
        tensor = self._tensors[name]
        if name not in self._spare:
            sizes = tuple((self.max_batch or 1) if size is None else size for size in tensor.shape)
            self._spare[name] = self._device.allocate(sizes, np.dtype(tensor.dtype))
        self._context.set_tensor_address(name, self._spare[name].address)
        self._set_shape(name, tuple(count if size is None else size for size in tensor.shape))


def _info(tensor: Tensor) -> TensorInfo:
    return TensorInfo(tensor.name, tensor.shape, np.dtype(tensor.dtype))
