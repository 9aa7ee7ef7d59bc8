"""Pieces of a backward pass that ONNX Runtime's CPU keeps in its blocked layout: all are made of convolutions.

A convolution takes an addition and a ReLU behind it into itself, and a Clip where no addition stands between. With one
tap and as many groups as channels it is an elementwise product; with its one at another tap and a stride it reads every
second position from there on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Value, numpy_dtype

SUPPRESSED = 2.0**61  # no gradient is as large: what it is taken from becomes negative, and its ReLU zero
STEEP = 2.0**126  # what is above 0 by 2^-65 is above it in full
ALIGNED = 4  # channels, for the blocked layout
WINDOWED = ("Conv", "MaxPool", "AveragePool")
BLOCKED_OPERATORS = (*WINDOWED, "Add", "Clip", "HardSigmoid", "Mul", "Relu", "Sigmoid", "Sum", "Tanh")

Phase = tuple[int, int]


def fits_blocked(value: Value) -> bool:
    """Whether a tensor [N,C,h,w] is one that the blocked layout can hold; float64 is, so that tests see these forms."""
    return (
        value.dtype in (TensorProto.FLOAT, TensorProto.DOUBLE)
        and len(value.shape) == 4
        and all(isinstance(size, int) for size in value.shape[1:])
        and value.shape[1] % ALIGNED == 0
    )


def picked(
    emit: Emitter, value: Value, stride: int = 1, phase: Phase = (0, 0), weight: float = 1, bias: float = 0
) -> Value:
    """weight * value + bias at every stride-th position from `phase` on: each channel convolved with one tap."""
    counts = [-(-size // stride) for size in value.shape[2:]]  # the same for every phase
    return shifted(emit, value, phase, stride, counts, weight, bias)


def shifted(
    emit: Emitter,
    value: Value,
    offset: Sequence[int],
    stride: int,
    counts: Sequence[int],
    weight: float = 1,
    bias: float = 0,
) -> Value:
    """weight * value + bias at positions stride * i + offset for `counts` of i; outside there are zeros."""
    channels, dtype = value.shape[1], numpy_dtype(value.dtype)
    place, before = [max(start, 0) for start in offset], [max(-start, 0) for start in offset]
    # a kernel that is longer than its tap sees fewer positions, where there would be more than `counts`
    ends = [size + pad - count * stride for size, pad, count in zip(value.shape[2:], before, counts, strict=True)]
    extent = [max(start, end) + 1 for start, end in zip(place, ends, strict=True)]
    after = [max(size - end - stride, 0) for size, end in zip(extent, ends, strict=True)]
    kernel = np.zeros((channels, 1, *extent), dtype)
    kernel[:, :, place[0], place[1]] = weight
    inputs = [value, emit.constant(kernel)]
    if bias:
        inputs.append(emit.constant(np.full(channels, bias, dtype)))
    return emit.node(
        "Conv",
        inputs,
        (value.shape[0], channels, *counts),
        kernel_shape=extent,
        strides=[stride, stride],
        pads=[*before, *after],
        group=channels,
    )


def let_through(
    emit: Emitter,
    gradient: Value,
    tested: Value,
    low: float | None,
    high: float | None,
    stride: int = 1,
    phase: Phase = (0, 0),
) -> Value:
    """The positive gradient where low < tested < high, else 0: guided backprop, as a sum in front of a ReLU."""
    gradient = into_blocked(emit, gradient)
    return emit.apply("Relu", emit.add(gradient, _suppression(emit, tested, low, high, stride, phase)))


def _suppression(
    emit: Emitter, tested: Value, low: float | None, high: float | None, stride: int, phase: Phase
) -> Value:
    """0 where low < tested < high, else -2^61 or less.

    Exact at the bounds: the slopes are powers of two, such that the next number inside is already 2^61 higher.
    """
    sides = []
    if low is not None:
        slope = STEEP if low == 0 else SUPPRESSED / spacing(tested, low, np.inf)
        sides.append((slope, -slope * low - SUPPRESSED))
    if high is not None:
        slope = SUPPRESSED / spacing(tested, high, -np.inf)
        sides.append((-slope, slope * high - SUPPRESSED))
    masks = [clipped(emit, picked(emit, tested, stride, phase, *side), -SUPPRESSED, 0) for side in sides]
    return masks[0] if len(masks) == 1 else emit.add(*masks)


def spacing(like: Value, bound: float, towards: float) -> float:
    """From a bound to the next number on one side, in the dtype of a tensor."""
    start = np.array(bound, numpy_dtype(like.dtype))
    return float(abs(np.nextafter(start, start.dtype.type(towards)) - start))


def step(emit: Emitter, tested: Value, bound: float, sign: int, stride: int, phase: Phase) -> Value:
    """1 where sign * tested > sign * bound, else 0, at the positions of a phase."""
    slope = sign * STEEP if bound == 0 else sign / spacing(tested, bound, sign * np.inf)
    return clipped(emit, picked(emit, tested, stride, phase, slope, -slope * bound), 0, 1)


def clipped(emit: Emitter, value: Value, low: float, high: float) -> Value:
    """A value held between two bounds."""
    return emit.node("Clip", (value, emit.scalar(low, value), emit.scalar(high, value)), value.shape)


def into_blocked(emit: Emitter, value: Value) -> Value:
    """The same values, from a convolution where they lie in the plain layout: what follows then stays blocked."""
    return value if is_blocked(emit, value) or not fits_blocked(value) else picked(emit, value)


def is_blocked(emit: Emitter, value: Value) -> bool:
    """Whether a tensor lies in the blocked layout, as far as its producers tell."""
    if value.name not in emit.blocked:  # both sides of a sum may go back to one tensor, again and again
        emit.blocked[value.name] = _is_blocked(emit, value)
    return emit.blocked[value.name]


def _is_blocked(emit: Emitter, value: Value) -> bool:
    if not fits_blocked(value):
        return False
    producer = emit.producer(value) or emit.graph.producers.get(value.name)
    if producer is None or producer.op_type not in BLOCKED_OPERATORS:
        return False
    if producer.op_type in WINDOWED:
        return True
    inputs = [emit.graph.values[name] for name in producer.input if name]
    if producer.op_type == "Clip":
        return made_by_convolution(emit, inputs[0])
    return all(read.shape == value.shape and is_blocked(emit, read) for read in inputs)


def channels_of(emit: Emitter, value: Value, start: int, end: int) -> Value:
    """Channels start..end (exclusive) of a gradient: of convolutions and their sums, those filters alone.

    A Slice would leave the blocked layout. The whole convolution is then read by nothing, and dropped.
    """
    found = _filtered(emit, value, start, end) if emit.lowerings.enter_blocked and fits_blocked(value) else None
    return emit.slice(value, [1], [start], [end]) if found is None else found


def _filtered(emit: Emitter, value: Value, start: int, end: int) -> Value | None:
    producer = emit.producer(value)
    if producer is None or (end - start) % ALIGNED:
        return None
    inputs = [emit.graph.values[name] for name in producer.input]
    if producer.op_type == "Add" and all(read.shape == value.shape for read in inputs):
        left, right = (_filtered(emit, read, start, end) for read in inputs)
        return emit.add(left, right) if left and right else None
    attributes = {entry.name: helper.get_attribute_value(entry) for entry in producer.attribute}
    weights = emit.graph.constant(producer.input[1]) if producer.op_type == "Conv" and len(inputs) == 2 else None
    if weights is None or attributes.get("group", 1) != 1:
        return None
    shape = (value.shape[0], end - start, *value.shape[2:])
    return emit.conv(inputs[0], emit.constant(weights[start:end]), shape, **attributes)


def made_by_convolution(emit: Emitter, value: Value) -> bool:
    """Whether a convolution of the blocked layout makes a tensor: an addition behind it costs nothing."""
    producer = emit.producer(value)
    return producer is not None and producer.op_type == "Conv" and fits_blocked(value)
