"""Palettes: 256 colours from 0 (no evidence) to 255 (most), without matplotlib.

jet is its formula, as OpenCV rounds it. The others are published tables at every 15th of their 256 colours, with
straight lines between: within 6 of 255 of the originals, which no eye tells apart on a blended picture.
Sources: turbo, A. Mikhailov (Google, 2019, Apache-2.0); viridis, inferno, magma: N. Smith, S. van der Walt (2015, CC0).
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.errors import InputError

Palette = NDArray[np.uint8]

_STEP = 15
_RGB_AT_STEPS = {
    "turbo": (
        "30123b 3f3e9c 4666dd 458cfd 2fb2f4 1ad4d0 22ebaa 52fa7a 8bff4b "
        "b7f735 dbe236 f5c53a fea130 f9751d e84b0c ce2d04 a91601 7a0403"
    ),
    "viridis": (
        "440154 481769 472a7a 433d84 3d4e8a 355e8d 2e6d8e 297b8e 23898e "
        "1f978b 21a585 2eb37c 46c06f 65cb5e 89d548 b0dd2f d8e219 fde725"
    ),
    "inferno": (
        "000004 0a0722 1e0c45 380962 510e6c 69166e 801f6c 982766 b0315b "
        "c63d4d d94d3d e9612b f47918 fa9407 fcb014 f8cd37 f2ea69 fcffa4"
    ),
    "magma": (
        "000004 090720 1a1042 311165 4a1079 621980 792282 912b81 aa337d "
        "c23b75 d9466b ec5860 f7725c fc8e64 feaa74 fec68a fde2a3 fcfdbf"
    ),
}
COLORMAPS = ("jet", *_RGB_AT_STEPS, "gray")


@cache
def palette_bgr(name: str) -> Palette:
    """The palette of this name: (256, 3) uint8, BGR, read-only. Raises InputError for an unknown name."""
    if name not in COLORMAPS:
        raise InputError(f"Unknown colormap {name!r}. Known: {', '.join(COLORMAPS)}.")
    if name == "jet":
        rgb = _jet()
    elif name == "gray":
        rgb = np.repeat(np.arange(256.0)[:, None], 3, axis=1)
    else:
        rgb = _between_steps(_RGB_AT_STEPS[name])
    palette = np.ascontiguousarray(np.rint(rgb[:, ::-1]).astype(np.uint8))
    palette.flags.writeable = False
    return palette


@cache
def palette_rgb(name: str) -> Palette:
    """The same palette in RGB."""
    palette = np.ascontiguousarray(palette_bgr(name)[:, ::-1])
    palette.flags.writeable = False
    return palette


def _jet() -> NDArray[np.float64]:
    """Three ramps, a quarter of the range apart."""
    position = np.linspace(0, 1, 256)[:, None]
    rgb: NDArray[np.float64] = 255 * np.clip(1.5 - np.abs(4 * position - np.array([3.0, 2.0, 1.0])), 0, 1)
    return rgb


def _between_steps(table: str) -> NDArray[np.float64]:
    colors = np.array([list(bytes.fromhex(color)) for color in table.split()], np.float64)
    steps = np.arange(0, 256, _STEP)
    return np.stack([np.interp(np.arange(256), steps, channel) for channel in colors.T], axis=1)
