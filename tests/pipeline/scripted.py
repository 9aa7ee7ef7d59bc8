"""Sources, sinks and explainers that do as a test says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from gcpp_edge.errors import GcppError
from gcpp_edge.pipeline.capture import Shot
from gcpp_edge.pipeline.counters import Report
from gcpp_edge.pipeline.result import Result

MODEL = Path(__file__).parent.parent / "fixtures" / "explained-v2.onnx"
SIZE = (48, 64)
FPS = 25.0
WAIT_S = 20.0  # that a test waits for what comes in milliseconds


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A frame of noise of its own, the same every time."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def pictures(count: int) -> list[Any]:
    return [picture(number) for number in range(count)]


class Scripted:
    """A source that goes through steps: frames to give, errors to raise, functions to call; then it ends."""

    def __init__(self, steps: list[Any], is_live: bool = False, name: str = "scripted", remark: str = "") -> None:
        self.name, self.is_live, self.fps, self.remark = name, is_live, FPS, remark
        self._steps, self._number = list(steps), 0
        self.closed = 0

    def read(self) -> Shot | None:
        while self._steps:
            step = self._steps.pop(0)
            if isinstance(step, BaseException):
                raise step
            if callable(step):
                step()
                continue
            self._number += 1
            return Shot(step, "bgr", (self._number - 1) / FPS, monotonic())
        return None

    def close(self) -> None:
        self.closed += 1


class Keeping:
    """A sink that keeps what it gets. before: called with each result; may wait or raise. at_close: to raise there."""

    def __init__(
        self,
        name: str = "keeping",
        is_viewer: bool = False,
        before: Callable[[Result], object] | None = None,
        at_close: GcppError | None = None,
    ) -> None:
        self.name, self.is_viewer, self._before, self._at_close = name, is_viewer, before, at_close
        self.results: list[Result] = []
        self.closed = 0

    def write(self, result: Result) -> None:
        if self._before:
            self._before(result)
        self.results.append(result)

    def close(self) -> None:
        self.closed += 1
        if self._at_close:
            raise self._at_close

    @property
    def ids(self) -> list[int]:
        return [result.capture.id for result in self.results]


class Watched:
    """An explainer with functions to call before its frames, which are counted from 0."""

    def __init__(self, explainer: Any, before: dict[int, Callable[[], object]]) -> None:
        self._explainer, self._before, self._number = explainer, before, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        number, self._number = self._number, self._number + 1
        self._before.get(number, lambda: None)()
        return self._explainer(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._explainer, name)


def fails(error: BaseException) -> Callable[..., Any]:
    """A function that raises it."""

    def fail(*_: Any) -> None:
        raise error

    return fail


def adds_up(report: Report) -> bool:
    """Whether every captured frame has exactly one fate, and every result one in each sink."""
    fates = report.explained + report.carried + report.stale + report.skipped + report.failed + report.under_way
    return report.captured == fates and report.under_way >= 0
