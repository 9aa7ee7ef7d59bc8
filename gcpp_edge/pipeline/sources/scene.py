"""A synthetic scene in NumPy alone: a disc, a square and a textured patch that move over a slow gradient.

What a frame shows follows from its number. Scenes differ in their colours, background and paths, as after a hard cut.
"""

from __future__ import annotations

from math import sin, tau
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]

_PAN = 300  # frames in which the background goes there and back
# of each scene: background left and right, disc, square, as (B, G, R)
_PALETTES = (
    ((92, 54, 24), (168, 132, 74), (60, 150, 250), (210, 225, 235)),
    ((40, 44, 88), (110, 140, 206), (190, 170, 60), (70, 50, 40)),
    ((58, 84, 34), (150, 190, 130), (80, 70, 220), (240, 220, 160)),
    ((70, 40, 70), (190, 150, 170), (90, 220, 240), (60, 90, 40)),
)
# how often it goes across, and up and down, in a pan; and where it begins
_PATHS = {"disc": (2, 3, 0.0), "square": (3, 2, 0.3), "patch": (1, 4, 0.65)}


class _Sprite(NamedTuple):
    """planes: of the picture, in the format of the frame. masks: where each is drawn, None for all of it."""

    planes: list[Image]
    masks: list[Image | None]
    path: tuple[int, int, float]


