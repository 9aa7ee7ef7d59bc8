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
from gcpp_edge.network import maps_of, poles_of, weights_of
from gcpp_edge.reuse import is_finite

Maps = NDArray[np.float32]


class Found(NamedTuple):
    """Maps by frame and target: (N, K, *space). The one that is shown; those of each layer, raw; counts of poles.

    The maps may be the device's own, which the next frame overwrites.
    """

    maps: Maps
    layers: dict[str, Maps]
    poles: list[list[int]]


class MapMaker:
    """Makes maps in the network's buffers, in two steps: what the device does, and what is read when it is done."""

    def __init__(self, contract: Contract, where: str) -> None:
        self._contract, self._where = contract, where
        self._has_target_axis = contract.target.kind == CLASSES

    def begin(self, device: Device, buffers: dict[str, Any], method: Method, mode: str) -> None:
        """Maps of all that is in the buffers, under way. Another's mode is computed when read."""
        for layer in self._contract.layers:
            if mode == PAPER:
                self._run_kernel(device, layer, buffers, method)
                names = [maps_of(layer), poles_of(layer)]
            else:
                names = [layer.activations, layer.gradients]
            for name in names:
                device.fetch(buffers[name])
        if mode == PAPER and method.needs_weights:
            device.fetch(buffers[SOFTMAX_POLES])

    def finish(
        self, device: Device, buffers: dict[str, Any], count: int, targets: int, method: Method, mode: str
    ) -> Found:
        """The first `targets` targets of `count` frames. RuntimeFailure where they are not finite."""
        layers = {}
        for layer in self._contract.layers:
            if mode == PAPER:
                maps = self._by_target(device.download(buffers[maps_of(layer)]))[:count, :targets]
            else:
                maps = self._reference_maps(device, layer, buffers, count, targets, method, mode)
            if not is_finite(maps):
                raise RuntimeFailure(
                    f"{self._where}: the map of layer {layer.name!r} is not finite (NaN or infinity). "
                    "The network overflows there, in float16 most likely: export it in float32."
                )
            layers[layer.name] = maps
        poles = self._poles(device, buffers, count, targets, method, mode)
        return Found(maps if len(layers) == 1 else self._fused(layers, mode), layers, poles)

    def _run_kernel(self, device: Device, layer: Layer, buffers: dict[str, Any], method: Method) -> None:
        """All frames and all targets at once."""
        gradients, scale = buffers[layer.gradients], layer.gradient_scale
        if method.needs_weights:  # computed by the file, and constant over space as far as the kernel is concerned
            gradients, scale = buffers[SOFTMAX_WEIGHTS], 1.0
        device.kernels.cam(
            buffers[layer.activations],
            gradients,
            method.rule,
            method.relu,
            buffers[maps_of(layer)],
            buffers[weights_of(layer)],
            gradient_scale=scale,
            poles=buffers[poles_of(layer)],
        )

    def _poles(
        self, device: Device, buffers: dict[str, Any], count: int, targets: int, method: Method, mode: str
    ) -> list[list[int]]:
        if mode != PAPER:
            return [[0] * targets for _ in range(count)]
        names = [poles_of(layer) for layer in self._contract.layers]
        if method.needs_weights:
            names.append(SOFTMAX_POLES)
        total = sum(self._by_target(device.download(buffers[name]))[:count, :targets] for name in names)
        return [[int(number) for number in row] for row in np.asarray(total)]

    def _by_target(self, values: NDArray[Any]) -> NDArray[Any]:
        """(N, K, ...), K = 1 where the file explains one target."""
        return values if self._has_target_axis else values[:, None]

    def _reference_maps(
        self,
        device: Device,
        layer: Layer,
        buffers: dict[str, Any],
        count: int,
        targets: int,
        method: Method,
        mode: str,
    ) -> Maps:
        A = device.download(buffers[layer.activations])[:count]
        g = self._by_target(device.download(buffers[layer.gradients]))[:count]
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
