"""What rules look at, by hand on tiny maps."""

from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
import pytest
from explanations import explained

from gcpp_edge.contract import Geometry
from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.pipeline.measures import CLASSES_KEPT, MEASURES, MEDIAN_FROM, MEDIAN_OF, inside

CORNERS = [[1, 2], [3, 4]]
WIDE = np.full((32, 64, 3), 90, np.uint8)


def of(name: str, *explanations: Any, numbers: tuple[float, ...] = ()) -> Any:
    """The measure on the last of these."""
    measure = MEASURES[name].begin(*numbers)
    return [measure(one) for one in explanations][-1]


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((0, 0, 1, 1), 1.0),
        ((0, 0, 0.5, 0.5), 0.1),
        ((0.5, 0, 1, 1), 0.6),
        ((0, 0.5, 0.25, 1), 0.15),  # half of the cell with 3
        ((0.25, 0.25, 0.75, 0.75), 0.25),  # a quarter of each
    ],
)
def test_inside_is_the_share_of_the_evidence_by_how_much_of_each_cell_is_covered(
    box: tuple[float, ...], share: float
) -> None:
    assert of("inside", explained(CORNERS), numbers=box) == pytest.approx(share)


def test_inside_a_mask_is_what_it_is_inside_the_same_box() -> None:
    mask = np.zeros((48, 64), bool)
    mask[12:36, 16:48] = True
    assert inside(mask)(explained(CORNERS)) == pytest.approx(0.25)


def test_a_box_is_in_the_frame_whatever_the_geometry() -> None:
    """A letterbox of 16 x 16 holds 64 x 32 in its middle rows; a crop leaves its left and right quarter out."""
    rows = np.arange(4)[:, None] * np.ones((1, 4))  # 0, 4, 8 and 12 of 24 in the rows
    boxed = explained(rows, WIDE, geometry=Geometry("letterbox"))
    assert of("inside", boxed, numbers=(0, 0, 1, 1)) == pytest.approx(12 / 24)
    assert of("inside", boxed, numbers=(0, 0.5, 1, 1)) == pytest.approx(8 / 24)
    columns = rows.T
    cropped = explained(columns, WIDE, geometry=Geometry("crop"))
    assert of("inside", cropped, numbers=(0.5, 0, 1, 1)) == pytest.approx(20 / 24)
    with pytest.raises(ShapeError, match="none of the box lies where the network looks"):
        of("inside", cropped, numbers=(0, 0, 0.2, 1))


def test_a_measure_of_a_region_follows_a_frame_of_another_size() -> None:
    measure = inside((0.5, 0, 1, 1))
    assert measure(explained(CORNERS)) == pytest.approx(0.6)
    assert measure(explained([[0, 1, 1, 1]], WIDE)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "box",
    [
        (0, 0, 1),
        (0.5, 0, 0.5, 1),
        (0, 0.6, 1, 0.5),
        (-0.1, 0, 1, 1),
        (0, 0, 1, np.nan),
        "a",
        "abcd",
        np.ones((4, 2, 2)),
    ],
)
def test_what_is_no_box_is_refused(box: Any) -> None:
    with pytest.raises(InputError, match="expected a box x0,y0,x1,y1 in shares of the frame"):
        inside(box)


@pytest.mark.parametrize(
    ("raw_map", "share"),
    [
        ([[1, 1], [1, 1]], 1.0),
        ([[0, 5], [0, 0]], 0.25),
        ([[2, 2], [0, 0]], 0.5),
        ([[0, 0], [0, 0]], 1.0),
        ([[-9, 5], [0, 0]], 0.25),
        ([[7]], 1.0),
        ([[1, 3]], 4 / 27**0.25 / 2),  # exp(ln(4) / 4 + 3 ln(4 / 3) / 4) = 4 / 3^(3/4)
    ],
)
def test_spread_is_the_share_of_cells_that_would_hold_it_evenly(raw_map: list[list[float]], share: float) -> None:
    assert of("spread", explained(raw_map)) == pytest.approx(share, abs=1e-3)


def test_spread_does_not_depend_on_the_resolution() -> None:
    fine = np.kron(np.array(CORNERS), np.ones((8, 8)))
    assert of("spread", explained(fine)) == pytest.approx(of("spread", explained(CORNERS)))


