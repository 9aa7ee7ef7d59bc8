"""Cameras and files at an address, against servers on this machine that answer, refuse, or keep silent."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from gcpp_edge.errors import CaptureError
from gcpp_edge.pipeline.capture import Shot
from gcpp_edge.pipeline.sources import network, opener_of
from gcpp_edge.pipeline.sources import opencv as shared

FRAMES = 12
SHADES = [20 * number for number in range(FRAMES)]

pytestmark = pytest.mark.skipif(
    not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG), reason="this OpenCV has no FFmpeg, which reads addresses"
)


class Camera(BaseHTTPRequestHandler):
    """/mjpeg: parts of multipart/x-mixed-replace, then the end. /stalls: a few parts, then silence. Else a file."""

    files: Path
    silence = threading.Event()

    def do_GET(self) -> None:
        if self.path.startswith(("/mjpeg", "/stalls")):
            self._parts()
            return
        file = self.files / self.path.lstrip("/")
        content = file.read_bytes() if file.is_file() else b""
        self.send_response(200 if content else 404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _parts(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for shade in SHADES:
            picture = np.full((48, 64, 3), shade, np.uint8)
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg + b"\r\n")
            time.sleep(0.01)
        if self.path.startswith("/stalls"):
            self.silence.wait(20)

    def log_message(self, *_: object) -> None:
        """Silent."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Its address, without a scheme."""
    handler = type("CameraHere", (Camera,), {"files": tmp_path, "silence": threading.Event()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"127.0.0.1:{made.server_address[1]}"
        handler.silence.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield listening.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a second instead of five."""
    for module in (shared, network):
        monkeypatch.setattr(module, "TIMEOUT_S", 0.5)


def test_an_mjpeg_camera_gives_its_pictures_and_is_lost_at_the_end(server: str) -> None:
    source = opener_of(f"http://u:geheim@{server}/mjpeg?quality=3")()
    assert source.is_live and source.name == f"http://u:***@{server}/mjpeg?quality=3"
    shots: list[Shot] = []
    with pytest.raises(CaptureError) as caught:
        while (shot := source.read()) is not None:
            shots.append(shot)
    assert "no frame comes any more" in str(caught.value) and "geheim" not in str(caught.value)
    source.close()
    means = [shot.pixels.mean() for shot in shots]
    np.testing.assert_allclose(means, SHADES[: len(means)], atol=3)
    assert len(means) >= FRAMES - 1  # FFmpeg knows that a part is whole once the next begins
    for shot in shots:
        assert shot.format == "bgr" and shot.pixels.shape == (48, 64, 3)
        assert abs(shot.timestamp - time.time()) < 10


def test_a_camera_that_falls_silent_is_lost_in_time(server: str, impatient: None) -> None:
    source, began = opener_of(f"http://{server}/stalls")(), time.monotonic()
    with pytest.raises(CaptureError, match="no frame comes any more"):
        while source.read() is not None:
            began = time.monotonic()
    assert 0.3 < time.monotonic() - began < 10
    source.close()


def test_a_video_file_at_an_address_is_played_whole(server: str, tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 20, (64, 48))
    for shade in SHADES:
        writer.write(np.full((48, 64, 3), shade, np.uint8))
    writer.release()
    source = opener_of(f"http://{server}/clip.mp4", loop=2)()
    assert (source.is_live, source.fps) == (False, 20)
    shots = list(iter(source.read, None))
    assert len(shots) == 2 * FRAMES
    np.testing.assert_allclose([shot.timestamp for shot in shots], np.arange(2 * FRAMES) / 20, atol=1e-3)


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_never_answers_is_given_up_in_time(scheme: str, mute: int, impatient: None) -> None:
    began = time.monotonic()
    with pytest.raises(CaptureError) as caught:
        opener_of(f"{scheme}://u:geheim@127.0.0.1:{mute}/a")()
    assert time.monotonic() - began < 10
    assert "no answer within" in str(caught.value) and "geheim" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["rtsp", "http", "https"])
def test_a_port_that_refuses_is_told_at_once(scheme: str, closed_port: int) -> None:
    with pytest.raises(CaptureError) as caught:
        opener_of(f"{scheme}://u:geheim@127.0.0.1:{closed_port}/a")()
    assert str(caught.value) == (
        f"{scheme}://u:***@127.0.0.1:{closed_port}/a: cannot be opened (it is not there, or refuses). "
        "Check the address, user and password."
    )


def test_a_missing_page_is_told(server: str) -> None:
    with pytest.raises(CaptureError, match="cannot be opened"):
        opener_of(f"http://{server}/nothing")()


def test_no_library_shows_the_password(closed_port: int) -> None:
    code = (
        "from gcpp_edge.errors import CaptureError\n"
        "from gcpp_edge.pipeline.sources import opener_of\n"
        "for scheme in ('rtsp', 'http'):\n"
        f"    try: opener_of(scheme + '://user:geheim@127.0.0.1:{closed_port}/a')()\n"
        "    except CaptureError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("***") == 2 and done.stderr == ""
    assert "geheim" not in done.stdout
