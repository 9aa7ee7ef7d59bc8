"""Viewers: many of them, slow ones, those that never read; and a server that ends while they watch."""

import asyncio
import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from page_requests import ask, port_of, until, write_one

from gcpp_edge.errors import FrameError, SinkError
from gcpp_edge.pipeline.result import Result
from gcpp_edge.web import viewers
from gcpp_edge.web.sink import WebSink


class Viewer:
    """Reads /stream.mjpg part by part on a plain socket."""

    def __init__(self, sink: WebSink) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port_of(sink)), timeout=10)
        self.connection.sendall(b"GET /stream.mjpg HTTP/1.0\r\nHost: localhost\r\n\r\n")  # 1.0: no chunks
        self._file = self.connection.makefile("rb")
        self.status = self._file.readline()
        self.headers = self._block()

    def _block(self) -> dict[str, str]:
        found = {}
        while line := self._file.readline().strip().decode():
            name, _, value = line.partition(": ")
            found[name] = value
        return found

    def part(self) -> tuple[dict[str, str], bytes]:
        """The headers and the picture of the next."""
        boundary = self._file.readline()
        assert boundary == b"--frame\r\n", boundary
        headers = self._block()
        content = self._file.read(int(headers["Content-Length"]))
        assert self._file.read(2) == b"\r\n"
        return headers, content

    def at_end(self) -> bool:
        """Whether nothing but the end comes, behind the boundary that was sent ahead."""
        return self._file.read() in (b"", b"--frame\r\n")

    def close(self) -> None:
        self._file.close()
        self.connection.close()


@pytest.fixture
def sink(open_sink: Callable[..., WebSink]) -> WebSink:
    return open_sink("http://127.0.0.1:0?max_fps=1000")


@pytest.fixture
def watch(sink: WebSink) -> Any:
    """Starts viewers that are closed at the end."""
    started: list[Viewer] = []

    def start(of: WebSink | None = None) -> Viewer:
        started.append(Viewer(of or sink))
        return started[-1]

    yield start
    for viewer in started:
        viewer.close()


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of the frames that were encoded, as it happens."""
    found: list[int] = []
    jpeg = Result.jpeg

    def counted(self: Result, quality: int = 80) -> bytes:
        found.append(self.capture.id)
        return jpeg(self, quality)

    monkeypatch.setattr(Result, "jpeg", counted)
    return found


def test_parts_have_id_and_timestamp_and_hold_the_picture(sink: WebSink, stream: Any, watch: Any) -> None:
    result = write_one(sink, stream)
    viewer = watch()
    assert b"200" in viewer.status and viewer.headers["Cache-Control"] == "no-store"
    assert viewer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
    headers, content = viewer.part()
    assert headers["X-Frame-Id"] == "0" and headers["X-Timestamp"] == "0.000000"
    assert content == result.jpeg(80)
    later = write_one(sink, stream)
    headers, content = viewer.part()
    assert (headers["X-Frame-Id"], headers["X-Timestamp"]) == ("1", f"{1 / 30:.6f}") and content == later.jpeg(80)


def test_quality_and_rate_are_options(open_sink: Any, stream: Any, watch: Any, feed: Any, encodings: list[int]) -> None:
    sink = open_sink("http://127.0.0.1:0?quality=30&max_fps=5")
    result = write_one(sink, stream)
    viewer = watch(sink)
    assert viewer.part()[1] == result.jpeg(30)
    encodings.clear()
    feed(sink, fps=100)
    began = time.monotonic()
    ids = [int(viewer.part()[0]["X-Frame-Id"]) for _ in range(6)]
    assert time.monotonic() - began > 0.8  # six at five a second, with credit for one
    assert ids == sorted(set(ids)) and ids[-1] - ids[0] > 20  # the newest each time


def test_nothing_is_encoded_while_nobody_watches(sink: WebSink, stream: Any, encodings: list[int]) -> None:
    for _ in range(20):
        write_one(sink, stream)
    assert ask(sink, "/report").status == 200
    assert encodings == [] and sink._site.newest.encodes == 0


def test_two_viewers_cost_one_encoding_a_frame(sink: WebSink, stream: Any, watch: Any, encodings: list[int]) -> None:
    both = [watch(), watch()]
    for number in range(15):
        write_one(sink, stream)
        parts = [viewer.part() for viewer in both]
        assert [headers["X-Frame-Id"] for headers, _ in parts] == [str(number)] * 2
        assert parts[0][1] == parts[1][1]
    assert encodings == list(range(15))


def test_encoding_stops_when_the_last_viewer_leaves(
    sink: WebSink, stream: Any, watch: Any, encodings: list[int]
) -> None:
    viewer = watch()
    write_one(sink, stream)
    viewer.part()
    viewer.close()

    def is_noticed() -> bool:
        write_one(sink, stream)
        return sink._site.viewers["pictures"] == 0

    until(is_noticed)
    encodings.clear()
    for _ in range(10):
        write_one(sink, stream)
    assert encodings == []


def never_reading(sink: WebSink, path: str, extra: str = "") -> socket.socket:
    """A connection that asks and then reads nothing; its own buffer is small."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", port_of(sink)))
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{extra}\r\n".encode())
    return connection


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("path", "extra", "kind"), [("/stream.mjpg", "", "pictures"), ("/records", UPGRADE, "records")]
)
def test_a_viewer_that_never_reads_is_cut_off_and_holds_nothing(
    sink: WebSink, stream: Any, watch: Any, monkeypatch: pytest.MonkeyPatch, path: str, extra: str, kind: str
) -> None:
    monkeypatch.setattr(viewers, "WRITE_S", 0.3)
    monkeypatch.setattr(viewers, "SOCKET_BYTES", 8192)
    with never_reading(sink, path, extra):
        until(lambda: sink._site.viewers[kind] == 1)
        reader, alive = watch(), []
        last = -1
        for _ in range(300):
            result = write_one(sink, stream)
            alive.append(weakref.ref(result))
            del result
            last = int(reader.part()[0]["X-Frame-Id"])  # who reads gets every frame meanwhile
        assert last == 299
        gc.collect()
        assert sum(one() is not None for one in alive) <= 3
        until(lambda: (write_one(sink, stream), reader.part(), sink._site.viewers[kind] == (kind == "pictures"))[2])