@pytest.mark.parametrize(
    ("before", "now", "value"),
    [
        ([[1, 0]], [[0, 7]], 1.0),
        ([[1, 1]], [[3, 1]], 0.25),
        ([[1, 2]], [[2, 4]], 0.0),
        ([[0, 0]], [[0, 0]], 0.0),
        ([[0, 0]], [[0, 1]], 1.0),
        ([[0, 1]], [[0, 0]], 1.0),
        ([[-5, 1]], [[0, 1]], 0.0),
    ],
)
def test_jump_is_the_share_of_the_evidence_that_is_elsewhere(before: Any, now: Any, value: float) -> None:
    assert of("jump", explained(before), explained(now)) == pytest.approx(value)


def test_move_is_the_way_of_the_centre_in_shares_of_the_diagonal() -> None:
    """From the centre of the left half to that of the right: 32 of a frame 64 wide and 48 high, diagonal 80."""
    assert of("move", explained([[1, 0]]), explained([[0, 1]])) == pytest.approx(32 / 80)
    assert of("move", explained(CORNERS), explained(CORNERS)) == 0
    assert of("move", explained([[1, 0]]), explained([[0, 0]])) is None


@pytest.mark.parametrize("name", ["jump", "move"])
def test_what_compares_with_the_frame_before_begins_anew_with_another_size(name: str) -> None:
    assert of(name, explained([[1, 0]])) is None
    other = explained([[1], [0]], WIDE)
    assert of(name, explained([[1, 0]]), other) is None
    assert of(name, explained([[1, 0]]), other, other) == 0


def test_a_clip_counts_as_the_sum_over_its_time() -> None:
    clip = explained([[[1, 0], [3, 4]], [[0, 2], [0, 0]]], [WIDE, WIDE], frames=2)
    assert of("inside", clip, numbers=(0.5, 0, 1, 1)) == pytest.approx(0.6)
    assert of("spread", clip) == pytest.approx(of("spread", explained(CORNERS)))
    assert of("jump", clip, clip) == 0
    assert of("move", clip, clip) == 0


def test_probability_evidence_and_poles_are_the_explanation_s() -> None:
    one = replace(explained(CORNERS), poles=3)
    assert of("probability", one) == pytest.approx(np.exp(3) / (np.exp(1) + np.exp(2) + np.exp(3)))
    assert of("evidence", one) == 10
    assert of("poles", one) == 3


def test_the_evidence_ratio_is_over_the_median_of_the_frames_before() -> None:
    usual = [explained([[value]]) for value in range(1, MEDIAN_FROM + 1)]  # their median is 5.5
    assert of("evidence_ratio", *usual) is None
    assert of("evidence_ratio", *usual, explained([[11]])) == pytest.approx(2)


def test_the_evidence_ratio_keeps_classes_methods_and_models_apart() -> None:
    usual = [explained([[2]])] * MEDIAN_FROM
    weak = [explained([[1]], class_index=2)] * MEDIAN_FROM
    assert of("evidence_ratio", *usual, *weak, explained([[1]])) == 0.5
    assert of("evidence_ratio", *usual, *weak, explained([[1]], class_index=2)) == 1
    assert of("evidence_ratio", *usual, explained([[1]], method="gradcam")) is None
    assert of("evidence_ratio", *usual, explained([[1]], kind="softmax")) is None


def test_the_evidence_ratio_forgets_what_is_old() -> None:
    usual, weak = [explained([[8]])] * MEDIAN_OF, explained([[2]])
    assert of("evidence_ratio", *usual, weak) == 0.25
    assert of("evidence_ratio", *usual, *[weak] * (MEDIAN_OF // 2 - 1), weak) == 0.25
    assert of("evidence_ratio", *usual, *[weak] * (MEDIAN_OF // 2 + 1), weak) == 1
    others = [explained([[1]], class_index=number) for number in range(2, CLASSES_KEPT + 2)]
    assert of("evidence_ratio", *usual, *others, weak) is None


def test_the_evidence_ratio_of_nothing_is_one_and_of_something_after_nothing_is_infinite() -> None:
    nothing = [explained([[0]])] * MEDIAN_FROM
    assert of("evidence_ratio", *nothing, explained([[0]])) == 1
    assert of("evidence_ratio", *nothing, explained([[1]])) == inf


def test_two_measures_of_one_name_have_memories_of_their_own() -> None:
    one, other = MEASURES["jump"].begin(), MEASURES["jump"].begin()
    assert one(explained([[1, 0]])) is None
    assert other(explained([[0, 1]])) is None
    assert one(explained([[1, 0]])) == 0
