"""Pictures over the network: the pipelines, on an OpenCV that only remembers them, and packets of a real GStreamer."""

import shutil
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sink_results import FakeControl, make_result, number_in

import gcpp_edge
import gcpp_edge.kernels
from gcpp_edge.errors import SinkError
from gcpp_edge.pipeline.sinks import gstreamer, open_sink

pytest.importorskip("cv2", reason="OpenCV sends pictures, and writes text into them: pip install 'gcpp-edge[cli]'")
HERE = Path(__file__).parent
SEEKING = "print(__import__('cv2').getBuildInformation())"


class FakeOpenCV:
    """missing: elements that this GStreamer lacks. pipelines: those that were opened, with rate, size and frames."""

    CAP_GSTREAMER = 1800
    __version__ = "4.9.0"

    def __init__(self, has_gstreamer: bool = True, missing: str = "") -> None:
        self.has_gstreamer, self.missing = has_gstreamer, missing
        self.pipelines: list[tuple[str, float, tuple[int, int], list[np.ndarray]]] = []
        self.released = 0
        self.answer: bool | None = None

    def getBuildInformation(self) -> str:  # noqa: N802  OpenCV's own name
        return f"  Video I/O:\n    GStreamer:                   {'YES (1.20.3)' if self.has_gstreamer else 'NO'}\n"

    def VideoWriter(self, pipeline: str, backend: int, fourcc: int, fps: float, size: Any) -> Any:  # noqa: N802
        assert (backend, fourcc) == (self.CAP_GSTREAMER, 0)
        fake, frames = self, []
        is_open = not self.missing or self.missing not in pipeline
        if is_open:
            self.pipelines.append((pipeline, fps, size, frames))

        class Writer:
            def isOpened(self) -> bool:  # noqa: N802
                return is_open

            def write(self, picture: np.ndarray) -> bool | None:
                assert picture.shape == (size[1], size[0], 3) and picture.flags.c_contiguous
                frames.append(picture)
                return fake.answer

            def release(self) -> None:
                fake.released += 1

        return Writer()


@pytest.fixture
def make_opencv(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeOpenCV]:
    def make(*, jetson: bool = False, **options: Any) -> FakeOpenCV:
        fake = FakeOpenCV(**options)
        monkeypatch.setattr(gstreamer, "opencv", lambda: fake)
        monkeypatch.setattr(gstreamer, "JETSON", str(HERE) if jetson else "/nowhere")
        monkeypatch.setattr(gstreamer.socket, "create_connection", lambda *_: socket.socket())
        return fake

    return make


X264 = (
    "appsrc ! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=4000 "
    "key-int-max=30 ! "
)
NVENC = (
    "appsrc ! videoconvert ! video/x-raw,format=BGRx ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! "
    "nvv4l2h264enc bitrate=4000000 iframeinterval=30 idrinterval=30 insert-sps-pps=true maxperf-enable=true ! "
)
UDP = "rtph264pay config-interval=1 pt=96 ! udpsink host=127.0.0.1 port=5004 sync=false"


@pytest.mark.parametrize(
    "uri, options, expected",
    [
        ("rtp://127.0.0.1:5004", {}, X264 + UDP),
        ("rtp://127.0.0.1:5004?bitrate=800", {}, X264.replace("4000", "800") + UDP),
        ("rtp://[::1]:5004", {}, X264 + UDP.replace("127.0.0.1", "::1")),
        ("rtp://127.0.0.1:5004", {"jetson": True}, NVENC + UDP),
        ("rtp://127.0.0.1:5004?encoder=x264enc", {"jetson": True}, X264 + UDP),
        ("rtp://127.0.0.1:5004", {"jetson": True, "missing": "nvv4l2h264enc"}, X264 + UDP),
        (
            "rtsp://user:p@127.0.0.1:8554/live",
            {},
            X264 + 'rtspclientsink location="rtsp://user:p@127.0.0.1:8554/live" protocols=tcp latency=0',
        ),
    ],
)
def test_frames_go_into_this_pipeline(
    uri: str, options: dict[str, Any], expected: str, make_opencv: Callable[..., FakeOpenCV]
) -> None:
    fake = make_opencv(**options)
    sink = open_sink(uri, FakeControl())
    assert "user:p" not in sink.name and sink.is_viewer
    assert all("fakesink" in pipeline for pipeline, *_ in fake.pipelines), "nothing is sent before there is a frame"
    fake.pipelines.clear()
    for number in range(3):
        sink.write(make_result(number))
    ((pipeline, fps, size, frames),) = fake.pipelines
    assert (pipeline, fps, size) == (expected, 30, (64, 48)) and [number_in(frame) for frame in frames] == [0, 1, 2]
    before = fake.released
    sink.close()
    sink.close()
    assert fake.released == before + 1


