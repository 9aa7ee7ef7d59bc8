"""The checks that every implementation of the kernels relies on: dtype, shape, contiguity, aliasing and range.

The C and CUDA code trusts its arguments, so nothing reaches it that has not passed here. An array is NumPy's, or a
device's buffer: anything with an `address`, and with dtype, shape, ndim, strides, nbytes and flags as NumPy has them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError, MethodError, ShapeError
from gcpp_edge.kernels.axis import Axis
from gcpp_edge.kernels.reference import CHANNELS

Array = NDArray[Any]
Size = int | None | tuple[int, ...]  # of one axis: exactly, any, or one of

RULES = ("gradcam", "gradcam++", "gradcam++-signed")
FORMATS = tuple(CHANNELS)
COLORS = ("rgb", "bgr", "gray", "rgba", "bgra")
FLOATS = (np.dtype(np.float32), np.dtype(np.float16))
FLOAT32 = FLOATS[:1]
MAX_SIDE = 2**28  # pixels: bytes within a row are counted in 32 bits
SCALES = (2.0**-100, 2.0**100)  # of gradients: these and their inverses are ordinary float32 numbers
UINT8 = (np.dtype(np.uint8),)
UINT16 = (np.dtype(np.uint16),)


INT64 = (np.dtype(np.int64),)


def is_buffer(array: object) -> bool:
    """Whether this is memory that a kernel can work on: a NumPy array, or a device's buffer."""
    return isinstance(array, np.ndarray) or hasattr(array, "address")


def address_of(array: Any) -> int:
    """Where the first element lies, on the host or on a device: the one place that tells the two apart."""
    return int(array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else array.address)


def check_cam(
    activations: Array,
    gradients: Array,
    rule: str,
    out: Array,
    weights: Array | None,
    gradient_scale: float,
    poles: Array | None = None,
) -> None:
    """Raise ShapeError, MethodError or InputError unless cam can run on these."""
    if rule not in RULES:
        raise MethodError(f"cam: unknown rule {rule!r}; expected one of {', '.join(RULES)}.")
    if not SCALES[0] <= gradient_scale <= SCALES[1]:
        raise InputError(f"cam: gradient_scale must lie between 2^-100 and 2^100; found {gradient_scale}.")
    if not is_buffer(activations) or not 3 <= activations.ndim <= 5:
        raise ShapeError(f"cam: activations must be an array (N, C, one to three axes); found {_found(activations)}.")
    shape = activations.shape
    _check("cam", "activations", activations, FLOATS, shape)
    maps = _check_gradients(gradients, shape)
    _check("cam", "out", out, FLOAT32, (*maps, *shape[2:]), writable=True)
    _check_apart("cam", out, activations, gradients)
    if weights is not None:
        _check("cam", "weights", weights, FLOAT32, (*maps, shape[1]), writable=True)
        _check_apart("cam", weights, activations, gradients, out)
    if poles is not None:
        _check("cam", "poles", poles, INT64, maps, writable=True)
        _check_apart("cam", poles, activations, gradients, out, *([] if weights is None else [weights]))


