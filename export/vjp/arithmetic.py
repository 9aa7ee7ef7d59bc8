"""Rules of elementwise arithmetic. The walk sums broadcast gradients back, so no rule here does."""

from __future__ import annotations

from gcpp_edge.export.blocked import into_blocked
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, OneHot, Results, Sparse, rule


@rule("Identity", "Dropout", compact=True, sparse=True)
def identity(call: Call, gradient: Sparse) -> Results:
    """Dropout is the identity at inference; training-mode leftovers are refused by normalise.py."""
    return [gradient, *call.none()[1:]]


@rule("Cast", "CastLike", compact=True, sparse=True)
def cast(call: Call, gradient: Sparse) -> Results:
    if isinstance(gradient, OneHot):
        amount = call.emit.cast(gradient.amount, call.x.dtype)
        return [OneHot(gradient.indices, amount, gradient.shape), *call.none()[1:]]
    return [call.emit.cast(gradient, call.x.dtype), *call.none()[1:]]


@rule("Add", compact=True, sparse=True, broadcasts=True)
def add(call: Call, gradient: Sparse) -> Results:
    if isinstance(gradient, OneHot) and any(
        wanted and value is not None and value.shape != gradient.shape
        for wanted, value in zip(call.wanted, call.inputs, strict=True)
    ):
        gradient = gradient.dense(call.emit)
    if isinstance(gradient, Value) and call.emit.lowerings.enter_blocked and all(call.wanted):
        gradient = into_blocked(call.emit, gradient)  # what comes from the other branch is added to it
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
    """b x^(b-1) of the base, and nothing where b = 0; y log x of the exponent, and nothing where x is not positive."""
    return [
        _of_base(call, gradient) if call.wanted[0] else None,
        _of_exponent(call, gradient) if call.wanted[1] else None,
    ]


def _of_base(call: Call, gradient: Value) -> Value:
    emit, exponent = call.emit, call.constant(1)
    if exponent is not None and exponent.size == 1:
        number = float(exponent.reshape(-1)[0])
        if number in (0, 1):
            return emit.scale(gradient, number)
        base = call.x if number == 2 else emit.power(call.x, number - 1)
        return emit.scale(emit.multiply(gradient, base), number)
    power = emit.cast(call.inputs[1], call.x.dtype)
    flat = emit.equal(power, emit.scalar(0, power))
    one_less = emit.where(flat, emit.scalar(0, power), emit.shift(power, -1))
    base = emit.node("Pow", (call.x, one_less), call.y.shape)
    return emit.multiply(gradient, emit.multiply(power, base))


def _of_exponent(call: Call, gradient: Value) -> Value:
    emit, x = call.emit, call.x
    one = emit.scalar(1, x)
    logarithm_of_x = emit.apply("Log", emit.where(emit.greater(x, emit.scalar(0, x)), x, one))
    return emit.multiply(gradient, emit.multiply(call.y, logarithm_of_x))


@rule("Mod", compact=True, broadcasts=True)
def remainder(call: Call, gradient: Value) -> Results:
    """x - b trunc(x / b): of x alone."""
    if call.wanted[1]:
        raise call.refuse("divides by what depends on the picture")
    return [gradient, None]


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


@rule("Mean", compact=True, broadcasts=True)
def mean_of_all(call: Call, gradient: Value) -> Results:
    share = call.emit.scale(gradient, 1 / len(call.inputs))
    return [share if wanted else None for wanted in call.wanted]
