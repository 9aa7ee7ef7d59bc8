"""Cameras of Linux on a cv2 that is made up: raw frames in their shape, the driver's clock, and what cannot be had."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import fake_opencv
import numpy as np
import pytest
from fake_opencv import FakeCapture, FakeOpencv

from gcpp_edge.errors import CaptureError, FrameError, InputError
from gcpp_edge.pipeline.sources import opener_of
from gcpp_edge.pipeline.sources import v4l2 as v4l2_module

Use = Callable[..., FakeOpencv]
BGR = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """fake_opencv.use for this test."""
    return partial(fake_opencv.use, monkeypatch)


def fourcc(text: str) -> int:
    return int(np.frombuffer(text.ljust(4).encode(), "<u4")[0])


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "video0"
    path.touch()
    return str(path)


class Raw(NamedTuple):
    """as_given: the shape in which a release of OpenCV hands out the bytes of a 6 x 4 picture."""

    fourcc: str
    as_given: tuple[int, ...]
    dtype: Any
    format: str
    shape: tuple[int, int]


RAW = [
    Raw("GREY", (4, 6), np.uint8, "gray", (4, 6)),
    Raw("GREY", (4, 6, 1), np.uint8, "gray", (4, 6)),
    Raw("GREY", (1, 24), np.uint8, "gray", (4, 6)),
    Raw("Y16", (4, 6), np.uint16, "gray16", (4, 6)),
    Raw("Y16", (1, 48), np.uint8, "gray16", (4, 6)),
    Raw("NV12", (6, 6), np.uint8, "nv12", (6, 6)),
    Raw("NV12", (1, 40), np.uint8, "nv12", (6, 6)),  # a buffer with room to spare
]


@pytest.mark.parametrize("case", RAW, ids=lambda case: f"{case.fourcc}{case.as_given}")
def test_grey_and_nv12_come_raw_in_their_shape(case: Raw, device: str, use: Use) -> None:
    pixels = np.arange(np.prod(case.as_given)).astype(case.dtype).reshape(case.as_given)
    fake = use(FakeCapture([pixels], {"FRAME_WIDTH": 6, "FRAME_HEIGHT": 4}))
    shot = opener_of(f"v4l2://{device}?fourcc={case.fourcc.lower()}")().read()
    assert fake.capture.asked["CONVERT_RGB"] == 0
    assert (shot.format, shot.pixels.shape) == (case.format, case.shape)
    assert shot.pixels.dtype == (np.uint16 if case.format == "gray16" else np.uint8)
    assert shot.pixels.tobytes() == pixels.tobytes()[: shot.pixels.nbytes]


def test_a_raw_frame_with_too_few_bytes_is_refused(device: str, use: Use) -> None:
    use(FakeCapture([np.zeros((4, 5), np.uint8)], {"FRAME_WIDTH": 6, "FRAME_HEIGHT": 4}))
    with pytest.raises(FrameError, match="a frame of 20 bytes, where gray of 6 x 4 has 24"):
        opener_of(f"v4l2://{device}?fourcc=GREY")().read()


def test_a_grey_camera_comes_raw_without_being_asked(device: str, use: Use) -> None:
    properties = {"FOURCC": fourcc("GREY"), "FRAME_WIDTH": 6, "FRAME_HEIGHT": 4}
    use(FakeCapture([np.zeros((4, 6), np.uint8)], properties))
    assert opener_of(f"v4l2://{device}")().read().format == "gray"


def test_other_cameras_give_bgr_of_what_was_asked_for(device: str, use: Use) -> None:
    fake = use(FakeCapture([BGR]))
    source = opener_of(f"v4l2://{device}?width=1280&height=720&fps=15&fourcc=MJPG")()
    assert fake.opened == [(device, cv2.CAP_V4L2, {})]
    wished = {"FOURCC": fourcc("MJPG"), "FRAME_WIDTH": 1280, "FRAME_HEIGHT": 720, "FPS": 15, "BUFFERSIZE": 1}
    assert fake.capture.asked == wished
    assert list(fake.capture.asked)[0] == "FOURCC"  # sizes depend on it
    assert source.fps == 15 and source.is_live
    assert source.read().format == "bgr"
    assert os.environ["OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT"] == "5"


def test_the_drivers_clock_says_when_a_frame_arrived(device: str, use: Use) -> None:
    taken = time.monotonic() - 0.04
    use(FakeCapture([BGR], {"POS_MSEC": 1000 * taken}))
    shot = opener_of(f"v4l2://{device}")().read()
    assert shot.arrived == pytest.approx(taken, abs=1e-6)
    assert shot.timestamp == pytest.approx(time.time() - (time.monotonic() - taken), abs=0.005)


@pytest.mark.parametrize("milliseconds", [0, -1, float("nan"), 1000 * time.time(), 1e15])
def test_a_driver_with_another_clock_is_not_believed(milliseconds: float, device: str, use: Use) -> None:
    use(FakeCapture([BGR], {"POS_MSEC": milliseconds}))
    before = time.monotonic()
    shot = opener_of(f"v4l2://{device}")().read()
    assert before <= shot.arrived <= time.monotonic()
    assert shot.timestamp == pytest.approx(time.time(), abs=0.5)


def test_a_camera_that_gives_another_fourcc_is_refused_and_let_go(device: str, use: Use) -> None:
    fake = use(FakeCapture([], {"FOURCC": fourcc("YUYV")}, fixed=("FOURCC",)))
    with pytest.raises(CaptureError, match="it gives YUYV, not NV12"):
        opener_of(f"v4l2://{device}?fourcc=NV12")()
    assert not fake.capture.is_open


def test_a_camera_that_is_not_there_or_not_free_is_told(device: str, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    use(None)
    with pytest.raises(CaptureError, match="v4l2://77: there is no /dev/video77. Cameras here: "):
        opener_of("v4l2://77")()
    with pytest.raises(CaptureError, match="or another program has it"):
        opener_of(f"v4l2://{device}")()
    monkeypatch.setattr(v4l2_module.os, "access", lambda *_: False)
    with pytest.raises(CaptureError, match="usermod -aG video"):
        opener_of(f"v4l2://{device}")()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/dev/video0?fourcc=H264", "fourcc: expected MJPG or YUYV or GREY or Y16 or NV12, found 'H264'"),
        ("/dev/video0?width=640", "width and height are asked for together"),
        ("v4l2://0?exposure=3", "unknown option 'exposure'"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_opened(address: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        opener_of(address)
    assert str(caught.value).startswith(address) and reason in str(caught.value)
