"""Rules of convolutions. Which operator computes the backward pass is a matter of speed, measured on the CPU.

stride 1            Conv with rotated, transposed weights
stride, dense       ConvTranspose with the same weights
for the CPU         phases.py, where the sizes allow it
stride, depthwise   sub-pixel: one Conv for all phases of the stride, then DepthToSpace; also 7x7 stems, and strided
                    and dilated ones, which TensorRT for RTX does not build as ConvTranspose
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gcpp_edge.export.graph import Shape, Value
from gcpp_edge.export.vjp.phases import (
    phased,
    pointwise_phases,
    stays_phased,
    superpixels,
    wants_phases,
    wants_superpixels,
)
from gcpp_edge.export.vjp.registry import Call, Gradient, OneHot, Phased, Results, rule
from gcpp_edge.export.vjp.window import STEM_KERNEL, Window, is_pointwise, swap_channels, window_of


@rule("Conv", sparse=True, phased=True)
def conv(call: Call, gradient: Gradient) -> Results:
    if any(call.wanted[1:]):
        raise call.refuse("has weights that depend on the picture")
    weights = call.constant(1)
    window, group = window_of(call, call.inputs[1].shape[2:]), call.attribute("group", 1)
    pointwise = is_pointwise(window, group)
    if isinstance(gradient, OneHot) and pointwise:
        return [_weight_row(call, gradient), *call.none()[1:]]
    if isinstance(gradient, Phased) and pointwise and weights is not None and stays_phased(call):
        return [pointwise_phases(call, gradient, weights), *call.none()[1:]]
    if not isinstance(gradient, Value):
        gradient = gradient.dense(call.emit)
    gradient = call.emit.dense(gradient, call.y.shape)
    if weights is None:  # computed, and too large to be folded
        result = _transposed(call, gradient, window, group)
    elif wants_superpixels(call, window, group):
        result = superpixels(call, gradient, weights, window)
    elif all(stride == 1 for stride in window.strides):
        result = _rotated(call, gradient, weights, window, group)
    elif wants_phases(call, window, group):
        return [phased(call, gradient, weights, window, group), *call.none()[1:]]
    elif _wants_subpixel(weights, window, group):
        result = _subpixel(call, gradient, weights, window, group)
    else:
        result = _transposed(call, gradient, window, group)
    return [result, *call.none()[1:]]


def _weight_row(call: Call, gradient: OneHot) -> Value:
    """A classifier that is a 1x1 convolution: the class's weights times its map's gradient, no product over classes."""
    return call.emit.multiply(call.emit.gather(call.inputs[1], gradient.indices, 0), gradient.amount)


def _wants_subpixel(weights: np.ndarray, window: Window, group: int) -> bool:
    square = window.square_stride is not None  # DepthToSpace has one block size, in 2-D
    dilated = any(dilation > 1 for dilation in window.dilations)
    return square and (group > 1 or dilated or max(window.kernel) >= STEM_KERNEL)


def _rotated(call: Call, gradient: Value, weights: np.ndarray, window: Window, group: int) -> Value:
    spatial = tuple(window.axes)
    rotated = call.emit.constant(np.flip(swap_channels(weights, group), spatial))
    before = [extent - 1 - pad for extent, pad in zip(window.extent, window.before, strict=True)]
    after = [extent - 1 - pad for extent, pad in zip(window.extent, window.after, strict=True)]
    full = call.emit.conv(
        gradient,
        rotated,
        _grown(call.x.shape, before, after),
        kernel_shape=list(window.kernel),
        dilations=list(window.dilations),
        pads=[max(pad, 0) for pad in (*before, *after)],
        group=group,
    )
    # a kernel narrower than its padding (a padded 1x1) would need negative pads: cut instead
    return call.emit.pad(full, window.axes, [min(pad, 0) for pad in before], [min(pad, 0) for pad in after])


def _grown(shape: Shape, before: list[int], after: list[int]) -> Shape:
    """The shape before the crop: larger by what the negative pads will cut."""
    spatial = (size + max(-b, 0) + max(-a, 0) for size, b, a in zip(shape[2:], before, after, strict=True))
    return (*shape[:2], *spatial)


def _transposed(call: Call, gradient: Value, window: Window, group: int) -> Value:
    """ConvTranspose takes the very weights of the Conv, so that the file holds them once."""
    sizes = zip(
        call.x.shape[2:], gradient.shape[2:], window.strides, window.extent, window.before, window.after, strict=True
    )
    padding = [size - ((out - 1) * s + extent - b - a) for size, out, s, extent, b, a in sizes]
    weights = call.inputs[1]
    assert weights is not None
    return call.emit.conv_transpose(
        gradient,
        weights,
        call.x.shape,
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*window.before, *window.after],
        output_padding=padding,
        group=group,
    )


@dataclass(frozen=True)
class Phases:
    """One axis of a strided window seen from its input: padded position s q + r receives tap t from output q - a.

    first, last: the range of q that covers the input. A tap t has phase (d t) mod s and offset a = (d t) div s.
    """

    stride: int
    first: int
    last: int
    taps: tuple[tuple[int, int], ...]  # (phase, offset) of each tap

    @property
    def reach(self) -> int:
        return max(offset for _, offset in self.taps) + 1


def phases_of(size: int, kernel: int, stride: int, dilation: int, before: int) -> Phases:
    """The phases of one axis; size is the input's, before its leading pad."""
    taps = tuple(((dilation * tap) % stride, (dilation * tap) // stride) for tap in range(kernel))
    return Phases(stride, before // stride, (size - 1 + before) // stride, taps)


def axes_phases(call: Call, window: Window) -> list[Phases]:
    return [
        phases_of(*entry)
        for entry in zip(call.x.shape[2:], window.kernel, window.strides, window.dilations, window.before, strict=True)
    ]


def _subpixel(call: Call, gradient: Value, weights: np.ndarray, window: Window, group: int) -> Value:
    emit, (rows, columns) = call.emit, axes_phases(call, window)
    kernel = emit.constant(_phase_weights(swap_channels(weights, group), rows, columns))
    # the leading pad reaches back to the farthest offset, the trailing one to the last position that is needed
    before = [axis.reach - 1 - axis.first for axis in (rows, columns)]
    after = [axis.last - (size - 1) for axis, size in zip((rows, columns), gradient.shape[2:], strict=True)]
    gradient = emit.pad(gradient, [2, 3], [min(n, 0) for n in before], [min(n, 0) for n in after])
    counts = [axis.last - axis.first + 1 for axis in (rows, columns)]
    phases = emit.conv(
        gradient,
        kernel,
        (call.x.shape[0], call.x.shape[1] * rows.stride**2, *counts),
        kernel_shape=[rows.reach, columns.reach],
        pads=[max(n, 0) for n in (*before, *after)],
        group=group,
    )
    return crop_phases(call, emit.depth_to_space(phases, rows.stride, "CRD"), [rows, columns], window)


def _phase_weights(weights: np.ndarray, rows: Phases, columns: Phases) -> np.ndarray:
    """[C, O/G, kh, kw] -> [C s s, O/G, reach, reach]: all phases of each input channel, in DepthToSpace's CRD order."""
    channels, outputs = weights.shape[:2]
    s = rows.stride
    result = np.zeros((channels, s, s, outputs, rows.reach, columns.reach), weights.dtype)
    for i, (phase_row, offset_row) in enumerate(rows.taps):
        for j, (phase_column, offset_column) in enumerate(columns.taps):
            # correlation index runs against the offset: the farthest output comes first
            u, v = rows.reach - 1 - offset_row, columns.reach - 1 - offset_column
            result[:, phase_row, phase_column, :, u, v] = weights[:, :, i, j]
    return result.reshape(channels * s * s, outputs, rows.reach, columns.reach)


def crop_phases(call: Call, spread: Value, phases: list[Phases], window: Window) -> Value:
    """Cuts the padded positions s first .. s (last + 1) down to the input."""
    sizes = call.x.shape[2:]
    starts = [pad - axis.stride * axis.first for axis, pad in zip(phases, window.before, strict=True)]
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    return call.emit.slice(spread, window.axes, starts, ends)


@rule("ConvTranspose")
def conv_transpose(call: Call, gradient: Value) -> Results:
    """Backwards it is the Conv with the same weights, strides and pads."""
    if any(call.wanted[1:]):
        raise call.refuse("has weights that depend on the picture")
    kernel = call.inputs[1]
    window = window_of(call, kernel.shape[2:])
    # output_padding adds positions behind that no tap reaches; from a stride on, the Conv would see windows of them
    behind = call.attribute("output_padding") or [0] * len(window.kernel)
    extra = [padding // stride for padding, stride in zip(behind, window.strides, strict=True)]
    sizes = [size + more for size, more in zip(call.x.shape[2:], extra, strict=True)]
    result = call.emit.conv(
        gradient,
        kernel,
        (*call.x.shape[:2], *sizes),
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        pads=[*window.before, *window.after],
        group=call.attribute("group", 1),
    )
    return [call.emit.slice(result, window.axes, [0] * len(sizes), call.x.shape[2:]), *call.none()[1:]]
