"""H.264 over the network, by OpenCV's GStreamer: RTP to an address, or RTSP to a server that takes streams."""

from __future__ import annotations

import os
import re
import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

from gcpp_edge.errors import InputError, SinkError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.sinks.hud import annotated
from gcpp_edge.pipeline.sinks.slots import Slots, rate_of
from gcpp_edge.pipeline.uris import Uri

BITRATE_KBIT = 4000  # a second
TRIAL_SIZE = (320, 240)
RTSP_PORT = 554
TIMEOUT_S = 5.0
JETSON = "/etc/nv_tegra_release"

# from what OpenCV pushes to H.264; a key frame each second, so that a viewer who comes late waits no longer
ENCODERS = {
    "nvv4l2h264enc": (
        "videoconvert ! video/x-raw,format=BGRx ! nvvidconv ! video/x-raw(memory:NVMM),format=NV12 ! nvv4l2h264enc "
        "bitrate={bits} iframeinterval={fps} idrinterval={fps} insert-sps-pps=true maxperf-enable=true"
    ),
    "x264enc": (
        "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast "
        "bitrate={kbit} key-int-max={fps}"
    ),
}
_PAYLOAD = "rtph264pay config-interval=1 pt=96"
_HOST = re.compile(r"[\w.:-]+")
_UNQUOTABLE = re.compile(r"[\"\\\s]")


def opened(uri: Uri, control: Control) -> NetworkVideo:
    """A stream of H.264. Options: bitrate in kbit a second, encoder.

    Raises InputError for an address, SinkError where this OpenCV or this GStreamer cannot do it.
    """
    uri.require_options(("bitrate", "encoder"))
    target = target_of(uri)
    kbit = uri.whole_number("bitrate", BITRATE_KBIT, 50, 200_000)
    names = [uri.choice("encoder", "", ENCODERS)] if "encoder" in uri.options else _likely_encoders()
    cv2 = opencv()
    if not re.search(r"GStreamer:\s+YES", cv2.getBuildInformation()):
        raise SinkError(
            f"{uri.shown}: this OpenCV ({cv2.__version__}) has no GStreamer, as all of pip's. Take your system's: apt "
            "install python3-opencv (a Jetson has it), in an environment without pip's opencv-python. Or watch on the "
            "live page: http://127.0.0.1:8080."
        )
    require_peer(uri)
    fps = rate_of(control.fps)
    for name in names:
        encoder = encoder_text(name, fps, kbit)
        if _writer(f"{encoder} ! {_PAYLOAD} ! fakesink", fps, TRIAL_SIZE) is not None:
            return NetworkVideo(uri, control, f"{encoder} ! {target}", fps)
    raise SinkError(
        f"{uri.shown}: GStreamer here has none of {', '.join(names)} that works. Run: apt install "
        "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly."
    )


def target_of(uri: Uri) -> str:
    """The end of the pipeline, behind the encoder. Raises InputError for an address without host and port."""
    peer = _peer(uri)
    if uri.scheme == "rtsp":
        if peer is None or _UNQUOTABLE.search(uri.place):
            raise InputError(f"{uri.shown}: expected rtsp://HOST:PORT/NAME without spaces and quotes.")
        return f'rtspclientsink location="rtsp://{uri.place}" protocols=tcp latency=0'
    if peer is None or not peer.port or peer.path.strip("/") or peer.username:
        raise InputError(f"{uri.shown}: expected rtp://HOST:PORT, as in rtp://192.168.1.20:5004.")
    # by its own clock GStreamer would hold back what comes in bursts
    return f"{_PAYLOAD} ! udpsink host={peer.hostname} port={peer.port} sync=false"


def _peer(uri: Uri) -> SplitResult | None:
    """The address taken apart; None without a host of letters that mean nothing to a pipeline, or for no port."""
    try:
        found = urlsplit(f"{uri.scheme}://{uri.place}")
        return found if _HOST.fullmatch(found.hostname or "") and found.port != 0 else None
    except ValueError:
        return None


def require_peer(uri: Uri) -> None:
    """Raises SinkError for a host of no known name, or a server that does not answer: of both OpenCV says nothing."""
    peer = _peer(uri)
    assert peer is not None and peer.hostname
    try:
        if uri.scheme == "rtsp":
            socket.create_connection((peer.hostname, peer.port or RTSP_PORT), TIMEOUT_S).close()
        else:
            socket.getaddrinfo(peer.hostname, peer.port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise SinkError(f"{uri.shown}: {peer.hostname} cannot be reached ({error.strerror or error}).") from error


def encoder_text(name: str, fps: float, kbit: int) -> str:
    """The beginning of the pipeline, up to H.264."""
    return "appsrc ! " + ENCODERS[name].format(bits=1000 * kbit, kbit=kbit, fps=max(1, round(fps)))


def _likely_encoders() -> list[str]:
    """In the order they are tried. Not every Jetson has the encoder in hardware: the Orin Nano does not."""
    return list(ENCODERS) if os.path.exists(JETSON) else ["x264enc"]


def _writer(pipeline: str, fps: float, size: tuple[int, int]) -> Any:
    """OpenCV's writer into a pipeline, width and height given; None where it cannot."""
    cv2 = opencv()
    writer = cv2.VideoWriter(pipeline, cv2.CAP_GSTREAMER, 0, fps, size)
    return writer if writer.isOpened() else None


class NetworkVideo:
    """The annotated overlays as H.264; repeated and left out by their timestamps, so that the clock it carries is true.

    A side that is odd loses its last row or column. Where frames change their size the stream is begun anew.
    """

    is_viewer = True

    def __init__(self, uri: Uri, control: Control, pipeline: str, fps: float) -> None:
        self.name, self._control = uri.shown, control
        self._pipeline, self._fps = pipeline, fps
        self._is_to_server = uri.scheme == "rtsp"
        self._slots = Slots(fps)
        self._writer: Any = None
        self._size = (0, 0)

    def write(self, result: Result) -> None:
        """Raises SinkError where nothing can be sent."""
        repeats = self._slots.step(result.capture.timestamp)
        if not repeats:
            return
        picture = annotated(result, self._control.report().fps)
        size = picture.shape[1] // 2 * 2, picture.shape[0] // 2 * 2
        if self._writer is None or size != self._size:
            self._begin(size)
        picture = picture[: size[1], : size[0]].copy()
        for _ in range(repeats):
            if self._writer.write(picture) is False:
                raise SinkError(f"{self.name}: GStreamer takes no more frames.")

    def _begin(self, size: tuple[int, int]) -> None:
        self.close()
        self._writer, self._size = _writer(self._pipeline, self._fps, size), size
        if self._writer is None:
            advice = (
                "Is there a server that takes streams at this address, and is gstreamer1.0-rtsp installed?"
                if self._is_to_server
                else "Is the address right?"
            )
            raise SinkError(f"{self.name}: cannot be sent to, at {size[0]} x {size[1]}. {advice}")

    def close(self) -> None:
        """Ends the stream."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()
