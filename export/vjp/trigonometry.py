"""Rules of the trigonometric and hyperbolic functions and their inverses."""

from __future__ import annotations

from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Results, rule


@rule("Sin", compact=True)
def sine(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, call.emit.apply("Cos", call.x))]


@rule("Cos", compact=True)
def cosine(call: Call, gradient: Value) -> Results:
    return [call.emit.apply("Neg", call.emit.multiply(gradient, call.emit.apply("Sin", call.x)))]


@rule("Tan", compact=True)
def tangent(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, call.emit.shift(_square(call, call.y), 1))]


@rule("Sinh", compact=True)
def hyperbolic_sine(call: Call, gradient: Value) -> Results:
    """cosh x = (e^x + e^-x) / 2."""
    return [call.emit.multiply(gradient, _half_sum_of_exponentials(call, "Add"))]


@rule("Cosh", compact=True)
def hyperbolic_cosine(call: Call, gradient: Value) -> Results:
    return [call.emit.multiply(gradient, _half_sum_of_exponentials(call, "Sub"))]


@rule("Asin", compact=True)
def arc_sine(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, _root(call, _one_minus_square(call)))]


@rule("Acos", compact=True)
def arc_cosine(call: Call, gradient: Value) -> Results:
    return [call.emit.apply("Neg", call.emit.divide(gradient, _root(call, _one_minus_square(call))))]


@rule("Atan", compact=True)
def arc_tangent(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, call.emit.shift(_square(call, call.x), 1))]


@rule("Asinh", compact=True)
def inverse_hyperbolic_sine(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, _root(call, call.emit.shift(_square(call, call.x), 1)))]


@rule("Acosh", compact=True)
def inverse_hyperbolic_cosine(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, _root(call, call.emit.shift(_square(call, call.x), -1)))]


@rule("Atanh", compact=True)
def inverse_hyperbolic_tangent(call: Call, gradient: Value) -> Results:
    return [call.emit.divide(gradient, _one_minus_square(call))]


def _square(call: Call, value: Value) -> Value:
    return call.emit.multiply(value, value)


def _one_minus_square(call: Call) -> Value:
    return call.emit.subtract(call.emit.scalar(1, call.x), _square(call, call.x))


def _root(call: Call, value: Value) -> Value:
    return call.emit.apply("Sqrt", value)


def _half_sum_of_exponentials(call: Call, operator: str) -> Value:
    emit, rising = call.emit, call.emit.apply("Exp", call.x)
    falling = emit.apply("Exp", emit.apply("Neg", call.x))
    return emit.scale(emit.add(rising, falling) if operator == "Add" else emit.subtract(rising, falling), 0.5)
