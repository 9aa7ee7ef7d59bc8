"""The whole method in the graph: weights, weighted sum, ReLU, normalisation and upsampling, out of standard operators.

For a runtime that has none of our kernels. Everything is float32, also where the network is float16: the channels are
summed by Mul and ReduceSum, since a MatMul may run in TF32 on a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from gcpp_edge.contract import Layer
from gcpp_edge.errors import SourceError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Value, elements
from gcpp_edge.kernels.reference import POLE

FLOAT = TensorProto.FLOAT


@dataclass(frozen=True)
class Maps:
    """A layer in the map level.

    activations: [N,C,*space]. gradients: the same, or [N,C,1,..], times layer.gradient_scale.
    softmax_weights: [N,C,1,..] where the file has them.
    """

    layer: Layer
    activations: Value
    gradients: Value
    softmax_weights: Value | None = None


def _mean(emit: Emitter, maps: Maps, g: Value) -> Value:
    """mean_ij g (Eq. 3), and the classifier's weights where g is constant (Eq. 1)."""
    return emit.reduce("ReduceMean", g, _space(g))


def _plus_plus(emit: Emitter, maps: Maps, g: Value) -> Value:
    """sum_ij relu(g) / (2 + max(sum A, 0) relu(g)): where g < 0 the numerator is 0 anyway, and no pole is met."""
    positive = emit.apply("Relu", g)
    return _sum(emit, maps, emit.divide(positive, _denominator(emit, maps, positive)))


def _signed(emit: Emitter, maps: Maps, g: Value) -> Value:
    """sum_ij g / (2 + max(sum A, 0) g), 0 at poles (Eq. 29)."""
    below = _denominator(emit, maps, g)
    is_pole = emit.less(emit.apply("Abs", below), emit.scalar(POLE, below))
    quotient = emit.divide(g, emit.where(is_pole, emit.scalar(1, below), below))
    return _sum(emit, maps, emit.where(is_pole, emit.scalar(0, quotient), quotient))


def _softmax(emit: Emitter, maps: Maps, g: Value) -> Value:
    """The file's own weights."""
    if maps.softmax_weights is None:
        raise SourceError("--portable with the method gradcam++-softmax needs --softmax too.")
    return maps.softmax_weights


def _space(value: Value) -> list[int]:
    return list(range(2, len(value.shape)))


def _denominator(emit: Emitter, maps: Maps, g: Value) -> Value:
    activations = emit.cast(maps.activations, FLOAT)
    size = emit.apply("Relu", emit.reduce("ReduceSum", activations, _space(activations)))
    return emit.shift(emit.multiply(size, g), 2)


def _sum(emit: Emitter, maps: Maps, terms: Value) -> Value:
    """Over all positions, where the terms may be constant over them."""
    share = elements(maps.layer.space) / elements(terms.shape[2:])
    return emit.scale(emit.reduce("ReduceSum", terms, _space(terms)), share)


@dataclass(frozen=True)
class Portable:
    """weights: of each channel [N,C,1,..], from float32 gradients. relu: whether the map goes through one (Eq. 20)."""

    weights: Callable[[Emitter, Maps, Value], Value]
    relu: bool = True


PORTABLE = {
    "gradcam": Portable(_mean),
    "gradcam++": Portable(_plus_plus),
    "gradcam++-signed": Portable(_signed),
    "gradcam++-softmax": Portable(_softmax),
    "cam": Portable(_mean, relu=False),
}


def heatmap(emit: Emitter, method: str, layers: Sequence[Maps], size: tuple[int, ...]) -> Value:
    """The heatmap in [0, 1], float32 [N,*size]; of several layers that of their mean, as fusion.fuse makes it.

    size: (H, W) of the network's input, or (T, H, W) of a clip's.
    """
    found = [_normalised(emit, _raw_map(emit, PORTABLE[method], maps)) for maps in layers]
    shown = found[0]
    if len(found) > 1:
        finest = tuple(max(sizes) for sizes in zip(*(maps.layer.space for maps in layers), strict=True))
        shown = _resized(emit, shown, finest)
        for each in found[1:]:
            shown = emit.add(shown, _resized(emit, each, finest))
        shown = _normalised(emit, shown)
    shown = _resized(emit, shown, size)
    shown = emit.node("Clip", (shown, emit.scalar(0, shown), emit.scalar(1, shown)), shown.shape)
    return emit.reshape(shown, (shown.shape[0], *size))


def _raw_map(emit: Emitter, method: Portable, maps: Maps) -> Value:
    """sum_k w_k A_k, [N,1,*space]."""
    gradients = emit.scale(emit.cast(maps.gradients, FLOAT), 1 / maps.layer.gradient_scale)
    weights = method.weights(emit, maps, gradients)
    total = emit.reduce("ReduceSum", emit.multiply(weights, emit.cast(maps.activations, FLOAT)), [1])
    return emit.apply("Relu", total) if method.relu else total


def _normalised(emit: Emitter, raw: Value) -> Value:
    """From minimum and maximum to 0 and 1; 0 where the map is flat or not finite, so that NaN never leaves the file."""
    axes = list(range(1, len(raw.shape)))
    lowest = emit.apply("Neg", emit.reduce("ReduceMax", emit.apply("Neg", raw), axes))
    extent = emit.subtract(emit.reduce("ReduceMax", raw, axes), lowest)
    zero = emit.scalar(0, raw)
    extent = emit.where(emit.greater(extent, zero), extent, emit.scalar(1, extent))
    value = emit.divide(emit.subtract(raw, lowest), extent)
    return emit.keep_where(emit.greater(value, zero), value)


def _resized(emit: Emitter, value: Value, size: tuple[int, ...]) -> Value:
    """Linear with half-pixel centres, [N,1,*size]."""
    space = value.shape[2:]
    if tuple(size) == tuple(space):
        return value
    scales = [1.0, 1.0, *(exact_scale(cells, pixels) for cells, pixels in zip(space, size, strict=True))]
    empty = emit.constant(np.array([], np.float32))
    return emit.node(
        "Resize",
        (value, empty, emit.constant(np.array(scales, np.float32))),
        (*value.shape[:2], *size),
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )


def exact_scale(source: int, destination: int) -> float:
    """The scale, a float32, for which runtimes compute this very destination: they round source times scale down."""
    scale = np.float32(destination / source)
    while math.floor(float(scale) * source) < destination or int(np.float32(source) * scale) < destination:
        scale = np.nextafter(scale, np.float32(np.inf))
    return float(scale)
