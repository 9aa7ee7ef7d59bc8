"""The kernels in NumPy, in float64, straight from the equations: the truth for every other implementation.

They are also what runs where no C compiler was at hand. Arguments have been checked (arguments.py); results are
written to `out`. Equation numbers are those of Chattopadhyay et al. 2018 (docs/method.md).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.kernels.axis import Axis

Array = NDArray[Any]

POLE = 1e-3  # |2 + max(ΣA, 0)·g| below this is taken for a pole of Eq. 19
CHANNELS = {
    "bgr": "bgr",
    "rgb": "rgb",
    "bgra": "bgra",
    "rgba": "rgba",
    "gray": "y",
    "gray16": "y",
    "nv12": "rgb",
}
LUMA = {"r": 0.299, "g": 0.587, "b": 0.114}  # BT.601, as OpenCV's COLOR_RGB2GRAY


def cam(
    activations: Array,
    gradients: Array,
    rule: str,
    relu: bool,
    out: Array,
    weights: Array | None = None,
    gradient_scale: float = 1.0,
    poles: Array | None = None,
) -> None:
    """Weighted sum of the activation channels into `out`, L = Σ_k w_k A_k (Eq. 1, 20).

    gradient_scale: what the gradients were multiplied by before they were stored. weights, poles: take w and the
    counts of poles. Gradients of K targets a picture have an axis for them behind the first, and so has what is made.
    """
    pictures, channels, *space = activations.shape
    targets = gradients.shape[1] if gradients.ndim > activations.ndim else 1
    maps = activations.reshape(pictures, channels, math.prod(space)).astype(np.float64).repeat(targets, axis=0)
    slopes = gradients.reshape(len(maps), channels, math.prod(gradients.shape[-len(space) :])).astype(np.float64)
    with np.errstate(all="ignore"):
        slopes /= gradient_scale
        importance, counts = channel_weights(maps, np.broadcast_to(slopes, maps.shape), rule)
        total = np.einsum("nc,ncs->ns", importance, maps).reshape(out.shape)
        out[...] = np.maximum(total, 0) if relu else total
    if weights is not None:
        weights[...] = importance.reshape(weights.shape)
    if poles is not None:
        poles[...] = counts.reshape(poles.shape)


def channel_weights(maps: Array, slopes: Array, rule: str) -> tuple[Array, Array]:
    """w of every channel, (N, C), and the counts of poles, (N,). maps = A, slopes = g = dS/dA: (N, C, positions).

    gradcam: the mean of g (Eq. 3). gradcam++: Σ relu(g)·α (Eq. 5) with Eq. 19 divided through by g²,
    α = 1 / (2 + ΣA·g), and ΣA clamped at 0. gradcam++-signed: Σ g·α (Eq. 29); at a pole α is 0 and it is counted.
    """
    positions = slopes.shape[2]
    if rule == "gradcam":
        return slopes.sum(axis=2) / max(positions, 1), np.zeros(len(maps), np.int64)
    denominator = 2 + np.maximum(maps.sum(axis=2, keepdims=True), 0) * slopes
    if rule == "gradcam++":
        return (np.maximum(slopes, 0) / denominator).sum(axis=2), np.zeros(len(maps), np.int64)
    pole = np.abs(denominator) < POLE
    return np.where(pole, 0, slopes / np.where(pole, 1, denominator)).sum(axis=2), pole.sum(axis=(1, 2))


def range(map: Array, zero_low: bool, out: Array) -> None:
    """Minimum, or 0, and maximum of the numbers in a map, or in each map for an `out` of two axes; 0 and 0 of none."""
    limits = out.reshape(out.size // 2, 2)
    maps = map.reshape(len(limits), map.size // max(len(limits), 1))
    for row, values in zip(limits, maps, strict=True):
        numbers = values[~np.isnan(values)]
        row[:] = (0 if zero_low else numbers.min(), numbers.max()) if numbers.size else 0


def heatmap(
    map: Array, rows: Axis, columns: Axis, low: float, high: float, out: Array, limits: Array | None = None
) -> None:
    """The map at the pixels of `out`, normalised to [0, 1]: float32, or uint8 as round(255 v). Unseen pixels are 0.

    limits: what range writes, in place of low and high.
    """
    out[...] = 0
    seen = _seen(out.shape, map.shape, rows, columns)
    value = _values(map, rows, columns, *_range(low, high, limits), out.shape)
    out[seen] = np.rint(255 * value) if out.dtype == np.uint8 else value


def overlay(
    frame: Array,
    map: Array,
    rows: Axis,
    columns: Axis,
    low: float,
    high: float,
    palette: Array,
    alpha: float,
    dim: float,
    out: Array,
    limits: Array | None = None,
) -> None:
    """The coloured map over the frame: round(frame·(1 - alpha) + palette[v]·alpha), unseen pixels round(frame·dim)."""
    size = frame.shape[:2]
    seen = _seen(size, map.shape, rows, columns)
    value = _values(map, rows, columns, *_range(low, high, limits), size)
    index = np.rint(255 * value).astype(np.intp)
    blend = np.rint(frame[seen][..., :3] * (1 - alpha) + palette[index] * alpha)  # before `out`, which may be `frame`
    out[..., :3] = np.rint(frame[..., :3] * dim)
    out[..., 3:] = frame[..., 3:]
    out[seen][..., :3] = blend


def guided(
    map: Array,
    rows: Axis,
    columns: Axis,
    low: float,
    high: float,
    image: Array,
    out: Array,
    limits: Array | None = None,
) -> None:
    """The pixel-space backward image times the map: Guided Grad-CAM++. Unseen pixels are 0."""
    value = np.zeros(image.shape[1:])
    heatmap(map, rows, columns, low, high, value, limits)
    with np.errstate(all="ignore"):
        np.multiply(value, image, out=out, casting="unsafe")


def preprocess(
    frame: Array,
    format: str,
    rows: Axis,
    columns: Axis,
    color: str,
    scale: Array,
    bias: Array,
    fill: Array,
    out: Array,
) -> None:
    """The frame at the network's pixels, bilinear, as pixel·scale + bias. Pixels without a source take `fill`."""
    height, width = frame_size(frame, format)
    y_lower, y_upper, y_fraction = taps(rows, out.shape[1], height)
    x_lower, x_upper, x_fraction = taps(columns, out.shape[2], width)
    upper, lower = (
        _mix(_pixels(frame, format, color, y, x_lower), _pixels(frame, format, color, y, x_upper), x_fraction)
        for y in (y_lower, y_upper)
    )
    pixels = np.repeat(np.asarray(fill, np.float64), out.shape[1] * out.shape[2]).reshape(out.shape)
    y_seen, x_seen = _seen(out.shape[1:], (height, width), rows, columns)
    pixels[:, y_seen, x_seen] = _mix(upper, lower, y_fraction[:, None])
    with np.errstate(all="ignore"):
        out[...] = pixels * scale.astype(np.float64)[:, None, None] + bias.astype(np.float64)[:, None, None]


