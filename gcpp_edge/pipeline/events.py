"""What a stream has to tell besides its frames: that a rule holds, and that something went wrong."""

from __future__ import annotations

from typing import NamedTuple

from gcpp_edge.pipeline.capture import Capture

RAISED, CLEARED = "raised", "cleared"


class Event(NamedTuple):
    """A rule of a monitor began or ceased to hold.

    rule: its name. kind: "raised" or "cleared". value: what was measured on the frame that decided. capture: of that
    frame. text: one line for people.
    """

    rule: str
    kind: str
    value: float
    capture: Capture | None
    text: str


class Trouble(NamedTuple):
    """Something that went wrong and was survived, told once for each run of it.

    where: "source", "explain", "monitor", "model", "stream", or a sink's name. text: one line.
    """

    where: str
    text: str
