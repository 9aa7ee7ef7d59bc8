"""A sink that is a web server: `http://127.0.0.1:8080`."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from socket import socket

from gcpp_edge.errors import SinkError
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.sink import Control
from gcpp_edge.pipeline.uris import Uri
from gcpp_edge.web import aiohttp_web, connections
from gcpp_edge.web.access import Access
from gcpp_edge.web.address import address_of, listen, place_of, token_for
from gcpp_edge.web.routes import application
from gcpp_edge.web.site import Site
from gcpp_edge.web.viewers import CLOSE_S

QUALITY = 80
MAX_FPS = 30
TICK_S = 1.0
_CLOSED_WITHIN_S = 5.0  # never waited for in practice: all that close() does is bounded by CLOSE_S


def open_web_sink(uri: Uri, control: Control, host: str | None = None, token: str | None = None) -> WebSink:
    """The live page at this address, served from now on.

    uri: http://HOST:PORT with the options quality (of JPEG, 1 to 100) and max_fps (of pictures, for all viewers);
    port 0 is any that is free, and `address` of the sink tells it. host: what to listen on in place of the URI's host,
    which may name this machine alone. token: what viewers need; away from loopback one is made where none is given.
    Raises InputError, SinkError, MissingDependencyError.
    """
    aiohttp_web(), opencv()  # missing ones are told now
    uri.require_options(("quality", "max_fps"))
    quality, max_fps = uri.whole_number("quality", QUALITY, 1, 100), uri.number("max_fps", MAX_FPS, 0.1, 1000)
    place = place_of(uri, host)
    needed = token_for(place, token)
    listening = listen(place, uri.shown)
    access = Access(needed, place.is_loopback, f"gcpp_edge_{listening.getsockname()[1]}")
    drawing = ThreadPoolExecutor(1, "gcpp-web-draw")
    return WebSink(
        uri.shown, listening, Site(control, access, drawing, quality, max_fps), address_of(listening, place, needed)
    )


class WebSink:
    """The live page. Made by `open_web_sink`.

    address: what a viewer opens, with the token where one is needed.
    """

    is_viewer = True

    def __init__(self, name: str, listening: socket, site: Site, address: str) -> None:
        self.name, self.address = name, address
        self._site, self._listening = site, listening
        self._lock = threading.Lock()
        self._handed: Result | None = None
        self._is_closed = False
        self._ending = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="gcpp-web", daemon=True)
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._started = started
        self._thread.start()
        self._loop = started.result()

    def write(self, result: Result) -> None:
        """Hand it to the server and return. Raises SinkError after close()."""
        self._site.journal.note_events(result.events)
        with self._lock:
            if self._is_closed:
                raise SinkError(f"{self.name}: closed.")
            is_called, self._handed = self._handed is not None, result
            if not is_called:  # one call at most is under way: a loop that is busy finds the newest
                self._loop.call_soon_threadsafe(self._take)

    def close(self) -> None:
        """Say goodbye to all viewers and give the port back, within a second or two."""
        with self._lock:
            is_first, self._is_closed = not self._is_closed, True
            if is_first and self._thread.is_alive():
                self._loop.call_soon_threadsafe(self._ending.set)
        self._thread.join(_CLOSED_WITHIN_S)

    def _take(self) -> None:
        with self._lock:
            result, self._handed = self._handed, None
        if result is not None:
            self._site.newest.put(result)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        finally:
            self._listening.close()
            self._site.drawing.shutdown(wait=False, cancel_futures=True)

    async def _serve(self) -> None:
        web = aiohttp_web()
        runner = web.AppRunner(
            application(self._site),
            handle_signals=False,
            access_log=None,
            shutdown_timeout=CLOSE_S,
            keepalive_timeout=connections.REQUEST_S,
            lingering_time=connections.REQUEST_S,  # for a body that nobody wants
        )
        loop = asyncio.get_running_loop()
        try:
            await runner.setup()
            server = await loop.create_server(connections.Connections(runner.server), sock=self._listening)
        except BaseException as error:
            self._started.set_exception(error)
            raise
        self._started.set_result(loop)
        ticking = asyncio.ensure_future(self._tick())
        try:
            await self._ending.wait()
        finally:
            ticking.cancel()
            self._site.bell.close()
            server.close()
            await runner.cleanup()

    async def _tick(self) -> None:
        while True:
            self._site.tick()
            await asyncio.sleep(TICK_S)
