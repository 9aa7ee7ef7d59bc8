"""Connections that ask for nothing, too many of them, and those that have a right to last."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from page_requests import ask, port_of, until, write_one

from gcpp_edge.web import connections
from gcpp_edge.web.sink import WebSink

TOKEN = "a-token-of-the-tests"
STREAM = f"GET /stream.mjpg HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
POST = (
    f"POST /settings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    "Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
).encode()
SILENT = {
    "nothing": (b"", b""),
    "half a line": (b"GET / HT", b""),
    "a header that never ends": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ", b"x"),
    "a body that never ends": (POST, b" "),
    "a stranger's body": (POST.replace(TOKEN.encode(), b"wrong"), b""),
    "no second request": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "half a second request": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT", b""),
}


@pytest.fixture
def connect() -> Iterator[Callable[[WebSink], socket.socket]]:
    """Opens connections that are closed at the end."""
    opened: list[socket.socket] = []

    def open_one(sink: WebSink) -> socket.socket:
        opened.append(socket.create_connection(("127.0.0.1", port_of(sink)), timeout=10))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def is_cut(connection: socket.socket) -> bool:
    """Whether the server's end is closed; what came before is thrown away."""
    connection.setblocking(False)
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("sent", SILENT.values(), ids=SILENT)
def test_one_that_sends_no_whole_request_is_cut(
    open_sink: Callable[..., WebSink],
    connect: Callable[[WebSink], socket.socket],
    monkeypatch: pytest.MonkeyPatch,
    sent: tuple[bytes, bytes],
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.4)
    sink = open_sink(token=TOKEN)
    connection = connect(sink)
    first, again = sent
    connection.sendall(first)

    def is_over() -> bool:
        with suppress(OSError):
            connection.send(again)  # a byte now and then buys no time
        return is_cut(connection)

    assert not is_over()
    until(is_over)


def test_one_that_watches_is_kept(
    open_sink: Callable[..., WebSink],
    connect: Callable[[WebSink], socket.socket],
    stream: object,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "REQUEST_S", 0.2)
    sink = open_sink(token=TOKEN)
    watching, silent = connect(sink), connect(sink)
    watching.sendall(STREAM)
    until(lambda: sink._site.viewers["pictures"] == 1)
    time.sleep(0.6)
    assert is_cut(silent) and not is_cut(watching)
    write_one(sink, stream)
    watching.settimeout(10)
    assert watching.recv(65536)


def test_more_than_the_limit_are_turned_away_until_there_is_room(
    open_sink: Callable[..., WebSink], connect: Callable[[WebSink], socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "LIMIT", 3)
    sink = open_sink(token=TOKEN)
    held = [connect(sink) for _ in range(3)]
    for _ in range(5):
        assert connect(sink).recv(100).startswith(b"HTTP/1.1 503 ")
    assert not any(map(is_cut, held))
    held.pop().close()
    until(lambda: _is_answered(sink))


def _is_answered(sink: WebSink) -> bool:
    try:
        return ask(sink, "/healthz").status == 200
    except ConnectionError:
        return False


def test_a_refused_request_ends_its_connection(
    open_sink: Callable[..., WebSink], connect: Callable[[WebSink], socket.socket]
) -> None:
    connection = connect(open_sink(token=TOKEN))
    connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 100)
    answers = b""
    try:
        while found := connection.recv(65536):
            answers += found
    except ConnectionError:
        pass
    assert answers.count(b"HTTP/1.1 401 ") == 1
