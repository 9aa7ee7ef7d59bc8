"""Cameras behind GStreamer and RTSP: the very pipelines that OpenCV is given, on a cv2 that is made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import fake_opencv
import numpy as np
import pytest
from fake_opencv import FakeCapture, FakeOpencv

from gcpp_edge.errors import CaptureError, FrameError, InputError, MissingDependencyError
from gcpp_edge.pipeline.sources import opencv as shared
from gcpp_edge.pipeline.sources import opener_of

Use = Callable[..., FakeOpencv]
BGR = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """fake_opencv.use for this test."""
    return partial(fake_opencv.use, monkeypatch)


TIMEOUTS = {"OPEN_TIMEOUT_MSEC": 5000, "READ_TIMEOUT_MSEC": 5000}

CSI = {
    "csi://0": "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1 ! "
    "nvvidconv flip-method=0 ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1 sync=false",
    "csi://1?width=1920&height=1080&fps=60&flip=rotate-180&format=bgr": "nvarguscamerasrc sensor-id=1 ! "
    "video/x-raw(memory:NVMM),width=1920,height=1080,framerate=60/1 ! nvvidconv flip-method=2 ! "
    "video/x-raw,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false",
}


@pytest.mark.parametrize("address", CSI)
def test_a_csi_camera_is_this_pipeline(address: str, use: Use) -> None:
    is_bgr = "bgr" in address
    pixels = BGR if is_bgr else np.zeros((1080, 1280), np.uint8)
    fake = use(FakeCapture([pixels]))
    source = opener_of(address)()
    assert fake.opened == [(CSI[address], cv2.CAP_GSTREAMER, TIMEOUTS)]
    assert (source.name, source.is_live, source.fps) == (address, True, 30)
    shot = source.read()
    assert shot.format == ("bgr" if is_bgr else "nv12") and shot.pixels is pixels
    with pytest.raises(CaptureError, match="no frame comes any more"):
        source.read()
    source.close()
    assert not fake.capture.is_open


def test_an_old_gstreamer_is_not_asked_for_time_outs(use: Use) -> None:
    fake = use(FakeCapture([]), version="4.6.0")
    opener_of("csi://0")()
    assert fake.opened[0][2] == {}


class Pipeline(NamedTuple):
    text: str
    format: str
    shape: tuple[int, ...]
    dtype: Any = np.uint8
    is_live: bool = True


PIPELINES = [
    Pipeline("v4l2src ! video/x-raw,format=NV12 ! appsink drop=true max-buffers=1", "nv12", (720, 640)),
    Pipeline("v4l2src ! video/x-raw, format = (string) GRAY8 ! queue ! appsink", "gray", (480, 640)),
    Pipeline('v4l2src ! capsfilter caps="video/x-raw,format=GRAY16_LE" ! appsink', "gray16", (480, 640), np.uint16),
    Pipeline("videotestsrc num-buffers=3 ! video/x-raw,format=BGRx ! appsink", "bgra", (480, 640, 4), is_live=False),
    Pipeline("filesrc location=a.mp4 ! decodebin ! videoconvert ! appsink", "bgr", (480, 640, 3), is_live=False),
    Pipeline("v4l2src ! video/x-raw,format=YUY2 ! videoconvert ! appsink", "bgr", (480, 640, 3)),
    Pipeline(
        "v4l2src ! video/x-raw,format=NV12 ! nvvidconv ! video/x-raw,format=RGBA ! appsink", "rgba", (480, 640, 4)
    ),
    Pipeline("v4l2src ! appsink", "gray", (480, 640)),
    Pipeline("v4l2src ! video/x-raw,format=BGR ! video/x-raw,width=640 ! appsink", "bgr", (480, 640, 3)),
]


@pytest.mark.parametrize("case", PIPELINES, ids=lambda case: case.text)
def test_a_pipeline_says_the_format_of_its_frames(case: Pipeline, use: Use) -> None:
    fake = use(FakeCapture(2 * [np.zeros(case.shape, case.dtype)], {"FRAME_HEIGHT": 480}))
    source = opener_of(f"gst://{case.text}")()
    assert fake.opened[0][:2] == (case.text, cv2.CAP_GSTREAMER)
    assert source.is_live == case.is_live
    shot = source.read()
    assert shot.format == case.format
    if not case.is_live:
        assert (shot.timestamp, source.read().timestamp) == (0, 1 / 30)
        assert source.read() is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("videotestsrc ! fakesink", "has to end in `! appsink`"),
        ("appsink ! videotestsrc", "has to end in `! appsink`"),
        ("v4l2src ! video/x-raw,format=YUY2 ! appsink", "frames of YUY2 are not taken"),
        ("v4l2src ! video/x-raw,format={NV12,I420} ! appsink", "frames of {NV12,I420} are not taken"),
        ("v4l2src ! image/jpeg,width=640 ! appsink", "have to be decoded"),
        ("v4l2src ! appsink?speed=3", "unknown option 'speed'"),
    ],
)
def test_a_pipeline_that_cannot_give_frames_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        opener_of(f"gst://{text}")
    assert str(caught.value).startswith(f"gst://{text}: ") and reason in str(caught.value)


def test_planes_of_an_unsaid_format_are_not_taken_for_grey(use: Use) -> None:
    use(FakeCapture([np.zeros((720, 640), np.uint8)], {"FRAME_HEIGHT": 480}))
    with pytest.raises(CaptureError, match="several planes, whose format the pipeline does not say"):
        opener_of("gst://v4l2src ! appsink")().read()


def test_live_can_be_said_of_a_pipeline(use: Use) -> None:
    use(FakeCapture([]))
    source = opener_of("gst://v4l2src num-buffers=9 ! appsink?live=1")()
    assert source.is_live
    assert opener_of("gst://videotestsrc ! appsink?live=0")().read() is None


def test_a_pipeline_of_unknown_rate_tells_its_position(use: Use) -> None:
    use(FakeCapture([BGR], {"FPS": 0, "POS_MSEC": 1500}))
    assert opener_of("gst://filesrc location=a ! decodebin ! appsink")().read().timestamp == 1.5


LACKING = {
    "csi://0": "needs GSTREAMER",
    "gst://videotestsrc ! appsink": "needs GSTREAMER",
    "rtsp://cam/a?backend=gstreamer": "needs GSTREAMER",
    "rtsp://u:geheim@cam/a": "needs an OpenCV with FFmpeg or GStreamer",
    "http://u:geheim@cam/a": "needs FFMPEG",
    "v4l2://0": "needs V4L2",
}


@pytest.mark.parametrize("address", LACKING)
def test_what_this_opencv_lacks_is_said_with_what_to_install(address: str, use: Use) -> None:
    fake = use(None, "")
    with pytest.raises(MissingDependencyError) as caught:
        opener_of(address)()
    text = str(caught.value)
    assert LACKING[address] in text and "install" in text and "geheim" not in text and "\n" not in text
    assert fake.opened == []


def test_rtsp_goes_through_ffmpeg_with_time_outs_and_one_thread(use: Use) -> None:
    fake = use(FakeCapture([BGR]))
    source = opener_of("rtsp://u:geheim@cam:554/a?channel=1&subtype=0")()
    assert fake.opened == [
        ("rtsp://u:geheim@cam:554/a?channel=1&subtype=0", cv2.CAP_FFMPEG, TIMEOUTS | {"N_THREADS": 1})
    ]
    assert source.name == "rtsp://u:***@cam:554/a?channel=1&subtype=0" and source.is_live
    shot = source.read()
    assert shot.format == "bgr"
    assert abs(shot.timestamp - time.time()) < 1 and abs(shot.arrived - time.monotonic()) < 1
    with pytest.raises(CaptureError) as caught:
        source.read()
    assert "geheim" not in str(caught.value)


RTSP_BY_GSTREAMER = (
    'rtspsrc location="rtsp://u:geheim@cam/a?channel=1" protocols=tcp latency=100 '
    "tcp-timeout=5000000 timeout=5000000 ! decodebin ! videoconvert ! video/x-raw,format=BGR ! "
    "appsink drop=true max-buffers=1 sync=false"
)


@pytest.mark.parametrize(
    ("address", "backends"),
    [
        ("rtsp://u:geheim@cam/a?channel=1&backend=gstreamer", "FFMPEG GSTREAMER"),
        ("rtsp://u:geheim@cam/a?channel=1", "GSTREAMER"),
    ],
)
def test_rtsp_goes_through_gstreamer_where_asked_for_or_alone(address: str, backends: str, use: Use) -> None:
    fake = use(FakeCapture([BGR]), backends)
    source = opener_of(address)()
    assert fake.opened == [(RTSP_BY_GSTREAMER, cv2.CAP_GSTREAMER, TIMEOUTS)]
    assert "geheim" not in source.name and source.read().format == "bgr"


def test_a_camera_that_cannot_be_opened_is_one_line_without_the_password(use: Use) -> None:
    for address in (
        "rtsp://u:geheim@cam/a",
        "http://u:geheim@cam/a",
        "rtsp://u:geheim@cam/a?backend=gstreamer",
        "csi://0",
    ):
        use(None)
        with pytest.raises(CaptureError) as caught:
            opener_of(address)()
        assert "geheim" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_frame_that_cannot_be_decoded_is_a_frame_error_until_none_comes_for_long(
    use: Use, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = cv2.error("broken")
    broken.err = "it is broken"
    use(FakeCapture([BGR, None, broken, BGR, None]))
    source = opener_of("rtsp://cam/a")()
    assert source.read() is not None
    for reason in ("cannot decode", r"cannot decode \(it is broken\)"):
        with pytest.raises(FrameError, match=reason):
            source.read()
    assert source.read() is not None
    later = time.monotonic() + shared.TIMEOUT_S
    monkeypatch.setattr(shared.time, "monotonic", lambda: later)
    with pytest.raises(CaptureError, match="no frame for 5 s"):
        source.read()


def test_a_frame_of_a_shape_that_the_format_has_not_is_refused(use: Use) -> None:
    use(FakeCapture([np.zeros((5, 5), np.uint8)]))
    with pytest.raises(FrameError, match="csi://0: expected an nv12 frame"):
        opener_of("csi://0")().read()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("csi://front", "expected the number of a sensor"),
        ("csi://0?flip=sideways", "flip: expected none or counterclockwise"),
        ("rtsp://cam/a?backend=vlc", "backend: expected ffmpeg or gstreamer, found 'vlc'"),
        ("rtsp://cam/a?threads=0", "threads: expected a whole number 1 to 64, found '0'"),
    ],
)
def test_a_bad_option_is_refused_before_anything_is_opened(address: str, reason: str) -> None:
    with pytest.raises(InputError) as caught:
        opener_of(address)
    assert str(caught.value).startswith(address) and reason in str(caught.value)
