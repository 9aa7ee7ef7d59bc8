"""What `Explainer.stream` is asked for, checked, and made a stream."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from gcpp_edge.errors import InputError
from gcpp_edge.pipeline.capturing import Limits
from gcpp_edge.pipeline.events import Trouble
from gcpp_edge.pipeline.settings import Settings, changed
from gcpp_edge.pipeline.sources import opener_of
from gcpp_edge.pipeline.stream import Stream

if TYPE_CHECKING:
    from gcpp_edge.explainer import Explainer
    from gcpp_edge.pipeline.monitor import Monitor

SLOWEST_FPS = 0.001  # of max_fps: a frame in a quarter of an hour


def stream_of(
    explainer: Explainer,
    source: Any = None,
    *,
    policy: str | None = None,
    max_fps: float = 0.0,
    loop: int = 1,
    duration_s: float = 0.0,
    format: str = "bgr",
    monitor: Monitor | None = None,
    on_trouble: Callable[[Trouble], None] | None = None,
    **settings: Any,
) -> Stream:
    """What `Explainer.stream` says."""
    if max_fps != 0 and not SLOWEST_FPS <= max_fps < inf:
        raise InputError(f"max_fps: expected 0 (as many as come) or at least {SLOWEST_FPS}, found {max_fps}.")
    if not 0 <= duration_s < inf:
        raise InputError(f"duration_s: expected 0 (no end) or more, found {duration_s}.")
    limits = Limits(max_fps, duration_s)
    chosen = changed(Settings(), explainer.contract, **settings)
    opener = None if source is None else opener_of(source, loop=loop, format=format)
    return Stream(explainer, opener, chosen, policy, limits, monitor, on_trouble)
