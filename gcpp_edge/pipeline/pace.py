"""When a frame is due: files at the pace of a camera, and no more than so many frames a second."""

from __future__ import annotations

from math import inf
from threading import TIMEOUT_MAX, Event
from time import monotonic

_LATE_S = 1.0  # a file that is read slower than it plays: later than this, its clock is set anew


class Pace:
    """Decides over every frame that was read: wait until it is due, or leave it out.

    max_fps: the most frames a second, 0 for as many as come. A source that is live is thinned out to it, another one
    slowed down. in_real_time: play what is not live by its timestamps, as a camera would have given it.
    """

    def __init__(self, is_live: bool, max_fps: float, in_real_time: bool) -> None:
        self._is_live, self._period = is_live, 1 / max_fps if max_fps else 0.0
        self._in_real_time = in_real_time and not is_live
        self._due = 0.0  # by the rate: when the next frame may go
        self._origin = self._last = -inf  # by timestamps: when a frame of time 0 is due, and the latest one

    def admits(self, timestamp: float, arrived: float, stopping: Event) -> bool:
        """Whether the frame goes on; waits until it is due. Returns at once where the stream is stopping."""
        if self._is_live:
            return self._is_due(arrived)
        due = max(self._by_timestamp(timestamp), self._due)
        stopping.wait(min(max(0.0, due - monotonic()), TIMEOUT_MAX))
        if self._period:
            self._step(monotonic())
        return True

    def _step(self, now: float) -> None:
        """The next one is due a period later; of a rate that was missed by more than that, nothing is made up for."""
        behind = now - self._due > self._period
        self._due = (now if behind else self._due) + self._period

    def _is_due(self, arrived: float) -> bool:
        """Of a live frame. A tenth of a period too early is let through: cameras are not that steady."""
        if not self._period:
            return True
        if arrived < self._due - 0.1 * self._period:
            return False
        self._step(arrived)
        return True

    def _by_timestamp(self, timestamp: float) -> float:
        if not self._in_real_time:
            return 0.0
        now = monotonic()
        starts_over, self._last = timestamp < self._last, timestamp
        if starts_over or self._origin + timestamp < now - _LATE_S:  # the first frame is far too late, too
            self._origin = now - timestamp
        return self._origin + timestamp
