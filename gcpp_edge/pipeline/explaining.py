"""What is done to a frame between capture and sinks."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

from gcpp_edge.contract import SEED, Contract
from gcpp_edge.errors import InputError
from gcpp_edge.frames import check_frame
from gcpp_edge.gpu_frames import is_on_gpu
from gcpp_edge.made import ALPHA, OVERLAY
from gcpp_edge.pipeline.capture import Capture, Shot
from gcpp_edge.pipeline.events import Event
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.settings import Settings
from gcpp_edge.pipeline.smoothing import Smoother
from gcpp_edge.pipeline.tally import Tally

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.explanation import Explanation
    from gcpp_edge.pipeline.monitor import Monitor

WATCH_S = 1.0  # how often the model's file is looked at


def require_streamable(contract: Contract) -> None:
    """Raises InputError for a model whose further inputs no stream can give."""
    if contract.target.kind == SEED:
        raise InputError("This model explains a gradient of the caller's, for which a stream has no place. Call it.")
    if contract.extra_inputs:
        names = ", ".join(entry.name for entry in contract.extra_inputs)
        raise InputError(f"This model also needs {names}, which a stream cannot give. Call it with inputs=.")


class Explaining:
    """Frames to results, in order, on one thread.

    draws: whether pictures of every result are wanted, so that a GPU draws them beside the map. monitor: judges each
    explanation as it is, before it is smoothed.
    """

    def __init__(self, explainer: Explainer, monitor: Monitor | None, tally: Tally) -> None:
        self._explainer, self._monitor, self._tally = explainer, monitor, tally
        self._smoother = Smoother()
        self._watch = _Watch(explainer.path)
        self._clip: deque[Any] = deque(maxlen=explainer.contract.preprocessing.frames or 1)
        self._last: Explanation | None = None
        self._wish: tuple[Any, ...] = ()  # what it was asked for with
        self._place = 0  # of the frame among those of which one is explained
        self.draws = False

    def explain(self, shot: Shot, capture: Capture, settings: Settings) -> Result | None:
        """The frame's result; None while the first clip is not complete, which counts as skipped.

        Raises FrameError, RuntimeFailure, DeviceError.
        """
        self._look_at_file()
        if self._explainer.contract.preprocessing.frames:
            self._gather(shot)
        found = self._carried(shot, settings)
        is_fresh = found is None
        if found is None:
            found = self._explained(shot, settings)
        if found is None:
            self._tally.count("skipped")
            return None
        raw = replace(found, capture=capture)
        shown = self._smoothed(raw, settings) if is_fresh else raw
        latency_ms = 1e3 * (monotonic() - capture.arrived)
        self._last, self._wish = shown, (settings.method, settings.target)
        events = self._judge(raw, capture) if is_fresh else ()
        self._tally.add_result(is_fresh, latency_ms)
        return Result(shown, capture, settings, latency_ms, is_fresh, events)

    @property
    def is_over(self) -> bool:
        """Whether no frame can be explained any more: the explainer was closed under the stream."""
        return self._explainer.is_closed

    def _explained(self, shot: Shot, settings: Settings) -> Explanation | None:
        """None while a clip is not complete."""
        if not self._explainer.contract.preprocessing.frames:
            make = (OVERLAY,) if self._can_be_drawn(settings) else ()
            explain = self._explainer
            return explain(shot.pixels, settings.target, method=settings.method, make=make, format=shot.format)
        if len(self._clip) < (self._clip.maxlen or 1):
            return None
        (clip,) = self._explainer([list(self._clip)], settings.target, method=settings.method, format=shot.format)
        return clip.picture(-1)

    def _gather(self, shot: Shot) -> None:
        """The frame at the end of the clip; one of another size begins a new one."""
        pixels = check_frame(shot.pixels, shot.format)
        if self._clip and self._clip[-1].shape != pixels.shape:
            self._clip.clear()
        self._clip.append(pixels)

    def _can_be_drawn(self, settings: Settings) -> bool:
        """Whether the picture of the call is the one that sinks want, and the device draws it better than the host."""
        plain = settings.alpha == ALPHA and settings.colormap == "jet" and not settings.smooth_s
        return self.draws and plain and self._explainer.backend != "cpu"

    def _carried(self, shot: Shot, settings: Settings) -> Explanation | None:
        """The last map over this frame, where it is none that is explained."""
        place, self._place = self._place, (self._place + 1) % settings.every
        last, wish = self._last, (settings.method, settings.target)
        if place % settings.every == 0 or last is None or wish != self._wish or last.drawing.format != shot.format:
            return None
        if not is_on_gpu(shot.pixels):
            check_frame(shot.pixels, shot.format)
        if getattr(last.frame, "shape", None) != shot.pixels.shape:
            return None
        return replace(last, frame=shot.pixels, timings_ms={}, made={}, on_device={})

    def _smoothed(self, raw: Explanation, settings: Settings) -> Explanation:
        assert raw.capture is not None
        before = self._smoother.resets
        shown = self._smoother(raw, raw.capture.timestamp, settings.smooth_s)
        if self._smoother.resets != before:
            self._tally.count("resets", self._smoother.resets - before)
        return shown

    def _judge(self, raw: Explanation, capture: Capture) -> tuple[Event, ...]:
        monitor = self._monitor
        if monitor is None:
            return ()
        failures = monitor.failures
        events = monitor(raw, capture)
        self._tally.count("events", len(events))
        self._tally.count("monitor_failures", monitor.failures - failures)
        for trouble in monitor.troubles:
            self._tally.tell(trouble.where, trouble.text)
        return events

    def _look_at_file(self) -> None:
        if self._watch.has_changed():
            self._tally.tell(
                "model", f"{self._explainer.path} was replaced. The stream goes on with what it loaded; start it anew."
            )


class _Watch:
    """Whether a file is another one than the last time."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self._path = path
        self._seen = self._stamp()
        self._next = monotonic() + WATCH_S

    def has_changed(self) -> bool:
        """True once for each change; looks at most every WATCH_S. A file that is gone for a while is none."""
        if monotonic() < self._next:
            return False
        self._next = monotonic() + WATCH_S
        stamp = self._stamp()
        if stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        return True

    def _stamp(self) -> tuple[int, ...] | None:
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
