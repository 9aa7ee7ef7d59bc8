"""The thread that takes frames from a source: opened, read, found again when it is lost, closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from time import monotonic

from gcpp_edge.errors import CaptureError, FrameError, GcppError, PictureError
from gcpp_edge.pipeline.capture import Capture, Shot, Source
from gcpp_edge.pipeline.counters import ENDED, LOST, RUNNING
from gcpp_edge.pipeline.pace import Pace
from gcpp_edge.pipeline.tally import Tally

SOURCE = "source"  # where its troubles are
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 10.0  # between attempts to find a lost source; each twice the one before


@dataclass(frozen=True)
class Limits:
    """max_fps: frames a second at most, 0 for as many as come. duration_s: of the stream, 0 for no end."""

    max_fps: float = 0.0
    duration_s: float = 0.0


class Capturing:
    """What the capture thread does. take: is given every frame that goes on.

    `opened` is set once the source was opened the first time, or has failed to: `error` then says why. The frames come
    once `start` is set. `stopping` ends it within what a read of the source takes. `in_real_time`, set before `start`,
    plays files as a camera would give their frames.
    """

    def __init__(
        self, opener: Callable[[], Source], limits: Limits, tally: Tally, take: Callable[[Shot, Capture], None]
    ) -> None:
        self._opener, self._limits, self._tally, self._take = opener, limits, tally, take
        self.opened, self.start, self.stopping = Event(), Event(), Event()
        self.error: BaseException | None = None
        self.name, self.fps, self.is_live, self.in_real_time = "", 0.0, False, False
        self._first: tuple[float, float] | None = None  # timestamp and arrival of the first frame

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
        source = self._opener()
        try:
            self.name, self.fps, self.is_live = source.name, source.fps, source.is_live
            self.opened.set()
            while not self.start.wait(0.1):
                if self.stopping.is_set():
                    return
            self._tally.set_state(RUNNING)
            pace = Pace(source.is_live, self._limits.max_fps, self.in_real_time)
            while not self.stopping.is_set():
                try:
                    if not self._read_one(source, pace):
                        break
                except CaptureError as error:
                    source.close()
                    if not self.is_live:
                        raise
                    found = self._find_again(str(error))
                    if found is None:
                        return
                    source = found
        finally:
            source.close()
        remark = getattr(source, "remark", "")
        if remark:
            self._tally.tell(SOURCE, remark)

    def _read_one(self, source: Source, pace: Pace) -> bool:
        """Reads a frame and hands it on. False at the end."""
        try:
            shot = source.read()
        except (FrameError, PictureError) as error:
            self._tally.count("unreadable")
            self._tally.tell_once(SOURCE, str(error))
            return True
        if shot is None:
            return False
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
        """Whether the stream's time is up: by the clock, of what is not live by its own time."""
        self._first = self._first or (shot.timestamp, shot.arrived)
        passed = shot.arrived - self._first[1] if self.is_live else shot.timestamp - self._first[0]
        return 0 < self._limits.duration_s <= passed

    def _find_again(self, reason: str) -> Source | None:
        """The source once it can be opened again, tried with growing pauses; None where the stream is to end."""
        lost, pause = monotonic(), FIRST_PAUSE_S
        self._tally.set_state(LOST)
        self._tally.tell(SOURCE, f"{reason} Trying to find it again.")
        while not self.stopping.wait(pause):
            if self._time_is_up():
                return None
            try:
                source = self._opener()
            except GcppError:
                pause = min(2 * pause, LONGEST_PAUSE_S)
                continue
            self._tally.count("reconnects")
            self._tally.set_state(RUNNING)
            self._tally.tell(SOURCE, f"{self.name}: there again after {monotonic() - lost:.1f} s.")
            return source
        return None

    def _time_is_up(self) -> bool:
        began = self._first[1] if self._first else monotonic()
        return 0 < self._limits.duration_s <= monotonic() - began
