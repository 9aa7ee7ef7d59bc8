"""All that takes a stream's results: its sinks, and loops over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import RLock, current_thread
from typing import NamedTuple

from gcpp_edge.pipeline.counters import OfSink
from gcpp_edge.pipeline.handover import Handover
from gcpp_edge.pipeline.outlet import Outlet
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Sink
from gcpp_edge.pipeline.tally import Tally


class _Loop(NamedTuple):
    """A loop over the stream."""

    results: Handover[Result]
    counts: OfSink


class Outputs:
    """Hands every result to all of them. on_all_broken: called where the last sink broke and nobody loops."""

    def __init__(self, tally: Tally, on_all_broken: Callable[[], None]) -> None:
        self._tally, self._on_all_broken = tally, on_all_broken
        self._outlets: tuple[Outlet, ...] = ()  # replaced whole: the explain thread goes through them without a lock
        self._loops: tuple[_Loop, ...] = ()
        self._lock = RLock()
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether no result will come any more."""
        return self._has_ended

    @property
    def has_sinks(self) -> bool:
        """Whether there are sinks, which want pictures."""
        return bool(self._outlets)

    def connect(self, sink: Sink, waits: bool) -> bool:
        """Hand results to this sink too. False, and nothing done, where none will come any more."""
        with self._lock:
            if not self._has_ended:
                self._outlets = (*self._outlets, Outlet(sink, waits, self._tally, self._on_broken))
            return not self._has_ended

    def loop(self, handover: Handover[Result]) -> Iterator[Result]:
        """Results for somebody who goes through them, by this handover; none where they have ended."""
        loop = _Loop(handover, self._tally.of_sink("loop"))
        with self._lock:
            self._loops = (*self._loops, loop)
            if self._has_ended:
                handover.close()
        return self._through(loop)

    def _through(self, loop: _Loop) -> Iterator[Result]:
        try:
            for result in loop.results:
                self._tally.count_in(loop.counts, "written")
                yield result
        finally:
            loop.results.close()

    def give(self, result: Result) -> None:
        """To all of them."""
        for outlet in self._outlets:
            outlet.give(result)
        for loop in self._loops:
            if loop.results.put(result) is not None:
                self._tally.count_in(loop.counts, "dropped")

    def end(self) -> None:
        """No more results come: what sinks and loops still have is finished."""
        with self._lock:
            self._has_ended = True
        for outlet in self._outlets:
            outlet.finish()
        self.leave_loops()

    def leave_loops(self) -> None:
        """Wait for no loop any more."""
        for loop in self._loops:
            loop.results.close()

    def join(self, timeout: float) -> None:
        """Wait until all sinks are closed, for each so long."""
        for outlet in self._outlets:
            outlet.join(timeout)

    def is_own_thread(self) -> bool:
        """Whether this is called in the thread of a sink."""
        return any(outlet.thread is current_thread() for outlet in self._outlets)

    def _on_broken(self) -> None:
        if not self._has_ended and not self._loops and all(outlet.is_broken for outlet in self._outlets):
            self._on_all_broken()
