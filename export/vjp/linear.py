"""Rules of matrix products. A one-hot gradient becomes a Gather of the class's weight row: no product over classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Gradient, OneHot, Results, numpy_dtype, rule


@rule("Gemm", sparse=True)
def gemm(call: Call, gradient: Gradient) -> Results:
    """y = alpha op(A) op(B) + beta C, of A and of the constant B's row; C is a bias in every network seen."""
    if any(call.wanted[1:]):
        raise UnsupportedGraphError(
            f'Gemm at node "{call.node.name}" multiplies two computed matrices, which has no VJP rule. '
            "Choose a later layer with --layer."
        )
    emit, weights = call.emit, call.inputs[1]
    assert weights is not None
    rows = bool(call.attribute("transB", 0))  # B holds one row a class
    if isinstance(gradient, OneHot):
        result = _weight_row(call, gradient, rows)
    elif rows:
        result = emit.matmul(gradient, weights)
    else:
        result = emit.matmul(gradient, transposed(call, weights, (1, 0)))
    result = emit.scale(result, call.attribute("alpha", 1.0))
    if call.attribute("transA", 0):
        result = emit.transpose(result, (1, 0))
    return [result, *call.none()[1:]]


def _weight_row(call: Call, gradient: OneHot, rows: bool) -> Value:
    emit, weights = call.emit, call.inputs[1]
    assert weights is not None
    if rows:
        row = emit.gather(weights, gradient.indices, 0)
    else:
        row = emit.transpose(emit.gather(weights, gradient.indices, 1), (1, 0))
    one = call.graph.constant(gradient.amount.name)
    return row if one is not None and np.all(one == 1) else emit.multiply(row, gradient.amount)


def transposed(call: Call, value: Value, axes: Sequence[int]) -> Value:
    """A value transposed: a constant when the value is one, a node otherwise."""
    array = call.graph.constant(value.name)
    if array is None:
        return call.emit.transpose(value, axes)
    return call.emit.constant(array.transpose(axes).astype(numpy_dtype(value.dtype), copy=False))


@rule("MatMul", sparse=True, broadcasts=False)
def matmul(call: Call, gradient: Gradient) -> Results:
    """dA = g B^T, dB = A^T g, with leading axes summed back where they were broadcast."""
    left, right = call.inputs
    assert left is not None and right is not None
    if min(len(left.shape), len(right.shape)) < 2:
        raise UnsupportedGraphError(
            f'MatMul at node "{call.node.name}" takes a vector, which has no VJP rule. '
            "Choose a later layer with --layer."
        )
    if isinstance(gradient, OneHot):
        constant = call.graph.constant(right.name) is not None and len(left.shape) == 2
        if constant and call.wanted == (True, False):
            return [_weight_row(call, gradient, rows=False), None]
        gradient = gradient.dense(call.emit)
    return [
        _of_left(call, gradient, left, right) if call.wanted[0] else None,
        _of_right(call, gradient, left, right) if call.wanted[1] else None,
    ]


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _of_left(call: Call, gradient: Value, left: Value, right: Value) -> Value:
    product = call.emit.matmul(gradient, transposed(call, right, _swap(len(right.shape))))
    return sum_to(call, product, left)


def _of_right(call: Call, gradient: Value, left: Value, right: Value) -> Value:
    product = call.emit.matmul(transposed(call, left, _swap(len(left.shape))), gradient)
    return sum_to(call, product, right)


def sum_to(call: Call, value: Value, like: Value) -> Value:
    """`value` summed over the axes along which `like` was broadcast."""
    extra = len(value.shape) - len(like.shape)
    axes = [
        axis for axis, size in enumerate(value.shape) if axis < extra or (like.shape[axis - extra] == 1 and size != 1)
    ]
    return call.emit.reshape(call.emit.reduce("ReduceSum", value, axes), like.shape) if axes else value


@rule("Einsum")
def einsum(call: Call, gradient: Value) -> Results:
    """Of one operand: the einsum of the gradient with the others, back to its own indices."""
    left, _, output = call.attribute("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if "..." in left or not output or any(len(set(term)) != len(term) for term in terms):
        raise UnsupportedGraphError(
            f'Einsum at node "{call.node.name}" ({call.attribute("equation")}) has an ellipsis, an implied result or a '
            "repeated index, which has no VJP rule. Choose a later layer with --layer."
        )
    return [_of_operand(call, gradient, terms, output, i) if call.wanted[i] else None for i in range(len(terms))]


def _of_operand(call: Call, gradient: Value, terms: list[str], output: str, i: int) -> Value:
    """An index that only this operand has was summed away alone: its gradient is the same along it."""
    emit, others = call.emit, [j for j in range(len(terms)) if j != i]
    known = set(output).union(*(terms[j] for j in others))
    found = "".join(index for index in terms[i] if index in known)
    equation = f"{','.join([output, *(terms[j] for j in others)])}->{found}"
    sizes = dict(zip(terms[i], call.inputs[i].shape, strict=True))
    shape = tuple(sizes[index] for index in found)
    operands = [gradient, *(call.inputs[j] for j in others)]
    result = emit.node("Einsum", operands, shape, equation=equation)
    full = tuple(sizes[index] if index in known else 1 for index in terms[i])
    return emit.dense(emit.reshape(result, full), call.inputs[i].shape)
