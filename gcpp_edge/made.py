"""Pictures that are made in the call: on a GPU beside the map, so that nothing else has to cross the bus.

They are those of Explanation.heatmap() and overlay() with their defaults. What a GPU cannot draw (clips, several layers
in one map, the ranges of other implementations, grey and NV12 frames) is drawn on the host from the map.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gcpp_edge.colormaps import palette_bgr, palette_rgb
from gcpp_edge.contract import CLASSES, Contract
from gcpp_edge.device import Buffer
from gcpp_edge.errors import InputError
from gcpp_edge.explanation import UNSEEN_DIM, Explanation
from gcpp_edge.geometry import FrameFit, frame_from_map
from gcpp_edge.methods import PAPER
from gcpp_edge.network import Network
from gcpp_edge.reuse import kept

HEATMAP, OVERLAY = "heatmap", "overlay"
PICTURES = (HEATMAP, OVERLAY)
LIMITS, PALETTE, MAP = "limits", "palette", "map"
ALPHA = 0.5  # overlay()'s default
_IN_COLOUR = {"bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}

Pictures = dict[str, Any]  # by name


def resolve_made(asked: str | Sequence[str]) -> tuple[str, ...]:
    """The names asked for, each once. Raises InputError for an unknown one."""
    names = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in names:
        if name not in PICTURES:
            raise InputError(f"make: unknown picture {name!r}. Known: {', '.join(PICTURES)}.")
    return tuple(name for name in PICTURES if name in names)


def make_on_host(explanation: Explanation, made: tuple[str, ...]) -> None:
    """Puts the pictures into the explanation."""
    fit, format = explanation.drawing.fit, explanation.drawing.format
    size = fit.rows.frame, fit.columns.frame
    if HEATMAP in made:
        explanation.made[HEATMAP] = explanation.heatmap(out=explanation.spare(HEATMAP, size, np.float32))
    if OVERLAY in made:
        shape = (*size, _IN_COLOUR.get(format, 3))
        explanation.made[OVERLAY] = explanation.overlay(out=explanation.spare(OVERLAY, shape, np.uint8))


def can_draw(contract: Contract, mode: str, format: str) -> bool:
    """Whether a GPU can draw the pictures of such a call."""
    is_single = not contract.others and contract.target.kind != CLASSES and not contract.preprocessing.frames
    return is_single and mode == PAPER and format in _IN_COLOUR


class DeviceArtist:
    """Draws in buffers that a network keeps: `prepare` outside of its work, `draw` inside, `read` when it is done."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def prepare(self, network: Network, fits: list[FrameFit], format: str, made: tuple[str, ...]) -> list[Pictures]:
        """Buffers for the pictures of each frame."""
        palette = (palette_rgb if format.startswith("rgb") else palette_bgr)("jet")
        network.scratch((PALETTE, format[:3]), palette.shape, np.uint8, palette)
        network.scratch(LIMITS, (len(fits), 2), np.float32)
        shapes = {HEATMAP: ((), np.float32), OVERLAY: ((_IN_COLOUR[format],), np.uint8)}
        return [
            {
                name: network.scratch(
                    (name, index), (fit.rows.frame, fit.columns.frame, *shapes[name][0]), shapes[name][1]
                )
                for name in made
            }
            for index, fit in enumerate(fits)
        ]

    def draw(
        self,
        network: Network,
        maps: Buffer,
        fits: list[FrameFit],
        frames: list[Buffer],
        format: str,
        pictures: list[Pictures],
    ) -> None:
        """The maps over their frames, each between its smallest and its largest value."""
        kernels, count = network.device.kernels, len(fits)
        limits = network.scratch(LIMITS, (count, 2), np.float32)
        kernels.range(maps[:count], False, limits)
        palette = network.scratch((PALETTE, format[:3]), (256, 3), np.uint8)
        for index, fit in enumerate(fits):
            rows, columns = frame_from_map(fit, *maps.shape[1:])
            for name, out in pictures[index].items():
                if name == HEATMAP:
                    kernels.heatmap(maps[index], rows, columns, 0, 1, out, limits[index])
                else:
                    over = (palette, ALPHA, UNSEEN_DIM, out, limits[index])
                    kernels.overlay(frames[index], maps[index], rows, columns, 0, 1, *over)
                network.device.fetch(out)

    def read(self, network: Network, explanation: Explanation, map: Buffer, pictures: Pictures) -> None:
        """Puts the pictures into the explanation, which owns its copies."""
        for name, out in pictures.items():
            old = explanation.spare(name, out.shape, out.dtype)
            explanation.made[name] = kept(network.device.download(out), old, out.dtype)
        explanation.on_device.update({MAP: map, **pictures})
