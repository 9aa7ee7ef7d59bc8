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
from onnx import TensorProto

from gcpp_edge.export.blocked import (
    Phase,
    clipped,
    fits_blocked,
    into_blocked,
    is_blocked,
    let_through,
    made_by_convolution,
    picked,
    spacing,
    step,
)
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import INTERNAL, Call, Gradient, OneHot, Phased, Results, rule


def rectified(call: Call, gradient: Value, passes: Callable[[Value], Value]) -> Results:
    """The gradients of a rectifier's inputs; `passes(gradient)` applies the ordinary derivative."""
    return [_through(call, gradient, passes), *call.none()[1:]]


def _through(call: Call, gradient: Value, passes: Callable[[Value], Value]) -> Value:
    if call.pixel_rule == "deconvnet":
        return call.emit.apply("Relu", gradient)
    return passes(call.emit.apply("Relu", gradient) if call.pixel_rule == "guided" else gradient)


@rule("Relu", compact=True, sparse=True, phased=True)
def relu(call: Call, gradient: Gradient) -> Results:
    """y > 0 is x > 0, and reading y leaves the runtime free to fuse the ReLU into its convolution."""
    if isinstance(gradient, OneHot):
        return _sparse_relu(call, gradient)
    return [_bounded(call, gradient, 0, None)]


def _bounded(call: Call, gradient: Value | Phased, low: float | None, high: float | None) -> Gradient:
    """What a rectifier lets through that passes strictly between two bounds."""
    emit, stride = call.emit, gradient.stride if isinstance(gradient, Phased) else 1

    def through(g: Value, phase: Phase = (0, 0)) -> Value:
        if _wants_sum(call, g, stride):
            return let_through(emit, g, call.y, low, high, stride, phase)
        return _through(call, g, lambda passed: kept(passed, phase))

    def kept(g: Value, phase: Phase) -> Value:
        if low is not None:
            g = _kept(emit, g, call.y, low, 1, stride, phase)
        if high is not None:
            g = _kept(emit, g, call.y, high, -1, stride, phase)
        return g

    if isinstance(gradient, Phased):
        return gradient if gradient.masked == call.y.name else gradient.each(through)
    passed = through(gradient)
    spread = gradient.shape != call.y.shape == passed.shape  # by the mask, in the plain layout
    return into_blocked(emit, passed) if spread and emit.lowerings.enter_blocked else passed


def _wants_sum(call: Call, gradient: Value, stride: int) -> bool:
    """Whether a guided mask is a sum that a convolution takes in: one made the gradient, or one is added for it.

    Behind the sum of two branches it would be a node of its own, and a product costs the same there.
    """
    emit = call.emit
    if call.pixel_rule != "guided" or not emit.lowerings.sum_masks or not fits_blocked(call.y):
        return False
    dense = stride > 1 or gradient.shape == call.y.shape
    return dense and (made_by_convolution(emit, gradient) or not is_blocked(emit, gradient))


def _kept(emit: Emitter, gradient: Value, tested: Value, bound: float, sign: int, stride: int, phase: Phase) -> Value:
    """The gradient where sign * tested > sign * bound, else 0."""
    if stride > 1:
        return emit.multiply(gradient, step(emit, tested, bound, sign, stride, phase))
    return (emit.keep_above if sign > 0 else emit.keep_below)(bound, tested, gradient)


def _sparse_relu(call: Call, gradient: OneHot) -> Results:
    chosen = call.emit.gather_batch(call.y, call.emit.reshape(gradient.indices, (gradient.shape[0], 1)))
    chosen = call.emit.reshape(chosen, (gradient.shape[0], 1, *gradient.shape[2:]))
    amount = _through(call, gradient.amount, lambda g: call.emit.keep_above(0, chosen, g))
    return [OneHot(gradient.indices, amount, gradient.shape)]


def _positive(call: Call, value: Value) -> Value:
    return call.emit.greater(value, call.emit.scalar(0, value))


@rule("Clip", compact=True, phased=True)
def clip(call: Call, gradient: Value | Phased) -> Results:
    """Passes strictly between the bounds, as PyTorch's hardtanh and ReLU6 do. With a lower bound of 0 a rectifier."""
    emit, low, high = call.emit, call.constant(1), call.constant(2)
    if any(call.wanted[1:]):
        raise call.refuse("has bounds that depend on the picture")
    if low is not None and low == 0 and (high is not None or not _given(call, 2)):
        upper = None if high is None or not np.isfinite(high) else float(high.item())
        return [_bounded(call, gradient, 0, upper), *call.none()[1:]]
    if isinstance(gradient, Phased):
        gradient = gradient.dense(emit)
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


def _given(call: Call, index: int) -> bool:
    return len(call.inputs) > index and call.inputs[index] is not None


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
    blocked = emit.lowerings.sum_masks and fits_blocked(x) and gradient.shape == x.shape
    if blocked and call.pixel_rule != "deconvnet":
        return [_hard_swish_blocked(call, gradient)]

    def passes(g: Value) -> Value:
        slope = emit.shift(emit.scale(x, 1 / 3), 0.5)
        slope = emit.where(emit.less(x, emit.scalar(3, x)), slope, emit.scalar(1, x))
        return emit.keep_above(-3, x, emit.multiply(g, slope))

    return rectified(call, gradient, passes)


def _hard_swish_blocked(call: Call, gradient: Value) -> Value:
    """The same by convolutions: 2 s - 1/2 with s = HardSigmoid(x) of the forward pass, and 1/2 less from 3 on."""
    emit, x = call.emit, call.x
    if _wants_sum(call, gradient, 1):
        passed = let_through(emit, gradient, x, -3, None)
    else:
        passed = _through(call, gradient, lambda g: emit.keep_above(-3, x, into_blocked(emit, g)))
    steep = 0.5 / spacing(x, 3, -np.inf)
    less = clipped(emit, picked(emit, x, weight=-steep, bias=3 * steep - 0.5), -0.5, 0)
    slope = emit.add(picked(emit, _hard_sixth(call), weight=2, bias=-0.5), less)
    return emit.multiply(passed, slope)


def _hard_sixth(call: Call) -> Value:
    """x / 6 + 1/2 between 0 and 1. An attribute is a float32 and holds no sixth: in float64 it would be off by 1e-8."""
    if call.x.dtype == TensorProto.FLOAT:
        return call.emit.apply("HardSigmoid", call.x, alpha=float(np.float32(1 / 6)), beta=0.5)
    return clipped(call.emit, picked(call.emit, call.x, weight=1 / 6, bias=0.5), 0, 1)


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
