"""The thread that takes frames from a source: opened, read, found again when it is lost, closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from threading import Event
from time import monotonic

from gcpp_edge.errors import FrameError, GcppError, PictureError
from gcpp_edge.pipeline.capture import Capture, Shot, Source
from gcpp_edge.pipeline.counters import ENDED, LOST, RUNNING
from gcpp_edge.pipeline.pace import Pace
from gcpp_edge.pipeline.tally import Tally

SOURCE = "source"  # where its troubles are
REFUSED_PAUSE_S = 0.01  # after a frame that cannot be read: a source that refuses all of them must not burn a core
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between attempts to find a lost source; each twice the one before


@dataclass(frozen=True)
class Limits:
    """max_fps: frames a second at most, 0 for as many as come. duration_s: of the stream, 0 for no end."""

    max_fps: float = 0.0
    duration_s: float = 0.0


@dataclass
class _Loss:
    """since: when the source was lost, 0 while it is there. pause: before it is tried the next time."""

    since: float = 0.0
    pause: float = field(default_factory=lambda: FIRST_PAUSE_S)


class Capturing:
    """What the capture thread does. take: is given every frame that goes on.

    `opened` is set once the source was opened the first time, or has failed to: `error` then says why. The frames come
    once `start` is set. `stopping` ends it within what a read of the source takes. `in_real_time`, set before `start`,
    plays files as a camera would give their frames. `seen` is when the latest frame came, by time.monotonic().
    """

    def __init__(
        self, opener: Callable[[], Source], limits: Limits, tally: Tally, take: Callable[[Shot, Capture], None]
    ) -> None:
        self._opener, self._limits, self._tally, self._take = opener, limits, tally, take
        self.opened, self.start, self.stopping = Event(), Event(), Event()
        self.error: BaseException | None = None
        self.name, self.fps, self.is_live, self.in_real_time = "", 0.0, False, False
        self._began = self.seen = 0.0  # when frames began, and when the latest came
        self._first: float | None = None  # timestamp of the first frame

    def work(self) -> None:
        """All of it; the thread's target."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  handed to whoever waits for the stream
            self.error = error
        finally:
            self._tally.set_state(ENDED)
            self.opened.set()

    def _work(self) -> None:
        first = self._opener()
        source: Source | None = first
        try:
            self.name, self.fps, self.is_live = first.name, first.fps, first.is_live
            self.opened.set()
            while not self.start.wait(0.1):
                if self.stopping.is_set():
                    return
            self._began = self.seen = monotonic()
            self._tally.set_state(RUNNING)
            pace = Pace(self.is_live, self._limits.max_fps, self.in_real_time)
            loss = _Loss()
            while not self.stopping.is_set() and not self._time_is_up():
                try:
                    source = source or self._opener()
                    goes_on = self._read_one(source, pace)
                except GcppError as error:
                    if not self.is_live:
                        raise
                    if source:
                        source.close()
                    source = None
                    self._lose(loss, str(error))
                    continue
                self._find(loss)
                if not goes_on:
                    break
        finally:
            if source:
                source.close()
        remark = getattr(source, "remark", "")
        if remark:
            self._tally.tell(SOURCE, remark)

    def _lose(self, loss: _Loss, reason: str) -> None:
        """Tells of a loss, if it is a new one, and waits before the source is tried again."""
        if not loss.since:
            loss.since = monotonic()
            self._tally.set_state(LOST)
            self._tally.tell(SOURCE, f"{reason} Trying to find it again.")
        self.stopping.wait(loss.pause)
        loss.pause = min(2 * loss.pause, LONGEST_PAUSE_S)

    def _find(self, loss: _Loss) -> None:
        """It gives frames; tells so where it was lost."""
        if loss.since:
            self._tally.count("reconnects")
            self._tally.set_state(RUNNING)
            self._tally.tell(SOURCE, f"{self.name}: there again after {monotonic() - loss.since:.1f} s.")
            loss.since, loss.pause = 0.0, FIRST_PAUSE_S

    def _read_one(self, source: Source, pace: Pace) -> bool:
        """Reads a frame and hands it on. False at the end."""
        try:
            shot = source.read()
            if shot and not isfinite(shot.timestamp):
                raise FrameError(f"{self.name}: a frame with the timestamp {shot.timestamp}, which is no time.")
        except (FrameError, PictureError) as error:
            self._tally.count("unreadable")
            self._tally.tell_once(SOURCE, str(error))
            self.stopping.wait(REFUSED_PAUSE_S)
            return True
        if shot is None:
            return False
        self.seen = monotonic()
        self._tally.mend(SOURCE)
        if self._is_over(shot):
            return False
        capture = Capture(self._tally.begin_frame(), shot.timestamp, shot.arrived)
        if pace.admits(shot.timestamp, shot.arrived, self.stopping):
            if not self.is_live:  # it may have waited until it was due: only then it is there
                capture = capture._replace(arrived=monotonic())
            self._take(shot, capture)
        else:
            self._tally.count("skipped")
        return True

    def _is_over(self, shot: Shot) -> bool:
        """Whether a source that is not live has come to the end of its duration, by its own time."""
        if self._first is None:
            self._first = shot.timestamp
        return not self.is_live and 0 < self._limits.duration_s <= shot.timestamp - self._first

    def _time_is_up(self) -> bool:
        """The same of a live one, by the clock, whether frames come or not."""
        return self.is_live and 0 < self._limits.duration_s <= monotonic() - self._began
