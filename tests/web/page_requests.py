"""Asking a server of the live page as a program would, and waiting for what comes of it."""

import http.client
import json
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from gcpp_edge.web.sink import WebSink


class Answer(NamedTuple):
    status: int
    headers: Any
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def port_of(sink: WebSink) -> int:
    return int(sink.address.split("/")[2].rsplit(":", 1)[1])


def ask(sink: WebSink, path: str, body: Any = None, **headers: str) -> Answer:
    """GET, or POST of this as JSON, or of bytes as they are; names of headers with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
    try:
        sent = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        given = given if body is None else {"Content-Type": "application/json"} | given
        connection.request("GET" if body is None else "POST", path, sent, given)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


def until(is_so: Callable[[], Any], seconds: float = 10) -> Any:
    """What it returns once that is true; fails after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = is_so()
        if found:
            return found
        time.sleep(0.01)
    return pytest.fail("it did not come to pass")


def write_one(sink: WebSink, stream: Any, **given: Any) -> Any:
    """Write a result and wait until the server has it."""
    result = stream.result(**given)
    sink.write(result)
    until(lambda: sink._site.newest.result is result)
    return result
