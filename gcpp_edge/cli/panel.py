"""One picture that tells the whole story: the frame, its maps side by side, the guided image and the boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gcpp_edge.cli.terminal import number_text
from gcpp_edge.explanation import Explanation
from gcpp_edge.geometry import frame_box_from_input, input_box_from_frame
from gcpp_edge.pictures import opencv

TILE_HEIGHT = 256  # pixels
TILE_WIDTH_RANGE = (176, 400)  # pixels; a wider frame is shown smaller, not cut
MARGIN = 16
TITLE_HEIGHT = 44
CAPTION_HEIGHT = 46

INK = (40, 40, 40)
PALE_INK = (110, 110, 110)
GREY = 128  # zero in a guided picture
BOX_COLOR = (60, 220, 40)

_METHOD_TITLES = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "gradcam++-signed": "Grad-CAM++ (signed)",
    "gradcam++-softmax": "Grad-CAM++ (softmax)",
    "cam": "CAM",
}


class Tile(NamedTuple):
    """A picture, uint8 (H, W, 3) BGR, with two lines of caption."""

    title: str
    note: str
    picture: Any


def panel(name: str, explanations: Sequence[Explanation], threshold: float, alpha: float, colormap: str) -> Any:
    """The frame, one overlay for each explanation, and guided image and boxes of the last: uint8 (H, W, 3) BGR.

    name: of the picture, for the title. threshold: share of the peak that a box encloses. alpha: weight of the colours.
    """
    last = explanations[-1]
    height, width = last.frame.shape[:2]
    tiles = [Tile("picture", f"{width} x {height}", as_bgr(last.frame))]
    for explanation in explanations:
        picture = as_bgr(explanation.overlay(colormap=colormap, alpha=alpha))
        tiles.append(Tile(method_title(explanation.method), f"evidence {number_text(explanation.evidence)}", picture))
    if last.drawing.guided is not None:
        tiles.append(Tile(f"Guided {method_title(last.method)}", "pixels that speak for it", guided_on_frame(last)))
    tiles.append(_boxes_tile(last, threshold))
    return compose(name, f"{last.label}, {last.probability:.1%}", tiles)


def method_title(method: str) -> str:
    """A method's name as papers write it."""
    return _METHOD_TITLES.get(method, method)


def frame_with_boxes(explanation: Explanation, threshold: float) -> Any:
    """The frame, uint8 (H, W, 3) BGR, with a rectangle around each region of evidence."""
    cv2 = opencv()
    picture = as_bgr(explanation.frame).copy()
    thickness = max(2, round(min(picture.shape[:2]) / 100))
    for box in explanation.boxes(threshold=threshold):
        corners = (round(box.x0), round(box.y0)), (round(box.x1) - 1, round(box.y1) - 1)
        cv2.rectangle(picture, *corners, (0, 0, 0), thickness + 2, cv2.LINE_AA)
        cv2.rectangle(picture, *corners, BOX_COLOR, thickness, cv2.LINE_AA)
    return picture


def guided_on_frame(explanation: Explanation) -> Any:
    """The guided picture where it lies on the frame, uint8 (H, W, 3) BGR; grey, for zero, where nothing was seen."""
    fit = explanation.drawing.fit
    height, width = fit.rows.frame, fit.columns.frame
    part = _rounded(input_box_from_frame(fit, (0, 0, width, height)))
    place = _rounded(frame_box_from_input(fit, (0, 0, fit.columns.input, fit.rows.input)))
    canvas = np.full((height, width, 3), GREY, np.uint8)
    size = place[2] - place[0], place[3] - place[1]
    seen = explanation.guided_picture()[part[1] : part[3], part[0] : part[2]]
    canvas[place[1] : place[3], place[0] : place[2]] = opencv().resize(seen, size, interpolation=opencv().INTER_LINEAR)
    return canvas


def _rounded(box: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
    """Whole pixels, at least one each way."""
    x0, y0, x1, y1 = (round(side) for side in box)
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def as_bgr(picture: Any) -> Any:
    """A grey or BGRA picture as BGR, for showing."""
    cv2 = opencv()
    if picture.ndim == 2:
        return cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    return picture[:, :, :3]


def _boxes_tile(explanation: Explanation, threshold: float) -> Tile:
    shares = [box.share for box in explanation.boxes(threshold=threshold)]
    note = f"{len(shares)} found, the first holds {shares[0]:.0%}" if shares else "none found"
    return Tile("boxes", note, frame_with_boxes(explanation, threshold))


def compose(title: str, subtitle: str, tiles: Sequence[Tile]) -> Any:
    """The tiles in a row on white, under a title and over their captions: uint8 (H, W, 3) BGR."""
    width = _tile_width(tiles[0].picture)
    canvas = np.full(
        (TITLE_HEIGHT + TILE_HEIGHT + CAPTION_HEIGHT + MARGIN, MARGIN + len(tiles) * (width + MARGIN), 3), 255, np.uint8
    )
    right = _write(canvas, title, MARGIN, 29, canvas.shape[1] // 2, 0.62, INK, bold=True)
    _write(canvas, subtitle, right + MARGIN, 29, canvas.shape[1] - right - 2 * MARGIN, 0.62, PALE_INK)
    for column, tile in enumerate(tiles):
        left = MARGIN + column * (width + MARGIN)
        _place(canvas[TITLE_HEIGHT : TITLE_HEIGHT + TILE_HEIGHT, left : left + width], tile.picture)
        _write(canvas, tile.title, left, TITLE_HEIGHT + TILE_HEIGHT + 22, width, 0.5, INK, bold=True)
        _write(canvas, tile.note, left, TITLE_HEIGHT + TILE_HEIGHT + 42, width, 0.42, PALE_INK)
    return canvas


def _tile_width(picture: Any) -> int:
    lowest, highest = TILE_WIDTH_RANGE
    return int(np.clip(round(TILE_HEIGHT * picture.shape[1] / picture.shape[0]), lowest, highest))


def _place(cell: Any, picture: Any) -> None:
    """The picture in the middle of the cell, as large as it fits."""
    cv2 = opencv()
    scale = min(cell.shape[0] / picture.shape[0], cell.shape[1] / picture.shape[1])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    top, left = (cell.shape[0] - height) // 2, (cell.shape[1] - width) // 2
    cell[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=method)


def _write(
    canvas: Any, text: str, left: int, baseline: int, width: int, scale: float, color: Any, bold: bool = False
) -> int:
    """Write as much of the text as fits into `width` pixels; returns where it ends."""
    cv2 = opencv()
    font = cv2.FONT_HERSHEY_DUPLEX if bold else cv2.FONT_HERSHEY_SIMPLEX

    def extent(words: str) -> int:
        return int(cv2.getTextSize(words, font, scale, 1)[0][0])

    if extent(text) > width:
        while text and extent(text + "...") > width:
            text = text[:-1]
        text += "..."
    cv2.putText(canvas, text, (left, baseline), font, scale, color, 1, cv2.LINE_AA)
    return left + extent(text)
