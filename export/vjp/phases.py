"""The backward pass of strided convolutions by phases of the stride, in ONNX Runtime's blocked layout.

An input position s i + u receives tap t from output i - o, with o = (d t - pad - u) / s where that is whole. So every
phase u of the input is an ordinary convolution of the gradient with the taps that reach it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcpp_edge.export.blocked import fits_blocked
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Phased
from gcpp_edge.export.vjp.window import Window, swap_channels

PICTURE_CHANNELS = 4  # up to as many the blocked layout has places that stay empty, and blocks of pixels fill them
BLOCK = 2  # pixels, a stride


def wants_phases(call: Call, window: Window, group: int) -> bool:
    """Where one convolution a phase stays in the blocked layout."""
    strides = set(window.strides)
    if not call.emit.lowerings.phases or len(window.kernel) != 2 or len(strides) != 1:
        return False
    depthwise = group == call.x.shape[1] == call.y.shape[1]
    return (group == 1 or depthwise) and fits_blocked(call.x) and fits_blocked(call.y)


def stays_phased(call: Call) -> bool:
    """Weaving is cheapest where there are few channels; a convolution that doubles them is still worth it, since what
    comes from a shortcut beside it is added phase by phase."""
    return bool(call.x.shape[1] <= 2 * call.y.shape[1])


def pointwise_phases(call: Call, gradient: Phased, weights: np.ndarray) -> Phased:
    kernel = call.emit.constant(swap_channels(weights, 1))
    channels = call.x.shape[1]

    def back(phase: Value, _: tuple[int, int]) -> Value:
        shape = (phase.shape[0], channels, *phase.shape[2:])
        return call.emit.conv(phase, kernel, shape, kernel_shape=[1, 1])

    return gradient.each(back, channels)


def phased(call: Call, gradient: Value, weights: np.ndarray, window: Window, group: int) -> Phased:
    """One convolution a phase. Position s i + u receives tap t from output i - o with o = (d t - pad - u) / s."""
    stride, swapped = window.strides[0], swap_channels(weights, group)
    counts = [-(-size // stride) for size in call.x.shape[2:]]
    taps = [
        [_taps(window, axis, phase, counts[axis], gradient.shape[2 + axis]) for phase in range(stride)]
        for axis in (0, 1)
    ]
    phases = [_one_phase(call, gradient, swapped, row, column, group) for row in taps[0] for column in taps[1]]
    return Phased(tuple(phases), stride, call.x.shape)


@dataclass(frozen=True)
class Taps:
    """The taps of one axis that reach a phase: which, and the window that they form in the gradient."""

    taps: tuple[int, ...]
    places: tuple[int, ...]  # of each tap in the window
    size: int
    before: int
    after: int
    count: int


def _taps(window: Window, axis: int, phase: int, count: int, outputs: int) -> Taps | None:
    stride, dilation, before = window.strides[axis], window.dilations[axis], window.before[axis]
    reaching = [t for t in range(window.kernel[axis]) if (dilation * t - before - phase) % stride == 0]
    if not reaching:
        return None
    offsets = [(dilation * t - before - phase) // stride for t in reaching]
    farthest = max(offsets)
    size = farthest - min(offsets) + 1
    after = count - outputs - farthest + size - 1
    return Taps(tuple(reaching), tuple(farthest - o for o in offsets), size, farthest, after, count)


def _one_phase(
    call: Call, gradient: Value, weights: np.ndarray, rows: Taps | None, columns: Taps | None, group: int
) -> Value | None:
    if rows is None or columns is None:
        return None
    kernel = np.zeros((*weights.shape[:2], rows.size, columns.size), weights.dtype)
    for i, u in zip(rows.taps, rows.places, strict=True):
        for j, v in zip(columns.taps, columns.places, strict=True):
            kernel[:, :, u, v] = weights[:, :, i, j]
    before, after = [rows.before, columns.before], [rows.after, columns.after]
    gradient = call.emit.pad(gradient, [2, 3], [min(n, 0) for n in before], [min(n, 0) for n in after])
    return call.emit.conv(
        gradient,
        call.emit.constant(kernel),
        (call.x.shape[0], call.x.shape[1], rows.count, columns.count),
        kernel_shape=[rows.size, columns.size],
        pads=[max(n, 0) for n in (*before, *after)],
        group=group,
    )


def wants_superpixels(call: Call, window: Window, group: int) -> bool:
    """At the picture, whose few channels leave most of a block of 16 empty. Small kernels gain at stride 1 alone."""
    strides, sizes = set(window.strides), call.x.shape[2:]
    if not call.emit.lowerings.phases or len(window.kernel) != 2 or len(strides) != 1 or group != 1:
        return False
    stride, channels = window.strides[0], call.x.shape[1]
    divides = all(isinstance(size, int) and size % (BLOCK * stride) == 0 for size in sizes)
    return divides and fits_blocked(call.y) and channels < PICTURE_CHANNELS and (stride == 1 or max(window.kernel) > 4)


def superpixels(call: Call, gradient: Value, weights: np.ndarray, window: Window) -> Value:
    """One convolution for square blocks of the input's pixels as channels, which are woven together channels last."""
    emit, stride = call.emit, window.strides[0]
    side, swapped = BLOCK * stride, swap_channels(weights, 1)
    counts = [size // side for size in call.x.shape[2:]]
    axes = [_reach(window, axis, side) for axis in (0, 1)]
    channels, outputs = swapped.shape[:2]
    kernel = np.zeros((side, side, channels, outputs, *(axis.size for axis in axes)), weights.dtype)
    for u, t, i in axes[0].taps:
        for v, s, j in axes[1].taps:
            kernel[u, v, :, :, i, j] = swapped[:, :, t, s]
    before = [axis.before for axis in axes]
    after = [
        (count - 1) * BLOCK + axis.size - axis.before - size
        for count, axis, size in zip(counts, axes, gradient.shape[2:], strict=True)
    ]
    gradient = emit.pad(gradient, [2, 3], [min(n, 0) for n in before], [min(n, 0) for n in after])
    found = emit.conv(
        gradient,
        emit.constant(kernel.reshape(side * side * channels, *kernel.shape[3:])),
        (call.x.shape[0], side * side * channels, *counts),
        kernel_shape=[axis.size for axis in axes],
        strides=[BLOCK, BLOCK],
        pads=[max(n, 0) for n in (*before, *after)],
    )
    batch, (rows, columns) = call.x.shape[0], counts
    last = emit.reshape(emit.transpose(found, (0, 2, 3, 1)), (batch, rows, columns, side, side * channels))
    lines = emit.reshape(emit.transpose(last, (0, 1, 3, 2, 4)), (batch, rows * side, columns * side, channels))
    return emit.transpose(lines, (0, 3, 1, 2))


@dataclass(frozen=True)
class Reach:
    """What a block of pixels sees of the gradient along one axis: taps as (pixel, tap, place in the window)."""

    taps: tuple[tuple[int, int, int], ...]
    size: int
    before: int


def _reach(window: Window, axis: int, side: int) -> Reach:
    stride, dilation, pad = window.strides[axis], window.dilations[axis], window.before[axis]
    found = [
        (pixel, tap, (pixel + pad - dilation * tap) // stride)
        for pixel in range(side)
        for tap in range(window.kernel[axis])
        if (pixel + pad - dilation * tap) % stride == 0
    ]
    first, last = min(place for _, _, place in found), max(place for _, _, place in found)
    return Reach(tuple((u, t, place - first) for u, t, place in found), last - first + 1, -first)
