"""What the handlers of one server share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from gcpp_edge.pipeline.plain_json import json_text
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.web.access import Access
from gcpp_edge.web.journal import Journal
from gcpp_edge.web.newest import Bell, Newest

MAX_VIEWERS = 64  # of each kind; a page is one of both
PICTURES, RECORDS = "pictures", "records"


class Site:
    """One server's state, on its event loop. told: how often viewers were told how things are."""

    def __init__(self, control: Control, access: Access, drawing: Executor, quality: int, max_fps: float) -> None:
        self.control, self.access, self.drawing = control, access, drawing
        self.bell, self.journal, self.told = Bell(), Journal(), 0
        self.newest = Newest(
            self.bell, drawing, quality, max_fps, lambda line: self.journal.note_trouble("live page", line)
        )
        self.viewers = {PICTURES: 0, RECORDS: 0}

    @contextmanager
    def viewer(self, kind: str) -> Iterator[None]:
        """Counts one more viewer while it is there."""
        self.viewers[kind] += 1
        try:
            yield
        finally:
            self.viewers[kind] -= 1

    def tick(self) -> None:
        """Once a second: enter what is new into the journal, and tell those who wait how things are."""
        self.journal.note_report(self.control.report())
        self.tell()

    def tell(self) -> None:
        """Send settings and counters to those who watch records, with the next frame or without one."""
        self.told += 1
        self.bell.ring()

    def settings(self) -> dict[str, Any]:
        """The stream's settings, for JSON."""
        return dict(vars(self.control.settings))

    def state(self) -> dict[str, Any]:
        """Settings, and a digest of the report."""
        report = self.control.report().as_dict()
        for bulky in ("troubles", "sinks"):
            del report[bulky]
        return {"settings": self.settings(), "counters": report | {"viewers": self.viewers[RECORDS]}}

    def status_text(self) -> str:
        """A message without a frame."""
        return json_text({"kind": "status", **self.state()})

    def record_text(self, result: Result, number: int) -> str:
        """A message of a frame."""
        return json_text({"kind": "frame", "number": number, **result.record(), **self.state()})
