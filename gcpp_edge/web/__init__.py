"""The live page. Needs the extra `web`; nothing outside of `sink.py` is for others to call."""

from __future__ import annotations

from types import ModuleType

from gcpp_edge.errors import MissingDependencyError


def aiohttp_web() -> ModuleType:
    """The module aiohttp.web; MissingDependencyError with the install line where it is missing."""
    try:
        from aiohttp import web
    except ImportError as error:
        raise MissingDependencyError(f"The live page needs aiohttp ({error}): pip install 'gcpp-edge[web]'") from error
    return web  # type: ignore[no-any-return]
