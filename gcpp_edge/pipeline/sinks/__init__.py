"""Sinks of results, by URI.

    file://out.mp4           video.py           .mp4 .m4v .mov .avi .mkv
    file://frames/%06d.png   picture_files.py   .png .jpg .jpeg; without %d the newest picture alone
    jsonl://records.jsonl    jsonl.py           a record a line; jsonl://- is standard output
    display://               display.py         a window
    rtp://host:port          gstreamer.py       also rtsp://, to a server that takes streams
    http://host:port         gcpp_edge.web      the live page

A plain path does for file://, and the suffix .jsonl for jsonl://.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING, cast

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.sinks.function import sink_of
from gcpp_edge.pipeline.uris import Uri, parse_uri

if TYPE_CHECKING:
    from gcpp_edge.pipeline.sink import Control, Sink

__all__ = ["open_sink", "sink_of"]

# each module has `opened(uri, control) -> Sink`
_SCHEMES = {"jsonl": "jsonl", "display": "display", "rtp": "gstreamer", "rtsp": "gstreamer"}
_SUFFIXES = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".avi", ".mkv"), "video"),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), "picture_files"),
    ".jsonl": "jsonl",
}


def open_sink(uri: str | Uri, control: Control, *, host: str | None = None, token: str | None = None) -> Sink:
    """What the address names, opened as far as it can be without a frame: what is missing here is said now.

    host, token: of the live page.
    Raises InputError for an address that names no sink, SinkError for one that cannot be opened,
    MissingDependencyError.
    """
    address = uri if isinstance(uri, Uri) else parse_uri(uri)
    if address.scheme == "http":
        web = import_module("gcpp_edge.web.sink")
        return cast("Sink", web.open_web_sink(address, control, host, token))
    opened = cast("Callable[[Uri, Control], Sink]", import_module(f"{__name__}.{_module_of(address)}").opened)
    return opened(address, control)


def _module_of(uri: Uri) -> str:
    """The module here that has this kind of sink."""
    if uri.scheme == "file":
        suffix = PurePath(uri.place).suffix.lower()
        if suffix in _SUFFIXES:
            return _SUFFIXES[suffix]
        raise InputError(
            f"{uri.shown}: the end of the name says what is written, and must be one of {' '.join(_SUFFIXES)}. For "
            "pictures: FOLDER/%06d.png."
        )
    if uri.scheme in _SCHEMES:
        return _SCHEMES[uri.scheme]
    known = ", ".join(f"{scheme}://" for scheme in ("file", *_SCHEMES, "http"))
    raise InputError(f"{uri.shown}: no output is of this kind. Known: {known}.")
