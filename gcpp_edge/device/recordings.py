"""Frames as CUDA graphs: done once as they are, then recorded, checked, and from then on replayed in one call.

A frame that cannot be recorded, or whose recording gives something else, is done call by call, and a warning says so.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.device.buffer import CudaBuffer
from gcpp_edge.device.driver import Driver
from gcpp_edge.device.transfers import Transfers
from gcpp_edge.errors import DeviceError, DeviceLostError, GcppError

LIMIT = 16  # kinds of frames that are remembered; of sizes that come and go, the one unused for longest is forgotten
TOLERANCE = 1e-5  # of the largest value: the kernels are deterministic, a network's float32 sums need not be
HALF_TOLERANCE = 4e-3  # of float16: four units in the last place

_log = logging.getLogger(__name__)


class _Recording(NamedTuple):
    """graph: None for work that is not to be recorded. fetched: what it copies out."""

    graph: Any
    fetched: list[CudaBuffer]


_REFUSED = _Recording(None, [])


class Recordings:
    """The recordings of one stream."""

    def __init__(self, driver: Driver, transfers: Transfers) -> None:
        self._driver, self._transfers = driver, transfers
        self._stream = transfers.stream
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()  # None: done once

    def run(self, key: Hashable, work: Callable[[], None]) -> None:
        """Do the work: as it is the first time, then recorded."""
        if key not in self._known:
            self._do(work)
            self._known[key] = None
            if len(self._known) > LIMIT:
                self._give_back(self._known.popitem(last=False)[1])
            return
        self._known.move_to_end(key)
        recording = self._known[key]
        if recording is None:
            self._known[key] = self._recorded(key, work)
        elif recording.graph is None:
            self._do(work)
        else:
            self._replay(recording)

    def forget(self) -> None:
        """Everything: buffers are about to go."""
        while self._known:
            self._give_back(self._known.popitem()[1])

    def _do(self, work: Callable[[], None]) -> None:
        self._transfers.begin()
        work()

    def _replay(self, recording: _Recording) -> None:
        self._transfers.begin()
        self._driver.replay(recording.graph, self._stream)
        self._transfers.fetched = list(recording.fetched)

    def _recorded(self, key: Hashable, work: Callable[[], None]) -> _Recording:
        """Done as it is, recorded right after it, and replayed with the same inputs, which must give the same.

        A runtime that was last asked for another shape would otherwise make itself ready within the recording.
        """
        self._do(work)
        expected, fetched = self._transfers.results(), self._transfers.fetched
        try:
            graph = self._capture(work)
        except DeviceLostError:
            raise
        except GcppError as error:
            _log.warning("A frame cannot be recorded as a CUDA graph, so it runs call by call: %s (%r)", error, key)
            self._transfers.fetched = fetched
            return _REFUSED
        recording = _Recording(graph, self._transfers.fetched)
        self._replay(recording)
        difference = max(map(_difference, self._transfers.results(), expected), default=0.0)
        if difference <= 1.0:
            return recording
        self._give_back(recording)
        _log.warning(
            "A recorded frame gives other results than the same frame call by call, by %.3g times what is allowed, so "
            "it runs call by call (%r)",
            difference,
            key,
        )
        self._do(work)
        return _REFUSED

    def _capture(self, work: Callable[[], None]) -> Any:
        self._transfers.wait()
        self._transfers.begin()
        self._driver.begin_capture(self._stream)
        try:
            work()
        except BaseException:
            self._drop_capture()
            raise
        return self._driver.end_capture(self._stream)

    def _drop_capture(self) -> None:
        """The stream must leave its capture, whatever came of it."""
        try:
            self._driver.free_graph(self._driver.end_capture(self._stream))
        except DeviceError as error:
            _log.debug("a capture ended with %s", error)

    def _give_back(self, recording: _Recording | None) -> None:
        if recording is not None and recording.graph is not None:
            self._driver.free_graph(recording.graph)


def _difference(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Of two results, as a share of what is allowed: up to 1 they are the same."""
    if found.tobytes() == expected.tobytes():
        return 0.0
    if expected.dtype.kind != "f":
        return np.inf
    allowed = HALF_TOLERANCE if expected.dtype == np.float16 else TOLERANCE
    a, b = found.astype(np.float64), expected.astype(np.float64)
    is_finite = np.isfinite(b)
    if not np.array_equal(a[~is_finite], b[~is_finite], equal_nan=True):
        return np.inf
    apart = np.abs(a[is_finite] - b[is_finite]).max(initial=0.0)
    largest = np.abs(b[is_finite]).max(initial=0.0)
    return float(apart / (allowed * largest)) if largest else np.inf
