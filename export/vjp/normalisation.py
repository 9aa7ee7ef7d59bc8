"""Rules of normalisation layers, as they run at inference."""

from __future__ import annotations

import numpy as np

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Results, numpy_dtype, rule


@rule("BatchNormalization", compact=True)
def batch_normalization(call: Call, gradient: Value) -> Results:
    """y = (x - mean) / sqrt(var + eps) * scale + bias: a constant factor per channel."""
    arrays = [call.constant(index) for index in (1, 4)]
    if any(array is None for array in arrays):
        raise UnsupportedGraphError(
            f'BatchNormalization at node "{call.node.name}" takes computed statistics; expected constants. '
            "Export the network in evaluation mode."
        )
    scale, variance = (np.asarray(array, np.float64) for array in arrays)
    factor = scale / np.sqrt(variance + call.attribute("epsilon", 1e-5))
    shape = (-1, *(1,) * (len(call.x.shape) - 2))
    factor = factor.reshape(shape).astype(numpy_dtype(call.x.dtype))
    return [call.emit.multiply(gradient, call.emit.constant(factor)), *call.none()[1:]]


@rule("LayerNormalization")
def layer_normalization(call: Call, gradient: Value) -> Results:
    """dx = (h - mean(h) - n mean(h n)) / s, with n = (x - mean) / s and h = g * scale."""
    emit, x = call.emit, call.x
    axes = list(range(call.axis(default=-1), len(x.shape)))
    scaled = emit.multiply(gradient, call.inputs[1])
    centred = emit.subtract(x, emit.reduce("ReduceMean", x, axes))
    variance = emit.reduce("ReduceMean", emit.multiply(centred, centred), axes)
    deviation = emit.apply("Sqrt", emit.shift(variance, call.attribute("epsilon", 1e-5)))
    normal = emit.divide(centred, deviation)
    along = emit.multiply(normal, emit.reduce("ReduceMean", emit.multiply(scaled, normal), axes))
    rest = emit.subtract(emit.subtract(scaled, emit.reduce("ReduceMean", scaled, axes)), along)
    return [emit.divide(rest, deviation), *call.none()[1:]]
