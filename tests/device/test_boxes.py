"""Components of maps made by hand, and of noise against SciPy's."""

from dataclasses import dataclass

import numpy as np
import pytest

from gcpp_edge.boxes import Box, component_boxes, frame_boxes
from gcpp_edge.contract import Geometry, Preprocessing
from gcpp_edge.errors import InputError
from gcpp_edge.geometry import fit_frame


@dataclass(frozen=True)
class Case:
    name: str
    drawing: str  # a digit is a value, a dot is 0
    threshold: float
    boxes: list[tuple[int, int, int, int, float]]


CASES = [
    Case("an empty map has no boxes", "... ...", 0.25, []),
    Case("one spot", "... .4. ...", 0.25, [(1, 1, 2, 2, 1.0)]),
    Case("the whole map", "22 22", 0.25, [(0, 0, 2, 2, 1.0)]),
    Case("two instances, most evidence first", "11... ..... ...44", 0.25, [(3, 2, 5, 3, 0.8), (0, 0, 2, 1, 0.2)]),
    Case("a diagonal touch joins", "1.. .1. ..2", 0.25, [(0, 0, 3, 3, 1.0)]),
    Case("the other diagonal joins too", "..1 .1. 2..", 0.25, [(0, 0, 3, 3, 1.0)]),
    Case("a gap of one pixel parts", "2.2", 0.25, [(0, 0, 1, 1, 0.5), (2, 0, 3, 1, 0.5)]),
    Case("a gap of one row parts", "2 . 2", 0.25, [(0, 0, 1, 1, 0.5), (0, 2, 1, 3, 0.5)]),
    Case("below the threshold is evidence in no box", "1..8", 0.25, [(3, 0, 4, 1, 8 / 9)]),
    Case("at the threshold belongs to the box", "2..8", 0.25, [(3, 0, 4, 1, 0.8), (0, 0, 1, 1, 0.2)]),
    Case("a threshold of 0 takes all but zeros", "1..8", 0.0, [(3, 0, 4, 1, 8 / 9), (0, 0, 1, 1, 1 / 9)]),
    Case("a threshold of 1 takes the maximum alone", "7..8", 1.0, [(3, 0, 4, 1, 8 / 15)]),
    Case("two arms meet below", "1.1 1.1 111", 0.25, [(0, 0, 3, 3, 1.0)]),
    Case("two arms meet above", "111 1.1 1.1", 0.25, [(0, 0, 3, 3, 1.0)]),
    Case("a ring", "111 1.1 111", 0.25, [(0, 0, 3, 3, 1.0)]),
    Case("a spiral joins at its end", "11111 1.... 1.111 1...1 11111", 0.25, [(0, 0, 5, 5, 1.0)]),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_components_of_a_drawn_map(case: Case) -> None:
    rows = [[0 if cell == "." else int(cell) for cell in row] for row in case.drawing.split()]
    boxes = component_boxes(np.array(rows, np.float32), case.threshold)
    assert [box[:4] for box in boxes] == [box[:4] for box in case.boxes]
    assert [box.share for box in boxes] == pytest.approx([box[4] for box in case.boxes])


@pytest.mark.parametrize("density", [0.1, 0.4, 0.6, 0.9])
def test_noise_has_the_components_that_scipy_finds(density: float) -> None:
    ndimage = pytest.importorskip("scipy.ndimage", reason="SciPy is the oracle here")
    random = np.random.default_rng(3)
    heatmap = np.where(random.random((40, 50)) < density, random.uniform(0.5, 1, (40, 50)), 0).astype(np.float32)
    labels, _ = ndimage.label(heatmap, structure=np.ones((3, 3)))
    expected = {(c.start, r.start, c.stop, r.stop) for r, c in ndimage.find_objects(labels)}
    boxes = component_boxes(heatmap, 0.25)
    assert {box[:4] for box in boxes} == expected
    assert sum(box.share for box in boxes) == pytest.approx(1.0)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(InputError, match="between 0 and 1"):
        component_boxes(np.ones((2, 2), np.float32), threshold)


def test_boxes_of_a_crop_lie_in_the_part_of_the_frame_that_was_seen() -> None:
    fit = fit_frame(100, 300, Preprocessing(50, 50, geometry=Geometry("crop")))
    assert frame_boxes(fit, [Box(0, 0, 50, 25, 1.0)]) == [Box(100, 0, 200, 50, 1.0)]


def test_boxes_in_the_filling_of_a_letterbox_are_left_out() -> None:
    fit = fit_frame(50, 100, Preprocessing(100, 100, geometry=Geometry("letterbox")))
    boxes = [Box(0, 0, 100, 20, 0.5), Box(10, 20, 30, 40, 0.3), Box(0, 80, 100, 100, 0.2)]
    assert frame_boxes(fit, boxes) == [Box(10, 0, 30, 15, 0.3)]


def test_a_box_smaller_than_a_frame_pixel_keeps_one() -> None:
    fit = fit_frame(2, 2, Preprocessing(100, 100))
    for corner in (0, 30, 49, 60, 98):
        (box,) = frame_boxes(fit, [Box(corner, corner, corner + 1, corner + 1, 1.0)])
        assert 0 <= box.x0 < box.x1 <= 2
        assert 0 <= box.y0 < box.y1 <= 2
