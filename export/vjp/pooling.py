"""Rules of sliding-window pooling.

Both sum, into each input position, what the windows that cover it send back. The sum runs over the taps of the window,
phase by phase of the stride, and DepthToSpace weaves the phases together: exact with overlap, and no scatter.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from gcpp_edge.export.blocked import fits_blocked, into_blocked, let_through, picked, shifted
from gcpp_edge.export.emit import STEEP
from gcpp_edge.export.graph import Shape, Value
from gcpp_edge.export.vjp.convolution import axes_phases, crop_phases
from gcpp_edge.export.vjp.registry import Call, Phased, Results, numpy_dtype, rule
from gcpp_edge.export.vjp.window import Window, window_of

Taps = dict[tuple[int, ...], Value]


@rule("MaxPool")
def max_pool(call: Call, gradient: Value) -> Results:
    """To the first position, in row order, that equals the maximum: PyTorch's choice in a tie."""
    emit, window = call.emit, window_of(call, call.attribute("kernel_shape"))
    if _wants_blocked(call, window):
        return [_max_pool_blocked(call, gradient, window)]
    padded = _padded_input(call, window)
    taps: Taps = {}
    left = gradient  # what no earlier tap has claimed
    for tap in itertools.product(*(range(k) for k in window.kernel)):
        claimed = emit.equal(_taken(call, padded, window, tap, call.y.shape[2:]), call.y)
        taps[tap] = emit.keep_where(claimed, left)
        left = emit.subtract(left, taps[tap])
    return [_woven(call, taps, window)]


def _wants_blocked(call: Call, window: Window) -> bool:
    """Where what is around the picture cannot be taken for a maximum.

    Convolutions pad with zeros: a window of zeros sends its gradient there, and a rectifier in front has none to take.
    """
    if not call.emit.lowerings.blocked_pools or not (fits_blocked(call.x) and fits_blocked(call.y)):
        return False
    if window.square_stride is None:
        return False
    reaches = zip(call.x.shape[2:], call.y.shape[2:], window.strides, window.extent, window.before, strict=True)
    padded = any(pad or (out - 1) * s + extent > size for size, out, s, extent, pad in reaches)
    return not padded or (_rectifier(call) is not None and call.pixel_rule != "deconvnet")


def _rectifier(call: Call) -> tuple[float | None, float | None] | None:
    """The bounds that the input passed between, where a ReLU or a Clip at zero made it."""
    producer = call.graph.producers.get(call.x.name)
    if producer is None or producer.op_type not in ("Relu", "Clip"):
        return None
    if producer.op_type == "Relu":
        return 0.0, None
    bounds = [call.graph.constant(name) if name else None for name in producer.input[1:]]
    if not bounds or bounds[0] is None or bounds[0] != 0 or (len(bounds) > 1 and bounds[1] is None):
        return None
    return 0.0, float(bounds[1].item()) if len(bounds) > 1 and bounds[1] is not None else None


