"""Rules of operators that choose among values: by a condition, by size, by index."""

from __future__ import annotations

import numpy as np

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.reduction import kept, reduced_axes
from gcpp_edge.export.vjp.registry import Call, Results, numpy_dtype, rule


@rule("Where", compact=True, broadcasts=True)
def where(call: Call, gradient: Value) -> Results:
    emit, (condition, _, _) = call.emit, call.inputs
    zero = emit.scalar(0, gradient)
    return [
        None,
        emit.where(condition, gradient, zero) if call.wanted[1] else None,
        emit.where(condition, zero, gradient) if call.wanted[2] else None,
    ]


@rule("Max", "Min", compact=True, broadcasts=True)
def extreme_of_all(call: Call, gradient: Value) -> Results:
    """To the inputs that equal the result, in equal shares: PyTorch's maximum and minimum."""
    emit = call.emit
    wins = [emit.cast(emit.equal(value, call.y), call.y.dtype) for value in call.inputs]
    total = wins[0]
    for win in wins[1:]:
        total = emit.add(total, win)
    share = emit.divide(gradient, total)
    return [emit.multiply(share, win) if wanted else None for win, wanted in zip(wins, call.wanted, strict=True)]


@rule("ReduceMax", "ReduceMin", compact=True)
def reduce_extreme(call: Call, gradient: Value) -> Results:
    """To every position that equals the result, in equal shares (PyTorch's amax and amin)."""
    emit, axes = call.emit, reduced_axes(call)
    wins = emit.cast(emit.equal(call.x, kept(call, call.y, axes)), call.x.dtype)
    share = emit.divide(kept(call, gradient, axes), emit.reduce("ReduceSum", wins, axes))
    return [emit.multiply(wins, share), *call.none()[1:]]


@rule("Gather")
def gather(call: Call, gradient: Value) -> Results:
    """One index: zeros around it. Several: a product with their one-hot matrix, which adds up what was taken twice."""
    indices, axis = call.inputs[1], call.axis(default=0)
    size = call.x.shape[axis]
    if not isinstance(size, int):
        raise UnsupportedGraphError(f'Gather at node "{call.node.name}" picks from the batch, which has no VJP rule.')
    constant = call.constant(1)
    if constant is not None and constant.size == 1:
        return [_placed(call, gradient, axis, int(constant.reshape(-1)[0]) % size), None]
    return [_collected(call, gradient, axis, indices, size), None]


def _placed(call: Call, gradient: Value, axis: int, position: int) -> Value:
    shape = tuple(1 if i == axis else dimension for i, dimension in enumerate(call.x.shape))
    after = call.x.shape[axis] - 1 - position
    return call.emit.pad(call.emit.reshape(gradient, shape), [axis], [position], [after])


def _collected(call: Call, gradient: Value, axis: int, indices: Value, size: int) -> Value:
    emit, source, count = call.emit, call.x.shape, len(indices.shape)
    if any(not isinstance(dimension, int) for dimension in indices.shape):
        raise UnsupportedGraphError(f'Gather at node "{call.node.name}" takes an open number of indices: no VJP rule.')
    flat = (*source[:axis], *source[axis + 1 :], int(np.prod(indices.shape)))
    behind = [*range(axis), *range(axis + count, len(gradient.shape)), *range(axis, axis + count)]
    picked = emit.reshape(emit.transpose(gradient, behind), flat)
    summed = emit.matmul(picked, _one_hot(call, indices, size))
    last = len(source) - 1
    return emit.transpose(summed, [*range(axis), last, *range(axis, last)])


def _one_hot(call: Call, indices: Value, size: int) -> Value:
    """[indices, size] of 0 and 1; a negative index counts from the end."""
    emit, constant = call.emit, call.graph.constant(indices.name)
    dtype = call.x.dtype
    if constant is not None:
        return emit.constant(np.eye(size, dtype=numpy_dtype(dtype))[constant.reshape(-1) % size])
    column = emit.reshape(indices, (int(np.prod(indices.shape)), 1))
    positions = [emit.constant(np.arange(start, start + size, dtype=np.int64)[None]) for start in (0, -size)]
    column = emit.cast(column, 7)
    hits = [emit.cast(emit.equal(column, row), dtype) for row in positions]
    return emit.add(*hits)
