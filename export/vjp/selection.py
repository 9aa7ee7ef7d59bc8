"""Rules of operators that choose among values: by a condition, by size, by index."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from gcpp_edge.export.graph import Shape, Value
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
        raise call.refuse("picks from the batch")
    constant = call.constant(1)
    if constant is not None and constant.size == 1:
        return [_placed(call, gradient, axis, int(constant.reshape(-1)[0]) % size), None]
    return [_collected(call, gradient, axis, indices, call.x.shape), None]


def _placed(call: Call, gradient: Value, axis: int, position: int) -> Value:
    shape = tuple(1 if i == axis else dimension for i, dimension in enumerate(call.x.shape))
    after = call.x.shape[axis] - 1 - position
    return call.emit.pad(call.emit.reshape(gradient, shape), [axis], [position], [after])


def _collected(call: Call, gradient: Value, axis: int, indices: Value, source: Shape) -> Value:
    """The gradient of `source`, of which a Gather took the indices along the axis."""
    emit, count = call.emit, len(indices.shape)
    _require_known(call, indices.shape)
    taken = math.prod(indices.shape)
    flat = (*source[:axis], *source[axis + 1 :], taken)
    behind = [*range(axis), *range(axis + count, len(gradient.shape)), *range(axis, axis + count)]
    picked = emit.reshape(emit.transpose(gradient, behind), flat)
    column = emit.reshape(indices, (taken, 1))
    summed = emit.matmul(picked, one_hot(call, column, source[axis], gradient.dtype))
    last = len(source) - 1
    return emit.transpose(summed, [*range(axis), last, *range(axis, last)])


def _require_known(call: Call, shape: Shape) -> None:
    if any(not isinstance(dimension, int) for dimension in shape):
        raise call.refuse("takes an open number of indices")


def one_hot(call: Call, indices: Value, size: int, dtype: int) -> Value:
    """indices [..,1] -> 0 and 1 [..,size]; a negative index counts from the end."""
    emit, constant = call.emit, call.graph.constant(indices.name)
    if constant is not None:
        return emit.constant(np.eye(size, dtype=numpy_dtype(dtype))[constant[..., 0] % size])
    column = emit.cast(indices, TensorProto.INT64)
    hits = [
        emit.cast(emit.equal(column, emit.constant(np.arange(start, start + size, dtype=np.int64))), dtype)
        for start in (0, -size)
    ]
    return emit.add(*hits)


def scattered(call: Call, gradient: Value, indices: Value, axis: int) -> Value:
    """Each element of a gradient added at its index along an axis: a one-hot comparison, summed."""
    emit, size, last = call.emit, call.x.shape[axis], len(call.x.shape)
    if not isinstance(size, int):
        raise call.refuse("picks from the batch")
    order = [*(i for i in range(last) if i != axis), axis]
    column = emit.unsqueezed(emit.transpose(indices, order))
    values = emit.unsqueezed(emit.transpose(gradient, order))
    summed = emit.reduce(
        "ReduceSum", emit.multiply(values, one_hot(call, column, size, gradient.dtype)), [last - 1], keepdims=False
    )
    placed = emit.transpose(summed, [int(i) for i in np.argsort(order)])
    behind = [
        (i, whole - part)
        for i, (whole, part) in enumerate(zip(call.x.shape, placed.shape, strict=True))
        if whole != part
    ]
    return emit.pad(placed, [i for i, _ in behind], [0] * len(behind), [more for _, more in behind])


@rule("GatherElements")
def gather_elements(call: Call, gradient: Value) -> Results:
    return [scattered(call, gradient, call.inputs[1], call.axis(default=0)), None]


@rule("TopK")
def top_k(call: Call, gradient: Value) -> Results:
    """Of the values; the indices have no gradient."""
    indices = call.outputs[1] if len(call.outputs) > 1 else None
    if indices is None:
        raise call.refuse("has no output of indices")
    return [scattered(call, gradient, indices, call.axis(default=-1)), None]


@rule("GatherND")
def gather_nd(call: Call, gradient: Value) -> Results:
    """A product with the one-hot matrix of the positions that the index tuples stand for.

    Constant tuples, as PyTorch's index tensors give them, are a Gather along the axes that they pick from, as one: the
    batch may then lie behind those.
    """
    emit, indices, shared = call.emit, call.inputs[1], call.attribute("batch_dims", 0)
    depth = indices.shape[-1]
    picked, rest = call.x.shape[shared : shared + depth], call.x.shape[shared + depth :]
    if shared == 0 and call.constant(1) is not None and all(isinstance(size, int) for size in picked):
        positions = _flat_positions(call, indices, picked)
        summed = _collected(call, gradient, 0, positions, (math.prod(picked), *rest))
        return [emit.reshape(summed, call.x.shape), None]
    _require_known(call, (*picked, *rest, *indices.shape[shared:]))
    lead, count = call.x.shape[:shared], math.prod(indices.shape[shared:-1])
    column = emit.reshape(_flat_positions(call, indices, picked), (*indices.shape[:shared], count, 1))
    hits = one_hot(call, column, math.prod(picked), gradient.dtype)
    swapped = [*range(shared), shared + 1, shared]
    summed = emit.matmul(emit.transpose(hits, swapped), emit.reshape(gradient, (*lead, count, math.prod(rest))))
    return [emit.reshape(summed, call.x.shape), None]


def _flat_positions(call: Call, indices: Value, picked: Shape) -> Value:
    """Index tuples [..,depth] as positions [..] in row order."""
    emit, constant = call.emit, call.graph.constant(indices.name)
    weights = np.array([math.prod(picked[i + 1 :]) for i in range(len(picked))], np.int64)
    if constant is not None:
        return emit.constant((constant % np.array(picked)) @ weights)
    sizes = emit.constant(np.array(picked, np.int64))
    counted = emit.where(emit.less(indices, emit.constant(np.array(0))), emit.add(indices, sizes), indices)
    return emit.reduce("ReduceSum", emit.multiply(counted, emit.constant(weights)), [len(indices.shape) - 1], False)


@rule("ScatterND")
def scatter_nd(call: Call, gradient: Value) -> Results:
    """An assignment to constant places: nothing flows to what was overwritten, and the updates get what is there."""
    indices = call.need(1, "indices")
    if call.attribute("reduction", "none") != "none":
        raise call.refuse(f"adds up by {call.attribute('reduction')}")
    depth = indices.shape[-1]
    places, picked = tuple(indices.reshape(-1, depth).T), call.x.shape[:depth]
    _require_known(call, picked)
    written = np.zeros(picked, numpy_dtype(gradient.dtype))
    written[places] = 1
    if call.wanted[2] and written.sum() < len(places[0]):
        raise call.refuse("writes to a place twice")
    kept_back = call.emit.constant((1 - written).reshape(*picked, *(1,) * (len(call.x.shape) - depth)))
    updates = call.emit.node("GatherND", (gradient, call.inputs[1]), call.inputs[2].shape) if call.wanted[2] else None
    return [call.emit.multiply(gradient, kept_back) if call.wanted[0] else None, None, updates]


@rule("ScatterElements")
def scatter_elements(call: Call, gradient: Value) -> Results:
    """An assignment to constant places along an axis, as ScatterND."""
    indices, axis, shape = call.need(1, "indices"), call.axis(default=0), call.x.shape
    if call.attribute("reduction", "none") != "none":
        raise call.refuse(f"adds up by {call.attribute('reduction')}")
    _require_known(call, shape)
    written = np.zeros(shape, numpy_dtype(gradient.dtype))
    places = list(np.indices(indices.shape))
    places[axis] = indices % shape[axis]
    written[tuple(places)] = 1
    if call.wanted[2] and written.sum() < indices.size:
        raise call.refuse("writes to a place twice")
    results = call.none()
    if call.wanted[0]:
        results[0] = call.emit.multiply(gradient, call.emit.constant(1 - written))
    if call.wanted[2]:
        results[2] = call.emit.node("GatherElements", (gradient, call.inputs[1]), indices.shape, axis=axis)
    return results
