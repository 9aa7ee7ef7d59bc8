"""The counters of a running stream, from all of its threads."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from copy import copy
from threading import Lock
from time import monotonic

from gcpp_edge.pipeline.counters import FATES, KEPT, OfSink, Report
from gcpp_edge.pipeline.events import Trouble

_log = logging.getLogger(__name__)
FPS_SECONDS = 2.0  # that frames a second are taken over


class Tally:
    """Counts under one lock, so that a report's sum is exact at any moment. on_trouble: told of each trouble."""

    def __init__(self, on_trouble: Callable[[Trouble], None] | None) -> None:
        self._lock = Lock()
        self._report = Report()
        self._troubles: deque[Trouble] = deque(maxlen=KEPT)
        self._mapped: deque[float] = deque(maxlen=1000)  # when the latest frames had their map
        self._began = self._ended = 0.0
        self._on_trouble = on_trouble
        self._going_on: set[str] = set()

    def count(self, name: str, number: int = 1) -> int:
        """Add to the counter of this name in Report. Returns what it was before."""
        with self._lock:
            before: int = getattr(self._report, name)
            setattr(self._report, name, before + number)
            return before

    def count_in(self, counts: OfSink, name: str, number: int = 1) -> None:
        """Add to a counter of a sink."""
        with self._lock:
            setattr(counts, name, getattr(counts, name) + number)

    def begin_frame(self) -> int:
        """A frame was captured. Returns its id."""
        with self._lock:
            self._began = self._began or monotonic()
            self._report.captured += 1
            return self._report.captured - 1

    def add_result(self, is_fresh: bool, latency_ms: float) -> None:
        """A frame has its map."""
        with self._lock:
            if is_fresh:
                self._report.explained += 1
            else:
                self._report.carried += 1
            self._report.latencies.add(latency_ms)
            self._mapped.append(monotonic())

    def set_state(self, state: str, only_from: str = "") -> bool:
        """What the source does now; with only_from, only if it did that before. Returns whether it changed."""
        with self._lock:
            before = self._report.source_state
            if before == state or (only_from and before != only_from):
                return False
            self._report.source_state = state
            return True

    def stop_clock(self) -> None:
        """No frame gets a map any more."""
        self._ended = self._ended or monotonic()

    def of_sink(self, name: str) -> OfSink:
        """The counters of a sink; those of a second one of this name are "name 2"."""
        with self._lock:
            names = [name, *(f"{name} {number}" for number in range(2, len(self._report.sinks) + 3))]
            free = next(each for each in names if each not in self._report.sinks)
            self._report.sinks[free] = OfSink()
            return self._report.sinks[free]

    def tell(self, where: str, text: str) -> None:
        """Something went wrong, and was survived."""
        trouble = Trouble(where, text)
        with self._lock:
            self._troubles.append(trouble)
        if not self._on_trouble:
            _log.warning("%s: %s", where, text)
            return
        try:
            self._on_trouble(trouble)
        except (Exception, SystemExit):  # noqa: BLE001  the caller's own (rich raises the second where a pipe broke)
            _log.exception("on_trouble failed on %s: %s", where, text)

    def tell_once(self, where: str, text: str) -> None:
        """The same, but nothing while the last trouble there goes on: until `mend`."""
        with self._lock:
            goes_on = where in self._going_on
            self._going_on.add(where)
        if not goes_on:
            self.tell(where, text)

    def mend(self, where: str) -> None:
        """All is well there; the next trouble is told again."""
        with self._lock:
            self._going_on.discard(where)

    def report(self) -> Report:
        """A copy of all that was counted."""
        with self._lock:
            found = copy(self._report)
            found.latencies = self._report.latencies.copy()
            found.sinks = {name: copy(counts) for name, counts in self._report.sinks.items()}
            found.troubles = list(self._troubles)
            mapped = list(self._mapped)
        now = self._ended or monotonic()
        found.under_way = found.captured - sum(getattr(found, fate) for fate in FATES)
        found.seconds = now - self._began if self._began else 0.0
        recent = [moment for moment in mapped if moment > now - FPS_SECONDS]
        found.fps = len(recent) / min(FPS_SECONDS, found.seconds) if recent and found.seconds else 0.0
        return found