def test_writing_returns_at_once_while_the_loop_is_busy_and_keeps_the_newest(sink: WebSink, stream: Any) -> None:
    release, entered = threading.Event(), threading.Event()

    def block() -> None:
        entered.set()
        release.wait(10)

    sink._loop.call_soon_threadsafe(block)
    assert entered.wait(10)
    results = [stream.result() for _ in range(50)]
    alive = [weakref.ref(result) for result in results]
    began = time.monotonic()
    for result in results:
        sink.write(result)
    newest = results[-1]
    del results, result
    gc.collect()
    assert time.monotonic() - began < 5
    assert sum(one() is not None for one in alive) == 1
    release.set()
    until(lambda: sink._site.newest.result is newest)
    assert sink._site.newest.number == 1


def test_there_is_room_for_so_many_viewers(sink: WebSink, watch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(viewers, "MAX_VIEWERS", 2)
    assert all(b"200" in watch().status for _ in range(2))
    refused = watch()
    assert b"503" in refused.status


def test_frames_that_cannot_be_drawn_are_told_once_for_each_run_and_skipped(
    sink: WebSink, stream: Any, watch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, newest = watch(), sink._site.newest

    def write_broken() -> int:
        broken = stream.result()
        monkeypatch.setattr(broken, "jpeg", lambda quality: (_ for _ in ()).throw(FrameError("no such frame")))
        sink.write(broken)
        until(lambda: newest._undrawable == newest.number > 0 and newest.result is broken)
        return int(broken.capture.id)

    told = []
    for run in range(2):
        told += [write_broken() for _ in range(3)][:1]
        good = write_one(sink, stream)
        assert viewer.part()[1] == good.jpeg(80)
        assert newest.encodes == run + 1  # what was not drawn does not count
    entries = [one["text"] for one in sink._site.journal.after(0)]
    assert entries == [f"frame {number} cannot be drawn: no such frame" for number in told]


class TestClosing:
    def test_it_takes_a_second_or_two_with_viewers_of_all_kinds(
        self, sink: WebSink, stream: Any, watch: Any, feed: Any
    ) -> None:
        import aiohttp

        async def watch_records() -> Any:
            async with aiohttp.ClientSession() as session, session.ws_connect(f"{sink.address}records") as channel:
                async for _ in channel:
                    pass
                return channel.close_code

        codes: list[Any] = []
        records = threading.Thread(target=lambda: codes.append(asyncio.run(watch_records())))
        records.start()
        reader, stalled = watch(), never_reading(sink, "/stream.mjpg")
        feeder = feed(sink)
        reader.part()
        until(lambda: sink._site.viewers == {"pictures": 2, "records": 1})
        feeder.stop()
        began = time.monotonic()
        sink.close()
        seconds = time.monotonic() - began
        records.join(10)
        stalled.close()
        assert seconds < 2.5 and not sink._thread.is_alive()
        assert codes == [1001]

    def test_more_than_once_does_no_harm_and_writing_is_refused_after_it(self, sink: WebSink, stream: Any) -> None:
        sink.close()
        sink.close()
        with pytest.raises(SinkError, match="closed"):
            sink.write(stream.result())
        assert not any(thread.name.startswith("gcpp-web") for thread in threading.enumerate())

    def test_the_port_is_free_again_at_once(self, sink: WebSink, open_sink: Any, stream: Any, watch: Any) -> None:
        write_one(sink, stream)
        viewer = watch()
        viewer.part()
        port = port_of(sink)
        sink.close()
        assert viewer.at_end()
        again = open_sink(f"http://127.0.0.1:{port}")
        write_one(again, stream)
        assert watch(again).part()[0]["X-Frame-Id"] == "1"

    def test_a_viewer_that_waits_for_the_first_frame_is_told_goodbye(self, sink: WebSink, watch: Any) -> None:
        viewer = watch()
        until(lambda: sink._site.viewers["pictures"] == 1)
        sink.close()
        assert viewer.at_end()


def test_comings_and_goings_leave_no_threads_and_no_descriptors(sink: WebSink, stream: Any) -> None:
    import os

    def visit() -> None:
        viewer = Viewer(sink)
        write_one(sink, stream)
        viewer.part()
        viewer.close()
        write_one(sink, stream)

    for _ in range(3):
        visit()
    until(lambda: write_one(sink, stream) and sink._site.viewers["pictures"] == 0)
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        visit()
    until(lambda: write_one(sink, stream) and sink._site.viewers["pictures"] == 0)
    assert threading.active_count() == threads
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
