"""Addresses are taken apart as their users mean them, and never show a password."""

from typing import NamedTuple

import pytest

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.uris import masked, parse_uri


class Case(NamedTuple):
    text: str
    scheme: str
    place: str
    options: dict[str, str] = {}


CASES = [
    Case("/dev/video0", "v4l2", "/dev/video0"),
    Case("/dev/video1?width=1280&fourcc=MJPG", "v4l2", "/dev/video1", {"width": "1280", "fourcc": "MJPG"}),
    Case("v4l2://0", "v4l2", "0"),
    Case("V4L2:///dev/video0?fps=30", "v4l2", "/dev/video0", {"fps": "30"}),
    Case("clip.mp4", "file", "clip.mp4"),
    Case("file:///data/clip.mp4?fps=5", "file", "/data/clip.mp4", {"fps": "5"}),
    Case("frames/%06d.png", "file", "frames/%06d.png"),
    Case("photos/*.jpg?fps=2.5", "file", "photos/*.jpg", {"fps": "2.5"}),
    Case("photos/img?.png", "file", "photos/img?.png"),
    Case("photos/img?.png?fps=5", "file", "photos/img?.png", {"fps": "5"}),
    Case("http://127.0.0.1:8080", "http", "127.0.0.1:8080"),
    Case("rtsp://u:p@cam/a?channel=1&subtype=0", "rtsp", "u:p@cam/a", {"channel": "1", "subtype": "0"}),
    Case("gst://rtspsrc location=rtsp://h/x?a=1 ! appsink", "gst", "rtspsrc location=rtsp://h/x?a=1 ! appsink"),
    Case("gst://videotestsrc ! appsink?format=nv12", "gst", "videotestsrc ! appsink", {"format": "nv12"}),
    Case("test://", "test", ""),
    Case("test://?live=0&cut=30", "test", "", {"live": "0", "cut": "30"}),
    Case("x://y?a=1%202", "x", "y", {"a": "1 2"}),
    Case("x://y?a=1&a=2", "x", "y", {"a": "2"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.text)
def test_an_address_is_taken_apart(case: Case) -> None:
    uri = parse_uri(case.text)
    assert (uri.scheme, uri.place, uri.options) == (case.scheme, case.place, case.options)


PASSWORDS = [
    "rtsp://admin:geheim@cam/stream",
    "rtsp://admin:ge/heim@geheim@10.0.0.2:554/stream",
    "rtsp://:geheim@cam",
    "http://cam/video?user=admin&password=geheim&channel=1",
    "http://cam/video?access_token=geheim",
    "http://cam/video?apikey=geheim",
    'gst://rtspsrc location="rtsp://u:geheim@h/x?a=1" ! decodebin ! appsink',
    'gst://rtspsrc location=rtsp://h user-pw="geheim geheim" ! decodebin ! appsink',
    "rtsps://u:geheim@cam/a?backend=gstreamer",
]


@pytest.mark.parametrize("text", PASSWORDS)
def test_a_password_is_not_shown(text: str) -> None:
    uri = parse_uri(text)
    assert "geheim" not in uri.shown and "***" in uri.shown
    assert "geheim" not in repr(uri)
    assert "geheim" in uri.without()  # what is opened has it
    assert masked(uri.shown) == uri.shown


def test_a_refusal_shows_no_password() -> None:
    with pytest.raises(InputError, match="unknown option 'speed'") as caught:
        parse_uri("rtsp://u:geheim@cam/a?speed=3").require_options(["backend"])
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("text", ["rtsp://host:554/a", "clip.mp4", "photos/*.jpg?fps=3", "http://127.0.0.1:8080"])
def test_what_holds_no_password_is_shown_as_it_is(text: str) -> None:
    assert parse_uri(text).shown == text


def test_options_are_read_by_their_kind() -> None:
    uri = parse_uri("test://?width=640&fps=29.97&format=NV12&live=no")
    assert uri.whole_number("width", 1, 1, 9999) == 640
    assert uri.number("fps", 1, 0.1, 1000) == 29.97
    assert uri.choice("format", "bgr", ("bgr", "nv12")) == "nv12"
    assert uri.flag("live", True) is False
    assert (uri.whole_number("height", 7, 1, 9), uri.flag("loop", True)) == (7, True)
    uri.require_options(["width", "fps", "format", "live"])


REFUSED = {
    "?width=1.5": "width: expected a whole number 1 to 100, found '1.5'",
    "?width=101": "width: expected a whole number 1 to 100, found '101'",
    "?width=": "width: expected a whole number 1 to 100, found ''",
    "?fps=fast": "fps: expected a number 0.1 to 1000, found 'fast'",
    "?fps=nan": "fps: expected a number 0.1 to 1000, found 'nan'",
    "?format=yuv": "format: expected bgr or NV12, found 'yuv'",
    "?live=maybe": "live: expected 1 or 0, found 'maybe'",
    "?colour=red": "unknown option 'colour'. Known for test://: width, fps, format, live.",
}


@pytest.mark.parametrize("query", REFUSED)
def test_a_bad_option_is_named_with_its_value(query: str) -> None:
    uri = parse_uri("test://" + query)
    with pytest.raises(InputError) as caught:
        uri.require_options(["width", "fps", "format", "live"])
        uri.whole_number("width", 1, 1, 100)
        uri.number("fps", 1, 0.1, 1000)
        uri.choice("format", "bgr", ("bgr", "NV12"))
        uri.flag("live", True)
    assert str(caught.value).startswith(f"test://{query}: ") and REFUSED[query] in str(caught.value)


def test_options_of_ours_are_left_out_of_what_a_camera_is_asked() -> None:
    uri = parse_uri("rtsp://cam/a?channel=1&backend=gstreamer&name=a%20b")
    assert uri.without("backend") == "rtsp://cam/a?channel=1&name=a%20b"
    assert parse_uri("rtsp://cam/a?backend=ffmpeg").without("backend") == "rtsp://cam/a"


@pytest.mark.parametrize("text", ["", "  ", "rtsp://", "file://", "v4l2://?width=3"])
def test_an_address_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="empty address|nothing is named"):
        parse_uri(text)
