"""One level of an explained model, loaded, with buffers for batches.

Buffers are allocated for the largest batch so far; smaller ones use the front of them. After that a run allocates
nothing.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gcpp_edge import contract as names
from gcpp_edge.contract import BATCH, CLASS, CLASSES, MAP, PLAIN, Contract, Layer
from gcpp_edge.device import Device
from gcpp_edge.errors import DeviceError, ModelError
from gcpp_edge.frames import frame_shape
from gcpp_edge.level_cache import model_at_level
from gcpp_edge.model_file import ModelFile
from gcpp_edge.runtimes import CUTS_LEVELS, Runtime, RuntimeOptions, TensorInfo, open_runtime

Shape = tuple[int | None, ...]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))  # what the kernels take
_INTEGERS = (np.dtype(np.int64),)
_COUNTED = (names.TARGET, names.TARGET_CLASS, names.DETECTION, names.DETECTION_INDEX, names.SOFTMAX_POLES)


def maps_of(layer: Layer) -> str:
    """The buffer of a layer's maps, (N, [K,] *space) float32: not the network's, but filled from its outputs."""
    return f"maps of {layer.activations}"


def weights_of(layer: Layer) -> str:
    """The buffer of a layer's channel weights, (N, [K,] C) float32."""
    return f"weights of {layer.activations}"


def poles_of(layer: Layer) -> str:
    """The buffer of a layer's counts of poles, (N, [K]) int64."""
    return f"poles of {layer.activations}"


def open_level(file: ModelFile, level: str, device: Device, runtime: str, options: RuntimeOptions) -> Runtime:
    """The runtime of this name with one level of the file. Raises as runtimes.open_runtime and model_at_level do."""
    model = str(file.path) if runtime in CUTS_LEVELS else model_at_level(file, level)
    return open_runtime(runtime, model, str(file.path), options._replace(level=level), device)


class Network:
    """A runtime holding one level of the file, and what it reads and writes on a device.

    `batch`: the one batch size that the file was exported with, or None where any will do. `largest`: the most frames
    at once, None for any number.
    """

    def __init__(self, file: ModelFile, level: str, device: Device, runtime: Runtime) -> None:
        self.level, self.device, self.runtime = level, device, runtime
        promised = _promised(file.contract, level)
        if runtime.cuts_levels:
            promised.pop(names.HEATMAP, None)  # left out with the levels above
        self._tensors = _tensors(runtime.inputs + runtime.outputs, file, promised)
        self._tensors.pop(names.HEATMAP, None)  # the kernels draw it, so nobody reads it here
        self.batch = self._tensors[file.contract.input].shape[0]
        self.largest = self.batch or runtime.max_batch
        self._contract = file.contract
        self._shared = {entry.name for entry in file.contract.extra_inputs if not entry.has_batch}
        self._buffers: dict[str, Any] = {}
        self._views: dict[int, dict[str, Any]] = {}
        self._scratch: dict[Any, Any] = {}
        self._capacity = 0

    def buffers(self, count: int) -> dict[str, Any]:
        """Bound buffers for a batch of `count`, by tensor name."""
        if count > self._capacity:
            self._allocate(count)
        if count not in self._views:
            self._views[count] = {
                name: buffer if name in self._shared else buffer[:count] for name, buffer in self._buffers.items()
            }
        views = self._views[count]
        for name in self._tensors:
            self.runtime.bind(name, views[name])
        return views

    def scratch(
        self, name: Hashable, shape: tuple[int, ...], dtype: DTypeLike, value: NDArray[Any] | None = None
    ) -> Any:
        """A buffer of the caller's, kept until the network closes; with `value` in it from the first time on."""
        key = (name, shape)
        if key not in self._scratch:
            self._scratch[key] = self.device.allocate(shape, np.dtype(dtype))
            if value is not None:
                self.device.upload(value, self._scratch[key])
        return self._scratch[key]

    def _allocate(self, count: int) -> None:
        self._views.clear()
        self._free(self._buffers)
        for name, tensor in self._tensors.items():
            batch = () if name in self._shared else (count,)
            sizes = tensor.shape if name in self._shared else tensor.shape[1:]
            self._buffers[name] = self.device.allocate((*batch, *_known(sizes)), tensor.dtype)
        for layer in self._contract.layers:
            shape = (count, *_targets(self._contract), *layer.space)
            self._buffers[maps_of(layer)] = self.device.allocate(shape, np.dtype(np.float32))
            counts = (count, *_targets(self._contract))
            self._buffers[weights_of(layer)] = self.device.allocate((*counts, layer.channels), np.dtype(np.float32))
            self._buffers[poles_of(layer)] = self.device.allocate(counts, np.dtype(np.int64))
        self._capacity = count

    def close(self) -> None:
        """Give back the runtime and the buffers, once nothing works with them."""
        with suppress(DeviceError):  # of a lost device
            self.device.wait()
        self.runtime.close()
        self._views.clear()
        self._free(self._buffers)
        self._free(self._scratch)
        self._capacity = 0

    def _free(self, buffers: dict[Any, Any]) -> None:
        for buffer in buffers.values():
            self.device.free(buffer)
        buffers.clear()


