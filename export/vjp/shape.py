"""Rules of operators that move elements without changing them."""

from __future__ import annotations

import numpy as np

from gcpp_edge.export.blocked import channels_of
from gcpp_edge.export.graph import Shape, Value
from gcpp_edge.export.vjp.registry import Call, OneHot, Results, Sparse, rule


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze", compact=True, sparse=True)
def reshape(call: Call, gradient: Sparse) -> Results:
    """Back to the input's shape. Only size-1 axes that come and go keep a gradient compact or one-hot."""
    source = call.x.shape
    if isinstance(gradient, OneHot):
        if _ones_behind_classes(source, gradient.shape):
            return [gradient.reshaped(call.emit, source), *call.none()[1:]]
        gradient = gradient.dense(call.emit)
    if gradient.shape != call.y.shape:
        gradient = call.emit.dense(gradient, call.y.shape)
    return [call.emit.reshape(gradient, source), *call.none()[1:]]


def _ones_behind_classes(source: Shape, shape: Shape) -> bool:
    """Both are [N,K] with nothing but size-1 axes behind."""
    return (
        len(source) >= 2
        and source[:2] == shape[:2]
        and all(size == 1 for size in source[2:])
        and all(size == 1 for size in shape[2:])
    )


@rule("Transpose", compact=True)
def transpose(call: Call, gradient: Value) -> Results:
    axes = call.attribute("perm") or list(reversed(range(len(call.x.shape))))
    return [call.emit.transpose(gradient, [int(axis) for axis in np.argsort(axes)])]


@rule("Concat", compact=True)
def concat(call: Call, gradient: Value) -> Results:
    axis = call.attribute("axis") % len(call.y.shape)
    if gradient.shape[axis] == 1 != call.y.shape[axis]:
        return [gradient if wanted else None for wanted in call.wanted]
    results: Results = []
    start = 0
    for value, wanted in zip(call.inputs, call.wanted, strict=True):
        assert value is not None
        end = start + value.shape[axis]
        results.append(_part(call, gradient, axis, start, end) if wanted else None)
        start = end
    return results


def _part(call: Call, gradient: Value, axis: int, start: int, end: int) -> Value:
    if axis == 1:
        return channels_of(call.emit, gradient, start, end)
    return call.emit.slice(gradient, [axis], [start], [end])


@rule("Split")
def split(call: Call, *gradients: Value | None) -> Results:
    """The pieces side by side; a piece that nothing needed counts as zeros."""
    emit, axis = call.emit, call.axis(default=0)
    known = next(gradient for gradient in gradients if gradient is not None)
    pieces = []
    for value, gradient in zip(call.outputs, gradients, strict=True):
        assert value is not None
        if gradient is None:
            zero = emit.scale(emit.slice(known, [axis], [0], [1]), 0.0)
            gradient = emit.dense(zero, value.shape)
        pieces.append(gradient)
    return [emit.concat(pieces, axis), *call.none()[1:]]


@rule("Expand", compact=True, broadcasts=True)
def expand(call: Call, gradient: Value) -> Results:
    return [gradient, None]


@rule("Tile")
def tile(call: Call, gradient: Value) -> Results:
    """The sum over the copies."""
    repeats = call.need(1, "repeats")
    deep = [size for pair in zip(repeats.tolist(), call.x.shape, strict=True) for size in pair]
    copies = [2 * axis for axis, count in enumerate(repeats.tolist()) if count > 1]
    spread = call.emit.reshape(gradient, tuple(deep))
    return [call.emit.reshape(call.emit.reduce("ReduceSum", spread, copies, keepdims=False), call.x.shape), None]


@rule("SpaceToDepth")
def space_to_depth(call: Call, gradient: Value) -> Results:
    return [call.emit.depth_to_space(gradient, call.attribute("blocksize"), "DCR")]


@rule("DepthToSpace")
def depth_to_space(call: Call, gradient: Value) -> Results:
    """The blocks back into channels, in the order of the mode."""
    emit, block = call.emit, call.attribute("blocksize")
    batch, channels, height, width = call.x.shape
    cells = emit.reshape(gradient, (batch, channels // block**2, height, block, width, block))
    order = [0, 3, 5, 1, 2, 4] if call.attribute("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return [emit.reshape(emit.transpose(cells, order), call.x.shape)]
