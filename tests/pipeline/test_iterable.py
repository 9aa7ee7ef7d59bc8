"""Frames from Python: iterables, callables, and sources of one's own."""

import time
from collections.abc import Iterator

import numpy as np
import pytest

from gcpp_edge.errors import FrameError, InputError
from gcpp_edge.pipeline.sources import opener_of
from gcpp_edge.pipeline.sources.iterable import source_of

FRAME = np.zeros((4, 6, 3), np.uint8)


def test_an_iterable_of_frames_ends_where_it_ends() -> None:
    source = source_of([FRAME, FRAME + 1])
    assert not source.is_live and source.fps == 0 and source.name == "list"
    shots = list(iter(source.read, None))
    assert [int(shot.pixels.max()) for shot in shots] == [0, 1]
    for shot in shots:
        assert shot.format == "bgr"
        assert abs(shot.timestamp - time.time()) < 5 and abs(shot.arrived - time.monotonic()) < 5
    assert source.read() is None


def test_pairs_bring_their_own_timestamps() -> None:
    source = source_of(((FRAME[:, :, 0], stamp) for stamp in (3, np.float32(4.5))), format="gray")
    assert [(shot.timestamp, shot.format) for shot in iter(source.read, None)] == [(3.0, "gray"), (4.5, "gray")]


@pytest.mark.parametrize("stamp", [float("nan"), np.float32("inf"), -float("inf"), 10**400])
def test_a_timestamp_that_is_no_time_costs_its_frame(stamp: float) -> None:
    source = source_of([(FRAME, stamp), (FRAME, 2.0)])
    with pytest.raises(FrameError, match="list: timestamp: expected finite seconds, found"):
        source.read()
    assert source.read().timestamp == 2.0


def test_a_callable_is_a_camera_and_none_ends_it() -> None:
    left = [FRAME, (FRAME, 7.0)]
    source = source_of(lambda: left.pop() if left else None)
    assert source.is_live
    assert source.read().timestamp == 7.0
    assert source.read() is not None and source.read() is None


def test_a_generator_is_closed_with_its_source() -> None:
    closed = []

    def camera() -> Iterator[np.ndarray]:
        try:
            while True:
                yield FRAME
        finally:
            closed.append(True)

    source = opener_of(camera())()
    assert source.name == "camera" and source.read() is not None
    source.close()
    source.close()
    assert closed == [True]


def test_a_source_of_ones_own_is_taken_as_it_is() -> None:
    class Mine:
        name, is_live, fps = "mine", True, 10.0

        def read(self) -> None:
            return None

        def close(self) -> None:
            pass

    mine = Mine()
    assert opener_of(mine)() is mine


@pytest.mark.parametrize("given", [FRAME, 0, None])
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(InputError, match="source: expected an address, an iterable of frames or a callable"):
        opener_of(given)


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(FrameError, match="Unknown frame format 'yuv'"):
        opener_of([FRAME], format="yuv")
