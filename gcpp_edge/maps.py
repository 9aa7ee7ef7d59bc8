"""From a network's outputs to raw maps: one for each frame, target and layer, and of several layers one together."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import CLASSES, SOFTMAX_POLES, SOFTMAX_WEIGHTS, Contract, Layer
from gcpp_edge.device import Device
from gcpp_edge.errors import RuntimeFailure
from gcpp_edge.fusion import fuse, fused_grid
from gcpp_edge.methods import PAPER, Method, reference_maps
from gcpp_edge.network import POLES, maps_of

Maps = NDArray[np.float32]


class Found(NamedTuple):
    """Maps by frame and target: (N, K, *space). The one that is shown; those of each layer, raw; counts of poles."""

    maps: Maps
    layers: dict[str, Maps]
    poles: list[list[int]]


class MapMaker:
    """Makes maps in the network's buffers; what it gives is the caller's own."""

    def __init__(self, contract: Contract, device: Device, where: str) -> None:
        self._contract, self._device, self._where = contract, device, where
        self._has_target_axis = contract.target.kind == CLASSES

    def __call__(self, buffers: dict[str, Any], count: int, targets: int, method: Method, mode: str) -> Found:
        """Maps of the first `targets` targets of `count` frames. RuntimeFailure where they are not finite."""
        make = self._kernel_maps if mode == PAPER else self._reference_maps
        layers, poles = {}, [[0] * targets for _ in range(count)]
        for layer in self._contract.layers:
            maps = layers[layer.name] = make(layer, buffers, poles, method, mode)
            if not np.isfinite(maps).all():
                raise RuntimeFailure(
                    f"{self._where}: the map of layer {layer.name!r} is not finite (NaN or infinity). "
                    "The network overflows there, in float16 most likely: export it in float32."
                )
        if len(layers) == 1:
            return Found(maps, layers, poles)
        return Found(self._fused(layers, mode), layers, poles)

    def _kernel_maps(
        self, layer: Layer, buffers: dict[str, Any], poles: list[list[int]], method: Method, mode: str
    ) -> Maps:
        """All frames and all targets at once."""
        count, targets = len(poles), len(poles[0])
        gradients, scale, counted = buffers[layer.gradients], layer.gradient_scale, buffers[POLES]
        maps = buffers[maps_of(layer)]
        if method.needs_weights:  # computed by the file, and constant over space as far as the kernel is concerned
            gradients, scale = buffers[SOFTMAX_WEIGHTS], 1.0
        self._device.kernels.cam(
            buffers[layer.activations],
            gradients,
            method.rule,
            method.relu,
            maps,
            gradient_scale=scale,
            poles=counted,
        )
        counts = self._device.download(buffers[SOFTMAX_POLES] if method.needs_weights else counted)
        for row, numbers in zip(poles, counts.reshape(len(counts), -1), strict=False):
            row[:] = [so_far + int(number) for so_far, number in zip(row, numbers, strict=False)]
        host: Maps = self._device.download(maps)[:count]
        own: Maps = (host[:, :targets] if self._has_target_axis else host[:, None]).copy()
        return own

    def _reference_maps(
        self, layer: Layer, buffers: dict[str, Any], poles: list[list[int]], method: Method, mode: str
    ) -> Maps:
        count, targets = len(poles), len(poles[0])
        A, g = (self._device.download(buffers[name])[:count] for name in (layer.activations, layer.gradients))
        g = g if self._has_target_axis else g[:, None]
        return np.stack(
            [reference_maps(mode, method, A, g[:, target], layer.gradient_scale) for target in range(targets)], axis=1
        )

    def _fused(self, layers: dict[str, Maps], mode: str) -> Maps:
        pixels = self._contract.preprocessing
        count, targets = next(iter(layers.values())).shape[:2]
        spaces = [maps.shape[2:] for maps in layers.values()]
        fused = np.empty((count, targets, *fused_grid(spaces, mode, (pixels.height, pixels.width))), np.float32)
        for frame in range(count):
            for target in range(targets):
                fuse([maps[frame, target] for maps in layers.values()], mode, fused[frame, target])
        return fused
