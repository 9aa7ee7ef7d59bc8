"""Frames of any pace find their place in a video of constant rate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from gcpp_edge.pipeline.sinks.slots import LONGEST_GAP_S, Slots, rate_of


class Pace(NamedTuple):
    """Timestamps in seconds, the rate of the video, and the slots from each frame to the next."""

    name: str
    fps: float
    timestamps: Sequence[float]
    steps: Sequence[int]


PACES = (
    Pace("one frame", 30, [7.0], [1]),
    Pace("as fast as the video", 10, [0, 0.1, 0.2, 0.3], [1, 1, 1, 1]),
    Pace("Unix time", 10, [1.7e9, 1.7e9 + 0.1, 1.7e9 + 0.2], [1, 1, 1]),
    Pace("every third was dropped", 10, [0, 0.1, 0.3, 0.4, 0.6], [1, 1, 2, 1, 2]),
    Pace("half as fast", 10, [0, 0.2, 0.4], [1, 2, 2]),
    Pace("twice as fast", 10, [0, 0.05, 0.1, 0.15, 0.2], [1, 1, 0, 1, 0]),
    Pace("unsteady, and none lost", 10, [0, 0.14, 0.17, 0.34, 0.36], [1, 1, 1, 1, 1]),
    Pace("time stands still", 10, [0, 0, 0], [1, 1, 1]),
    Pace("a file that starts over", 10, [0, 0.1, 0.2, 0, 0.1], [1, 1, 1, 1, 1]),
    Pace("a camera that was away", 10, [0, 0.1, LONGEST_GAP_S + 0.2, LONGEST_GAP_S + 0.3], [1, 1, 1, 1]),
    Pace("a pause that counts", 10, [0, 0.1, 2.1, 2.2], [1, 1, 20, 1]),
)


@pytest.mark.parametrize("pace", PACES, ids=lambda pace: pace.name)
def test_frames_get_the_slots_of_their_time(pace: Pace) -> None:
    slots = Slots(pace.fps)
    assert [slots.step(timestamp) for timestamp in pace.timestamps] == pace.steps


@pytest.mark.parametrize("fps", [29.97, 30, 24, 7.3])
def test_a_file_s_frames_get_a_slot_each_however_long_it_is(fps: float) -> None:
    slots = Slots(fps)
    assert {slots.step(number / fps) for number in range(100_000)} == {1}


def test_a_camera_that_is_a_little_slow_and_unsteady_stays_in_time() -> None:
    """29.97 for 30 frames a second, up to 4 ms early or late: one frame in a thousand is shown twice, none is lost."""
    times = np.arange(10_000) / 29.97 + np.random.default_rng(0).uniform(-0.004, 0.004, 10_000)
    slots = Slots(30)
    steps = [slots.step(time) for time in times]
    assert abs(sum(steps) - 1 - (times[-1] - times[0]) * 30) < 1
    assert steps.count(0) == 0 and steps.count(2) == sum(steps) - 10_000 and set(steps) == {1, 2}


@pytest.mark.parametrize("said, taken", [(30, 30), (29.97, 29.97), (0, 30), (1000, 30), (float("nan"), 30), (1, 1)])
def test_a_source_without_a_sensible_rate_gets_a_usual_one(said: float, taken: float) -> None:
    assert rate_of(said) == taken
