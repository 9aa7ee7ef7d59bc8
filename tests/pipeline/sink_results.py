"""Results made by hand, and a stream that only remembers what sinks ask of it."""

from typing import Any

import numpy as np

from gcpp_edge.contract import Contract, Geometry, Layer, Level, Preprocessing, Scores
from gcpp_edge.explanation import Drawing, Explanation
from gcpp_edge.frames import frame_size
from gcpp_edge.geometry import fit_frame
from gcpp_edge.kernels import table
from gcpp_edge.methods import display_range
from gcpp_edge.pipeline.capture import Capture
from gcpp_edge.pipeline.counters import Report
from gcpp_edge.pipeline.events import Event
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.settings import Settings, changed

LABELS = ("tabby cat", "Würstchen 猫", "bird")
CONTRACT = Contract(
    input="image",
    preprocessing=Preprocessing(32, 32, color="rgb", geometry=Geometry()),
    scores=Scores("scores", len(LABELS)),
    layer=Layer("layer", "layer", 8, (4, 4), True),
    levels={"plain": Level(1, ("scores",))},
    labels=LABELS,
)


class FakeControl:
    """A Control that counts how often it was stopped."""

    def __init__(self, fps: float = 30.0, name: str = "test://") -> None:
        self.name, self.contract, self.runtime_name, self.fps = name, CONTRACT, "by hand", fps
        self.settings = Settings()
        self.stops = 0

    def change(self, **changes: Any) -> Settings:
        self.settings = changed(self.settings, self.contract, **changes)
        return self.settings

    def report(self) -> Report:
        return Report(fps=29.7)

    def stop(self) -> None:
        self.stops += 1


def frame_of(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A grey ground, a square that moves, and at the bottom eight black or white blocks: the number, in binary."""
    frame = np.full((height, width, 3), 90, np.uint8)
    left = 3 * number % max(width - 8, 1)
    frame[8:16, left : left + 8] = (0, 200, 40)
    for bit in range(8):
        frame[3 * height // 4 :, bit * width // 8 : (bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return frame


def number_in(picture: np.ndarray) -> int:
    """Which frame a picture shows: its overlay there is blue over black, or pale blue over white."""
    height, width, _ = picture.shape
    row = 7 * height // 8
    return sum(int(picture[row, (2 * bit + 1) * width // 16, 1] > 64) << bit for bit in range(8))


def make_result(
    number: int = 0,
    timestamp: float | None = None,
    *,
    height: int = 48,
    width: int = 64,
    class_index: int = 0,
    peak: float = 3.0,
    events: tuple[Event, ...] = (),
    timings: dict[str, float] | None = None,
) -> Result:
    """The result of frame `number` of a source of 30 frames a second."""
    frame = frame_of(number, height, width)
    raw_map = np.zeros((4, 4), np.float32)
    raw_map[1, 2] = peak
    fit = fit_frame(*frame_size(frame, "bgr"), CONTRACT.preprocessing)
    drawing = Drawing(CONTRACT, table("numpy"), fit, display_range("paper", raw_map, 32, 32), "bgr", None)
    scores = np.zeros(len(LABELS), np.float32)
    scores[class_index] = 3.0
    times = {"network": 2.5} if timings is None else timings
    found = Explanation(-1, class_index, scores, raw_map, 0, "gradcam++", "paper", frame, times, drawing)
    seconds = number / 30 if timestamp is None else timestamp
    return Result(found, Capture(number, seconds, 100.0 + seconds), Settings(), 12.5, True, events)
