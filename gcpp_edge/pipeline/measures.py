"""What rules can look at: one number of an explanation. One table, MEASURES; a new one is a function and an entry.

M is the positive part of the raw map, of a clip its sum over time, and p = M / sum M. A map without evidence has no p:
the measures then say what a watchdog should hear (nothing inside, spread everywhere, a jump of 1 from or to one that
has).
"""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from math import exp, hypot, inf
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import Contract
from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.explanation import Explanation
from gcpp_edge.geometry import Fit, FrameFit, Point, frame_edges, frame_point_from_input
from gcpp_edge.regions import region_on_grid

Measure = Callable[[Explanation], "float | None"]  # None: nothing to compare with yet

MEDIAN_OF = 100  # evidences of a class that evidence_ratio's median is taken of
MEDIAN_FROM = 10  # and how many there must be before it says something
CLASSES_KEPT = 32  # classes that it remembers, the latest ones


class Known(NamedTuple):
    """A measure with a name. begin: makes one with a memory of its own, from the numbers behind the name.

    is_share: it lies in [0, 1]. argument: how its numbers are written, "" for none.
    """

    begin: Callable[..., Measure]
    is_share: bool
    argument: str
    meaning: str


def inside(region: Sequence[float] | NDArray[Any]) -> Measure:
    """Share of the evidence inside a region, 0 to 1: sum over cells of p times how much of the cell it covers.

    region: a box (x0, y0, x1, y1) in shares of the frame's sides, or a mask of the frame's size (regions.py).
    Evidence beside the frame, in a letterbox's filling, is outside. 0 of a map without evidence. Raises InputError for
    a box that is none; measuring raises ShapeError where nothing of it lies where the network looks.
    """
    is_mask = isinstance(region, np.ndarray) and region.ndim == 2
    box = None if is_mask else checked_box(region)
    covered: dict[Any, NDArray[Any]] = {}  # of the latest geometry

    def measure(explanation: Explanation) -> float:
        M, fit = _evidence(explanation), explanation.drawing.fit
        key = fit, M.shape
        if key not in covered:
            covered.clear()
            covered[key] = region_on_grid(region, fit, *M.shape) if box is None else _box_on_grid(box, fit, *M.shape)
        total = float(M.sum())
        return float(np.vdot(M, covered[key])) / total if total > 0 else 0.0

    return measure


def spread(explanation: Explanation) -> float:
    """Share of the map that its evidence fills: exp(-sum p ln p) / cells. 1 evenly, 1 / cells in one cell alone.

    The exponential of the entropy is the number of cells that would hold as much evenly (Hill 1973, "Diversity and
    evenness", order 1); as a share it does not depend on the map's resolution. 1 of a map without evidence.
    """
    p = _shares(explanation)
    if p is None:
        return 1.0
    some = p[p > 0]
    return exp(-float(np.vdot(some, np.log(some)))) / p.size


def jump() -> Measure:
    """Share of the evidence that is elsewhere than in the frame before: total variation, sum |p - q| / 2, 0 to 1.

    None without a map of the same size before it.
    """
    before: list[NDArray[np.float64]] = []

    def measure(explanation: Explanation) -> float | None:
        p = _shares(explanation)
        now = np.zeros(explanation.map.shape[-2:]) if p is None else p
        last = before.pop() if before else None
        before.append(now)
        if last is None or last.shape != now.shape:
            return None
        if not (now.any() and last.any()):
            return float(now.any() != last.any())
        return min(float(np.abs(now - last).sum()) / 2, 1.0)

    return measure


def move() -> Measure:
    """How far the centre of the evidence moved since the frame before, in shares of the frame's diagonal.

    None without a frame of the same size before it, or where either has no evidence.
    """
    before: list[tuple[FrameFit, Point | None]] = []

    def measure(explanation: Explanation) -> float | None:
        fit, now = explanation.drawing.fit, _centre(explanation)
        last_fit, last = before.pop() if before else (None, None)
        before.append((fit, now))
        if last_fit != fit or last is None or now is None:
            return None
        return hypot(now[0] - last[0], now[1] - last[1]) / hypot(fit.columns.frame, fit.rows.frame)

    return measure


