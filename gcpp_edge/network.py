"""One level of an explained model, loaded, with buffers for batches.

Buffers are allocated for the largest batch so far; smaller ones use the front of them. After that a run allocates
nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gcpp_edge.contract import GUIDED, MAP, PLAIN, TARGET, TARGET_CLASS, Contract
from gcpp_edge.device import Device
from gcpp_edge.errors import ModelError
from gcpp_edge.level_cache import model_at_level
from gcpp_edge.model_file import ModelFile
from gcpp_edge.runtimes import RuntimeOptions, TensorInfo, open_runtime

MAPS = "maps"  # (N, h, w) float32: not the network's, but filled from its outputs, batch by batch

_FLOATS = (np.dtype(np.float32), np.dtype(np.float16))  # what the kernels take
_INTEGERS = (np.dtype(np.int64),)


class Network:
    """A runtime holding one level of the file, and what it reads and writes.

    `batch`: the one batch size that the file was exported with, or None where any will do.
    """

    def __init__(self, file: ModelFile, level: str, device: Device, options: RuntimeOptions) -> None:
        self._device = device
        self.runtime = open_runtime(device.runtime, model_at_level(file, level), str(file.path), options)
        self._tensors = _tensors(self.runtime.inputs + self.runtime.outputs, file, level)
        self.batch = self._tensors[file.contract.input].shape[0]
        self._buffers: dict[str, Any] = {}
        self._views: dict[int, dict[str, Any]] = {}
        self._map_shape = file.contract.layer.space
        self._capacity = 0

    def buffers(self, count: int) -> dict[str, Any]:
        """Bound buffers for a batch of `count`, by tensor name."""
        if count > self._capacity:
            self._allocate(count)
        if count not in self._views:
            self._views[count] = {name: buffer[:count] for name, buffer in self._buffers.items()}
        views = self._views[count]
        for name in self._tensors:
            self.runtime.bind(name, views[name])
        return views

    def _allocate(self, count: int) -> None:
        self._views.clear()
        for name, tensor in self._tensors.items():
            self._buffers[name] = self._device.allocate((count, *_sizes(tensor)), tensor.dtype)
        self._buffers[MAPS] = self._device.allocate((count, *self._map_shape), np.dtype(np.float32))
        self._capacity = count

    def close(self) -> None:
        """Give back the runtime and the buffers."""
        self.runtime.close()
        self._buffers.clear()
        self._views.clear()
        self._capacity = 0


def _tensors(found: tuple[TensorInfo, ...], file: ModelFile, level: str) -> dict[str, TensorInfo]:
    """What is bound at this level, with the contract's sizes where the file leaves them open.

    Raises ModelError where the file does not hold what its contract promises.
    """
    by_name = {tensor.name: tensor for tensor in found}
    tensors = {}
    for name, sizes in _promised(file.contract, level).items():
        if name not in by_name:
            raise ModelError(f"{file.path}: its contract promises {name!r}, which its graph lacks. Export it again.")
        tensor = by_name[name]
        if name == file.contract.scores.output:
            sizes = sizes + (1,) * (len(tensor.shape) - 2)  # some networks leave (N, classes, 1, 1)
        shape = (None, *sizes)
        if not _agree(tensor.shape, shape):
            raise ModelError(
                f"{file.path}: {name!r} has the shape {_text(tensor.shape)} and its contract says {_text(shape)}. "
                "Export it again."
            )
        if tensor.dtype not in (_INTEGERS if name in (TARGET, TARGET_CLASS) else _FLOATS):
            raise ModelError(
                f"{file.path}: {name!r} is {tensor.dtype}; expected int64 for classes, else float32 or float16. "
                "Export it again."
            )
        tensors[name] = TensorInfo(name, (tensor.shape[0], *sizes), tensor.dtype)
    return tensors


def _promised(contract: Contract, level: str) -> dict[str, tuple[int, ...]]:
    """Inputs and outputs that a level has, and their sizes behind the batch."""
    pixels, layer = contract.preprocessing, contract.layer
    image = (pixels.channels, pixels.height, pixels.width)
    gradient_space = (1,) * len(layer.space) if layer.constant else layer.space
    promised: dict[str, tuple[int, ...]] = {contract.input: image, contract.scores.output: (contract.scores.classes,)}
    if level != PLAIN:
        promised |= {
            TARGET: (),
            TARGET_CLASS: (),
            layer.activations: (layer.channels, *layer.space),
            layer.gradients: (layer.channels, *gradient_space),
        }
    if level not in (PLAIN, MAP):
        promised[GUIDED] = image
    return promised


def _agree(found: tuple[int | None, ...], expected: tuple[int | None, ...]) -> bool:
    sides = zip(found, expected, strict=False)
    return len(found) == len(expected) and all(None in pair or pair[0] == pair[1] for pair in sides)


def _sizes(tensor: TensorInfo) -> tuple[int, ...]:
    return tuple(side for side in tensor.shape[1:] if side is not None)


def _text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("N" if side is None else str(side) for side in shape) + ")"
