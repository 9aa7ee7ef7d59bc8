"""When frames are due: by a rate, or by their own timestamps."""

import threading

import pytest

from gcpp_edge.pipeline import pace as module
from gcpp_edge.pipeline.pace import Pace


class Clock(threading.Event):
    """Time that only passes where somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None and timeout <= threading.TIMEOUT_MAX, "an OverflowError of a real one"
        self.now += timeout
        return False

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock.monotonic)
    return clock


@pytest.mark.parametrize(
    ("camera_fps", "max_fps", "admitted"),
    [(30, 0, 300), (30, 30, 300), (30, 15, 150), (30, 10, 100), (30, 20, 200), (30, 60, 300), (100, 33, 330)],
)
def test_a_live_source_is_thinned_out(clock: Clock, camera_fps: int, max_fps: float, admitted: int) -> None:
    pace = Pace(is_live=True, max_fps=max_fps, in_real_time=True)
    frames = 10 * camera_fps
    found = sum(pace.admits(0.0, 1000 + number / camera_fps, clock) for number in range(frames))
    assert abs(found - admitted) <= 0.01 * frames + 1
    assert clock.now == 1000, "a camera never waits"


def test_a_camera_that_is_not_quite_steady_keeps_its_frames(clock: Clock) -> None:
    pace = Pace(is_live=True, max_fps=30, in_real_time=False)
    early = [0.002 if number % 2 else 0.0 for number in range(300)]
    assert all(pace.admits(0.0, 1000 + number / 30 - early[number], clock) for number in range(300))


@pytest.mark.parametrize(
    ("max_fps", "in_real_time", "seconds"),
    [(0, False, 0.0), (10, False, 9.9), (0, True, 3.96), (50, True, 3.96), (10, True, 9.9)],
)
def test_a_file_is_slowed_down(clock: Clock, max_fps: float, in_real_time: bool, seconds: float) -> None:
    pace = Pace(is_live=False, max_fps=max_fps, in_real_time=in_real_time)
    assert all(pace.admits(number / 25, clock.now, clock) for number in range(100))
    assert clock.now - 1000 == pytest.approx(seconds, abs=0.11)


@pytest.mark.parametrize("frames", [10, 50])
def test_a_file_that_starts_over_goes_on_at_its_pace(clock: Clock, frames: int) -> None:
    pace = Pace(is_live=False, max_fps=0, in_real_time=True)
    for _ in range(3):
        assert all(pace.admits(number / 25, clock.now, clock) for number in range(frames))
    assert clock.now - 1000 == pytest.approx(3 * (frames - 1) / 25, abs=0.01)


def test_a_pause_of_the_reader_is_not_made_up_for(clock: Clock) -> None:
    pace = Pace(is_live=False, max_fps=0, in_real_time=True)
    pace.admits(0.0, clock.now, clock)
    clock.now += 60
    before = clock.now
    assert all(pace.admits(number / 25, clock.now, clock) for number in range(1, 26))
    assert clock.now - before == pytest.approx(24 / 25, abs=0.05)


@pytest.mark.parametrize(("max_fps", "timestamps"), [(0.0, (0.0, 1e300)), (1e-300, (0.0, 0.1))])
def test_a_frame_that_is_never_due_is_waited_for_as_long_as_can_be(
    clock: Clock, max_fps: float, timestamps: tuple[float, float]
) -> None:
    pace = Pace(is_live=False, max_fps=max_fps, in_real_time=True)
    assert all(pace.admits(timestamp, 0.0, clock) for timestamp in timestamps)
    assert clock.now >= threading.TIMEOUT_MAX