def _check_gradients(gradients: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Raise ShapeError unless they go with activations of this shape. Returns the axes of the maps: (N,) or (N, K)."""
    constant = (*shape[:2], *[1] * (len(shape) - 2))
    if not is_buffer(gradients) or _without_targets(gradients.shape, len(shape)) not in (shape, constant):
        raise ShapeError(
            f"cam: gradients must have shape {shape} or {constant}, or an axis of targets behind the first; "
            f"found {_found(gradients)}."
        )
    _check("cam", "gradients", gradients, FLOATS, gradients.shape)
    return gradients.shape[: gradients.ndim - len(shape) + 1]


def _without_targets(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    return (shape[0], *shape[2:]) if len(shape) == axes + 1 else shape


def check_range(map: Array, out: Array) -> None:
    """Raise ShapeError unless range can run on these."""
    if not is_buffer(map) or map.ndim == 0:
        raise ShapeError(f"range: map must be an array; found {_found(map)}.")
    _check("range", "map", map, FLOAT32, map.shape)
    of_each = (len(map), 2)
    if not is_buffer(out) or out.shape not in ((2,), of_each):
        raise ShapeError(f"range: out must have shape (2,) or {of_each}; found {_found(out)}.")
    _check("range", "out", out, FLOAT32, out.shape, writable=True)
    _check_apart("range", out, map)


def check_heatmap(map: Array, rows: Axis, columns: Axis, out: Array, limits: Array | None) -> None:
    """Raise ShapeError unless heatmap can run on these."""
    _check("heatmap", "map", map, FLOAT32, (None, None))
    _check_axes("heatmap", rows, columns)
    _check("heatmap", "out", out, FLOAT32 + UINT8, (None, None), writable=True)
    _check_apart("heatmap", out, map, *_check_limits("heatmap", limits))


def _check_limits(where: str, limits: Array | None) -> tuple[Array, ...]:
    """Raise ShapeError unless they are what range writes, or nothing. Returns what there is to read."""
    if limits is None:
        return ()
    _check(where, "limits", limits, FLOAT32, (2,))
    return (limits,)


def check_overlay(
    frame: Array,
    map: Array,
    rows: Axis,
    columns: Axis,
    palette: Array,
    alpha: float,
    dim: float,
    out: Array,
    limits: Array | None,
) -> None:
    """Raise ShapeError or InputError unless overlay can run on these. `out` may be the frame itself."""
    _check("overlay", "frame", frame, UINT8, (None, None, (3, 4)), free_rows=True)
    _check("overlay", "map", map, FLOAT32, (None, None))
    _check_axes("overlay", rows, columns)
    _check("overlay", "palette", palette, UINT8, (256, 3))
    for name, value in (("alpha", alpha), ("dim", dim)):
        if not 0 <= value <= 1:
            raise InputError(f"overlay: {name} must lie in [0, 1]; found {value}.")
    _check("overlay", "out", out, UINT8, frame.shape, writable=True, free_rows=True)
    read = _check_limits("overlay", limits)
    _check_apart("overlay", out, map, palette, *read, *([] if _same(out, frame) else [frame]))


def check_guided(map: Array, rows: Axis, columns: Axis, image: Array, out: Array, limits: Array | None) -> None:
    """Raise ShapeError unless guided can run on these. `out` may be the image itself."""
    _check("guided", "map", map, FLOAT32, (None, None))
    _check_axes("guided", rows, columns)
    _check("guided", "image", image, FLOATS, (None, None, None))
    _check("guided", "out", out, FLOAT32, image.shape, writable=True)
    read = _check_limits("guided", limits)
    _check_apart("guided", out, map, *read, *([] if _same(out, image) else [image]))


def check_preprocess(
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
    """Raise ShapeError or InputError unless preprocess can run on these."""
    for name, value, known in (("format", format, FORMATS), ("color", color, COLORS)):
        if value not in known:
            raise InputError(f"preprocess: unknown {name} {value!r}; expected one of {', '.join(known)}.")
    check_frame(frame, format)
    _check_axes("preprocess", rows, columns)
    channels = len(CHANNELS[color])
    for name, values in (("scale", scale), ("bias", bias), ("fill", fill)):
        _check("preprocess", name, values, FLOAT32, (channels,))
    _check("preprocess", "out", out, FLOATS, (channels, None, None), writable=True)
    _check_apart("preprocess", out, frame, scale, bias, fill)


def check_frame(frame: Array, format: str) -> None:
    """Raise ShapeError unless the frame is one of the format. Rows may lie apart, the pixels of a row may not."""
    packed = format not in ("gray", "gray16", "nv12")
    shape = (None, None, len(CHANNELS[format])) if packed else (None, None)
    _check("preprocess", f"{format} frame", frame, UINT16 if format == "gray16" else UINT8, shape, free_rows=True)
    if format == "nv12" and (frame.shape[0] % 3 or frame.shape[1] % 2):
        raise ShapeError(
            f"preprocess: an nv12 frame must have shape (height * 3 / 2, width), both even; found {frame.shape}."
        )


def _check(
    where: str,
    name: str,
    array: Array,
    dtypes: tuple[np.dtype[Any], ...],
    shape: tuple[Size, ...],
    *,
    writable: bool = False,
    free_rows: bool = False,
) -> None:
    """One array: its dtype, shape and memory. `free_rows`: rows may lie apart, the pixels of a row may not."""
    if not is_buffer(array) or array.dtype not in dtypes or not _shape_fits(array.shape, shape):
        expected = f"{' or '.join(dtype.name for dtype in dtypes)} {_shape_text(shape)}"
        raise ShapeError(f"{where}: {name} must be an array of {expected}; found {_found(array)}.")
    flags = array.flags
    if not flags.c_contiguous and not (free_rows and _rows_contiguous(array, writable)):
        what = "contiguous along its rows" if free_rows else "C-contiguous"
        raise ShapeError(
            f"{where}: {name} must be {what}; found strides {array.strides} for shape {array.shape} and "
            f"{array.dtype.name}. Pass numpy.ascontiguousarray(...)."
        )
    if writable and not flags.writeable:
        raise ShapeError(f"{where}: {name} must be writable; found a read-only array. Pass a copy.")
    if not flags.aligned:
        raise ShapeError(f"{where}: {name} must be aligned to its {array.dtype.name} elements. Pass a copy.")


def _shape_fits(found: tuple[int, ...], shape: tuple[Size, ...]) -> bool:
    if found == shape:  # most arrays have one shape to fit, and this runs for every frame
        return True
    return len(found) == len(shape) and all(map(_size_fits, found, shape))


def _size_fits(found: int, size: Size) -> bool:
    if size is None:
        return found <= MAX_SIDE
    return found in size if isinstance(size, tuple) else found == size


def _rows_contiguous(array: Array, writable: bool) -> bool:
    """Whether the elements of each row are contiguous, and, where it is written, no two rows overlap."""
    if array.size == 0:
        return True
    row = array[0]
    return bool(row.flags.c_contiguous) and (not writable or len(array) == 1 or abs(array.strides[0]) >= row.nbytes)


def _check_axes(where: str, rows: Axis, columns: Axis) -> None:
    for name, axis in (("rows", rows), ("columns", columns)):
        if not (math.isfinite(axis.scale) and math.isfinite(axis.offset)):
            raise ShapeError(f"{where}: {name} must have a finite scale and offset; found {axis}.")


def _check_apart(where: str, out: Array, *sources: Array) -> None:
    if any(_overlap(out, source) for source in sources):
        raise ShapeError(f"{where}: what is written must not overlap what is read. Pass a buffer of its own.")


def _overlap(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):  # NumPy's own answer costs a tenth
        return np.may_share_memory(one, other)
    (start, stop), (first, last) = _span(one), _span(other)
    return max(start, first) < min(stop, last)


def _span(array: Array) -> tuple[int, int]:
    """The addresses from the first byte of an array to behind its last one."""
    address = address_of(array)
    if array.flags.c_contiguous or array.nbytes == 0:
        return address, address + array.nbytes
    reach = [stride * (size - 1) for stride, size in zip(array.strides, array.shape, strict=True)]
    return address + sum(min(way, 0) for way in reach), address + sum(max(way, 0) for way in reach) + array.itemsize


def _same(out: Array, source: Array) -> bool:
    """Whether both are the same elements at the same addresses, which elementwise work may overwrite in place."""
    return out.dtype == source.dtype and out.strides == source.strides and address_of(out) == address_of(source)


def _shape_text(shape: tuple[Size, ...]) -> str:
    return "(" + ", ".join("*" if size is None else str(size).strip("()").replace(", ", "|") for size in shape) + ")"


def _found(array: Any) -> str:
    return f"{array.dtype.name} {array.shape}" if is_buffer(array) else f"a {type(array).__name__}"
