"""Rules of activations.

Under "guided" and "deconvnet" a rectifier changes what it lets through (docs/method.md): guided backprop passes
positive gradients where the forward input was positive; for smooth rectifiers the incoming gradient is clamped at zero
and meets the ordinary derivative. Deconvnet passes positive gradients whatever the input was. Bounded gates (Sigmoid,
HardSigmoid, Tanh) are no rectifiers and keep their derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import INTERNAL, Call, Gradient, OneHot, Results, rule


def rectified(call: Call, gradient: Value, passes: Callable[[Value], Value]) -> Results:
    """The gradients of a rectifier's inputs; `passes(gradient)` applies the ordinary derivative."""
    return [_through(call, gradient, passes), *call.none()[1:]]


def _through(call: Call, gradient: Value, passes: Callable[[Value], Value]) -> Value:
    if call.pixel_rule == "deconvnet":
        return call.emit.apply("Relu", gradient)
    return passes(call.emit.apply("Relu", gradient) if call.pixel_rule == "guided" else gradient)


@rule("Relu", compact=True, sparse=True)
def relu(call: Call, gradient: Gradient) -> Results:
    """y > 0 is x > 0, and reading y leaves the runtime free to fuse the ReLU into its convolution."""
    if isinstance(gradient, OneHot):
        return _sparse_relu(call, gradient)
    return rectified(call, gradient, lambda g: call.emit.keep_above(0, call.y, g))


def _sparse_relu(call: Call, gradient: OneHot) -> Results:
    chosen = call.emit.gather_batch(call.y, call.emit.reshape(gradient.indices, (gradient.shape[0], 1)))
    chosen = call.emit.reshape(chosen, (gradient.shape[0], 1, *gradient.shape[2:]))
    amount = _through(call, gradient.amount, lambda g: call.emit.keep_above(0, chosen, g))
    return [OneHot(gradient.indices, amount, gradient.shape)]


def _positive(call: Call, value: Value) -> Value:
    return call.emit.greater(value, call.emit.scalar(0, value))


@rule("Clip", compact=True)
def clip(call: Call, gradient: Value) -> Results:
    """Passes strictly between the bounds, as PyTorch's hardtanh and ReLU6 do. With a lower bound of 0 a rectifier."""
    emit, low, high = call.emit, call.constant(1), call.constant(2)
    if any(call.wanted[1:]):
        raise call.refuse("has bounds that depend on the picture")
    computed = [value if call.constant(1 + i) is None else None for i, value in enumerate(call.inputs[1:])]

    def passes(g: Value) -> Value:
        if low is not None and np.isfinite(low):
            g = emit.keep_above(low.item(), call.y, g)
        if high is not None and np.isfinite(high):
            g = emit.keep_below(high.item(), call.y, g)
        for bound, inside in zip(computed, (emit.greater, emit.less), strict=False):
            g = g if bound is None else emit.keep_where(inside(call.y, bound), g)
        return g

    if low is not None and low == 0:
        return rectified(call, gradient, passes)
    return [passes(gradient), *call.none()[1:]]


@rule("LeakyRelu", compact=True)
def leaky_relu(call: Call, gradient: Value) -> Results:
    slope = call.attribute("alpha", 0.01)
    return rectified(call, gradient, lambda g: call.emit.where(_positive(call, call.x), g, call.emit.scale(g, slope)))


@rule("PRelu", compact=True)
def prelu(call: Call, gradient: Value) -> Results:
    slope = call.inputs[1]
    assert slope is not None
    return rectified(
        call, gradient, lambda g: call.emit.where(_positive(call, call.x), g, call.emit.multiply(g, slope))
    )


@rule("Elu", compact=True)
def elu(call: Call, gradient: Value) -> Results:
    """d/dx alpha (e^x - 1) = y + alpha."""
    emit, alpha = call.emit, call.attribute("alpha", 1.0)
    return rectified(
        call,
        gradient,
        lambda g: emit.where(_positive(call, call.x), g, emit.multiply(g, emit.shift(call.y, alpha))),
    )


@rule("Sigmoid", compact=True)
def sigmoid(call: Call, gradient: Value) -> Results:
    emit, y = call.emit, call.y
    slope = emit.subtract(y, emit.multiply(y, y))
    return [emit.multiply(gradient, slope)]


@rule("Tanh", compact=True)
def tanh(call: Call, gradient: Value) -> Results:
    emit, y = call.emit, call.y
    return [emit.multiply(gradient, emit.subtract(emit.scalar(1, y), emit.multiply(y, y)))]


@rule("HardSigmoid", compact=True)
def hard_sigmoid(call: Call, gradient: Value) -> Results:
    emit, y = call.emit, call.y
    return [emit.keep_below(1, y, emit.keep_above(0, y, emit.scale(gradient, call.attribute("alpha", 0.2))))]


@rule("HardSwish", compact=True)
def hard_swish(call: Call, gradient: Value) -> Results:
    """(2x + 3) / 6 between -3 and 3; below it 0, above it 1."""
    emit, x = call.emit, call.x

    def passes(g: Value) -> Value:
        slope = emit.shift(emit.scale(x, 1 / 3), 0.5)
        slope = emit.where(emit.less(x, emit.scalar(3, x)), slope, emit.scalar(1, x))
        return emit.keep_above(-3, x, emit.multiply(g, slope))

    return rectified(call, gradient, passes)


