"""A Python function as a sink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gcpp_edge.errors import SinkError
from gcpp_edge.pipeline.result import Result


class FunctionSink:
    """Calls a function with each result, in the sink's own thread."""

    is_viewer = False

    def __init__(self, function: Callable[[Result], Any], name: str) -> None:
        self.name, self._function = name, function

    def write(self, result: Result) -> None:
        """Raises SinkError from whatever the function raises."""
        try:
            self._function(result)
        except Exception as error:
            raise SinkError(f"{self.name}: {type(error).__name__}: {error}") from error

    def close(self) -> None:
        """There is nothing to finish."""


def sink_of(function: Callable[[Result], Any], name: str = "") -> FunctionSink:
    """A sink that calls `function(result)`; what it returns is not looked at.

    name: for reports, else the function's own. A function that raises is left out from then on.
    """
    return FunctionSink(function, name or getattr(function, "__qualname__", type(function).__name__))
