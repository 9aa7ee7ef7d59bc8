"""What takes the results of a stream, and what it may ask of the stream."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from gcpp_edge.contract import Contract
from gcpp_edge.pipeline.counters import Report
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.settings import Settings


class Control(Protocol):
    """The stream, as a sink sees it. From any thread.

    name: of the source, without a password. contract: of the model. runtime_name: what runs it. fps: frames a second
    as the source says, 0 where it does not.
    """

    contract: Contract
    runtime_name: str

    @property
    def name(self) -> str: ...

    @property
    def fps(self) -> float: ...

    @property
    def settings(self) -> Settings:
        """What frames are made with now."""

    def change(self, **changes: Any) -> Settings:
        """Change settings from the next frame on. Raises InputError, and then changes nothing."""

    def report(self) -> Report:
        """What has happened so far."""

    def stop(self) -> None:
        """End the stream; returns at once."""


@runtime_checkable
class Sink(Protocol):
    """Somewhere for results to go. A stream writes to it and closes it in one thread of the sink's own.

    name: as it was asked for, without a password. is_viewer: shows what is newest, so frames that it is too slow for
    are dropped, whatever the stream's policy. A sink may have a `remark` besides, one line that is told
    once it is closed.
    """

    name: str
    is_viewer: bool

    def write(self, result: Result) -> None:
        """Take one result. Raises SinkError or OSError where it cannot be used any more; it is then closed."""

    def close(self) -> None:
        """Finish files, so that they can be opened. More than once does no harm."""
