"""Panels: tiles of one height in a row, with captions that fit, and the guided image where it lies on the frame."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.cli.panel import (
    CAPTION_HEIGHT,
    MARGIN,
    TILE_HEIGHT,
    TILE_WIDTH_RANGE,
    TITLE_HEIGHT,
    Tile,
    compose,
    frame_with_boxes,
    guided_on_frame,
)

Run = Callable[..., Any]
HEIGHT = TITLE_HEIGHT + TILE_HEIGHT + CAPTION_HEIGHT + MARGIN
SHAPES = ((480, 640), (640, 480), (100, 1000), (1000, 100), (7, 5))


def black(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_tiles_of_any_shape_stand_in_a_row_of_one_height(shape: tuple[int, int]) -> None:
    canvas = compose("title", "subtitle", [Tile("one", "1", black(*shape)), Tile("two", "2", black(*shape))])
    assert canvas.dtype == np.uint8 and canvas.shape[0] == HEIGHT
    width = (canvas.shape[1] - 3 * MARGIN) // 2
    assert TILE_WIDTH_RANGE[0] <= width <= TILE_WIDTH_RANGE[1]
    row = canvas[TITLE_HEIGHT : TITLE_HEIGHT + TILE_HEIGHT]
    for left in (MARGIN, 2 * MARGIN + width):
        cell = (row[:, left : left + width] == 0).all(axis=2)
        rows, columns = cell.any(axis=1).sum(), cell.any(axis=0).sum()
        assert rows == TILE_HEIGHT or columns == width
        assert rows / columns == pytest.approx(shape[0] / shape[1], rel=0.05)


def test_long_captions_are_cut_and_do_not_run_into_the_next_tile() -> None:
    canvas = compose("t" * 500, "s" * 500, [Tile("w" * 200, "n" * 200, black(10, 10)), Tile("", "", black(10, 10))])
    width = (canvas.shape[1] - 3 * MARGIN) // 2
    caption = canvas[TITLE_HEIGHT + TILE_HEIGHT :]
    assert (caption[:, MARGIN : MARGIN + width] < 255).any()
    assert (caption[:, MARGIN + width + 1 :] == 255).all()
    assert (canvas[:, -2:] == 255).all()


@pytest.mark.parametrize("geometry", ["stretch", "crop", "letterbox"])
@pytest.mark.parametrize("shape", [(48, 80), (80, 48), (33, 32)], ids=str)
def test_the_guided_image_lies_where_the_network_saw(
    geometry: str, shape: tuple[int, int], folder: Path, tmp_path: Path, run: Run
) -> None:
    model = tmp_path / "model.onnx"
    assert run("export", folder / "network.onnx", "--guided", "--geometry", geometry, "-o", model).status == 0
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    with gcpp_edge.load(model, level="guided") as explainer:
        explanation = explainer(frame, guided=True)
    picture = guided_on_frame(explanation)
    assert picture.shape == frame.shape
    unseen = np.abs(explanation.overlay(alpha=0.0).astype(int) - frame).max(axis=2) > 1  # dimmed there
    # the border of the two is rounded to whole pixels
    inside = unseen & np.roll(unseen, 1, 0) & np.roll(unseen, -1, 0) & np.roll(unseen, 1, 1) & np.roll(unseen, -1, 1)
    assert (picture[inside] == 128).all()
    assert (picture[~unseen] != 128).any()


@pytest.mark.parametrize("format, shape", [("bgr", (20, 30, 3)), ("gray", (20, 30)), ("bgra", (20, 30, 4))])
def test_boxes_are_drawn_on_frames_of_any_format(format: str, shape: tuple[int, ...], folder: Path) -> None:
    frame = np.random.default_rng(1).integers(0, 100, shape, np.uint8)
    before = frame.copy()
    with gcpp_edge.load(folder / "map.onnx") as explainer:
        picture = frame_with_boxes(explainer(frame, format=format), 0.25)
    assert picture.shape == (20, 30, 3) and (frame == before).all()
