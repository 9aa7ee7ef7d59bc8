"""Where every pixel goes: frame <-> network input <-> map, for stretch, crop and letterbox, and back.

A frame is first resized, each side on its own, then a window of the input's size is taken from it: inside it (crop),
around it (letterbox) or all of it (stretch). So one `Fit` a side says everything, and every Axis follows from it.

Positions are half-pixel ones: pixel d covers [d, d + 1), its centre is d + 0.5. Boxes and points are in these edge
coordinates, so that a whole image is (0, 0, width, height).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

from gcpp_edge.contract import Geometry, Preprocessing
from gcpp_edge.errors import FrameError
from gcpp_edge.kernels import Axis

Point = tuple[float, float]  # x, y
Rectangle = tuple[float, float, float, float]  # x0, y0, x1, y1


class Fit(NamedTuple):
    """How one side of a frame meets the same side of the input, in pixels.

    The frame's `frame` pixels are resized to `resized` of them, and the input's pixel 0 lies at `offset` in these:
    0 for stretch, positive for a crop, negative where a letterbox is filled.
    """

    frame: int
    input: int
    resized: int
    offset: int

    @property
    def resize(self) -> float:
        """Input pixels per frame pixel."""
        return self.resized / self.frame


class FrameFit(NamedTuple):
    """Both sides of a frame."""

    rows: Fit
    columns: Fit


class Axes(NamedTuple):
    """Both sides of a resampling, as the kernels take them."""

    rows: Axis
    columns: Axis


@lru_cache(maxsize=64)
def fit_frame(height: int, width: int, preprocessing: Preprocessing) -> FrameFit:
    """How a frame of this size is brought to the network's input.

    Raises FrameError for an empty frame.
    """
    if height < 1 or width < 1:
        raise FrameError(f"An empty frame: expected at least 1 x 1 pixel, found {height} x {width} (height x width).")
    frame, size = (height, width), (preprocessing.height, preprocessing.width)
    resized, offsets = _PLACEMENTS[preprocessing.geometry.kind](frame, size, preprocessing.geometry)
    rows, columns = (Fit(*sides) for sides in zip(frame, size, resized, offsets, strict=True))
    return FrameFit(rows, columns)


def input_from_frame(fit: FrameFit) -> Axes:
    """Axes of `preprocess`: for a pixel of the input, its place in the frame; what lies beside the frame is filled."""
    return Axes(*(_input_from_frame(side) for side in fit))


def frame_from_map(fit: FrameFit, map_height: int, map_width: int) -> Axes:
    """Axes of a heatmap at the frame's size; frame pixels outside [start, stop) were never seen by the network."""
    return Axes(_frame_from_map(fit.rows, map_height), _frame_from_map(fit.columns, map_width))


def input_from_map(fit: FrameFit, map_height: int, map_width: int) -> Axes:
    """Axes of a heatmap at the input's size. The network saw all of it, its letterbox filling too."""
    return Axes(stretch_axis(fit.rows.input, map_height), stretch_axis(fit.columns.input, map_width))


def stretch_axis(destination: int, source: int) -> Axis:
    """Axis that resizes `source` samples to `destination` ones, as OpenCV's INTER_LINEAR does."""
    return Axis(source / destination, 0.0, 0, destination)


def frame_edges(fit: Fit, cells: int) -> list[float]:
    """Edges of the cells of a grid over the network's input, in the frame; some may lie outside it."""
    return [_frame_position(fit, cell * fit.input / cells) for cell in range(cells + 1)]


def frame_point_from_input(fit: FrameFit, point: Point) -> Point:
    """A point (x, y) of the network's input, in the frame; it may lie outside it."""
    x, y = point
    return _frame_position(fit.columns, x), _frame_position(fit.rows, y)


def input_point_from_frame(fit: FrameFit, point: Point) -> Point:
    """A point (x, y) of the frame, in the network's input; it may lie outside it."""
    x, y = point
    return _input_position(fit.columns, x), _input_position(fit.rows, y)


def frame_box_from_input(fit: FrameFit, box: Rectangle) -> Rectangle:
    """A box of the network's input, in the frame and cut to it; empty (x1 == x0 or y1 == y0) if it lies beside it."""
    x0, y0 = frame_point_from_input(fit, box[:2])
    x1, y1 = frame_point_from_input(fit, box[2:])
    return _cut((x0, y0, x1, y1), fit.columns.frame, fit.rows.frame)


def input_box_from_frame(fit: FrameFit, box: Rectangle) -> Rectangle:
    """A box of the frame, in the network's input and cut to it; empty if the network never saw it."""
    x0, y0 = input_point_from_frame(fit, box[:2])
    x1, y1 = input_point_from_frame(fit, box[2:])
    return _cut((x0, y0, x1, y1), fit.columns.input, fit.rows.input)


def _stretch(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    return size, (0, 0)


def _crop(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """Resize + CenterCrop as torchvision rounds them: the tight side to input / share, the other side by int()."""
    wanted = tuple(round(side / geometry.share) for side in size)
    tight = 0 if wanted[0] * frame[1] >= wanted[1] * frame[0] else 1
    loose = 1 - tight
    resized = list(wanted)
    resized[loose] = max(wanted[loose], int(wanted[tight] * frame[loose] / frame[tight]))
    return tuple(resized), tuple(round((r - side) / 2) for r, side in zip(resized, size, strict=True))


def _letterbox(frame: tuple[int, int], size: tuple[int, int], geometry: Geometry) -> tuple[tuple[int, ...], ...]:
    """Centred, as YOLO's (ultralytics LetterBox): an odd pixel of filling goes to the bottom and to the right."""
    ratio = min(size[0] / frame[0], size[1] / frame[1])
    resized = tuple(max(1, round(side * ratio)) for side in frame)
    # round(half - 0.1): ultralytics' own way of giving the odd pixel to the far side
    return resized, tuple(-round((side - r) / 2 - 0.1) for r, side in zip(resized, size, strict=True))


_PLACEMENTS = {"stretch": _stretch, "crop": _crop, "letterbox": _letterbox}


def _input_from_frame(fit: Fit) -> Axis:
    start, stop = max(0, -fit.offset), min(fit.input, fit.resized - fit.offset)
    return Axis(1 / fit.resize, fit.offset / fit.resize, start, stop)


def _frame_from_map(fit: Fit, cells: int) -> Axis:
    cells_per_input = cells / fit.input
    start, stop = (_first_centre_from(_frame_position(fit, edge)) for edge in (0, fit.input))
    start, stop = max(0, start), min(fit.frame, stop)
    return Axis(fit.resize * cells_per_input, -fit.offset * cells_per_input, start, max(start, stop))


def _first_centre_from(position: float) -> int:
    """The first pixel whose centre lies at `position` or behind it."""
    return ceil(round(position - 0.5, 9))  # 9 digits: a centre that lies on the edge must not fall off by rounding


def _frame_position(fit: Fit, position: float) -> float:
    return (position + fit.offset) / fit.resize


def _input_position(fit: Fit, position: float) -> float:
    return position * fit.resize - fit.offset


def _cut(box: Rectangle, width: int, height: int) -> Rectangle:
    x0, y0, x1, y1 = box
    return (
        min(max(x0, 0.0), float(width)),
        min(max(y0, 0.0), float(height)),
        min(max(x1, 0.0), float(width)),
        min(max(y1, 0.0), float(height)),
    )