def frame_size(frame: Array, format: str) -> tuple[int, int]:
    """Height and width of the picture in a frame: NV12 holds a half-height plane of colour below it."""
    return (frame.shape[0] * 2 // 3 if format == "nv12" else frame.shape[0]), frame.shape[1]


def _range(low: float, high: float, limits: Array | None) -> tuple[float, float]:
    return (low, high) if limits is None else (float(limits[0]), float(limits[1]))


def _seen(destination: tuple[int, ...], source: tuple[int, ...], rows: Axis, columns: Axis) -> tuple[slice, slice]:
    return slice(*rows.seen(destination[0], source[0])), slice(*columns.seen(destination[1], source[1]))


def _values(map: Array, rows: Axis, columns: Axis, low: float, high: float, size: tuple[int, ...]) -> Array:
    """v in [0, 1] at the seen pixels, float64. All 0 if not high > low; 0 where the map is NaN."""
    y_lower, y_upper, y_fraction = taps(rows, size[0], map.shape[0])
    x_lower, x_upper, x_fraction = taps(columns, size[1], map.shape[1])
    if not high > low:
        return np.zeros((len(y_lower), len(x_lower)))
    with np.errstate(all="ignore"):
        normal = (map.astype(np.float64) - low) / (np.float64(high) - low)
        wide = _mix(normal[:, x_lower], normal[:, x_upper], x_fraction)
        value = _mix(wide[y_lower], wide[y_upper], y_fraction[:, None])
        return np.where(np.isnan(value), 0, np.clip(value, 0, 1))


def taps(axis: Axis, destination_size: int, source_size: int) -> tuple[Array, Array, Array]:
    """The two source pixels of every seen destination pixel, and the share of the second."""
    destination = np.arange(*axis.seen(destination_size, source_size))
    with np.errstate(over="ignore"):
        source = np.clip((destination + 0.5) * axis.scale + axis.offset - 0.5, 0, max(source_size - 1, 0))
    lower = np.floor(source).astype(np.intp)
    fraction = source - lower
    return lower, np.where(fraction > 0, lower + 1, lower), fraction


def _mix(first: Array, second: Array, share: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(first + (second - first) * share)


def _pixels(frame: Array, format: str, color: str, y: Array, x: Array) -> Array:
    """The network's channels of the frame's pixels at rows y and columns x: (C, len(y), len(x)) float64, 0 to 255."""
    if format == "nv12":
        planes = _pixels_nv12(frame, y, x)
    else:
        packed = frame[y[:, None], x].astype(np.float64) / (257 if format == "gray16" else 1)
        planes = dict(zip(CHANNELS[format], np.moveaxis(np.atleast_3d(packed), 2, 0), strict=True))
    if "y" in planes:
        planes |= dict.fromkeys("rgb", planes["y"])
    elif color == "gray":
        planes["y"] = np.sum([share * planes[name] for name, share in LUMA.items()], axis=0)
    planes.setdefault("a", np.full((len(y), len(x)), 255.0))
    return np.stack([planes[name] for name in CHANNELS[color]])


def _pixels_nv12(frame: Array, y: Array, x: Array) -> dict[str, Array]:
    """BT.601, limited range, with the coefficients of OpenCV's COLOR_YUV2RGB_NV12, not rounded to whole values."""
    height, _ = frame_size(frame, "nv12")
    luma = 1.164 * np.maximum(frame[y[:, None], x].astype(np.float64) - 16, 0)
    u, v = (frame[height + y[:, None] // 2, x // 2 * 2 + part].astype(np.float64) - 128 for part in (0, 1))
    planes = {"r": luma + 1.596 * v, "g": luma - 0.813 * v - 0.391 * u, "b": luma + 2.018 * u}
    return {name: np.clip(plane, 0, 255) for name, plane in planes.items()}
