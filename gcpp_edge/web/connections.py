"""How many connections there may be, and for how long one that asks for nothing.

A token holds off requests, but a connection costs a descriptor before it has sent one. So there are LIMIT at most, and
one that has sent no whole request within REQUEST_S seconds is cut, whatever it sends meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from gcpp_edge.web.site import MAX_VIEWERS

LIMIT = 2 * MAX_VIEWERS + 32  # both kinds of viewers, and those who ask once
REQUEST_S = 10.0
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connections:
    """Makes the protocol of each connection, as asyncio's servers call for one. handle: makes that of HTTP."""

    def __init__(self, handle: Callable[[], Any]) -> None:
        self.handle, self.open = handle, 0

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self)


class _Connection(asyncio.Protocol):
    """Hands all on to the protocol of HTTP, where there is room."""

    def __init__(self, all_of_them: Connections) -> None:
        self._all = all_of_them
        self._http: Any = None  # None where there was no room
        self._cutting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport = cast(asyncio.Transport, transport)
        if self._all.open >= LIMIT:
            transport.write(_FULL)
            transport.close()
            return
        self._all.open += 1
        self._cutting = asyncio.get_running_loop().call_later(REQUEST_S, transport.abort)
        self._http = self._all.handle()
        self._http.connection_made(transport)

    def keep(self) -> None:
        """It has sent a request."""
        if self._cutting is not None:
            self._cutting.cancel()

    def data_received(self, data: bytes) -> None:
        if self._http is not None:
            self._http.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._http is None else cast("bool | None", self._http.eof_received())

    def pause_writing(self) -> None:
        if self._http is not None:
            self._http.pause_writing()

    def resume_writing(self) -> None:
        if self._http is not None:
            self._http.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self.keep()
        if self._http is not None:
            self._all.open -= 1
            self._http.connection_lost(exc)


def note_request(request: Any) -> None:
    """A whole request has come on its connection, which is not cut for silence then."""
    connection = request.transport and request.transport.get_protocol()
    if isinstance(connection, _Connection):
        connection.keep()
