"""The server's addresses, and what is answered at each but the two streams (viewers.py)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import cache, partial
from hashlib import sha256
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

import gcpp_edge
from gcpp_edge.colormaps import COLORMAPS, palette_rgb
from gcpp_edge.errors import GcppError, InputError, MethodError
from gcpp_edge.methods import METHODS, choose_method
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.counters import ENDED, LOST, OPENING, RUNNING, STALLED
from gcpp_edge.pipeline.plain_json import json_text
from gcpp_edge.pipeline.result import Result
from gcpp_edge.pipeline.settings import require_known
from gcpp_edge.web import access, aiohttp_web, connections, viewers
from gcpp_edge.web.metrics import CONTENT_TYPE, metrics_text
from gcpp_edge.web.site import Site

MAX_BODY = 16 * 1024
_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
_STEPS = 15  # between the colours that stand for a colormap
_PNG_LEVEL = 3  # of zlib: a snapshot shall not hold up the pictures

Handler = Callable[[Any, Site], Awaitable[Any]]


def application(site: Site) -> Any:
    """The aiohttp application of this site."""
    web = aiohttp_web()

    async def guarded(request: Any, handler: Callable[[Any], Awaitable[Any]]) -> Any:
        connections.note_request(request)
        refusal = site.access.refusal(_seen(request))
        if refusal is not None:
            headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else None
            response = web.Response(status=refusal.status, text=refusal.text + "\n", headers=headers)
            response.force_close()  # a stranger's connection is not kept
            return response
        return await handler(request)

    async def with_headers(request: Any, response: Any) -> None:
        response.headers.update(access.HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["Server"] = "gcpp-edge"

    app = web.Application(middlewares=[web.middleware(guarded)], client_max_size=MAX_BODY)
    app.on_response_prepare.append(with_headers)
    for path, handler in _READ.items():
        app.router.add_get(path, partial(_answer, handler, site), allow_head=False)
    app.router.add_post("/settings", partial(_answer, post_settings, site))
    return app


async def _answer(handler: Handler, site: Site, request: Any) -> Any:
    return await handler(request, site)


def _seen(request: Any) -> access.Request:
    return access.Request(
        request.method, request.path, request.headers, request.cookies, request.query.get("token", "")
    )


async def page(request: Any, site: Site) -> Any:
    """The page. A token in its address moves to a cookie, so that it stays in no history and is in no screenshot."""
    web = aiohttp_web()
    if "token" not in request.query:
        return _file(request, "index.html")
    rest = urlencode([(name, value) for name, value in request.query.items() if name != "token"])
    response = web.Response(status=303, headers={"Location": "/" + (f"?{rest}" if rest else "")})
    if site.access.token is not None:
        # Lax: the redirect of a link in a chat is that chat's still, and Strict would not be sent with it. Lax is sent
        # where a link is followed and nowhere else; a write needs JSON and this page's Origin besides.
        response.set_cookie(site.access.cookie, site.access.token, httponly=True, samesite="Lax", path="/")
    return response


async def page_file(request: Any, site: Site) -> Any:
    """A file of the page."""
    return _file(request, request.match_info["name"])


def _file(request: Any, name: str) -> Any:
    web = aiohttp_web()
    file = _page_files().get(name)
    if file is None:
        raise web.HTTPNotFound
    content, kind = file.read_bytes(), _TYPES[name.rpartition(".")[2]]
    tag = sha256(content).hexdigest()[:16]
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache"}
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return web.Response(status=304, headers=headers)
    return web.Response(body=content, content_type=kind, charset="utf-8", headers=headers)


@cache
def _page_files() -> dict[str, Any]:
    """All there are, by name: a name that was asked for is never made a path, which may be none (300 letters, NUL)."""
    folder = files("gcpp_edge.web") / "page"
    return {file.name: file for file in folder.iterdir() if file.name.rpartition(".")[2] in _TYPES}


async def get_settings(request: Any, site: Site) -> Any:
    """The settings as they are."""
    return _json(site.settings())


async def post_settings(request: Any, site: Site) -> Any:
    """Change settings: a JSON object of those that change. 400 with one line where the model refuses."""
    try:
        changes = _changes(await asyncio.wait_for(_text(request), connections.REQUEST_S))
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(site.drawing, lambda: site.control.change(**changes))
    except asyncio.TimeoutError:
        return _json({"error": "The request did not come to its end."}, 408)
    except InputError as error:
        return _json({"error": str(error)}, 400)
    except GcppError as error:
        return _json({"error": str(error)}, 503)
    site.tell()
    return _json(site.settings())


async def _text(request: Any) -> str:
    charset = request.charset or "utf-8"
    if charset.lower() not in ("utf-8", "utf8", "us-ascii"):  # RFC 8259, 8.1
        raise InputError(f"Expected JSON in UTF-8, found charset {charset!r}.")
    try:
        return str(await request.text())
    except UnicodeError as error:
        raise InputError("Expected JSON in UTF-8, found other bytes.") from error


def _changes(body: str) -> dict[str, Any]:
    try:
        changes = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError('Expected JSON, such as {"alpha": 0.7}.') from error
    if not isinstance(changes, dict):
        raise InputError(f"Expected a JSON object of settings, found {type(changes).__name__}.")
    require_known(changes)  # before they are names of arguments, of which there are others
    for name, value in changes.items():
        if isinstance(value, (dict, list)):
            raise InputError(f"{name}: expected one value, found {type(value).__name__}.")
    return changes


async def snapshot_png(request: Any, site: Site) -> Any:
    """The newest overlay, without loss."""
    return await _picture(site, "png", _png)


async def snapshot_jpg(request: Any, site: Site) -> Any:
    """The newest overlay."""
    return await _picture(site, "jpg", lambda result: result.jpeg(90))


async def frame_jpg(request: Any, site: Site) -> Any:
    """The newest frame that was explained, without its map."""
    return await _picture(site, "jpg", lambda result: _encoded(".jpg", result.frame_bgr(), []))


async def _picture(site: Site, suffix: str, draw: Callable[[Result], bytes]) -> Any:
    web = aiohttp_web()
    found = await site.newest.drawn(draw)
    if found is None:
        raise web.HTTPServiceUnavailable(text="There is no picture yet.\n")
    capture, content = found
    headers = {
        "Content-Disposition": f'inline; filename="frame-{capture.id:06d}.{suffix}"',
        "X-Frame-Id": str(capture.id),
        "X-Timestamp": f"{capture.timestamp:.6f}",
        **access.NO_STORE,
    }
    return web.Response(body=content, content_type="image/jpeg" if suffix == "jpg" else "image/png", headers=headers)


def _png(result: Result) -> bytes:
    return _encoded(".png", result.picture(), [opencv().IMWRITE_PNG_COMPRESSION, _PNG_LEVEL])


def _encoded(suffix: str, picture: Any, options: list[int]) -> bytes:
    _, content = opencv().imencode(suffix, picture, options)
    return bytes(content)


async def report(request: Any, site: Site) -> Any:
    """All counters."""
    return _json(site.control.report().as_dict())


async def model(request: Any, site: Site) -> Any:
    """What does not change while the stream runs."""
    control = site.control
    contract = control.contract
    return _json(
        {
            "source": control.name,
            "source_fps": control.fps,
            "runtime": control.runtime_name,
            "version": gcpp_edge.__version__,
            "layers": [layer.name for layer in contract.layers],
            "input": [contract.preprocessing.height, contract.preprocessing.width],
            "target_kind": contract.target.kind,
            "classes": contract.scores.classes,
            "ranks": min(contract.ranks, contract.scores.classes),
            "labels": list(contract.labels),
            "method": contract.method,
            "methods": [name for name in METHODS if _has(name, site)],
            "colormaps": {name: _colors(name) for name in COLORMAPS},
        }
    )


def _has(method: str, site: Site) -> bool:
    try:
        choose_method(method, site.control.contract)
    except MethodError:
        return False
    return True


def _colors(colormap: str) -> list[str]:
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in palette_rgb(colormap)[::_STEPS]]


async def metrics(request: Any, site: Site) -> Any:
    """For Prometheus."""
    control = site.control
    about = {"version": gcpp_edge.__version__, "runtime": control.runtime_name, "source": control.name}
    text = metrics_text(control.report(), site.viewers, site.newest.encodes, about)
    return aiohttp_web().Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE, **access.NO_STORE})


async def health(request: Any, site: Site) -> Any:
    """200 while frames come, else 503; why is told only to those who may see the page."""
    report = site.control.report()
    is_well = report.source_state == RUNNING
    answer: dict[str, Any] = {"status": "ok" if is_well else "failing"}
    if site.access.is_known(_seen(request)):
        answer |= {"source": report.source_state, "fps": report.fps, "captured": report.captured}
        if not is_well:
            answer["reason"] = _REASONS.get(report.source_state, report.source_state)
    return _json(answer, 200 if is_well else 503)


_REASONS = {
    OPENING: "The source has given no frame yet.",
    STALLED: "No frame has come for longer than expected.",
    LOST: "The source is lost; it is opened again and again.",
    ENDED: "The stream has ended.",
}


def _json(value: Any, status: int = 200) -> Any:
    return aiohttp_web().Response(text=json_text(value), status=status, content_type="application/json")


_READ: dict[str, Handler] = {
    "/": page,
    "/page/{name}": page_file,
    "/stream.mjpg": viewers.stream,
    access.RECORDS: viewers.records,
    "/settings": get_settings,
    "/snapshot.png": snapshot_png,
    "/snapshot.jpg": snapshot_jpg,
    "/frame.jpg": frame_jpg,
    "/report": report,
    "/model": model,
    "/metrics": metrics,
    access.HEALTH: health,
}
