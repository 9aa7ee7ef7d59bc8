"""What viewers write into the picture: class, probability, latency, frames a second."""

from __future__ import annotations

import unicodedata

import numpy as np
from numpy.typing import NDArray

from gcpp_edge.explanation import NO_CLASS
from gcpp_edge.pictures import opencv
from gcpp_edge.pipeline.result import Result

INK = (255, 255, 255)
SHADE = 0.35  # brightness that is left of the picture behind the text
LINE_SHARE = 1 / 18  # height of a line, of the picture's
LINE_RANGE = (14, 48)  # pixels
CUT = ".."  # where a text does not fit


def annotated(result: Result, fps: float = 0.0) -> NDArray[np.uint8]:
    """A copy of the overlay with two lines of text in it, (H, W, 3) uint8 BGR. fps: left out if 0.

    Letters that OpenCV's fonts lack lose their accents, or become question marks.
    """
    picture: NDArray[np.uint8] = result.picture().copy()
    line = int(np.clip(picture.shape[0] * LINE_SHARE, *LINE_RANGE))
    for row, text in enumerate(hud_lines(result, fps)):
        _write(picture, text, row, line)
    return picture


def hud_lines(result: Result, fps: float = 0.0) -> tuple[str, str]:
    """What is found, and how fast."""
    found = result.explanation
    what = found.label if found.class_index == NO_CLASS else f"{found.label} {found.probability:.1%}"
    how = f"{found.method}  {result.latency_ms:.1f} ms"
    return what, f"{how}  {fps:.1f} fps" if fps else how


def _write(picture: NDArray[np.uint8], text: str, row: int, line: int) -> None:
    """As much of the text as fits, on a darkened ground; the first row is 0."""
    cv2 = opencv()
    font, scale, margin = cv2.FONT_HERSHEY_SIMPLEX, line / 40, line // 3
    text = unicodedata.normalize("NFKD", text)
    text = "".join(letter for letter in text if not unicodedata.combining(letter)).encode("ascii", "replace").decode()

    def extent() -> int:
        return int(cv2.getTextSize(text, font, scale, 1)[0][0]) + 2 * margin

    while len(text) > len(CUT) and extent() > picture.shape[1]:
        text = text[: -len(CUT) - 1].rstrip() + CUT
    ground = picture[row * line : (row + 1) * line, : extent()]
    ground[...] = (ground * SHADE).astype(np.uint8)
    cv2.putText(picture, text, (margin, (row + 1) * line - line // 4), font, scale, INK, 1, cv2.LINE_AA)
