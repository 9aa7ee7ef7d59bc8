"""Steadiness over time: maps smoothed exponentially, and the range they are shown in with them."""

from __future__ import annotations

from dataclasses import replace
from math import expm1
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.explanation import Explanation
from gcpp_edge.geometry import FrameFit
from gcpp_edge.methods import Range
from gcpp_edge.pipeline.cuts import Thumbnail, is_cut, thumbnail


class _Kind(NamedTuple):
    """What two explanations must share for a mean of their maps to say something."""

    class_index: int
    method: str
    mode: str
    shape: tuple[int, ...]
    fit: FrameFit
    contract: Any


class Smoother:
    """Smooths the explanations of one stream, one after the other, in one thread.

    With dt seconds since the frame before and the time constant tau, raw map M and shown range [low, high]:

        weight = 1 - exp(-dt / tau)    smoothed = smoothed + weight (raw - smoothed)    for M, low and high alike

    so that what is seen depends on seconds and not on the frame rate: tau after a step 63 % of it is shown. Since all
    three are the same mean, the smoothed map never leaves its range, nothing is cut off, and the picture shown is the
    mean of the frames' own pictures, each weighted by its high - low: a frame without evidence, whose own picture is
    noise stretched to full colour, hardly counts. Constant frames look as without smoothing; evidence that jumps about
    looks dim, as it should.

    It begins anew where a mean would mix what does not belong together: another class, method, mode, model, or size of
    map or frame; a time that stands still or goes back; a cut (cuts.py; frames that lie on a GPU are not looked at).

    Source: the exponential moving average at uneven intervals, Eckner 2019, "Algorithms for unevenly spaced time
    series: moving averages and other rolling operators", in its next-point form.
    """

    def __init__(self) -> None:
        self.resets = 0  # times that it began anew, the first frame not counted
        self._kind: _Kind | None = None
        self._view: Thumbnail | None = None
        self._timestamp = 0.0
        self._range = Range(0.0, 0.0)
        self._map = self._step = np.empty((0, 0), np.float32)

    def __call__(self, explanation: Explanation, timestamp: float, smooth_s: float) -> Explanation:
        """The explanation with its map and range smoothed; the argument itself where smooth_s is 0, all forgotten.

        timestamp: of the frame, seconds. smooth_s: the time constant, seconds, 0 or more. The map is an array of its
        own; pictures that the call made of the raw map are left out, and layer_maps stay the frame's own, so that
        `evidence` and `peak` do too. A Monitor should be given the raw explanation.
        """
        if not smooth_s > 0:
            self._kind = self._view = None
            return explanation
        self._update(explanation, timestamp, smooth_s)
        return replace(
            explanation,
            map=self._map.copy(),
            drawing=explanation.drawing._replace(range=self._range),
            made={},
            on_device={},
            _spare={},
        )

    def _update(self, explanation: Explanation, timestamp: float, smooth_s: float) -> None:
        kind, view = _kind_of(explanation), _view_of(explanation)
        goes_on = self._goes_on(kind, view, timestamp)
        if goes_on:
            weight = -expm1((self._timestamp - timestamp) / smooth_s)
            self._move(explanation.map, explanation.drawing.range, weight)
        else:
            self.resets += self._kind is not None
            self._begin(explanation.map, explanation.drawing.range)
        self._kind, self._view, self._timestamp = kind, view, timestamp

    def _goes_on(self, kind: _Kind, view: Thumbnail | None, timestamp: float) -> bool:
        """Whether a frame belongs to what was seen so far."""
        if self._kind != kind or not timestamp > self._timestamp:
            return False
        return self._view is None or view is None or not is_cut(self._view, view)

    def _begin(self, raw: NDArray[np.float32], shown: Range) -> None:
        if self._map.shape != raw.shape:
            self._map, self._step = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.float32)
        np.copyto(self._map, raw)
        self._range = shown

    def _move(self, raw: NDArray[np.float32], shown: Range, weight: float) -> None:
        np.subtract(raw, self._map, out=self._step)
        self._step *= np.float32(weight)
        self._map += self._step
        self._range = Range(*(old + weight * (new - old) for old, new in zip(self._range, shown, strict=True)))


def _kind_of(explanation: Explanation) -> _Kind:
    drawing = explanation.drawing
    shape = explanation.map.shape
    return _Kind(explanation.class_index, explanation.method, explanation.mode, shape, drawing.fit, drawing.contract)


def _view_of(explanation: Explanation) -> Thumbnail | None:
    """Of the frame; of a clip the latest, where a new scene comes in."""
    drawing, frame = explanation.drawing, explanation.frame
    return thumbnail(frame[-1] if explanation.map.ndim == 3 else frame, drawing.format)