def _max_pool_blocked(call: Call, gradient: Value, window: Window) -> Value | Phased:
    """The same, tap by tap in the blocked layout: where x - max is zero, and what is left of the gradient.

    Where windows do not overlap, and nothing else reads what the rectifier in front gives, its guided mask is taken at
    the maxima, which are fewer.
    """
    emit, bounds = call.emit, _rectifier(call)
    alone = len(call.graph.consumers[call.x.name]) == 1 and window.strides == window.extent
    masked = alone and bounds is not None and call.pixel_rule == "guided"
    left = into_blocked(emit, gradient)
    if masked and bounds is not None:
        left = let_through(emit, left, call.y, *bounds)
    lower = picked(emit, call.y, weight=-1)
    counts = tuple(-(-size // window.strides[0]) for size in call.x.shape[2:])
    phases: dict[tuple[int, int], Value] = {}
    taps = list(itertools.product(*(range(k) for k in window.kernel)))
    for tap in taps:
        offset = [d * t - pad for d, t, pad in zip(window.dilations, tap, window.before, strict=True)]
        if tap == taps[-1]:  # nothing but the last is left
            claimed = left
        else:
            below = emit.add(shifted(emit, call.x, offset, window.strides[0], call.y.shape[2:]), lower)
            claimed = emit.multiply(left, emit.apply("HardSigmoid", below, alpha=STEEP, beta=1.0))
            left = emit.add(picked(emit, claimed, weight=-1), left)
        (u, i), (v, j) = ((place % s, place // s) for place, s in zip(offset, window.strides, strict=True))
        if i or j or counts != call.y.shape[2:]:
            claimed = shifted(emit, claimed, (-i, -j), 1, counts)
        phases[u, v] = emit.add(claimed, phases[u, v]) if (u, v) in phases else claimed
    stride = window.strides[0]
    if stride == 1:
        return phases[0, 0]
    order = [(u, v) for u in range(stride) for v in range(stride)]
    return Phased(tuple(phases.get(phase) for phase in order), stride, call.x.shape, call.x.name if masked else "")


def _padded_input(call: Call, window: Window) -> Value:
    """The input with -inf around, as far as any window reaches."""
    zipped = zip(call.y.shape[2:], window.strides, window.extent, call.x.shape[2:], window.before, strict=True)
    after = [max((out - 1) * s + extent - size - pad, 0) for out, s, extent, size, pad in zipped]
    return call.emit.pad(call.x, window.axes, window.before, after, fill=-np.inf)


def _taken(call: Call, padded: Value, window: Window, tap: tuple[int, ...], counts: Shape) -> Value:
    """What each of `counts` windows sees at one tap."""
    starts = [d * t for d, t in zip(window.dilations, tap, strict=True)]
    ends = [start + s * (count - 1) + 1 for start, s, count in zip(starts, window.strides, counts, strict=True)]
    return call.emit.slice(padded, window.axes, starts, ends, window.strides)


@rule("AveragePool")
def average_pool(call: Call, gradient: Value) -> Results:
    window = window_of(call, call.attribute("kernel_shape"))
    if all(k == 1 for k in window.kernel) and all(s == 1 for s in window.strides):
        return [gradient]
    share = call.emit.multiply(gradient, call.emit.constant(1 / _counts(call, window)))
    taps = dict.fromkeys(itertools.product(*(range(k) for k in window.kernel)), share)
    return [_woven(call, taps, window)]


def _counts(call: Call, window: Window) -> np.ndarray:
    """How many positions each output averages, broadcastable to it."""
    counts = np.ones((1, 1), numpy_dtype(call.x.dtype))
    include = bool(call.attribute("count_include_pad", 0))
    for i, out in enumerate(call.y.shape[2:]):
        low, high = (
            (0, call.x.shape[2 + i]) if not include else (-window.before[i], call.x.shape[2 + i] + window.after[i])
        )
        starts = np.arange(out) * window.strides[i] - window.before[i]
        taps = starts[:, None] + np.arange(window.kernel[i]) * window.dilations[i]
        counts = counts[..., None] * ((taps >= low) & (taps < high)).sum(1).astype(counts.dtype)
    return counts[..., 0] if counts.ndim == 2 else counts


def _woven(call: Call, taps: Taps, window: Window) -> Value:
    """Each tap at its phase and offset, summed, woven together and cut to the input."""
    emit, axes = call.emit, axes_phases(call, window)
    sums: dict[tuple[int, ...], Value] = {}
    for tap, value in taps.items():
        places = [axis.taps[t] for axis, t in zip(axes, tap, strict=True)]
        before = [offset - axis.first for axis, (_, offset) in zip(axes, places, strict=True)]
        after = [
            axis.last - offset - (size - 1)
            for axis, (_, offset), size in zip(axes, places, value.shape[2:], strict=True)
        ]
        edges = zip(value.shape[2:], before, after, strict=True)
        if any(min(first, last) <= -size for size, first, last in edges):
            continue  # a tap that lies in the padding of every window
        placed = emit.pad(value, window.axes, before, after)
        phase = tuple(phase for phase, _ in places)
        sums[phase] = emit.add(sums[phase], placed) if phase in sums else placed
    phases = [_phase(call, sums, phase) for phase in itertools.product(*(range(axis.stride) for axis in axes))]
    return crop_phases(call, _weave(call, phases, window.strides), axes, window)


def _phase(call: Call, sums: dict[tuple[int, ...], Value], phase: tuple[int, ...]) -> Value:
    """The sum at a phase; zeros where the stride skips input altogether."""
    return sums[phase] if phase in sums else call.emit.scale(next(iter(sums.values())), 0.0)


def _weave(call: Call, phases: list[Value], strides: tuple[int, ...]) -> Value:
    """Phases in row order [N,C,*Q] -> [N,C,*(Q s)]."""
    emit = call.emit
    if len(phases) == 1:
        return phases[0]
    joined = emit.concat(phases, 1)
    if len(strides) == 2 and strides[0] == strides[1]:
        return emit.depth_to_space(joined, strides[0], "DCR")
    batch, channels, *counts = phases[0].shape
    rank = len(strides)
    deep = emit.reshape(joined, (batch, *strides, channels, *counts))
    order = [0, rank + 1, *(axis for i in range(rank) for axis in (rank + 2 + i, 1 + i))]
    sizes = tuple(count * stride for count, stride in zip(counts, strides, strict=True))
    return emit.reshape(emit.transpose(deep, order), (batch, channels, *sizes))


@rule("GlobalMaxPool")
def global_max_pool(call: Call, gradient: Value) -> Results:
    """To every position that equals the maximum, in equal shares (PyTorch's amax)."""
    emit, axes = call.emit, list(range(2, len(call.x.shape)))
    winners = emit.cast(emit.equal(call.x, call.y), call.x.dtype)
    share = emit.divide(gradient, emit.reduce("ReduceSum", winners, axes))
    return [emit.multiply(winners, share)]


@rule("LpPool")
def lp_pool(call: Call, gradient: Value) -> Results:
    """y = (sum |x|^p)^(1/p): sign(x) |x|^(p-1) times what g y^(1-p) sends back; zero where a window is zero."""
    emit, window, p = call.emit, window_of(call, call.attribute("kernel_shape")), call.attribute("p", 2)
    share = emit.multiply(gradient, emit.power(emit.one_for_zero(call.y), 1 - p))
    taps = dict.fromkeys(itertools.product(*(range(k) for k in window.kernel)), share)
    return [emit.multiply(_signed_power(call, p - 1), _woven(call, taps, window))]


@rule("GlobalLpPool", compact=True)
def global_lp_pool(call: Call, gradient: Value) -> Results:
    emit, p = call.emit, call.attribute("p", 2)
    share = emit.multiply(gradient, emit.power(emit.one_for_zero(call.y), 1 - p))
    return [emit.multiply(_signed_power(call, p - 1), share)]


def _signed_power(call: Call, exponent: int) -> Value:
    """sign(x) |x|^exponent."""
    emit, sign = call.emit, call.emit.apply("Sign", call.x)
    return emit.multiply(sign, emit.power(emit.apply("Abs", call.x), exponent)) if exponent else sign


@rule("Col2Im")
def columns_to_image(call: Call, gradient: Value) -> Results:
    """Each column was added to the places of its window: there it takes the gradient, tap by tap."""
    emit, block = call.emit, call.need(2, "a block shape").tolist()
    window = window_of(call, block)
    padded = emit.pad(gradient, window.axes, window.before, window.after)
    zipped = zip(padded.shape[2:], window.extent, window.strides, strict=True)
    counts = tuple((size - extent) // stride + 1 for size, extent, stride in zipped)
    batch, channels = gradient.shape[:2]
    taps = [
        emit.reshape(_taken(call, padded, window, tap, counts), (batch, channels, 1, math.prod(counts)))
        for tap in itertools.product(*(range(k) for k in window.kernel))
    ]
    return [emit.reshape(emit.concat(taps, 2), call.x.shape), None, None]
