"""Rules of operators that move elements without changing them."""

from __future__ import annotations

import numpy as np

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Shape, Value
from gcpp_edge.export.vjp.registry import Call, Gradient, OneHot, Results, rule


@rule("Reshape", "Flatten", "Squeeze", "Unsqueeze", compact=True, sparse=True)
def reshape(call: Call, gradient: Gradient) -> Results:
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
        results.append(call.emit.slice(gradient, [axis], [start], [end]) if wanted else None)
        start = end
    return results


@rule("Slice")
def slice_(call: Call, gradient: Value) -> Results:
    """Zeros around what was taken; a step spreads it first, through an axis of zeros."""
    starts, ends, axes, steps = (call.constant(index) for index in (1, 2, 3, 4))
    if starts is None or ends is None:
        raise UnsupportedGraphError(
            f'Slice at node "{call.node.name}" has computed bounds; expected constants. '
            "Choose a later layer with --layer."
        )
    axes = np.arange(len(starts)) if axes is None else axes
    steps = np.ones(len(starts), np.int64) if steps is None else steps
    for axis, start, end, step in zip(axes.tolist(), starts.tolist(), ends.tolist(), steps.tolist(), strict=True):
        gradient = _unslice(call, gradient, axis % len(call.x.shape), slice(start, end, step))
    return [gradient, *call.none()[1:]]


def _unslice(call: Call, gradient: Value, axis: int, taken: slice) -> Value:
    size = call.x.shape[axis]
    if not isinstance(size, int):
        if gradient.shape[axis] == size:
            return gradient
        raise UnsupportedGraphError(f'Slice at node "{call.node.name}" cuts the batch, which has no VJP rule.')
    positions = range(*taken.indices(size))
    if positions.step < 0:
        raise UnsupportedGraphError(f'Slice at node "{call.node.name}" runs backwards, which has no VJP rule.')
    if not positions:
        raise UnsupportedGraphError(f'Slice at node "{call.node.name}" takes nothing.')
    gradient = spread(call, gradient, axis, positions.step)
    before = positions.start
    return call.emit.pad(gradient, [axis], [before], [size - before - gradient.shape[axis]])


def spread(call: Call, gradient: Value, axis: int, step: int) -> Value:
    """step - 1 zeros between the elements along an axis, none behind the last."""
    if step == 1:
        return gradient
    emit, shape = call.emit, gradient.shape
    deep = emit.reshape(gradient, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    deep = emit.pad(deep, [axis + 1], [0], [step - 1])
    wide = emit.reshape(deep, (*shape[:axis], shape[axis] * step, *shape[axis + 1 :]))
    return emit.slice(wide, [axis], [0], [(shape[axis] - 1) * step + 1])


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


@rule("Gather")
def gather(call: Call, gradient: Value) -> Results:
    """One constant index along an axis: zeros around it."""
    index, axis = call.constant(1), call.axis(default=0)
    size = call.x.shape[axis]
    if index is None or index.size != 1 or not isinstance(size, int):
        raise UnsupportedGraphError(
            f'Gather at node "{call.node.name}" takes several or computed indices, which has no VJP rule. '
            "Choose a later layer with --layer."
        )
    position = int(index.reshape(-1)[0]) % size
    shape = tuple(1 if i == axis else dimension for i, dimension in enumerate(call.x.shape))
    gradient = call.emit.reshape(gradient, shape)
    return [call.emit.pad(gradient, [axis], [position], [size - 1 - position]), None]


@rule("Pad")
def pad(call: Call, gradient: Value) -> Results:
    """Constant mode: what was padded is cut off, what was cut off becomes zero."""
    mode, pads = call.attribute("mode", "constant"), call.constant(1)
    if mode != "constant" or pads is None:
        raise UnsupportedGraphError(
            f'Pad at node "{call.node.name}" has mode "{mode}" or computed pads; expected constant ones. '
            "Choose a later layer with --layer."
        )
    given, rank = call.constant(3), len(call.x.shape)
    axes = list(range(rank)) if given is None else [int(axis) % rank for axis in given]
    before, after = pads[: len(axes)].tolist(), pads[len(axes) :].tolist()
    moved = [i for i in range(len(axes)) if before[i] or after[i]]
    result = call.emit.pad(gradient, [axes[i] for i in moved], [-before[i] for i in moved], [-after[i] for i in moved])
    return [result, *call.none()[1:]]


@rule("Expand", compact=True, broadcasts=True)
def expand(call: Call, gradient: Value) -> Results:
    return [gradient, None]
