"""The synthetic scene: the same frames each time, and faults where they are asked for."""

import time

import numpy as np
import pytest

from gcpp_edge.errors import CaptureError, FrameError, InputError
from gcpp_edge.frames import FORMATS, frame_fits
from gcpp_edge.pipeline.capture import Shot
from gcpp_edge.pipeline.sources import opener_of

SMALL = "test://?live=0&width=64&height=48"


def shots_of(address: str) -> list[Shot]:
    source = opener_of(address)()
    return list(iter(source.read, None))


@pytest.mark.parametrize("format", FORMATS)
def test_frames_are_of_the_format_and_size_that_is_asked_for(format: str) -> None:
    for shot in shots_of(f"{SMALL}&format={format}&frames=3"):
        assert shot.format == format
        assert frame_fits(shot.pixels.shape, shot.pixels.dtype, format)
        assert shot.pixels.shape[:2] == ((72, 64) if format == "nv12" else (48, 64))


@pytest.mark.parametrize("format", [format for format in FORMATS if format != "bgr"])
def test_a_scene_is_the_same_in_every_format(format: str) -> None:
    bgr, other = (shots_of(f"{SMALL}&format={name}&frames=40")[-1].pixels for name in ("bgr", format))
    seen, expected = (gray_of(pixels, name) for pixels, name in ((other, format), (bgr, "bgr")))
    difference = np.abs(seen - expected)
    assert difference.mean() < 1.5
    if "gray" not in format and format != "nv12":
        assert difference.max() < 1e-3


def gray_of(pixels: np.ndarray, format: str) -> np.ndarray:
    """What OpenCV makes of it."""
    import cv2

    to_gray = {"bgr": cv2.COLOR_BGR2GRAY, "rgb": cv2.COLOR_RGB2GRAY, "bgra": cv2.COLOR_BGRA2GRAY}
    to_gray |= {"rgba": cv2.COLOR_RGBA2GRAY}
    if format == "nv12":
        return gray_of(cv2.cvtColor(pixels, cv2.COLOR_YUV2BGR_NV12), "bgr")
    if format.startswith("gray"):
        return pixels.astype(float) / (257 if format == "gray16" else 1)
    return cv2.cvtColor(pixels, to_gray[format]).astype(float)


def test_frames_follow_from_their_number() -> None:
    first, second = (shots_of("test://?live=0&width=320&height=240&frames=9&cut=4") for _ in range(2))
    assert len(first) == 9
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
    assert len({shot.pixels.tobytes() for shot in first}) == 9
    assert [shot.timestamp for shot in first] == [number / 30 for number in range(9)]


def test_the_frames_are_the_receivers() -> None:
    source, other = opener_of(f"{SMALL}&frames=4")(), opener_of(f"{SMALL}&frames=4")()
    for _ in range(4):
        shot, untouched = source.read(), other.read()
        np.testing.assert_array_equal(shot.pixels, untouched.pixels)
        shot.pixels[:] = 0


def test_a_cut_changes_more_than_any_movement() -> None:
    pixels = [shot.pixels.astype(int) for shot in shots_of(f"{SMALL}&frames=12&cut=5")]
    changes = [np.abs(after - before).mean() for before, after in zip(pixels, pixels[1:], strict=False)]
    cuts = {4, 9}  # from frame 4 to 5, and from 9 to 10
    assert min(changes[index] for index in cuts) > 3 * max(c for index, c in enumerate(changes) if index not in cuts)


def test_a_live_scene_keeps_its_pace_and_has_unix_time() -> None:
    source = opener_of("test://?width=64&height=48&fps=50&frames=11")()
    assert (source.is_live, source.fps, source.name) == (True, 50, "test://?width=64&height=48&fps=50&frames=11")
    began, shots = time.monotonic(), []
    while (shot := source.read()) is not None:
        assert abs(shot.timestamp - time.time()) < 1 and abs(shot.arrived - time.monotonic()) < 1
        shots.append(shot)
    assert len(shots) == 11
    assert time.monotonic() - began >= 0.2  # ten periods; how late it may be is the machine's affair


def test_a_live_scene_gives_no_frames_of_before_after_a_pause() -> None:
    source = opener_of("test://?width=64&height=48&fps=20&frames=40")()
    source.read()
    time.sleep(0.5)
    began = time.monotonic()
    for _ in range(4):
        source.read()
    assert time.monotonic() - began >= 0.1  # ten frames were due meanwhile


def test_a_camera_that_vanishes_does_so_once_and_goes_on_where_it_was() -> None:
    opener = opener_of(f"{SMALL}&frames=6&fail_at=3")
    source = opener()
    before = [source.read() for _ in range(3)]
    with pytest.raises(CaptureError, match="lost before frame 3"):
        source.read()
    source.close()
    after = list(iter(opener().read, None))
    whole = shots_of(f"{SMALL}&frames=6")
    assert len(before + after) == 6
    for shot, expected in zip(before + after, whole, strict=True):
        np.testing.assert_array_equal(shot.pixels, expected.pixels)


def test_a_bad_frame_is_refused_and_the_next_is_good() -> None:
    source = opener_of(f"{SMALL}&frames=4&bad_at=1")()
    assert source.read().timestamp == 0
    with pytest.raises(FrameError, match="frame 1 is unusable"):
        source.read()
    assert [shot.timestamp * 30 for shot in iter(source.read, None)] == [2, 3]


def test_a_stall_lasts_as_long_as_was_asked_for() -> None:
    source = opener_of(f"{SMALL}&frames=3&stall_at=1&stall_s=0.2")()
    source.read()
    began = time.monotonic()
    source.read()
    assert time.monotonic() - began >= 0.2


def test_the_size_changes_where_it_was_asked_for() -> None:
    shots = shots_of(f"{SMALL}&frames=4&resize_at=2&format=nv12")
    assert [shot.pixels.shape for shot in shots] == [(72, 64), (72, 64), (36, 32), (36, 32)]


REFUSED = {
    "test://?width=8": "width: expected a whole number 16 to 8192, found '8'",
    "test://?format=yuv": "format: expected bgr or rgb",
    "test://?width=66&format=nv12": "nv12 here needs a width and height that 4 divides",
    "test://?colour=red": "unknown option 'colour'",
    "test://here": "expected test:// with options alone",
    "test://?fps=0": "fps: expected a number 0.1 to 1000",
}


@pytest.mark.parametrize("address", REFUSED)
def test_a_bad_option_is_refused_before_anything_is_opened(address: str) -> None:
    with pytest.raises(InputError) as caught:
        opener_of(address)
    assert str(caught.value).startswith(address) and REFUSED[address] in str(caught.value)
