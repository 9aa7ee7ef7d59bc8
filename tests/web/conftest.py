"""A stream that is none: what a sink sees of one, with results of a small real model pushed by a thread."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))  # for what these tests share

WEB = "pip install 'gcpp-edge[cli,onnxruntime,web]'"
for package in ("aiohttp", "cv2", "onnxruntime", "onnx"):
    pytest.importorskip(package, reason=f"the live page is tested with {package}: {WEB}")

import gcpp_edge  # noqa: E402
from gcpp_edge.explainer import Explainer  # noqa: E402
from gcpp_edge.pipeline.capture import Capture  # noqa: E402
from gcpp_edge.pipeline.counters import Report  # noqa: E402
from gcpp_edge.pipeline.events import Event  # noqa: E402
from gcpp_edge.pipeline.result import Result  # noqa: E402
from gcpp_edge.pipeline.settings import Settings, changed  # noqa: E402
from gcpp_edge.pipeline.uris import parse_uri  # noqa: E402
from gcpp_edge.web.sink import WebSink, open_web_sink  # noqa: E402

MODEL = Path(__file__).resolve().parent.parent / "fixtures" / "explained-v1.onnx"
HEIGHT, WIDTH = 48, 64


class FakeStream:
    """A Control, and what makes results: moving frames, explained by a real model with the settings of the moment."""

    def __init__(self, explainer: Explainer) -> None:
        self.name, self.fps = "test://scene", 30.0
        self.contract, self.runtime_name = explainer.contract, explainer.runtime_name
        self.settings, self.counts = Settings(), Report(source_state="running")
        self.changes: list[dict[str, Any]] = []
        self._explainer = explainer
        self._random = np.random.default_rng(0)

    def change(self, **changes: Any) -> Settings:
        self.settings = changed(self.settings, self.contract, **changes)
        self.changes.append(changes)
        return self.settings

    def report(self) -> Report:
        return replace(self.counts, troubles=list(self.counts.troubles))

    def stop(self) -> None:
        pass

    def result(self, events: tuple[Event, ...] = ()) -> Result:
        """The next one: a bright square on noise, one step further."""
        capture = Capture(self.counts.captured, self.counts.captured / 30, time.monotonic())
        frame = self._random.integers(0, 80, (HEIGHT, WIDTH, 3), np.uint8)
        left = capture.id * 3 % (WIDTH - 12)
        frame[18:30, left : left + 12] = 255
        found = self._explainer(frame, self.settings.target, method=self.settings.method)
        latency_ms = 5 + capture.id % 7
        self.counts.captured += 1
        self.counts.explained += 1
        self.counts.fps = 30.0
        self.counts.latencies.add(latency_ms)
        return Result(replace(found, capture=capture), capture, self.settings, latency_ms, events=events)


class Feeder:
    """Writes results to a sink until it is stopped, in a thread."""

    def __init__(self, stream: FakeStream, sink: WebSink, fps: float = 50) -> None:
        self._stream, self._sink, self._pause = stream, sink, 1 / fps
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.wait(self._pause):
            self._sink.write(self._stream.result())

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()


@pytest.fixture(scope="session")
def explainer() -> Iterator[Explainer]:
    with gcpp_edge.load(MODEL, device="cpu", threads=1) as explainer:
        yield explainer


@pytest.fixture
def stream(explainer: Explainer) -> FakeStream:
    return FakeStream(explainer)


@pytest.fixture
def open_sink(stream: FakeStream) -> Iterator[Callable[..., WebSink]]:
    """Opens sinks that are closed at the end."""
    opened: list[WebSink] = []

    def open_one(address: str = "http://127.0.0.1:0", **options: Any) -> WebSink:
        opened.append(open_web_sink(parse_uri(address), stream, **options))
        return opened[-1]

    yield open_one
    for sink in opened:
        sink.close()


@pytest.fixture
def feed(stream: FakeStream) -> Iterator[Callable[..., Feeder]]:
    """Starts feeders that are stopped at the end."""
    started: list[Feeder] = []

    def start(sink: WebSink, fps: float = 50) -> Feeder:
        started.append(Feeder(stream, sink, fps))
        return started[-1]

    yield start
    for feeder in started:
        feeder.stop()
