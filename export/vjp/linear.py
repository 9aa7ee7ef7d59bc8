"""Rules of matrix products. A one-hot gradient becomes a Gather of the class's weight row: no product over classes."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from typing import Any

import numpy as np

from gcpp_edge.contract import BATCH
from gcpp_edge.export.graph import FLOATS, Dimension, Value
from gcpp_edge.export.vjp.registry import Call, OneHot, Results, Sparse, numpy_dtype, rule


@rule("Gemm", sparse=True)
def gemm(call: Call, gradient: Sparse) -> Results:
    """y = alpha op(A) op(B) + beta C: dA = alpha g op(B)^T, dB = alpha op(A)^T g, dC = beta g."""
    if isinstance(gradient, OneHot) and any(call.wanted[1:]):
        gradient = gradient.dense(call.emit)
    results: Results = [_of_rows(call, gradient) if call.wanted[0] else None, *call.none()[1:]]
    if isinstance(gradient, Value) and call.wanted[1]:
        results[1] = _of_columns(call, gradient)
    if isinstance(gradient, Value) and any(call.wanted[2:]):
        results[2] = sum_to(call, call.emit.scale(gradient, call.attribute("beta", 1.0)), call.inputs[2])
    return results


def _of_rows(call: Call, gradient: Sparse) -> Value:
    emit, weights = call.emit, call.inputs[1]
    rows = bool(call.attribute("transB", 0))  # B holds one row a class
    if isinstance(gradient, OneHot):
        result = _weight_row(call, gradient, rows)
    else:
        result = emit.matmul(gradient, weights) if rows else _times_transposed(call, gradient, weights)
    result = emit.scale(result, call.attribute("alpha", 1.0))
    return emit.transpose(result, (1, 0)) if call.attribute("transA", 0) else result


def _of_columns(call: Call, gradient: Value) -> Value:
    emit, left = call.emit, call.inputs[0]
    result = emit.matmul(left if call.attribute("transA", 0) else transposed(call, left, (1, 0)), gradient)
    result = emit.scale(result, call.attribute("alpha", 1.0))
    return emit.transpose(result, (1, 0)) if call.attribute("transB", 0) else result


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
def matmul(call: Call, gradient: Sparse) -> Results:
    """dA = g B^T, dB = A^T g, with leading axes summed back where they were broadcast. Vectors are rows and columns."""
    left, right = call.inputs
    if isinstance(gradient, OneHot):
        constant = call.graph.constant(right.name) is not None and len(left.shape) == 2
        if constant and call.wanted == (True, False):
            return [_weight_row(call, gradient, rows=False), None]
        gradient = gradient.dense(call.emit)
    emit, results = call.emit, call.none()
    left, right, gradient = _as_matrices(call, left, right, gradient)
    if call.wanted[0]:
        results[0] = emit.reshape(_of_left(call, gradient, left, right), call.inputs[0].shape)
    if call.wanted[1]:
        results[1] = emit.reshape(_of_right(call, gradient, left, right), call.inputs[1].shape)
    return results


def _as_matrices(call: Call, left: Value, right: Value, gradient: Value) -> tuple[Value, Value, Value]:
    emit, shape = call.emit, gradient.shape
    if len(left.shape) == 1:
        left = emit.reshape(left, (1, *left.shape))
        shape = (*shape[:-1], 1, shape[-1]) if len(right.shape) > 1 else (1,)
    if len(right.shape) == 1:
        right = emit.reshape(right, (*right.shape, 1))
        shape = (*shape, 1)
    return left, right, emit.reshape(gradient, shape)


def _swap(rank: int) -> tuple[int, ...]:
    return (*range(rank - 2), rank - 1, rank - 2)


def _of_left(call: Call, gradient: Value, left: Value, right: Value) -> Value:
    return sum_to(call, _times_transposed(call, gradient, right), left)


def _times_transposed(call: Call, gradient: Value, right: Value) -> Value:
    """gradient right^T. A Gemm reads the very weights of the forward pass, so that the file holds them once."""
    emit, (*leading, width) = call.emit, gradient.shape
    rows = _count(leading)
    if len(right.shape) != 2 or call.graph.constant(right.name) is None or right.dtype not in FLOATS or rows is None:
        return emit.matmul(gradient, transposed(call, right, _swap(len(right.shape))))
    product = emit.gemm(emit.reshape(gradient, (rows, width)), right, trans_b=True)
    return emit.reshape(product, (*leading, right.shape[0]))


def _count(sizes: Sequence[Dimension]) -> Dimension | None:
    """The product of sizes: a number, a multiple of the batch like "49N", or None where it is neither."""
    if len(sizes) == 1:
        return sizes[0]
    named = [size for size in sizes if not isinstance(size, int)]
    number = math.prod(size for size in sizes if isinstance(size, int))
    if not named:
        return number if sizes else None
    factor = named[0].removesuffix(BATCH)
    if len(named) > 1 or not named[0].endswith(BATCH) or not (factor.isdecimal() or not factor):
        return None
    return f"{number * int(factor or 1)}{BATCH}"


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
    terms, output = _terms(call)
    return [_of_operand(call, gradient, terms, output, i) if call.wanted[i] else None for i in range(len(terms))]


def _terms(call: Call) -> tuple[list[str], str]:
    """The indices of each operand and of the result, with an ellipsis spelled out and an implied result written."""
    left, arrow, output = call.attribute("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:  # all indices that occur once, in the order of the alphabet
        output = "".join(sorted(index for index in set(left) - {",", "."} if left.count(index) == 1))
        output = f"...{output}" if "..." in left else output
    free = [letter for letter in string.ascii_letters if letter not in left + output]
    hidden = [len(v.shape) - len(t.replace("...", "")) for v, t in zip(call.inputs, terms, strict=True) if "..." in t]
    letters = "".join(free[: max(hidden, default=0)])
    spelled = []
    for value, term in zip(call.inputs, terms, strict=True):
        count = len(value.shape) - len(term.replace("...", ""))
        spelled.append(term.replace("...", letters[len(letters) - count :]))
    return spelled, output.replace("...", letters)


def _of_operand(call: Call, gradient: Value, terms: list[str], output: str, i: int) -> Value:
    """An index that only this operand has was summed away alone: its gradient is the same along it."""
    emit, others = call.emit, [j for j in range(len(terms)) if j != i]
    if any(len(set(terms[j])) < len(terms[j]) for j in others):
        raise call.refuse(f"({call.attribute('equation')}) repeats an index of another operand")
    own = "".join(dict.fromkeys(terms[i]))
    known = set(output).union(*(terms[j] for j in others))
    found = "".join(index for index in own if index in known)
    sizes = _index_sizes(call, terms)
    equation = f"{','.join([output, *(terms[j] for j in others)])}->{found}"
    operands = [gradient, *(call.inputs[j] for j in others)]
    result = emit.node("Einsum", operands, tuple(sizes[index] for index in found), equation=equation)
    result = emit.reshape(result, tuple(sizes[index] if index in known else 1 for index in own))
    if own != terms[i]:
        result = _on_diagonal(call, result, own, terms[i], sizes)
    return emit.dense(sum_to(call, result, call.inputs[i]), call.inputs[i].shape)


def _index_sizes(call: Call, terms: list[str]) -> dict[str, Any]:
    sizes: dict[str, Any] = {}
    for value, term in zip(call.inputs, terms, strict=True):
        for index, size in zip(term, value.shape, strict=True):
            sizes[index] = size if sizes.get(index, 1) == 1 else sizes[index]
    return sizes


def _on_diagonal(call: Call, value: Value, own: str, term: str, sizes: dict[str, Any]) -> Value:
    """A value with indices `own` where all repeats in `term` agree, zero elsewhere."""
    emit, first = call.emit, [term.index(index) for index in term]
    shape = tuple(value.shape[own.index(index)] if first[axis] == axis else 1 for axis, index in enumerate(term))
    order = sorted(range(len(own)), key=lambda axis: term.index(own[axis]))
    value = emit.reshape(emit.transpose(value, order), shape)
    for axis, start in enumerate(first):
        if start != axis:
            unit = np.eye(sizes[term[axis]], dtype=numpy_dtype(value.dtype))
            ones = [sizes[term[axis]] if i in (start, axis) else 1 for i in range(len(term))]
            value = emit.multiply(value, emit.constant(unit.reshape(ones)))
    return value
