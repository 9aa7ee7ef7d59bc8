"""Sources of frames, by URI: a module a kind, imported when it is used.

A module has `opener(uri, loop)`, which refuses bad options at once and returns what opens the source. The stream calls
that again to find a lost one; memory of what has been read is the opener's, where a kind has any.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.capture import Source
from gcpp_edge.pipeline.uris import parse_uri

KINDS = {
    "v4l2": "v4l2",
    "csi": "csi",
    "rtsp": "network",
    "rtsps": "network",
    "http": "network",
    "https": "network",
    "file": "files",
    "gst": "gst",
    "test": "synthetic",
}  # scheme -> module

Opener = Callable[[], Source]


def opener_of(source: Any, *, loop: int = 1, format: str = "bgr") -> Opener:
    """What opens a source: an address, or frames from Python (iterable.py), which are of this format.

    Raises InputError for what cannot be one; that it is there is seen when it is opened.
    """
    if loop < 0:
        raise InputError(f"loop: expected 0 (for ever) or more, found {loop}.")
    if not isinstance(source, (str, Path)):
        from gcpp_edge.pipeline.sources.iterable import source_of

        found = source_of(source, format=format)
        return lambda: found
    uri = parse_uri(str(source))
    if uri.scheme not in KINDS:
        known = ", ".join(f"{scheme}://" for scheme in KINDS)
        raise InputError(f"{uri.shown}: no source of this kind. Known: {known}, /dev/video0, and paths of files.")
    module = import_module(f"{__name__}.{KINDS[uri.scheme]}")
    opener: Opener = module.opener(uri, loop)
    return opener
