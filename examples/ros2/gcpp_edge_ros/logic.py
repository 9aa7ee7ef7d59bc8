"""What the node does, without ROS: images to a stream, and what comes out of it to messages.

The header of an image waits beside its frame's future, so every message carries it bit for bit. What is published is
made in the stream's own thread: while it is, newer images wait, and all but the newest are dropped (policy "latest").
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, NamedTuple, Protocol

import numpy as np

from gcpp_edge import Explainer, Explanation, FrameError, InputError
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.events import RAISED, Event, Trouble
from gcpp_edge.pipeline.monitor import Monitor
from gcpp_edge.pipeline.result import Result
from gcpp_edge_ros.conversion import encoding_of, fill_image, frame_of, seconds_of

OVERLAY, HEATMAP, EXPLANATION, EVENTS = "overlay", "heatmap", "explanation", "events"
SETTINGS = ("method", "target", "alpha", "colormap", "smooth_s")  # parameters that a running stream can change


class Messages(NamedTuple):
    """The classes of what is published: sensor_msgs/Image, std_msgs/String, and three of diagnostic_msgs."""

    image: Callable[[], Any]
    string: Callable[[], Any]
    array: Callable[[], Any]
    status: Any
    key_value: Callable[[], Any]


class Outlet(Protocol):
    """Where messages go, by the name of their topic. From any thread."""

    def is_wanted(self, name: str) -> bool:
        """Whether somebody listens: what nobody wants is not made."""

    def publish(self, name: str, message: Any) -> None:
        """Send it."""

    def warn(self, text: str) -> None:
        """Tell people, in one line."""


class KeptMonitor:
    """A monitor whose latest events can be asked for: a future brings the explanation alone."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._latest: tuple[Capture | None, tuple[Event, ...]] = (None, ())

    def __call__(self, explanation: Explanation, capture: Capture | None = None) -> tuple[Event, ...]:
        events = self._monitor(explanation, capture)
        self._latest = capture, events
        return events

    def events_of(self, explanation: Explanation) -> tuple[Event, ...]:
        """Those on this frame, if it is the latest one that was judged."""
        capture, events = self._latest
        return events if capture == explanation.capture else ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._monitor, name)


class Explaining:
    """Images in, messages out, for as long as images come.

    settings: those of SETTINGS as parameters have them. Raises InputError for what the model refuses.
    """

    def __init__(
        self,
        explainer: Explainer,
        policy: str,
        settings: dict[str, Any],
        monitor: Monitor | None,
        messages: Messages,
        outlet: Outlet,
    ) -> None:
        self._messages, self._outlet = messages, outlet
        self._monitor = None if monitor is None else KeptMonitor(monitor)
        self._refused = ""  # the latest image's fault, told once as long as it stays the same
        self.stream = explainer.stream(policy=policy, monitor=self._monitor, on_trouble=self._tell)
        self.stream.change(**{name: setting_of(name, value) for name, value in settings.items()})

    def take(self, image: Any) -> None:
        """Hand an image over. One that cannot be used is told, and nothing else. StreamError where it has ended."""
        try:
            pixels, format = frame_of(image)
        except FrameError as error:
            if str(error) != self._refused:
                self._outlet.warn(str(error))
            self._refused = str(error)
            return
        self._refused = ""
        # no copy: the message is ours, and nobody writes to it
        future = self.stream.submit(pixels, seconds_of(image.header.stamp), format=format, copy=False)
        future.add_done_callback(partial(self._publish, image.header))

    def change(self, changes: dict[str, Any]) -> str:
        """Change settings from the next image on. Returns why that is refused, else ""."""
        try:
            self.stream.change(**{name: setting_of(name, value) for name, value in changes.items()})
        except InputError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Finish what is under way and end. More than once does no harm."""
        self.stream.close()

    def _tell(self, trouble: Trouble) -> None:
        self._outlet.warn(f"{trouble.where}: {trouble.text}")

    def _publish(self, header: Any, future: Future[Explanation]) -> None:
        """Everything that is wanted of an image. One that gave way to a newer has none; failures are told by _tell."""
        if future.cancelled() or future.exception() is not None:
            return
        explanation, settings = future.result(), self.stream.settings
        events = self._monitor.events_of(explanation) if self._monitor else ()
        send, is_wanted = self._outlet.publish, self._outlet.is_wanted
        if events:
            send(EVENTS, self._diagnostics(header, events))
        if is_wanted(EXPLANATION):
            send(EXPLANATION, self._record(header, explanation, events))
        if is_wanted(OVERLAY):
            picture = explanation.overlay(settings.colormap, settings.alpha)
            encoding = encoding_of(explanation.drawing.format)
            send(OVERLAY, fill_image(self._messages.image(), header, picture, encoding))
        if is_wanted(HEATMAP):
            send(HEATMAP, fill_image(self._messages.image(), header, explanation.heatmap(dtype=np.uint8), "mono8"))

    def _record(self, header: Any, explanation: Explanation, events: tuple[Event, ...]) -> Any:
        """The JSON of a frame, with the header in it: a String has none."""
        capture = explanation.capture
        assert capture is not None
        latency_ms = 1e3 * (monotonic() - capture.arrived)
        record = Result(explanation, capture, self.stream.settings, latency_ms, events=events).record()
        stamp = {"sec": header.stamp.sec, "nanosec": header.stamp.nanosec}
        message = self._messages.string()
        message.data = json.dumps({"stamp": stamp, "frame_id": header.frame_id} | record)
        return message

    def _diagnostics(self, header: Any, events: tuple[Event, ...]) -> Any:
        """One status an event: a warning where a rule began to hold, OK where it ceased to."""
        message = self._messages.array()
        message.header = header
        message.status = [self._status(event, header.frame_id) for event in events]
        return message

    def _status(self, event: Event, frame_id: str) -> Any:
        status, value = self._messages.status(), self._messages.key_value()
        status.level = self._messages.status.WARN if event.kind == RAISED else self._messages.status.OK
        status.name, status.message, status.hardware_id = f"explain: {event.rule}", event.text, frame_id
        value.key, value.value = "value", f"{event.value:.6g}"
        status.values = [value]
        return status


def setting_of(name: str, value: Any) -> Any:
    """A parameter as the stream takes it: an empty method is the file's own, digits are a class index or a rank."""
    if name == "method":
        return value or None
    if name == "target" and isinstance(value, str) and value.strip().lstrip("-").isdigit():
        return int(value)
    return value


def monitor_of(rules: str) -> Monitor | None:
    """The monitor for the `rules` parameter, rules with semicolons between; None for none. Raises InputError."""
    found = [rule.strip() for rule in rules.split(";") if rule.strip()]
    return Monitor(found) if found else None
