"""Rules of normalisation layers, as they run at inference."""

from __future__ import annotations

import numpy as np

from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Results, numpy_dtype, rule


@rule("BatchNormalization", compact=True)
def batch_normalization(call: Call, gradient: Value) -> Results:
    """y = (x - mean) / sqrt(var + eps) * scale + bias: a constant factor per channel."""
    scale, variance = (np.asarray(call.need(index, "statistics"), np.float64) for index in (1, 4))
    factor = scale / np.sqrt(variance + call.attribute("epsilon", 1e-5))
    shape = (-1, *(1,) * (len(call.x.shape) - 2))
    factor = factor.reshape(shape).astype(numpy_dtype(call.x.dtype))
    return [call.emit.multiply(gradient, call.emit.constant(factor)), *call.none()[1:]]


@rule("LayerNormalization")
def layer_normalization(call: Call, gradient: Value) -> Results:
    axes = list(range(call.axis(default=-1), len(call.x.shape)))
    scaled = call.emit.multiply(gradient, call.inputs[1])
    return [through_standardised(call, call.x, scaled, axes), *call.none()[1:]]


@rule("InstanceNormalization")
def instance_normalization(call: Call, gradient: Value) -> Results:
    rank = len(call.x.shape)
    scale = call.emit.reshape(call.inputs[1], (call.x.shape[1], *(1,) * (rank - 2)))
    scaled = call.emit.multiply(gradient, scale)
    return [through_standardised(call, call.x, scaled, list(range(2, rank))), *call.none()[1:]]


def through_standardised(call: Call, x: Value, gradient: Value, axes: list[int]) -> Value:
    """dx = (h - mean(h) - n mean(h n)) / s, with n = (x - mean) / s and h the gradient of n."""
    emit = call.emit
    centred = emit.subtract(x, emit.reduce("ReduceMean", x, axes))
    variance = emit.reduce("ReduceMean", emit.multiply(centred, centred), axes)
    deviation = emit.apply("Sqrt", emit.shift(variance, call.attribute("epsilon", 1e-5)))
    normal = emit.divide(centred, deviation)
    along = emit.multiply(normal, emit.reduce("ReduceMean", emit.multiply(gradient, normal), axes))
    rest = emit.subtract(emit.subtract(gradient, emit.reduce("ReduceMean", gradient, axes)), along)
    return emit.divide(rest, deviation)


@rule("LpNormalization")
def lp_normalization(call: Call, gradient: Value) -> Results:
    """p = 2: (g - y sum(g y)) / |x|. p = 1: (g - sign(x) sum(g y)) / |x|."""
    emit, axis = call.emit, call.axis(default=-1)
    p = call.attribute("p", 2)
    norm = emit.reduce("ReduceSum", emit.multiply(call.x, call.x) if p == 2 else emit.apply("Abs", call.x), [axis])
    norm = emit.apply("Sqrt", norm) if p == 2 else norm
    along = emit.reduce("ReduceSum", emit.multiply(gradient, call.y), [axis])
    direction = call.y if p == 2 else emit.apply("Sign", call.x)
    return [emit.divide(emit.subtract(gradient, emit.multiply(direction, along)), norm)]


@rule("LRN")
def local_response_normalization(call: Call, gradient: Value) -> Results:
    """y = x s^-b with s = k + a/n sum(x^2) over n neighbouring channels: g s^-b - 2ab/n x sum'(g x s^(-b-1)).

    sum' runs over the mirrored neighbourhood: the channels whose own neighbourhood holds this one.
    """
    emit, size = call.emit, call.attribute("size")
    beta, share = call.attribute("beta", 0.75), call.attribute("alpha", 1e-4) / size
    below = (size - 1) // 2
    squares = _channel_sum(call, emit.multiply(call.x, call.x), below, size - 1 - below)
    s = emit.shift(emit.scale(squares, share), call.attribute("bias", 1.0))
    damped = emit.power(s, -beta)
    inner = emit.multiply(emit.multiply(gradient, call.x), emit.divide(damped, s))
    back = emit.multiply(call.x, emit.scale(_channel_sum(call, inner, size - 1 - below, below), 2 * beta * share))
    return [emit.subtract(emit.multiply(gradient, damped), back)]


def _channel_sum(call: Call, value: Value, below: int, above: int) -> Value:
    """The sum over neighbouring channels, as a convolution along them."""
    emit, size = call.emit, below + above + 1
    batch, channels, *space = value.shape
    flat = emit.reshape(value, (batch, 1, channels, int(np.prod(space))))
    ones = emit.constant(np.ones((1, 1, size, 1), numpy_dtype(value.dtype)))
    summed = emit.conv(flat, ones, flat.shape, kernel_shape=[size, 1], pads=[below, 0, above, 0])
    return emit.reshape(summed, value.shape)