def _tensors(found: tuple[TensorInfo, ...], file: ModelFile, promised: dict[str, Shape]) -> dict[str, TensorInfo]:
    """What is bound of what is promised, with the contract's sizes where the file leaves them open.

    Raises ModelError where the file does not hold what its contract promises.
    """
    by_name = {tensor.name: tensor for tensor in found}
    contract = file.contract
    tensors = {}
    for name, shape in promised.items():
        if name not in by_name:
            raise ModelError(f"{file.path}: its contract promises {name!r}, which its graph lacks. Export it again.")
        tensor = by_name[name]
        if name == contract.scores.output and contract.target.kind in (CLASS, CLASSES):
            shape = shape + (1,) * (len(tensor.shape) - 2)  # some networks leave (N, classes, 1, 1)
        if not _agree(tensor.shape, shape):
            raise ModelError(
                f"{file.path}: {name!r} has the shape {_text(tensor.shape)} and its contract says {_text(shape)}. "
                "Export it again."
            )
        _check_dtype(tensor, file)
        batch = tensor.shape[:1] if shape[:1] == (None,) else shape[:1]
        tensors[name] = TensorInfo(name, (*batch, *shape[1:]), tensor.dtype)
    return tensors


def _check_dtype(tensor: TensorInfo, file: ModelFile) -> None:
    for entry in file.contract.extra_inputs:
        if entry.name == tensor.name:
            if entry.dtype != tensor.dtype.name:
                raise ModelError(
                    f"{file.path}: {tensor.name!r} is {tensor.dtype} and its contract says {entry.dtype}. "
                    "Export it again."
                )
            return
    if tensor.name == names.FRAME:
        expected: tuple[np.dtype[Any], ...] = (np.dtype(np.uint8),)
    else:
        expected = _INTEGERS if tensor.name in _COUNTED else _FLOATS
    if tensor.dtype not in expected:
        raise ModelError(
            f"{file.path}: {tensor.name!r} is {tensor.dtype}; expected {' or '.join(map(str, expected))}. "
            "Export it again."
        )


def _promised(contract: Contract, level: str) -> dict[str, Shape]:
    """Inputs and outputs that a level has, and their shapes, None for the batch."""
    taken = frame_shape(contract.frame) if contract.frame.height else contract.preprocessing.input_shape
    promised: dict[str, Shape] = {
        contract.input: (None, *taken),
        contract.scores.output: (None, *contract.output_shape),
    }
    for entry in contract.extra_inputs:
        promised[entry.name] = tuple(None if size == BATCH else size for size in entry.shape)  # type: ignore[misc]
    if level == PLAIN:
        return promised
    behind = _aimed(contract)
    for layer in contract.layers:
        behind[layer.activations] = (layer.channels, *layer.space)
        behind[layer.gradients] = (*_targets(contract), layer.channels, *_gradient_space(layer))
    optional = _optional(contract)
    behind |= {name: optional[name] for name in contract.levels[MAP].outputs if name in optional}
    if level != MAP:
        behind[names.GUIDED] = (*_targets(contract), *contract.preprocessing.input_shape)
    return promised | {name: (None, *sizes) for name, sizes in behind.items()}


def _aimed(contract: Contract) -> dict[str, tuple[int, ...]]:
    """What a file of this kind takes and gives besides pictures and maps, and their sizes behind the batch."""
    kind, shape = contract.target.kind, contract.target.shape
    if kind == names.SEED:
        return {names.SEED: shape}
    aimed = {names.TARGET: _targets(contract), names.TARGET_CLASS: _targets(contract)}
    if kind == names.REGION:
        aimed[names.REGION] = shape[1:]
    elif kind == names.DETECTION:
        aimed |= {names.DETECTION: (), names.DETECTION_INDEX: ()}
    if kind in (names.REGION, names.DETECTION):
        aimed[names.SELECTED_SCORES] = (contract.scores.classes,)
    return aimed


def _optional(contract: Contract) -> dict[str, tuple[int, ...]]:
    """What a file may hold besides."""
    layer = contract.layer
    ones = (1,) * len(layer.space)
    return {
        names.HEATMAP: (*_targets(contract), *contract.preprocessing.input_shape[1:]),
        names.SOFTMAX_WEIGHTS: (*_targets(contract), layer.channels, *ones),
        names.SOFTMAX_POLES: _targets(contract),
    }


def _targets(contract: Contract) -> tuple[int, ...]:
    """(K,) where K classes are explained in one pass."""
    return (contract.target.count,) if contract.target.kind == CLASSES else ()


def _gradient_space(layer: Layer) -> tuple[int, ...]:
    return (1,) * len(layer.space) if layer.constant else layer.space


def _agree(found: Shape, expected: Shape) -> bool:
    sides = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(None in pair or pair[0] == pair[1] for pair in sides)


def _known(sizes: Shape) -> tuple[int, ...]:
    return tuple(side for side in sizes if side is not None)


def _text(shape: Shape) -> str:
    return "(" + ", ".join("N" if side is None else str(side) for side in shape) + ")"
