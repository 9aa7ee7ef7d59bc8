"""The CUDA kernels behind the interface of reference.py: arguments as C structs, grids, and names.

It neither imports nor calls CUDA: launching is the device's business. The structs are those of cuda/gcpp_cuda.h, where
the grids are written down too.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from gcpp_edge.errors import ShapeError
from gcpp_edge.kernels.arguments import FORMATS, RULES
from gcpp_edge.kernels.axis import Axis

Size = tuple[int, int, int]

MAX_MAPS = 65535
WARP_POSITIONS = 1024
ROWS, COLUMNS, BYTE_COLUMNS = 8, 32, 128
RANGE_THREADS = 256
ONE = 65536  # a share of 1 in 16-bit fixed point

SUFFIXES = {"f": "f32", "e": "f16", "B": "u8"}  # by NumPy's character of a dtype


class Launch(Protocol):
    """Enqueues a kernel of the module on the device's stream. `arguments` is the one struct that it takes, by value."""

    def __call__(self, name: str, grid: Size, block: Size, shared_bytes: int, arguments: bytes, /) -> None: ...


class AxisArgument(ctypes.Structure):
    """gcpp_axis."""

    _fields_ = [
        ("scale", ctypes.c_double),
        ("offset", ctypes.c_double),
        ("start", ctypes.c_int32),
        ("stop", ctypes.c_int32),
    ]


