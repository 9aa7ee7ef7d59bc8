"""Several layers in one map: the mean of their normalised maps. And pictures out of the map of a clip.

Peers do it so (pytorch-grad-cam 1.5.7, base_cam.py): each layer's map is scaled to [0, 1] and resized, and then their
mean is taken, so that no layer outweighs another by the size of its gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.geometry import stretch_axis
from gcpp_edge.kernels import table
from gcpp_edge.methods import PYTORCH_GRAD_CAM, single_range

Map = NDArray[np.float32]


def fused_grid(spaces: Sequence[tuple[int, ...]], mode: str, size: tuple[int, int]) -> tuple[int, ...]:
    """The grid of the mean: the finest of the layers' on each axis; the input's size where a peer resizes first."""
    if mode == PYTORCH_GRAD_CAM:
        return size
    return tuple(max(sizes) for sizes in zip(*spaces, strict=True))


def fuse(maps: Sequence[Map], mode: str, out: Map) -> None:
    """The mean of the maps, each scaled to [0, 1] and resized to `out`, bilinearly with half-pixel centres.

    maps: raw, (h, w) or (t, h, w), of one target; out: (H, W) or (T, H, W). A map of one value is 0 everywhere.
    """
    out[...] = 0
    whole, scaled = (out, np.empty(out.shape[-2:], np.float32)) if out.ndim == 3 else (out[None], np.empty_like(out))
    for raw in maps:
        low, high = single_range(mode, raw)
        for index, plane in enumerate(whole):
            source = map_at(raw, index, len(whole)) if raw.ndim == 3 else raw
            axes = [stretch_axis(*sides) for sides in zip(plane.shape, source.shape, strict=True)]
            table().heatmap(source, axes[0], axes[1], low, high, scaled)
            plane += scaled
    out /= len(maps)


def map_at(raw: Map, index: int, count: int) -> Map:
    """Of a clip's map (t, h, w) what belongs to picture `index` of `count`, (h, w): linear, half-pixel centres."""
    place = min(max((index + 0.5) * len(raw) / count - 0.5, 0.0), len(raw) - 1.0)
    lower = int(place)
    share = np.float32(place - lower)
    if share == 0:
        return np.ascontiguousarray(raw[lower])
    between: Map = raw[lower] + (raw[lower + 1] - raw[lower]) * share
    return between
