"""Pipelines that really run, on the system's OpenCV, whose GStreamer pip's wheels do not have."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = "/usr/bin/python3"

_CHECK = """
import sys
if sys.version_info < (3, 10): sys.exit("its Python is older than 3.10")
import cv2
if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER): sys.exit("its OpenCV has no GStreamer")
"""

# every frame of each address: its format, shape, dtype and one pixel; or the error's class and text
_READ = """
import json, sys
from gcpp_edge.errors import GcppError
from gcpp_edge.pipeline.sources import opener_of

def read(address):
    try:
        source = opener_of(address)()
        shots = list(iter(source.read, None))
        source.close()
    except GcppError as error:
        return {"error": type(error).__name__, "text": str(error)}
    pixels = shots[-1].pixels
    height = 240 if shots[0].format == "nv12" else 0
    return {
        "count": len(shots), "format": shots[0].format, "shape": pixels.shape, "dtype": str(pixels.dtype),
        "pixel": pixels[100, 100].tolist(), "chroma": pixels[height + 50, 100:102].tolist() if height else [],
        "times": [shot.timestamp for shot in shots], "is_live": source.is_live, "fps": source.fps,
    }

print(json.dumps([read(address) for address in sys.argv[1:]]))
"""


def lacks() -> str:
    """What keeps these tests from running; empty where nothing does."""
    if not Path(PYTHON).exists():
        return f"there is no {PYTHON}"
    done = subprocess.run([PYTHON, "-c", _CHECK], capture_output=True, text=True, check=False)
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return "" if done.returncode == 0 else f"{PYTHON}: {last} (apt install python3-opencv gstreamer1.0-plugins-base)"


REASON = lacks()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def read_all(tmp_path: Path) -> Any:
    """Reads addresses with the system's Python, which sees the package as an installation lays it out."""
    package = tmp_path / "path" / "gcpp_edge"
    package.mkdir(parents=True)
    for part in [*(ROOT / "gcpp_edge").iterdir(), ROOT / "kernels"]:
        if part.name != "__pycache__":
            (package / part.name).symlink_to(part)
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"}

    def read(*addresses: str) -> list[dict[str, Any]]:
        command = [PYTHON, "-c", _READ, *addresses]
        done = subprocess.run(
            command, env=environment, cwd=package.parent, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout))

    return read


RED = "videotestsrc num-buffers=30 pattern=solid-color foreground-color=0xffc81e0a"  # red 200, green 30, blue 10
SINK = "appsink sync=false"

LUMA, U, V = 83, 94, 204  # of that colour in BT.601, limited range
FORMATS = {
    "BGR": ("bgr", [240, 320, 3], "uint8", [10, 30, 200]),
    "BGRx": ("bgra", [240, 320, 4], "uint8", [10, 30, 200]),
    "BGRA": ("bgra", [240, 320, 4], "uint8", [10, 30, 200, 255]),
    "RGBA": ("rgba", [240, 320, 4], "uint8", [200, 30, 10, 255]),
    "RGBx": ("rgba", [240, 320, 4], "uint8", [200, 30, 10]),
    "NV12": ("nv12", [360, 320], "uint8", [LUMA]),
    "GRAY8": ("gray", [240, 320], "uint8", None),
    "GRAY16_LE": ("gray16", [240, 320], "uint16", None),
}


def test_frames_come_in_the_format_that_the_pipeline_says(read_all: Any) -> None:
    caps = "video/x-raw,format={},width=320,height=240,framerate=30/1"
    found = read_all(*(f"gst://{RED} ! {caps.format(name)} ! {SINK}" for name in FORMATS))
    for (name, (format, shape, dtype, pixel)), one in zip(FORMATS.items(), found, strict=True):
        assert "error" not in one, (name, one)
        assert (one["format"], one["shape"], one["dtype"]) == (format, shape, dtype), name
        assert one["count"] == 30 and not one["is_live"] and one["fps"] == 30
        assert one["times"][-1] == pytest.approx(29 / 30)
        if pixel is not None:
            given = one["pixel"] if isinstance(one["pixel"], list) else [one["pixel"]]
            assert given[: len(pixel)] == pytest.approx(pixel, abs=3), name
    assert found[list(FORMATS).index("NV12")]["chroma"] == pytest.approx([U, V], abs=3)
    eight, sixteen = (found[list(FORMATS).index(name)]["pixel"] for name in ("GRAY8", "GRAY16_LE"))
    assert 40 < eight < 100 and sixteen / 257 == pytest.approx(eight, abs=20)


def test_converted_negotiated_and_unaligned_frames_come_too(read_all: Any) -> None:
    converted, negotiated, unaligned = read_all(
        f"gst://{RED} ! video/x-raw,format=YUY2 ! videoconvert ! {SINK}",
        f"gst://{RED} ! video/x-raw,width=320,height=240 ! {SINK}",
        f"gst://{RED} ! video/x-raw,format=NV12,width=322,height=240 ! queue ! {SINK}",  # rows of 324 bytes
    )
    for one in (converted, negotiated):
        assert one["format"] == "bgr" and one["pixel"] == pytest.approx([10, 30, 200], abs=4)
    assert unaligned["shape"] == [360, 322]
    assert unaligned["pixel"] == pytest.approx(LUMA, abs=3) and unaligned["chroma"] == pytest.approx([U, V], abs=3)


def test_what_does_not_run_is_one_line(read_all: Any) -> None:
    missing, refused, csi, ended = read_all(
        "gst://nosuchelement ! appsink",
        "rtsp://u:geheim@127.0.0.1:1/a?backend=gstreamer",
        "csi://0",
        f"gst://{RED} ! {SINK}?live=1",
    )
    for one in (missing, refused):
        assert one["error"] == "CaptureError" and "cannot start this pipeline" in one["text"]
    assert csi["error"] == "CaptureError"  # nvarguscamerasrc is on a Jetson alone
    assert ended["error"] == "CaptureError" and "no frame comes any more" in ended["text"]
    assert "geheim" not in refused["text"]