class CamArguments(ctypes.Structure):
    """gcpp_cuda_cam."""

    _fields_ = [
        ("activations", ctypes.c_uint64),
        ("gradients", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("weights", ctypes.c_uint64),
        ("poles", ctypes.c_uint64),
        ("channel_poles", ctypes.c_uint64),
        ("channels", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("maps", ctypes.c_int32),
        ("targets", ctypes.c_int32),
        ("rule", ctypes.c_int32),
        ("constant_gradients", ctypes.c_int32),
        ("relu", ctypes.c_int32),
        ("unscale", ctypes.c_float),
    ]


class RangeArguments(ctypes.Structure):
    """gcpp_cuda_range."""

    _fields_ = [
        ("values", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("maps", ctypes.c_int64),
        ("positions", ctypes.c_int64),
        ("zero_low", ctypes.c_int32),
    ]


class MapArgument(ctypes.Structure):
    """gcpp_cuda_map."""

    _fields_ = [
        ("values", ctypes.c_uint64),
        ("limits", ctypes.c_uint64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("rows", AxisArgument),
        ("columns", AxisArgument),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
    ]


class HeatmapArguments(ctypes.Structure):
    """gcpp_cuda_heatmap."""

    _fields_ = [
        ("map", MapArgument),
        ("out", ctypes.c_uint64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
    ]


class OverlayArguments(ctypes.Structure):
    """gcpp_cuda_overlay."""

    _fields_ = [
        ("map", MapArgument),
        ("frame", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("palette", ctypes.c_uint64),
        ("frame_stride_bytes", ctypes.c_int64),
        ("out_stride_bytes", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("keep", ctypes.c_int32),
        ("keep_unseen", ctypes.c_int32),
    ]


class GuidedArguments(ctypes.Structure):
    """gcpp_cuda_guided."""

    _fields_ = [
        ("map", MapArgument),
        ("image", ctypes.c_uint64),
        ("out", ctypes.c_uint64),
        ("channels", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
    ]


class PreprocessArguments(ctypes.Structure):
    """gcpp_cuda_preprocess."""

    _fields_ = [
        ("frame", ctypes.c_uint64),
        ("row_stride_bytes", ctypes.c_int64),
        ("out", ctypes.c_uint64),
        ("rows", AxisArgument),
        ("columns", AxisArgument),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("out_height", ctypes.c_int32),
        ("out_width", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("color", ctypes.c_int32),
        ("scale", ctypes.c_float * 4),
        ("bias", ctypes.c_float * 4),
        ("fill", ctypes.c_float * 4),
    ]


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "gcpp_axis": AxisArgument,
    "gcpp_cuda_cam": CamArguments,
    "gcpp_cuda_range": RangeArguments,
    "gcpp_cuda_map": MapArgument,
    "gcpp_cuda_heatmap": HeatmapArguments,
    "gcpp_cuda_overlay": OverlayArguments,
    "gcpp_cuda_guided": GuidedArguments,
    "gcpp_cuda_preprocess": PreprocessArguments,
}


def device_address(buffer: Any) -> int:
    """Where a device's buffer lies. Raises ShapeError for an array of the host, which a kernel cannot reach."""
    if isinstance(buffer, np.ndarray):
        raise ShapeError(
            f"A CUDA kernel was given an array in host memory ({buffer.dtype.name} {buffer.shape}). "
            "Upload it to a buffer of the device first."
        )
    return int(buffer.address)


class CudaKernels:
    """The raw kernels on buffers of a device. Nothing is allocated, nothing waits: all may be captured in a graph.

    launch: enqueues a kernel. scratch: the address of that many bytes on the device. They stay where they are until
    the device is closed, since a captured graph comes back to them, and may be the same ones for every call: a call's
    kernels follow one another on one stream. Streams that run at once need a table each. address: of a buffer.
    """

    def __init__(
        self, launch: Launch, scratch: Callable[[int], int], address: Callable[[Any], int] = device_address
    ) -> None:
        self._launch, self._scratch, self._address = launch, scratch, address

    def cam(
        self,
        activations: Any,
        gradients: Any,
        rule: str,
        relu: bool,
        out: Any,
        weights: Any = None,
        gradient_scale: float = 1.0,
        poles: Any = None,
    ) -> None:
        """As KernelTable.cam: the weights of all channels, then their sums."""
        targets = gradients.shape[1] if gradients.ndim > activations.ndim else 1
        channels, space = activations.shape[1], activations.shape[2:]
        maps, positions = activations.shape[0] * targets, math.prod(space)
        if maps == 0:
            return
        needs_counts = poles is not None and rule == "gradcam++-signed"
        address_of_weights, address_of_counts = self._cam_scratch(maps * channels, weights, needs_counts)
        packed = CamArguments(
            activations=self._address(activations),
            gradients=self._address(gradients),
            out=self._address(out),
            weights=address_of_weights,
            poles=0 if poles is None else self._address(poles),
            channel_poles=address_of_counts,
            maps=maps,
            targets=targets,
            channels=channels,
            positions=positions,
            rule=RULES.index(rule),
            constant_gradients=math.prod(gradients.shape[-len(space) :]) != positions,
            relu=relu,
            unscale=1 / gradient_scale,
        )
        is_large = positions > WARP_POSITIONS
        rows = min(maps, MAX_MAPS)
        dtypes = f"{_suffix(activations)}_{_suffix(gradients)}"
        block = (256, 1, 1) if is_large else (32, 8, 1)
        if channels:
            grid = (_blocks(channels, block[1]), rows, 1)
            self._launch(f"gcpp_cam_weights_{dtypes}_cuda", grid, block, 0, bytes(packed))
        block = (32, 32, 1) if is_large else (8, 128, 1)
        grid = (max(_blocks(positions, block[0]), 1), rows, 1)
        self._launch(f"gcpp_cam_sum_{_suffix(activations)}_cuda", grid, block, 0, bytes(packed))

    def _cam_scratch(self, count: int, weights: Any, needs_counts: bool) -> tuple[int, int]:
        """Addresses of `count` weights, the caller's own where there are any, and of as many counts, or 0."""
        own = 0 if weights is None else self._address(weights)
        bytes_of_weights = 0 if own else 4 * count
        bytes_of_counts = 4 * count if needs_counts else 0
        if not bytes_of_weights + bytes_of_counts:
            return own, 0
        start = self._scratch(bytes_of_weights + bytes_of_counts)
        return own or start, start + bytes_of_weights if needs_counts else 0

    def range(self, map: Any, zero_low: bool, out: Any) -> None:
        """As KernelTable.range: a block a map."""
        maps = out.shape[0] if len(out.shape) == 2 else 1
        if maps == 0:
            return
        packed = RangeArguments(
            values=self._address(map),
            out=self._address(out),
            maps=maps,
            positions=math.prod(map.shape) // maps,
            zero_low=zero_low,
        )
        self._launch("gcpp_range_f32_cuda", (maps, 1, 1), (RANGE_THREADS, 1, 1), 0, bytes(packed))

    def heatmap(
        self, map: Any, rows: Axis, columns: Axis, low: float, high: float, out: Any, limits: Any = None
    ) -> None:
        """As KernelTable.heatmap."""
        height, width = out.shape
        packed = HeatmapArguments(
            map=self._map(map, rows, columns, low, high, limits, (height, width)),
            out=self._address(out),
            height=height,
            width=width,
        )
        suffix = _suffix(out)
        self._launch_tiles(
            f"gcpp_heatmap_{suffix}_cuda", height, width, BYTE_COLUMNS if suffix == "u8" else COLUMNS, packed
        )

    def overlay(
        self,
        frame: Any,
        map: Any,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        palette: Any,
        alpha: float,
        dim: float,
        out: Any,
        limits: Any = None,
    ) -> None:
        """As KernelTable.overlay. The palette lies on the device too."""
        height, width, channels = frame.shape
        packed = OverlayArguments(
            map=self._map(map, rows, columns, low, high, limits, (height, width)),
            frame=self._address(frame),
            out=self._address(out),
            palette=self._address(palette),
            frame_stride_bytes=frame.strides[0],
            out_stride_bytes=out.strides[0],
            height=height,
            width=width,
            channels=channels,
            keep=_fixed_point(1 - alpha),
            keep_unseen=_fixed_point(dim),
        )
        self._launch_tiles("gcpp_overlay_u8_cuda", height, width, BYTE_COLUMNS, packed)

    def guided(
        self,
        map: Any,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        image: Any,
        out: Any,
        limits: Any = None,
    ) -> None:
        """As KernelTable.guided."""
        channels, height, width = image.shape
        packed = GuidedArguments(
            map=self._map(map, rows, columns, low, high, limits, (height, width)),
            image=self._address(image),
            out=self._address(out),
            channels=channels,
            height=height,
            width=width,
        )
        if channels:
            self._launch_tiles(f"gcpp_guided_{_suffix(image)}_cuda", height, width, COLUMNS, packed)

    def preprocess(
        self,
        frame: Any,
        format: str,
        rows: Axis,
        columns: Axis,
        color: str,
        scale: Any,
        bias: Any,
        fill: Any,
        out: Any,
    ) -> None:
        """As KernelTable.preprocess. scale, bias and fill are arrays of the host: they travel with the launch."""
        height = frame.shape[0] * 2 // 3 if format == "nv12" else frame.shape[0]
        _, out_height, out_width = out.shape
        packed = PreprocessArguments(
            frame=self._address(frame),
            row_stride_bytes=frame.strides[0],
            out=self._address(out),
            rows=_axis(rows, out_height, height),
            columns=_axis(columns, out_width, frame.shape[1]),
            height=height,
            width=frame.shape[1],
            out_height=out_height,
            out_width=out_width,
            format=FORMATS.index(format),
            color=FORMATS.index(color),
            scale=tuple(scale),
            bias=tuple(bias),
            fill=tuple(fill),
        )
        self._launch_tiles(f"gcpp_preprocess_{_suffix(out)}_cuda", out_height, out_width, COLUMNS, packed)

    def _map(
        self,
        values: Any,
        rows: Axis,
        columns: Axis,
        low: float,
        high: float,
        limits: Any,
        size: tuple[int, int],
    ) -> MapArgument:
        height, width = values.shape
        return MapArgument(
            values=self._address(values),
            limits=0 if limits is None else self._address(limits),
            height=height,
            width=width,
            rows=_axis(rows, size[0], height),
            columns=_axis(columns, size[1], width),
            low=low,
            high=high,
        )

    def _launch_tiles(self, name: str, height: int, width: int, columns: int, packed: ctypes.Structure) -> None:
        if height and width:
            grid = (_blocks(width, columns), _blocks(height, ROWS), 1)
            self._launch(name, grid, (32, ROWS, 1), 0, bytes(packed))


def _axis(axis: Axis, destination_size: int, source_size: int) -> AxisArgument:
    return AxisArgument(axis.scale, axis.offset, *axis.seen(destination_size, source_size))


def _blocks(count: int, block: int) -> int:
    return -(-count // block)


def _fixed_point(share: float) -> int:
    return int(share * ONE + 0.5)


def _suffix(buffer: Any) -> str:
    return SUFFIXES[np.dtype(buffer.dtype).char]
