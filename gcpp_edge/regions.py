"""A region of a frame as a region of the network's output: how much of each cell it covers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.geometry import Fit, FrameFit, frame_edges


def region_on_grid(mask: Any, fit: FrameFit, height: int, width: int) -> NDArray[np.float32]:
    """The mean of a mask over each cell of a grid on the network's input, (height, width) float32.

    mask: (H, W) of the frame's size; bool or whole numbers (0 is outside, all else inside), or floats of 0 or more,
    which are weights. What lies beside the frame (a letterbox's filling) counts as outside.
    Raises ShapeError, also where nothing of the region lies where the network looks, and InputError.
    """
    weights = _checked(mask, (fit.rows.frame, fit.columns.frame))
    by_rows = _means(weights, fit.rows, height)
    region = _means(by_rows.T, fit.columns, width).T
    if not region.any():
        raise ShapeError("region: empty, or none of it lies where the network looks. Mark pixels with 1.")
    return np.ascontiguousarray(region, np.float32)


def _checked(mask: Any, size: tuple[int, int]) -> NDArray[Any]:
    """The mask as weights. Raises ShapeError or InputError."""
    found = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
    if not isinstance(mask, np.ndarray) or mask.shape != size or mask.dtype.kind not in "biuf":
        raise ShapeError(f"region: expected a mask {size} of the frame's size, bool, uint8 or float; found {found}.")
    if mask.dtype.kind != "f":
        inside: NDArray[Any] = mask != 0
        return inside
    if not (np.isfinite(mask).all() and (mask >= 0).all()):
        raise InputError("region: expected weights of 0 or more; it holds negative numbers, NaN or infinity.")
    return mask


def _means(values: NDArray[Any], fit: Fit, cells: int) -> NDArray[np.float64]:
    """Means along the first axis over the cells, (cells, ...), by differences of running sums at the cells' edges."""
    edges = np.array(frame_edges(fit, cells))
    sums = np.zeros((len(values) + 1, *values.shape[1:]))
    np.cumsum(values, axis=0, dtype=np.float64, out=sums[1:])
    inside = np.clip(edges, 0, len(values))
    lower = np.minimum(inside.astype(np.intp), len(values) - 1)
    share = (inside - lower)[:, None]
    at_edges = sums[lower] * (1 - share) + sums[lower + 1] * share
    means: NDArray[np.float64] = np.maximum(np.diff(at_edges, axis=0), 0) / (edges[1] - edges[0])
    return means
