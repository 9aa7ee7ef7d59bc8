"""What happened besides frames, with the time at which it was seen: for the page's log."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from gcpp_edge.pipeline.counters import ENDED, OPENING, RUNNING, Report
from gcpp_edge.pipeline.events import Event, Trouble

KEPT = 100  # latest entries
TROUBLE, STATE = "trouble", "state"


class Journal:
    """The latest entries; from any thread. `last` is the number of the newest, counted from 1.

    An entry is a dict: number, at (Unix time), kind (of an event "raised" or "cleared", else "trouble" or "state"),
    where, text.
    """

    def __init__(self) -> None:
        self.last = 0
        self._entries: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._troubles: Sequence[Trouble] = ()
        self._state = OPENING
        self._lock = threading.Lock()

    def after(self, number: int) -> list[dict[str, Any]]:
        """Entries above this number, oldest first."""
        with self._lock:
            newer = min(self.last - number, len(self._entries))
            return list(islice(self._entries, len(self._entries) - newer, None))

    def note_events(self, events: Iterable[Event]) -> None:
        """Enter a frame's events."""
        for event in events:
            self._enter(event.kind, event.rule, event.text.removeprefix(event.rule).lstrip())  # it stands before it

    def note_trouble(self, where: str, text: str) -> None:
        """Enter a trouble of the page itself."""
        self._enter(TROUBLE, where, text)

    def note_report(self, report: Report) -> None:
        """Enter the troubles that are new since the last report, and a source that changed its state."""
        for trouble in report.troubles[known_of(self._troubles, report.troubles) :]:
            self._enter(TROUBLE, trouble.where, trouble.text)
        self._troubles = tuple(report.troubles)
        state, self._state = self._state, report.source_state
        if state not in (OPENING, self._state) and self._state == RUNNING:
            self._enter(STATE, "source", "Frames come again.")
        elif state != self._state == ENDED:
            self._enter(STATE, "source", "The source has ended.")

    def _enter(self, kind: str, where: str, text: str) -> None:
        with self._lock:
            self.last += 1
            self._entries.append({"number": self.last, "at": time.time(), "kind": kind, "where": where, "text": text})


def known_of(old: Sequence[Trouble], new: Sequence[Trouble]) -> int:
    """How many at the front of `new` are those at the end of `old`: both are the latest of one growing list."""
    for start in range(len(old) + 1):
        kept = len(old) - start
        if kept <= len(new) and tuple(old[start:]) == tuple(new[:kept]):
            return kept
    return 0