class Scene:
    """Frames of one format and size. number: of the scene, which picks its colours."""

    def __init__(self, width: int, height: int, format: str, number: int) -> None:
        self._width, self._height, self._format = width, height, format
        self._room = width // 4 // 2 * 2  # that the background is wider than the frame
        random = np.random.default_rng(number)
        left, right, disc, square = _PALETTES[number % len(_PALETTES)]
        if number % 2:  # lit from the other side: in grey, colours alone would hardly show
            left, right = right, left
        side = max(2, min(width, height) // 4 // 2 * 2)
        self._background = planes_of(_gradient(height, width + self._room, left, right, random), format)
        self._shift = float(random.uniform(0, 1))
        self._sprites = [
            _sprite(_patch(side, random), None, "patch", format),
            _sprite(_square(side, square), None, "square", format),
            _sprite(*_disc(side, disc), "disc", format),
        ]

    def frame(self, number: int) -> Image:
        """The frame of this number, new each time."""
        frame = empty_frame(self._width, self._height, self._format)
        planes = views(frame, self._height, self._format)
        pan = _even(self._room * (0.5 - 0.5 * sin(tau * (number / _PAN + self._shift))))
        for plane, background in zip(planes, self._background, strict=True):
            step = self._width // plane.shape[1]
            plane[...] = background[:, pan // step : pan // step + plane.shape[1]]
        for sprite in self._sprites:
            self._draw(planes, sprite, number)
        return frame

    def _draw(self, planes: list[Image], sprite: _Sprite, number: int) -> None:
        across, down, phase = sprite.path
        rows, columns = sprite.planes[0].shape[:2]
        x = _even((self._width - columns) * (0.5 + 0.5 * sin(tau * (across * number / _PAN + phase + self._shift))))
        y = _even((self._height - rows) * (0.5 + 0.5 * sin(tau * (down * number / _PAN + 2 * phase))))
        for plane, picture, mask in zip(planes, sprite.planes, sprite.masks, strict=True):
            step = self._width // plane.shape[1]
            place = plane[y // step : y // step + picture.shape[0], x // step : x // step + picture.shape[1]]
            np.copyto(place, picture, where=True if mask is None else mask)


def empty_frame(width: int, height: int, format: str) -> Image:
    """A frame to draw on."""
    if format == "nv12":
        return np.empty((height * 3 // 2, width), np.uint8)
    if format in ("gray", "gray16"):
        return np.empty((height, width), np.uint16 if format == "gray16" else np.uint8)
    return np.empty((height, width, len(format)), np.uint8)


def views(frame: Image, height: int, format: str) -> list[Image]:
    """The planes of a frame: of NV12 the grey and the half-size colour one."""
    if format != "nv12":
        return [frame]
    return [frame[:height], frame[height:].reshape(height // 2, -1, 2)]


def planes_of(bgr: Image, format: str) -> list[Image]:
    """A picture (H, W, 3) uint8 in another format, plane by plane. NV12 is BT.601 of limited range."""
    if format == "bgr":
        return [bgr]
    if format in ("rgb", "bgra", "rgba"):
        colors = bgr[:, :, ::-1] if format.startswith("rgb") else bgr
        if len(format) == 4:
            colors = np.dstack([colors, np.full(bgr.shape[:2], 255, np.uint8)])
        return [np.ascontiguousarray(colors)]
    blue, green, red = np.moveaxis(bgr.astype(np.float32), 2, 0)
    if format != "nv12":
        gray = np.rint(0.114 * blue + 0.587 * green + 0.299 * red)
        return [(gray * 257).astype(np.uint16) if format == "gray16" else gray.astype(np.uint8)]
    luma = 16 + 0.257 * red + 0.504 * green + 0.098 * blue
    u = 128 - 0.148 * red - 0.291 * green + 0.439 * blue
    v = 128 + 0.439 * red - 0.368 * green - 0.071 * blue
    chroma = np.stack([u, v], axis=2)
    chroma = chroma.reshape(chroma.shape[0] // 2, 2, -1, 2, 2).mean(axis=(1, 3))
    return [np.rint(luma).astype(np.uint8), np.rint(chroma).astype(np.uint8)]


def _sprite(bgr: Image, mask: Image | None, name: str, format: str) -> _Sprite:
    planes = planes_of(bgr, format)
    masks = [None if mask is None else _mask_for(plane, mask) for plane in planes]
    return _Sprite(planes, masks, _PATHS[name])


def _mask_for(plane: Image, mask: Image) -> Image:
    """Of the plane's own shape: one value for all channels of a pixel would be broadcast anew for every frame."""
    step = mask.shape[0] // plane.shape[0]
    smaller = mask[::step, ::step]
    return np.repeat(smaller[:, :, None], plane.shape[2], axis=2) if plane.ndim == 3 else smaller.copy()


def _gradient(height: int, width: int, left: Any, right: Any, random: np.random.Generator) -> Image:
    """From one colour to the other across, lighter downwards, with faint waves and grain, as a camera's noise."""
    x, y = np.arange(width) / width, np.arange(height) / height
    across = np.outer(1 - x, left) + np.outer(x, right) + 10 * np.sin(tau * (2 * x + random.uniform()))[:, None]
    light = 30 * (y - 0.5) + 8 * np.sin(tau * (1.5 * y + random.uniform()))
    rows = np.rint(light).astype(np.int16)[:, None] + random.integers(-3, 4, (height, width), np.int8)
    colors: Image = rows[:, :, None] + np.rint(across).astype(np.int16)
    np.clip(colors, 0, 255, out=colors)
    return colors.astype(np.uint8)


def _disc(side: int, color: Any) -> tuple[Image, Image]:
    """A ball, lit from the upper left, and where it is."""
    y, x = (np.mgrid[0:side, 0:side] + 0.5) * 2 / side - 1
    light = np.clip(1.15 - 0.55 * np.hypot(x + 0.4, y + 0.4), 0.2, 1.2)
    return np.clip(light[:, :, None] * np.float32(color), 0, 255).astype(np.uint8), x * x + y * y <= 1


def _square(side: int, color: Any) -> Image:
    """A plate with a darker rim."""
    picture = np.empty((side, side, 3), np.uint8)
    picture[...] = np.uint8(np.float32(color) * 0.6)
    rim = max(1, side // 12)
    picture[rim:-rim, rim:-rim] = color
    return picture


def _patch(side: int, random: np.random.Generator) -> Image:
    """Coloured checks of 8 x 8 fields."""
    colors = random.integers(30, 226, (8, 8, 3), np.uint8)
    index = np.arange(side) * 8 // side
    return colors[index[:, None], index]


def _even(value: float) -> int:
    return int(value) // 2 * 2