def test_the_stream_keeps_the_pace_of_the_timestamps(make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake = make_opencv()
    sink = open_sink("rtp://127.0.0.1:5004", FakeControl(fps=10))
    fake.pipelines.clear()
    for number in (0, 3, 4, 6, 15):  # at 30 a second
        sink.write(make_result(number))
    assert [number_in(frame) for frame in fake.pipelines[0][3]] == [0, 3, 4, 15, 15, 15]


def test_odd_sides_are_cut_and_another_size_begins_anew(make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake = make_opencv()
    sink = open_sink("rtp://127.0.0.1:5004", FakeControl())
    fake.pipelines.clear()
    for number, (height, width) in enumerate([(33, 47), (33, 47), (48, 64)]):
        sink.write(make_result(number, height=height, width=width))
    assert [(size, len(frames)) for _, _, size, frames in fake.pipelines] == [((46, 32), 2), ((64, 48), 1)]


def test_an_opencv_without_gstreamer_says_what_to_install(make_opencv: Callable[..., FakeOpenCV]) -> None:
    make_opencv(has_gstreamer=False)
    with pytest.raises(
        SinkError, match="has no GStreamer, as all of pip's. Take your system's: apt install python3-op"
    ):
        open_sink("rtp://127.0.0.1:5004", FakeControl())


def test_a_missing_encoder_says_what_to_install(make_opencv: Callable[..., FakeOpenCV]) -> None:
    make_opencv(missing="x264enc")
    with pytest.raises(SinkError, match="none of x264enc that works. Run: apt install .* gstreamer1.0-plugins-ugly"):
        open_sink("rtp://127.0.0.1:5004", FakeControl())


def test_a_server_that_does_not_answer_is_told_at_the_start(
    make_opencv: Callable[..., FakeOpenCV], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_opencv()
    monkeypatch.undo()
    fake = FakeOpenCV()
    monkeypatch.setattr(gstreamer, "opencv", lambda: fake)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        with pytest.raises(
            SinkError, match=r"user:\*\*\*@127.0.0.1:\d+/x: 127.0.0.1 cannot be reached .Connection ref"
        ):
            open_sink(f"rtsp://user:secret@127.0.0.1:{taken.getsockname()[1]}/x", FakeControl())


@pytest.mark.parametrize("uri, says", [("rtp://127.0.0.1:5004", "Is the address right?"), ("rtsp://h/x", "gst")])
def test_a_pipeline_that_does_not_open_is_told(uri: str, says: str, make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake = make_opencv()
    sink = open_sink(uri, FakeControl())
    fake.missing = "appsrc"
    with pytest.raises(SinkError, match="cannot be sent to, at 64 x 48") as refusal:
        sink.write(make_result())
    assert says in str(refusal.value)


def test_a_pipeline_that_takes_no_more_is_told(make_opencv: Callable[..., FakeOpenCV]) -> None:
    fake = make_opencv()
    sink = open_sink("rtp://127.0.0.1:5004", FakeControl())
    sink.write(make_result(0))
    fake.answer = False
    with pytest.raises(SinkError, match="GStreamer takes no more frames"):
        sink.write(make_result(1))


SEND = """
import sys
sys.path.insert(0, sys.argv[1])
from sink_results import FakeControl, make_result
from gcpp_edge.pipeline.sinks import open_sink
sink = open_sink(sys.argv[2], FakeControl())
for number in range(40):
    sink.write(make_result(number, height=241, width=321))
sink.close()
"""


def python_with_gstreamer() -> str:
    """A Python whose OpenCV has GStreamer; empty where there is none."""
    for python in (sys.executable, shutil.which("python3", path="/usr/bin") or ""):
        if python:
            found = subprocess.run([python, "-c", SEEKING], capture_output=True, text=True).stdout
            if any("GStreamer:" in line and "YES" in line for line in found.splitlines()):
                return python
    return ""


def link_package(folder: Path) -> Path:
    """A folder from which another Python imports this package as it is here."""
    package = folder / "gcpp_edge"
    package.mkdir()
    for entry in Path(gcpp_edge.__file__).parent.iterdir():
        (package / entry.name).symlink_to(entry)
    if not (package / "kernels").exists():
        (package / "kernels").symlink_to(Path(gcpp_edge.kernels.__file__).parent)
    return folder


def units_in(packet: bytes) -> list[int]:
    """Types of the H.264 units that begin in an RTP packet (RFC 6184): alone, several in one, or one in parts."""
    kind, body = packet[12] & 31, packet[13:]
    if kind == 28:
        return [body[0] & 31] if body[0] & 0x80 else []
    if kind != 24:
        return [kind]
    found = []
    while body:
        found.append(body[2] & 31)
        body = body[2 + int.from_bytes(body[:2], "big") :]
    return found


def test_packets_of_h264_arrive(tmp_path: Path) -> None:
    python = python_with_gstreamer()
    if not python:
        pytest.skip("needs an OpenCV with GStreamer: apt install python3-opencv gstreamer1.0-plugins-ugly")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(2)
        uri = f"rtp://127.0.0.1:{receiver.getsockname()[1]}"
        child = subprocess.run(
            [python, "-c", SEND, str(HERE), uri],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={"PYTHONPATH": str(link_package(tmp_path)), "PATH": "/usr/bin:/bin"},
        )
        if "none of x264enc that works" in child.stderr:
            pytest.skip("needs GStreamer's x264enc: apt install gstreamer1.0-plugins-ugly")
        assert child.returncode == 0, child.stderr
        packets = []
        while True:
            try:
                packets.append(receiver.recv(65536))
            except TimeoutError:
                break
    numbers = [int.from_bytes(packet[2:4], "big") for packet in packets]
    assert numbers == [(numbers[0] + place) % 65536 for place in range(len(packets))]
    assert {packet[0] >> 6 for packet in packets} == {2} and {packet[1] & 127 for packet in packets} == {96}
    units = Counter(kind for packet in packets for kind in units_in(packet))
    sequence_parameters, picture_parameters, key_frame = 7, 8, 5
    assert units[sequence_parameters] >= 2 and units[picture_parameters] >= 2 and units[key_frame] >= 2
    times = list(dict.fromkeys(int.from_bytes(packet[4:8], "big") for packet in packets))
    # 30 frames a second at 90 kHz; GStreamer counts nanoseconds, and rounds
    assert 39 <= len(times) <= 40
    assert all(abs((later - earlier) % 2**32 - 3000) <= 1 for earlier, later in pairwise(times))
