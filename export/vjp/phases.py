"""The backward pass of strided convolutions by phases of the stride, in ONNX Runtime's blocked layout.

An input position s i + u receives tap t from output i + (u + pad - d t) / s where that is whole. So every phase u of
the input is an ordinary convolution of the gradient with the taps that reach it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gcpp_edge.export.blocked import ALIGNED, fits_blocked
from gcpp_edge.export.graph import Value
from gcpp_edge.export.vjp.registry import Call, Phased
from gcpp_edge.export.vjp.window import STEM_KERNEL, Window, swap_channels

BLOCK = 2  # pixels of a superpixel's side, a stride


def wants_phases(call: Call, window: Window, group: int) -> bool:
    """Where one convolution a phase stays in the blocked layout."""
    if not call.emit.lowerings.phases or window.square_stride is None:
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
    """One convolution a phase; None where no tap reaches it."""
    stride, swapped = window.strides[0], swap_channels(weights, group)
    counts = [-(-size // stride) for size in call.x.shape[2:]]
    rows, columns = ([_reach(window, axis, [pixel]) for pixel in range(stride)] for axis in (0, 1))
    phases = [
        _convolved(call, gradient, swapped, (row, column), counts, 1, group) if row and column else None
        for row in rows
        for column in columns
    ]
    return Phased(tuple(phases), stride, call.x.shape)


def wants_superpixels(call: Call, window: Window, group: int) -> bool:
    """At the picture, whose few channels leave most of a block of 16 empty. Small kernels gain at stride 1 alone."""
    stride, channels = window.square_stride, call.x.shape[1]
    if not call.emit.lowerings.phases or stride is None or group != 1:
        return False
    divides = all(isinstance(size, int) and size % (BLOCK * stride) == 0 for size in call.x.shape[2:])
    worth = stride == 1 or max(window.kernel) >= STEM_KERNEL
    return divides and worth and fits_blocked(call.y) and bool(channels < ALIGNED)


def superpixels(call: Call, gradient: Value, weights: np.ndarray, window: Window) -> Value:
    """One convolution for square blocks of the input's pixels as channels, which are woven together channels last."""
    emit, side = call.emit, BLOCK * window.strides[0]
    batch, channels = call.x.shape[:2]
    rows, columns = counts = [size // side for size in call.x.shape[2:]]
    axes = [_reach(window, axis, range(side)) for axis in (0, 1)]
    assert axes[0] and axes[1]  # a block holds every phase
    found = _convolved(call, gradient, swap_channels(weights, 1), (axes[0], axes[1]), counts, BLOCK)
    last = emit.reshape(emit.transpose(found, (0, 2, 3, 1)), (batch, rows, columns, side, side * channels))
    lines = emit.reshape(emit.transpose(last, (0, 1, 3, 2, 4)), (batch, rows * side, columns * side, channels))
    return emit.transpose(lines, (0, 3, 1, 2))


@dataclass(frozen=True)
class Reach:
    """What some pixels see of the gradient along one axis: taps as (pixel's index, tap, place in the window)."""

    pixels: int
    taps: tuple[tuple[int, int, int], ...]
    size: int
    before: int


def _reach(window: Window, axis: int, pixels: Sequence[int]) -> Reach | None:
    """Of input positions of one stride or block; None where no tap reaches any."""
    stride, dilation, pad = window.strides[axis], window.dilations[axis], window.before[axis]
    found = [
        (index, tap, (pixel + pad - dilation * tap) // stride)
        for index, pixel in enumerate(pixels)
        for tap in range(window.kernel[axis])
        if (pixel + pad - dilation * tap) % stride == 0
    ]
    if not found:
        return None
    first, last = min(place for _, _, place in found), max(place for _, _, place in found)
    taps = tuple((index, tap, place - first) for index, tap, place in found)
    return Reach(len(pixels), taps, last - first + 1, -first)


def _convolved(
    call: Call,
    gradient: Value,
    weights: np.ndarray,
    axes: tuple[Reach, Reach],
    counts: Sequence[int],
    step: int,
    group: int = 1,
) -> Value:
    """The pixels of both axes as channels, [N, pixels C, *counts]; the gradient is read every `step` positions."""
    rows, columns = axes
    kernel = np.zeros((rows.pixels, columns.pixels, *weights.shape[:2], rows.size, columns.size), weights.dtype)
    for u, t, i in rows.taps:
        for v, s, j in columns.taps:
            kernel[u, v, :, :, i, j] = weights[:, :, t, s]
    kernel = kernel.reshape(-1, *kernel.shape[3:])
    before = [axis.before for axis in axes]
    after = [
        (count - 1) * step + axis.size - axis.before - size
        for count, axis, size in zip(counts, axes, gradient.shape[2:], strict=True)
    ]
    gradient = call.emit.pad(gradient, [2, 3], [min(n, 0) for n in before], [min(n, 0) for n in after])
    return call.emit.conv(
        gradient,
        call.emit.constant(kernel),
        (call.x.shape[0], kernel.shape[0], *counts),
        kernel_shape=[rows.size, columns.size],
        strides=[step, step],
        pads=[max(n, 0) for n in (*before, *after)],
        group=group,
    )