@rule("Silu", domain=INTERNAL, compact=True)
def silu(call: Call, gradient: Value) -> Results:
    """x s(b x) with slope b: s + b y (1 - s)."""
    emit, x, y, slope = call.emit, call.x, call.y, call.attribute("slope", 1.0)

    def passes(g: Value) -> Value:
        s, rising = emit.apply("Sigmoid", emit.scale(x, slope)), emit.scale(y, slope)
        return emit.multiply(g, emit.subtract(emit.add(s, rising), emit.multiply(rising, s)))

    return rectified(call, gradient, passes)


@rule("Softplus", compact=True)
def softplus(call: Call, gradient: Value) -> Results:
    return rectified(call, gradient, lambda g: call.emit.multiply(g, call.emit.apply("Sigmoid", call.x)))


@rule("Erf", compact=True)
def erf(call: Call, gradient: Value) -> Results:
    emit, x = call.emit, call.x
    bell = emit.apply("Exp", emit.apply("Neg", emit.multiply(x, x)))
    return [emit.multiply(gradient, emit.scale(bell, 2 / math.sqrt(math.pi)))]


@rule("Gelu", compact=True)
@rule("Gelu", domain=INTERNAL, compact=True)
def gelu(call: Call, gradient: Value) -> Results:
    """x P(x): P + x p, with P the normal distribution and p its density; or the derivative of the tanh form."""
    slope = _gelu_slope_tanh if call.attribute("approximate", "none") == "tanh" else _gelu_slope
    return rectified(call, gradient, lambda g: call.emit.multiply(g, slope(call)))


def _gelu_slope(call: Call) -> Value:
    emit, x = call.emit, call.x
    distribution = emit.shift(emit.scale(emit.apply("Erf", emit.scale(x, math.sqrt(0.5))), 0.5), 0.5)
    density = emit.apply("Exp", emit.scale(emit.multiply(x, x), -0.5))
    return emit.add(distribution, emit.multiply(x, emit.scale(density, 1 / math.sqrt(2 * math.pi))))


def _gelu_slope_tanh(call: Call) -> Value:
    emit, x = call.emit, call.x
    square, c = emit.multiply(x, x), math.sqrt(2 / math.pi)
    t = emit.apply("Tanh", emit.scale(emit.multiply(x, emit.shift(emit.scale(square, 0.044715), 1)), c))
    inner = emit.shift(emit.scale(square, 3 * 0.044715 * c), c)
    rest = emit.multiply(emit.multiply(x, inner), emit.subtract(emit.scalar(1, x), emit.multiply(t, t)))
    return emit.scale(emit.add(emit.shift(t, 1), rest), 0.5)


@rule("Selu", compact=True)
def selu(call: Call, gradient: Value) -> Results:
    """gamma where x > 0, else y + gamma alpha."""
    emit, gamma = call.emit, call.attribute("gamma", 1.0507009873554805)
    left = gamma * call.attribute("alpha", 1.6732632423543772)

    def passes(g: Value) -> Value:
        slope = emit.where(_positive(call, call.x), emit.scalar(gamma, call.x), emit.shift(call.y, left))
        return emit.multiply(g, slope)

    return rectified(call, gradient, passes)


@rule("Celu", compact=True)
def celu(call: Call, gradient: Value) -> Results:
    """1 where x > 0, else e^(x / alpha) = y / alpha + 1."""
    emit, alpha = call.emit, call.attribute("alpha", 1.0)

    def passes(g: Value) -> Value:
        slope = emit.shift(emit.scale(call.y, 1 / alpha), 1)
        return emit.where(_positive(call, call.x), g, emit.multiply(g, slope))

    return rectified(call, gradient, passes)


@rule("Mish", compact=True)
def mish(call: Call, gradient: Value) -> Results:
    """x t with t = tanh(softplus(x)): t + x (1 - t^2) s(x)."""
    emit, x = call.emit, call.x

    def passes(g: Value) -> Value:
        t = emit.apply("Tanh", emit.apply("Softplus", x))
        steep = emit.subtract(emit.scalar(1, x), emit.multiply(t, t))
        slope = emit.add(t, emit.multiply(x, emit.multiply(steep, emit.apply("Sigmoid", x))))
        return emit.multiply(g, slope)

    return rectified(call, gradient, passes)


@rule("ThresholdedRelu", compact=True)
def thresholded_relu(call: Call, gradient: Value) -> Results:
    return rectified(call, gradient, lambda g: call.emit.keep_above(call.attribute("alpha", 1.0), call.x, g))


@rule("Shrink", compact=True)
def shrink(call: Call, gradient: Value) -> Results:
    """Passes outside of -lambd..lambd; `bias` only shifts."""
    return [call.emit.keep_above(call.attribute("lambd", 0.5), call.emit.apply("Abs", call.x), gradient)]


@rule("Softsign", compact=True)
def softsign(call: Call, gradient: Value) -> Results:
    """1 / (1 + |x|)^2 = (1 - |y|)^2."""
    emit = call.emit
    rest = emit.subtract(emit.scalar(1, call.y), emit.apply("Abs", call.y))
    return [emit.multiply(gradient, emit.multiply(rest, rest))]
