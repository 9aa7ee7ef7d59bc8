"""The two things that go on without end: pictures, and records.

A viewer that does not keep up skips to the newest. One that takes nothing for WRITE_S seconds is cut off; until then it
holds one picture, and what fits into its socket.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable
from typing import Any

from gcpp_edge.pipeline.plain_json import json_text
from gcpp_edge.web import aiohttp_web
from gcpp_edge.web.access import NO_STORE
from gcpp_edge.web.newest import Closing, Picture
from gcpp_edge.web.site import MAX_VIEWERS, PICTURES, RECORDS, Site

WRITE_S = 5.0
CLOSE_S = 0.5  # for a viewer to answer our goodbye
HEARTBEAT_S = 20.0
SOCKET_BYTES = 256 * 1024  # frames that wait in a socket only grow old
BOUNDARY = "frame"
_GOING_AWAY = 1001  # RFC 6455, 7.4.1


async def stream(request: Any, site: Site) -> Any:
    """Overlays as multipart/x-mixed-replace, each with X-Frame-Id and X-Timestamp."""
    web = aiohttp_web()
    _require_room(site, PICTURES)
    _keep_little(request)
    response = web.StreamResponse(
        headers={"Content-Type": f"multipart/x-mixed-replace; boundary={BOUNDARY}", **NO_STORE}
    )
    with site.viewer(PICTURES):
        await response.prepare(request)
        number = 0
        try:
            await _within(request, response.write(f"--{BOUNDARY}\r\n".encode()))
            while True:
                picture = await site.newest.picture(number)
                number = picture.number
                await _within(request, response.write(_part(picture)))
        except (Closing, ConnectionError, asyncio.TimeoutError):
            pass
    return response


def _part(picture: Picture) -> bytes:
    """With the next boundary behind it: a browser shows a part when it has seen its end."""
    head = (
        f"Content-Type: image/jpeg\r\nContent-Length: {len(picture.content)}\r\n"
        f"X-Frame-Id: {picture.capture.id}\r\nX-Timestamp: {picture.capture.timestamp:.6f}\r\n\r\n"
    )
    return b"%b%b\r\n--%b\r\n" % (head.encode(), picture.content, BOUNDARY.encode())


async def records(request: Any, site: Site) -> Any:
    """A WebSocket of JSON messages: "frame", "status" (about once a second without a frame), and "log"."""
    web = aiohttp_web()
    _require_room(site, RECORDS)
    _keep_little(request)
    channel = web.WebSocketResponse(timeout=CLOSE_S, heartbeat=HEARTBEAT_S, compress=False, max_msg_size=1024)
    with site.viewer(RECORDS):
        await channel.prepare(request)
        sending = asyncio.ensure_future(_send_records(request, channel, site))
        try:
            async for _ in channel:  # answers pings, and ends when the viewer leaves; nothing is taken from it
                pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
    return channel


async def _send_records(request: Any, channel: Any, site: Site) -> None:
    newest, journal = site.newest, site.journal
    number, entry, told = 0, 0, -1

    def is_news() -> bool:
        return newest.number > number or journal.last > entry or site.told > told

    try:
        while True:
            await site.bell.until(is_news)
            is_told, told = site.told > told, site.told
            if journal.last > entry:
                entries = journal.after(entry)
                entry = entries[-1]["number"]
                await _within(request, channel.send_str(json_text({"kind": "log", "entries": entries})))
            if newest.number > number:
                number, text = await newest.text(site.record_text)
                await _within(request, channel.send_str(text))
            elif is_told:
                await _within(request, channel.send_str(site.status_text()))
    except Closing:
        await channel.close(code=_GOING_AWAY, message=b"the stream has ended")
    except (ConnectionError, asyncio.TimeoutError):
        pass


async def _within(request: Any, writing: Awaitable[None]) -> None:
    """Await it; where it takes too long the connection is cut and asyncio.TimeoutError raised."""
    try:
        await asyncio.wait_for(writing, WRITE_S)
    except asyncio.TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise


def _keep_little(request: Any) -> None:
    """Bound what the kernel keeps for a viewer that does not read."""
    connection = request.transport and request.transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)


def _require_room(site: Site, kind: str) -> None:
    if site.viewers[kind] >= MAX_VIEWERS:
        raise aiohttp_web().HTTPServiceUnavailable(text=f"{MAX_VIEWERS} viewers are there already. Try again later.")