def evidence_ratio() -> Measure:
    """Evidence over its median in the latest frames of the same class, method and model; they exclude this one.

    None before there are MEDIAN_FROM of them. What stays weak becomes the median after half of MEDIAN_OF frames.
    """
    kinds: OrderedDict[tuple[int, str, str], _Median] = OrderedDict()
    of: list[Contract] = []  # the model, which must stay the same

    def measure(explanation: Explanation) -> float | None:
        contract = explanation.drawing.contract
        if of != [contract]:
            of[:] = [contract]
            kinds.clear()
        key = explanation.class_index, explanation.method, explanation.mode
        usual = kinds.setdefault(key, _Median())
        kinds.move_to_end(key)
        if len(kinds) > CLASSES_KEPT:
            kinds.popitem(last=False)
        evidence = explanation.evidence
        found = usual.value()
        usual.add(evidence)
        if found is None:
            return None
        if found == 0:
            return 1.0 if evidence == 0 else inf
        return evidence / found

    return measure


MEASURES: dict[str, Known] = {
    "inside": Known(
        lambda *box: inside(box), True, "x0,y0,x1,y1", "share of the evidence inside a box, in shares of the frame"
    ),
    "spread": Known(lambda: spread, True, "", "share of the map that the evidence fills"),
    "jump": Known(jump, True, "", "share of the evidence that is elsewhere than in the frame before"),
    "move": Known(move, True, "", "how far its centre moved since the frame before, in shares of the diagonal"),
    "probability": Known(lambda: lambda explanation: explanation.probability, True, "", "of the class explained"),
    "evidence": Known(lambda: lambda explanation: explanation.evidence, False, "", "sum of the raw map"),
    "evidence_ratio": Known(evidence_ratio, False, "", "evidence over its running median for the class"),
    "poles": Known(lambda: lambda explanation: explanation.poles, False, "", "how often a weight met a pole"),
}


def checked_box(region: Any) -> tuple[float, float, float, float]:
    """A box in shares of the frame. Raises InputError for anything else."""
    box = tuple(region) if isinstance(region, (Sequence, np.ndarray)) else ()
    is_within = len(box) == 4 and all(isinstance(side, (int, float, np.number)) and 0 <= side <= 1 for side in box)
    if not is_within or not (box[0] < box[2] and box[1] < box[3]):
        raise InputError(
            f"inside: expected a box x0,y0,x1,y1 in shares of the frame, 0 to 1, with x0 < x1 and y0 < y1; "
            f"found {','.join(format(side) for side in box) or repr(region)}."
        )
    return box[0], box[1], box[2], box[3]


class _Median:
    """Running, of the latest MEDIAN_OF values."""

    def __init__(self) -> None:
        self._latest: deque[float] = deque()
        self._ordered: list[float] = []

    def add(self, value: float) -> None:
        if len(self._latest) == MEDIAN_OF:
            self._ordered.remove(self._latest.popleft())
        self._latest.append(value)
        insort(self._ordered, value)

    def value(self) -> float | None:
        return median(self._ordered) if len(self._ordered) >= MEDIAN_FROM else None


def _evidence(explanation: Explanation) -> NDArray[np.float64]:
    """M, (h, w)."""
    M = np.maximum(explanation.map, 0).astype(np.float64)
    return np.asarray(M.sum(axis=0) if M.ndim == 3 else M)


def _shares(explanation: Explanation) -> NDArray[np.float64] | None:
    """p, (h, w), or None where there is no evidence."""
    M = _evidence(explanation)
    total = float(M.sum())
    return M / total if total > 0 else None


def _centre(explanation: Explanation) -> Point | None:
    """Centre of the evidence, (x, y) in pixels of the frame."""
    p, fit = _shares(explanation), explanation.drawing.fit
    if p is None:
        return None
    y = float(p.sum(axis=1) @ (np.arange(p.shape[0]) + 0.5)) * fit.rows.input / p.shape[0]
    x = float(p.sum(axis=0) @ (np.arange(p.shape[1]) + 0.5)) * fit.columns.input / p.shape[1]
    return frame_point_from_input(fit, (x, y))


def _box_on_grid(box: tuple[float, float, float, float], fit: FrameFit, height: int, width: int) -> NDArray[np.float64]:
    """How much of each cell of the map the box covers, (height, width)."""
    rows = _covered(fit.rows, height, box[1], box[3])
    columns = _covered(fit.columns, width, box[0], box[2])
    if not (rows.any() and columns.any()):
        raise ShapeError("inside: none of the box lies where the network looks.")
    return np.outer(rows, columns)


def _covered(fit: Fit, cells: int, start: float, stop: float) -> NDArray[np.float64]:
    edges = np.array(frame_edges(fit, cells))
    inside_edges = np.clip(edges, start * fit.frame, stop * fit.frame)
    return np.asarray(np.diff(inside_edges) / np.diff(edges))
