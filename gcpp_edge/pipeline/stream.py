"""Frames in, explanations out, for as long as frames come.

    capture thread ──▶ explain thread ──▶ one thread a sink
              a handover, bounded, between each

policy "latest": the newest frame wins; those that the explainer is too slow for are dropped and counted as stale. A
sink that is slow loses results and delays nothing. policy "all": every frame is explained and every recorder gets it;
whoever is faster waits. Without one it is "latest" for what is live or shown to somebody, else "all".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from math import isfinite
from os import PathLike
from threading import Event, RLock, Thread, current_thread
from time import monotonic, time
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.contract import Contract
from gcpp_edge.errors import DeviceLostError, GcppError, InputError, SinkError, StreamError
from gcpp_edge.pipeline.capture import Capture, Shot, Source
from gcpp_edge.pipeline.capturing import SOURCE, Capturing, Limits
from gcpp_edge.pipeline.counters import ENDED, RUNNING, STALLED, Report
from gcpp_edge.pipeline.events import Trouble
from gcpp_edge.pipeline.explaining import Explaining, require_streamable
from gcpp_edge.pipeline.handover import Handover
from gcpp_edge.pipeline.outputs import Outputs
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.settings import Settings, changed
from gcpp_edge.pipeline.sink import Sink
from gcpp_edge.pipeline.sinks import open_sink, sink_of
from gcpp_edge.pipeline.tally import Tally

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.explanation import Explanation
    from gcpp_edge.pipeline.monitor import Monitor

LATEST, ALL = "latest", "all"
POLICIES = (LATEST, ALL)
EXPLAINING = "explain"  # where its troubles are
QUEUE = 4  # frames on their way with policy "all"
STALL_S = 5.0  # without a frame of a live source: stalled
JOIN_S = 15.0  # that threads are given to end: a camera's own time-out and more


class _Frame(NamedTuple):
    """One on its way to be explained. future: of a frame that was submitted."""

    shot: Shot
    capture: Capture
    future: Future[Explanation] | None = None


class Stream:
    """A running stream; made by `Explainer.stream`. A context manager, which ends it.

    Iterate over it for explanations, `run` it with sinks alone, or without a source `submit` frames to it. Its source
    is open from the beginning until the stream is closed. What on_trouble is told comes from any of its threads. It is
    the Control that sinks are given.
    """

    def __init__(
        self,
        explainer: Explainer,
        opener: Callable[[], Source] | None,
        settings: Settings,
        policy: str | None,
        limits: Limits,
        monitor: Monitor | None = None,
        on_trouble: Callable[[Trouble], None] | None = None,
    ) -> None:
        if policy not in (None, *POLICIES):
            raise InputError(f"policy: expected {' or '.join(POLICIES)}, found {policy!r}.")
        require_streamable(explainer.contract)
        self.contract: Contract = explainer.contract
        self.runtime_name = explainer.runtime_name
        self.policy = policy
        self._settings = changed(settings, self.contract)
        self._tally = Tally(on_trouble)
        self._explaining = Explaining(explainer, monitor, self._tally)
        self._frames: Handover[_Frame] | None = None  # from start on
        self._sinks: list[Sink] = []  # until start
        self._outputs = Outputs(self._tally, self._end_unseen)
        self._lock = RLock()  # around what starts and ends
        self._latest: Result | None = None
        self._error: BaseException | None = None
        self._is_stopping = self._is_ended = False
        self._closed = Event()
        self._explain_thread = Thread(target=self._explain_all, name="gcpp-explain", daemon=True)
        self._capturing: Capturing | None = None
        if opener is not None:
            self._open(opener, limits)

    def _open(self, opener: Callable[[], Source], limits: Limits) -> None:
        """Opens the source on its thread. Raises what it raises."""
        self._capturing = Capturing(opener, limits, self._tally, self._take)
        self._capture_thread = Thread(target=self._capture, name="gcpp-capture", daemon=True)
        self._capture_thread.start()
        self._capturing.opened.wait()
        if self._capturing.error is not None:
            raise self._capturing.error

    # what sinks and callers may ask at any time

    @property
    def name(self) -> str:
        """Of the source, without a password; empty where frames are submitted."""
        return self._capturing.name if self._capturing else ""

    @property
    def fps(self) -> float:
        """Frames a second as the source says, 0 where it does not."""
        return self._capturing.fps if self._capturing else 0.0

    @property
    def settings(self) -> Settings:
        """What frames are made with now."""
        return self._settings

    @property
    def latest(self) -> Result | None:
        """The newest result, None before the first."""
        return self._latest

    def change(self, /, **changes: Any) -> Settings:
        """Change settings from the next frame on: method, target, alpha, colormap, smooth_s, every.

        Returns all of them as they are now. Raises InputError (TargetError, MethodError), and then changes nothing.
        """
        with self._lock:
            self._settings = changed(self._settings, self.contract, **changes)
            return self._settings

    def report(self) -> Report:
        """What has happened so far; a copy."""
        return self._tally.report()

    # from outside: sinks, iteration, frames

    def add(self, sink: Sink | str | PathLike[str] | Callable[[Result], object]) -> None:
        """Results go there too, from now on, in a thread of its own; it is closed with the stream.

        sink: an address ("out.mp4", "http://127.0.0.1:8080"; pipeline/sinks), a function, or a Sink. Raises InputError
        and SinkError for an address, StreamError after the stream's end.
        """
        with self._lock:
            if self._is_ended or self._outputs.has_ended:
                raise StreamError("This stream has ended; it takes no more sinks. Make another.")
            found = self._sink_of(sink)
            if self._frames is None:
                self._sinks.append(found)
            else:
                self._connect(found)

    def _sink_of(self, sink: Any) -> Sink:
        if isinstance(sink, (str, PathLike)):
            return open_sink(str(sink), self)
        if isinstance(sink, Sink):
            return sink
        if not callable(sink):
            raise InputError(f"sink: expected an address, a function or a Sink, found {type(sink).__name__}.")
        return sink_of(sink)

    def _connect(self, sink: Sink) -> None:
        if self._outputs.connect(sink, waits=self.policy == ALL):
            self._explaining.draws = True
        else:
            sink.close()

    def run(self) -> Report:
        """Start, and come back when it has ended: the source did, its time is up, or somebody stopped it.

        Raises what ended it, if that was an error; StreamError where it was closed before it began.
        """
        self.start()
        if self._frames is None:
            raise StreamError("This stream was closed before it began. Make another.")
        try:
            while not self.wait(0.2):  # in short steps, so that signals are handled
                pass
        finally:
            self.close()
        self._raise_error()
        return self.report()

    def wait(self, timeout: float) -> bool:
        """Whether a stream that was started has come to its end, within so many seconds; `close` then tidies up."""
        if self._explain_thread.ident is None:
            return False
        self._explain_thread.join(timeout)
        return not self._explain_thread.is_alive()

    def start(self) -> None:
        """Let the frames come. `run`, iterating and `submit` do it themselves."""
        with self._lock:
            if self._frames is not None or self._is_ended:
                return  # it runs, or never will
            if self.policy is None:
                is_shown = any(sink.is_viewer for sink in self._sinks)
                is_live = self._capturing is None or self._capturing.is_live
                self.policy = LATEST if is_live or is_shown else ALL
            self._frames = self._handover()
            if self._is_stopping:
                self._frames.close()
            for sink in self._sinks:
                self._connect(sink)
            self._explain_thread.start()
            if self._capturing:
                self._capturing.in_real_time = self.policy == LATEST
                self._capturing.start.set()
            else:
                self._tally.set_state(RUNNING)

    def _handover(self) -> Handover[Any]:
        """As the policy wants it."""
        return Handover(1 if self.policy == LATEST else QUEUE, replaces=self.policy == LATEST)

    def __iter__(self) -> Iterator[Explanation]:
        """Explanations, each with its `capture`. Leaving the loop ends the stream."""
        for result in self.results():
            yield result.explanation

    def results(self) -> Iterator[Result]:
        """The same as results: with latency, settings and events. Leaving the loop ends the stream."""
        self.start()
        try:
            yield from self._outputs.loop(self._handover())
        finally:
            self.close()
        self._raise_error()

    def submit(
        self, frame: NDArray[Any], timestamp: float | None = None, *, format: str = "bgr", copy: bool = True
    ) -> Future[Explanation]:
        """Hand a frame over, and go on: its explanation comes as the future's result, with `capture`.

        frame: as of a call. timestamp: seconds of any clock, passed on; None for the time now. copy: the stream takes
        a copy of a NumPy array; without, and on a GPU, the frame must not change until the future is done. With
        policy "latest" a frame that has to give way to a newer one has its future cancelled; with "all" this waits
        while too many are on their way, but not in a future's callback. A frame that is refused has the error in its
        future. Raises InputError for a timestamp that is no number; StreamError where the stream has a source, has
        ended, or cannot wait.
        """
        if self._capturing:
            raise StreamError("This stream reads its source. Make one without a source to submit frames to.")
        if timestamp is not None and not isfinite(timestamp):
            raise InputError(f"timestamp: expected a number of seconds, found {timestamp}.")
        self.start()
        pixels = np.array(frame) if copy and isinstance(frame, np.ndarray) else frame
        arrived = monotonic()
        shot = Shot(pixels, format, time() if timestamp is None else timestamp, arrived)
        future: Future[Explanation] = Future()
        capture = Capture(self._tally.begin_frame(), shot.timestamp, arrived)
        can_wait = current_thread() is not self._explain_thread
        if not self._hand_over(_Frame(shot, capture, future), None if can_wait else 0):
            if not self._is_stopping:
                raise StreamError("Too many frames are on their way for one more from a callback, which cannot wait.")
            raise StreamError("This stream has ended; it takes no more frames.") from self._error
        return future

    def stop(self) -> None:
        """End the stream: no more frames are taken, and what is on its way is finished. Returns at once."""
        self._is_stopping = True
        if self._capturing:
            self._capturing.stopping.set()
        if self._frames is not None:
            self._frames.close()

    def close(self) -> None:
        """Stop, and wait until threads have ended and sinks are closed. More than once does no harm.

        In a thread of the stream's own (a sink, a callback), which it would wait for, it only stops.
        """
        self.stop()
        if self._is_own_thread():
            return
        with self._lock:
            is_first, self._is_ended = not self._is_ended, True
        if is_first:
            try:
                self._finish()
            finally:
                self._closed.set()
        self._closed.wait()

    def _is_own_thread(self) -> bool:
        own = [self._explain_thread, *([self._capture_thread] if self._capturing else [])]
        return current_thread() in own or self._outputs.is_own_thread()

    def _finish(self) -> None:
        self._outputs.leave_loops()  # whoever looped may be gone, and the explain thread would wait for him
        if self._capturing:
            self._join(self._capture_thread)
        if self._frames is None:
            for sink in self._sinks:
                self._outputs.connect(sink, waits=False)  # so that each is closed as ever, whatever it raises
            self._outputs.end()
        else:
            self._join(self._explain_thread)
        self._outputs.join(JOIN_S)
        self._tally.set_state(ENDED)

    def _join(self, thread: Thread) -> None:
        thread.join(JOIN_S)
        if thread.is_alive():
            self._tally.tell("stream", f"{thread.name} did not end within {JOIN_S:.0f} s, and was left behind.")

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # the capture thread

    def _capture(self) -> None:
        assert self._capturing is not None
        self._capturing.work()
        self._error = self._error or self._capturing.error
        if self._frames is not None:
            self._frames.close()

    def _take(self, shot: Shot, capture: Capture) -> None:
        self._hand_over(_Frame(shot, capture))

    def _hand_over(self, frame: _Frame, timeout: float | None = None) -> bool:
        """Whether the frame was let in. What has to give way is counted."""
        given_up = frame if self._frames is None else self._frames.put(frame, timeout)
        if given_up is not None:
            self._tally.count("skipped" if given_up is frame else "stale")
            if given_up.future:
                given_up.future.cancel()
        return given_up is not frame

    # the explain thread

    def _explain_all(self) -> None:
        assert self._frames is not None
        try:
            while (frame := self._next_frame(self._frames)) is not None:
                self._explain(frame)
        except BaseException as error:  # noqa: BLE001  raised again by run, or by the loop
            self._error = self._error or error
        finally:
            self.stop()
            for frame in self._frames:
                self._tally.count("skipped")
                if frame.future:
                    frame.future.cancel()
            self._tally.stop_clock()
            self._outputs.end()

    def _next_frame(self, frames: Handover[_Frame]) -> _Frame | None:
        """Waits for it, and tells where a live source gives none for too long. None at the end."""
        capturing, is_stalled = self._capturing, False
        watched = capturing if capturing and capturing.is_live else None
        while (frame := frames.take(STALL_S if watched else None)) is None:
            if frames.has_ended or watched is None:
                return None
            quiet = monotonic() - watched.seen  # frames that are left out to keep to a rate are no stall
            if quiet >= STALL_S and self._tally.set_state(STALLED, only_from=RUNNING):
                is_stalled = True
                self._tally.count("stalls")
                self._tally.tell(SOURCE, f"{self.name}: no frame for {quiet:.0f} s.")
        if is_stalled:
            self._tally.set_state(RUNNING, only_from=STALLED)
            self._tally.tell(SOURCE, f"{self.name}: frames come again.")
        return frame

    def _explain(self, frame: _Frame) -> None:
        future = frame.future
        if future and not future.set_running_or_notify_cancel():
            self._tally.count("stale")
            return
        try:
            result = self._explaining.explain(frame.shot, frame.capture, self._settings)
        except BaseException as error:
            self._tally.count("failed")
            if future:
                future.set_exception(error)
            self._tally.tell_once(EXPLAINING, str(error))
            is_survived = isinstance(error, GcppError) and not isinstance(error, DeviceLostError)
            if is_survived and not self._explaining.is_over:
                return
            raise
        self._tally.mend(EXPLAINING)
        if result is not None:
            self._latest = result
            self._outputs.give(result)
        if future and result is not None:
            future.set_result(result.explanation)
        elif future:
            future.set_exception(StreamError("The first clip is not complete yet."))

    def _end_unseen(self) -> None:
        """Where a source's results reach nobody any more."""
        if self._capturing:
            self._error = self._error or SinkError("Every output of the stream is broken, so it ends.")
            self.stop()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
