"""Whether a frame shows another scene than the one before it.

Both are made small and grey, less their mean, in units of their common standard deviation, so that neither exposure
nor the bits of a camera count. A cut differs in two ways at once: position by position, as a moving camera does too,
and in the histogram, which motion leaves nearly as it was. Both distances are those of shot boundary detection
(Lienhart 1999, "Comparison of automatic shot boundary detection algorithms").

Chosen by measurement at 640 x 480 (docs/live.md has the counts). Sampled without pooling, fine texture that moves by
half a per cent of the width looked like a cut.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.frames import frame_size, has_colors

GRID = (24, 32)  # cells of a thumbnail, at most
PIXELS = 0.75  # mean distance of cells, in standard deviations, beyond which it may be a cut
HISTOGRAM = 0.12  # and share of cells that changed their place in the histogram
BINS, REACH = 16, 3  # of the histogram, over plus and minus REACH standard deviations
FLOORS = {8: 4.0, 16: 64.0}  # by bits: a standard deviation below this is noise (64 is 4 of a 12-bit sensor's 4096)


class Thumbnail(NamedTuple):
    """A small grey frame less its mean, (h, w) float32, its variance, and the floor of it that its bits have."""

    cells: NDArray[np.float32]
    variance: float
    floor: float


def thumbnail(frame: Any, format: str) -> Thumbnail | None:
    """Of a frame in a format of frames.py, at most GRID, each cell the mean of four pixels; None of one on a GPU."""
    if not isinstance(frame, np.ndarray):
        return None
    height, width = frame_size(frame, format)
    steps = [-(-side // (2 * cells)) for side, cells in zip((height, width), GRID, strict=True)]
    sample = frame[steps[0] // 2 : height : steps[0], steps[1] // 2 : width : steps[1]]
    cells = _pooled(_grey(sample, format))
    cells -= cells.mean()
    return Thumbnail(cells, float(np.vdot(cells, cells)) / cells.size, FLOORS[16 if format == "gray16" else 8])


def distances(one: Thumbnail, other: Thumbnail) -> tuple[float, float]:
    """Mean distance of the cells in standard deviations, and total variation of the histograms, 0 to 1.

    Both thumbnails are of frames of one size.
    """
    unit = float(np.sqrt((one.variance + other.variance) / 2 + one.floor * other.floor))
    pixels = float(np.abs(one.cells - other.cells).mean()) / unit
    change = _histogram(one, unit) - _histogram(other, unit)
    return pixels, float(np.abs(change).sum()) / (2 * one.cells.size)


def is_cut(one: Thumbnail, other: Thumbnail) -> bool:
    """Whether they show different scenes."""
    pixels, histogram = distances(one, other)
    return pixels > PIXELS and histogram > HISTOGRAM


def _grey(sample: NDArray[Any], format: str) -> NDArray[np.float32]:
    """(blue + 2 green + red) / 4, whichever of them comes first."""
    if not has_colors(format):
        return np.asarray(sample.reshape(sample.shape[:2]), np.float32)
    grey = sample[:, :, 1].astype(np.float32)
    grey *= 2
    grey += sample[:, :, 0]
    grey += sample[:, :, 2]
    grey /= 4
    return grey


def _pooled(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means of 2 x 2 pixels; a side of one pixel stays."""
    height, width = (side // 2 * 2 for side in grey.shape)
    if height:
        grey = grey[:height:2] + grey[1:height:2]
        grey *= 0.5
    if width:
        grey = grey[:, :width:2] + grey[:, 1:width:2]
        grey *= 0.5
    return grey


def _histogram(one: Thumbnail, unit: float) -> NDArray[np.intp]:
    places = one.cells * (BINS / (2 * REACH) / unit)
    places += BINS / 2
    np.clip(places, 0, BINS - 1, out=places)
    return np.bincount(places.astype(np.intp).ravel(), minlength=BINS)
