"""Rules of elementwise arithmetic. The walk sums broadcast gradients back, so no rule here does."""

from __future__ import annotations

from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Gradient, OneHot, Results, rule


@rule("Identity", "Dropout", compact=True, sparse=True)
def identity(call: Call, gradient: Gradient) -> Results:
    """Dropout is the identity at inference; training-mode leftovers are refused by normalise.py."""
    return [gradient, *call.none()[1:]]


@rule("Cast", compact=True)
def cast(call: Call, gradient: Value) -> Results:
    return [call.emit.cast(gradient, call.x.dtype)]


@rule("Add", compact=True, sparse=True, broadcasts=True)
def add(call: Call, gradient: Gradient) -> Results:
    if isinstance(gradient, OneHot) and any(
        wanted and value is not None and value.shape != gradient.shape
        for wanted, value in zip(call.wanted, call.inputs, strict=True)
    ):
        gradient = gradient.dense(call.emit)
    return [gradient if wanted else None for wanted in call.wanted]


@rule("Sum", compact=True, broadcasts=True)
def sum_of_all(call: Call, gradient: Value) -> Results:
    return [gradient if wanted else None for wanted in call.wanted]


@rule("Sub", compact=True, broadcasts=True)
def subtract(call: Call, gradient: Value) -> Results:
    return [gradient, call.emit.apply("Neg", gradient) if call.wanted[1] else None]


@rule("Mul", compact=True, broadcasts=True)
def multiply(call: Call, gradient: Value) -> Results:
    left, right = call.inputs
    return [
        call.emit.multiply(gradient, right) if call.wanted[0] else None,
        call.emit.multiply(gradient, left) if call.wanted[1] else None,
    ]


@rule("Div", compact=True, broadcasts=True)
def divide(call: Call, gradient: Value) -> Results:
    """d(a/b)/db = -(a/b)/b."""
    emit, divisor = call.emit, call.inputs[1]
    share = emit.divide(gradient, divisor)
    return [
        share if call.wanted[0] else None,
        emit.apply("Neg", emit.multiply(share, call.y)) if call.wanted[1] else None,
    ]


@rule("Pow", compact=True, broadcasts=True)
def power(call: Call, gradient: Value) -> Results:
    """Of the base; a computed exponent that needs a gradient is refused by the walk's count."""
    emit, exponent = call.emit, call.constant(1)
    if exponent is not None and exponent.size == 1:
        number = float(exponent.reshape(-1)[0])
        base = call.x if number == 2 else emit.power(call.x, number - 1)
        return [emit.scale(emit.multiply(gradient, base), number), None]
    less_one = emit.shift(call.inputs[1], -1)
    base = emit.node("Pow", (call.x, less_one), call.y.shape)
    return [emit.multiply(gradient, emit.multiply(call.inputs[1], base)), None]


@rule("Neg", compact=True)
def negate(call: Call, gradient: Value) -> Results:
    return [call.emit.apply("Neg", gradient)]


@rule("Abs", compact=True)
def absolute(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, call.emit.apply("Sign", call.x))]


@rule("Exp", compact=True)
def exponential(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, call.y)]


@rule("Log", compact=True)
def logarithm(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, call.x)]


@rule("Sqrt", compact=True)
def square_root(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(call.emit.scale(gradient, 0.5), call.y)]


@rule("Reciprocal", compact=True)
def reciprocal(call: Call, gradient: Value) -> Results:
    emit = call.emit
    return [emit.apply("Neg", emit.multiply(gradient, emit.multiply(call.y, call.y)))]


@rule("Sin", compact=True)
def sine(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, call.emit.apply("Cos", call.x))]


@rule("Cos", compact=True)
def cosine(call: Call, gradient: Value) -> Results:
    return [call.emit.apply("Neg", call.emit.multiply(gradient, call.emit.apply("Sin", call.x)))]


@rule("Mean", compact=True, broadcasts=True)
def mean_of_all(call: Call, gradient: Value) -> Results:
    share = call.emit.scale(gradient, 1 / len(call.inputs))
    return [share if wanted else None for wanted in call.wanted]
