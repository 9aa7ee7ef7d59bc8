"""`test://`: the scene of scene.py, at a camera's pace, with faults where they are asked for.

Options: width, height, fps, format; frames, 0 for no end; live=0 for as fast as frames are read; cut, a new scene every
so many frames, 0 for none. Faults, each at the frame of this number: fail_at (the camera vanishes once), bad_at (an
unusable frame), stall_at with stall_s (nothing comes for so long), resize_at (half the size from there on).
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import CaptureError, FrameError, InputError
from gcpp_edge.frames import FORMATS
from gcpp_edge.pipeline.capture import Shot, Source
from gcpp_edge.pipeline.sources.scene import Scene
from gcpp_edge.pipeline.uris import Uri

_NEVER = -1
_MOST = 10**9
_FAULTS = ("fail_at", "bad_at", "stall_at", "resize_at")
_OPTIONS = ("width", "height", "fps", "format", "frames", "live", "cut", "stall_s", *_FAULTS)


class _Wish(NamedTuple):
    """The options, as documented above."""

    width: int
    height: int
    fps: float
    format: str
    frames: int
    is_live: bool
    cut: int
    stall_s: float
    fail_at: int
    bad_at: int
    stall_at: int
    resize_at: int


def opener(uri: Uri, loop: int) -> _World:
    """What opens the scene."""
    uri.require_options(_OPTIONS)
    if uri.place:
        raise InputError(f"{uri.shown}: expected test:// with options alone, such as test://?width=640&height=480.")
    wish = _Wish(
        uri.whole_number("width", 640, 16, 8192),
        uri.whole_number("height", 480, 16, 8192),
        uri.number("fps", 30, 0.1, 1000),
        uri.choice("format", "bgr", FORMATS),
        uri.whole_number("frames", 0, 0, _MOST),
        uri.flag("live", True),
        uri.whole_number("cut", 300, 0, _MOST),
        uri.number("stall_s", 10, 0, 60),
        *(uri.whole_number(name, _NEVER, 0, _MOST) for name in _FAULTS),
    )
    if wish.format == "nv12" and (wish.width % 4 or wish.height % 4):
        raise InputError(f"{uri.shown}: nv12 here needs a width and height that 4 divides.")
    return _World(wish, uri.shown)


class _World:
    """What goes on while the camera is lost: frames are numbered from its first opening on."""

    def __init__(self, wish: _Wish, name: str) -> None:
        self.wish, self.name = wish, name
        self.number, self.has_failed = 0, False
        self._scene: Scene | None = None
        self._key: tuple[int, bool] | None = None

    def __call__(self) -> Source:
        return _Camera(self)

    def frame(self, number: int) -> NDArray[np.generic]:
        wish = self.wish
        is_small = 0 <= wish.resize_at <= number
        key = (number // wish.cut if wish.cut else 0, is_small)
        if self._scene is None or self._key != key:
            part = 2 if is_small else 1
            self._scene, self._key = Scene(wish.width // part, wish.height // part, wish.format, key[0]), key
        return self._scene.frame(number)


class _Camera:
    """The source."""

    def __init__(self, world: _World) -> None:
        self._world, self._wish = world, world.wish
        self.name, self.is_live, self.fps = world.name, world.wish.is_live, world.wish.fps
        self._due = time.monotonic()

    def read(self) -> Shot | None:
        world, wish = self._world, self._wish
        number = world.number
        if wish.frames and number >= wish.frames:
            return None
        if number == wish.stall_at:
            time.sleep(wish.stall_s)
        if number == wish.fail_at and not world.has_failed:
            world.has_failed = True
            raise CaptureError(f"{self.name}: lost before frame {number}, as was asked for.")
        self._wait()
        world.number += 1
        if number == wish.bad_at:
            raise FrameError(f"{self.name}: frame {number} is unusable, as was asked for.")
        pixels = world.frame(number)
        arrived = time.monotonic()
        return Shot(pixels, wish.format, time.time() if wish.is_live else number / wish.fps, arrived)

    def close(self) -> None:
        """Nothing is held."""

    def _wait(self) -> None:
        """Until the next frame is due. A camera that was not read for a while gives no frames of before."""
        if not self.is_live:
            return
        now = time.monotonic()
        if self._due > now:
            time.sleep(self._due - now)
        elif now - self._due > 1 / self.fps:
            self._due = now
        self._due += 1 / self.fps
