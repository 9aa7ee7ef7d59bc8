"""Explanations made by hand, for what looks at them frame by frame."""

from typing import Any

import numpy as np

from gcpp_edge.contract import Contract, Geometry, Layer, Level, Preprocessing, Scores
from gcpp_edge.explanation import Drawing, Explanation
from gcpp_edge.frames import frame_size
from gcpp_edge.geometry import fit_frame
from gcpp_edge.kernels import table
from gcpp_edge.methods import single_range

GREY = np.full((48, 64, 3), 90, np.uint8)


def explained(
    raw_map: Any,
    frame: Any = GREY,
    *,
    class_index: int = 1,
    scores: Any = (1.0, 3.0, 2.0),
    format: str = "bgr",
    size: tuple[int, int] = (16, 16),
    geometry: Geometry | None = None,
    method: str = "gradcam++",
    mode: str = "paper",
    frames: int = 0,
    kind: str = "logits",
) -> Explanation:
    """Of this raw map; `frames`: of a clip, whose frame is a list of so many."""
    raw_map = np.array(raw_map, np.float32)
    contract = Contract(
        input="image",
        preprocessing=Preprocessing(*size, geometry=geometry or Geometry(), frames=frames),
        scores=Scores("scores", len(scores), kind),
        layer=Layer("layer", "layer", 8, raw_map.shape, True),
        levels={"plain": Level(1, ("scores",))},
        labels=("cat", "dog", "bird"),
    )
    fit = fit_frame(*frame_size(frame[0] if frames else frame, format), contract.preprocessing)
    drawing = Drawing(contract, table("numpy"), fit, single_range(mode, raw_map), format, None)
    scores = np.array(scores, np.float32)
    return Explanation(
        -1, class_index, scores, raw_map, 0, method, mode, frame, {}, drawing, layer_maps={"layer": raw_map}
    )
