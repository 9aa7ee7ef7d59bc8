"""Where the evidence lies: one box a connected component of a heatmap.

Components are found on runs: the pixels of a row that stand together and reach the threshold. Two runs of
neighbouring rows belong together where they touch, diagonally too (8-connectivity).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError
from gcpp_edge.geometry import FrameFit, frame_box_from_input


class Box(NamedTuple):
    """A box in frame pixels: frame[y0:y1, x0:x1]. `share` is its part of all the evidence, 0 to 1."""

    x0: int
    y0: int
    x1: int
    y1: int
    share: float


class _Runs(NamedTuple):
    """Runs in reading order: row, first column, column behind the last, sum of the values. All of one length."""

    row: NDArray[np.intp]
    start: NDArray[np.intp]
    stop: NDArray[np.intp]
    evidence: NDArray[np.float64]


def component_boxes(heatmap: NDArray[np.float32], threshold: float) -> list[Box]:
    """Boxes around the connected parts of a heatmap that reach threshold times its maximum, most evidence first.

    heatmap: (H, W) float32, >= 0; pixels of 0 are evidence for nothing and lie in no box. Boxes are in its pixels.
    Raises InputError for a threshold outside [0, 1].
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"threshold: expected a share of the maximum between 0 and 1, found {threshold}.")
    total = float(heatmap.sum(dtype=np.float64))
    if not total > 0:
        return []
    runs = _runs(heatmap, threshold * float(heatmap.max()))
    components = _components(runs)
    # set, not numpy.unique, which imports numpy.ma: 20 ms of a command's start
    boxes = [_box(runs, components == component, total) for component in sorted(set(components.tolist()))]
    return sorted(boxes, key=lambda box: -box.share)


def frame_boxes(fit: FrameFit, boxes: list[Box]) -> list[Box]:
    """Boxes of the network's input in frame pixels, rounded; those that lie beside the frame are left out."""
    placed = [(frame_box_from_input(fit, box[:4]), box.share) for box in boxes]
    return [_rounded((x0, y0, x1, y1), share) for (x0, y0, x1, y1), share in placed if x0 < x1 and y0 < y1]


def _rounded(corners: tuple[float, float, float, float], share: float) -> Box:
    """Whole pixels, at least one a side."""
    x0, y0, x1, y1 = corners
    left, top = round(x0), round(y0)
    left, top = min(left, max(round(x1) - 1, 0)), min(top, max(round(y1) - 1, 0))
    return Box(left, top, max(round(x1), left + 1), max(round(y1), top + 1), share)


def _runs(heatmap: NDArray[np.float32], level: float) -> _Runs:
    height, width = heatmap.shape
    inside = np.zeros((height, width + 2), np.int8)
    inside[:, 1:-1] = (heatmap >= level) & (heatmap > 0)
    steps = np.diff(inside, axis=1)
    row, start = np.nonzero(steps == 1)
    stop = np.nonzero(steps == -1)[1]
    sums = np.zeros((height, width + 1))
    np.cumsum(heatmap, axis=1, dtype=np.float64, out=sums[:, 1:])
    return _Runs(row, start, stop, sums[row, stop] - sums[row, start])


def _components(runs: _Runs) -> NDArray[np.intp]:
    """For every run the first run of its component."""
    parents = list(range(len(runs.row)))
    for upper, lower in _touching(runs):
        _join(parents, upper, lower)
    return np.array([_root(parents, run) for run in parents], np.intp)


def _touching(runs: _Runs) -> list[tuple[int, int]]:
    """Pairs of runs of neighbouring rows that share an edge or a corner."""
    pairs = []
    row, start, stop = runs.row.tolist(), runs.start.tolist(), runs.stop.tolist()  # plain numbers: ten times faster
    first = 0
    for lower in range(len(row)):
        while row[first] < row[lower] - 1:
            first += 1
        upper = first
        while row[upper] == row[lower] - 1 and start[upper] <= stop[lower]:
            if stop[upper] >= start[lower]:
                pairs.append((upper, lower))
            upper += 1
    return pairs


def _join(parents: list[int], one: int, other: int) -> None:
    roots = sorted((_root(parents, one), _root(parents, other)))
    parents[roots[1]] = roots[0]


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


def _box(runs: _Runs, members: NDArray[Any], total: float) -> Box:
    return Box(
        int(runs.start[members].min()),
        int(runs.row[members].min()),
        int(runs.stop[members].max()),
        int(runs.row[members].max()) + 1,
        float(runs.evidence[members].sum()) / total,
    )
