"""The pictures and figures made of an explanation."""

from collections.abc import Callable

import numpy as np
import pytest

from gcpp_edge.boxes import Box
from gcpp_edge.colormaps import palette_bgr
from gcpp_edge.contract import Contract, Geometry, Layer, Level, Preprocessing, Scores
from gcpp_edge.errors import InputError, ShapeError
from gcpp_edge.explanation import UNSEEN_DIM, Drawing, Explanation, probabilities
from gcpp_edge.frames import frame_size
from gcpp_edge.geometry import fit_frame
from gcpp_edge.kernels import table
from gcpp_edge.methods import display_range

STRETCH = Geometry()
SPOT = np.zeros((4, 4), np.float32)
SPOT[1, 2] = 3.0


def explain(
    raw_map: np.ndarray = SPOT,
    frame: np.ndarray | None = None,
    *,
    format: str = "bgr",
    size: tuple[int, int] = (16, 16),
    geometry: Geometry = STRETCH,
    color: str = "rgb",
    guided: np.ndarray | None = None,
) -> Explanation:
    """An explanation of a map made by hand."""
    frame = np.zeros((16, 16, 3), np.uint8) if frame is None else frame
    contract = Contract(
        input="image",
        preprocessing=Preprocessing(*size, color=color, geometry=geometry),
        scores=Scores("scores", 3),
        layer=Layer("layer", "layer", 8, raw_map.shape, True),
        levels={"plain": Level(1, ("scores",))},
        labels=("cat", "dog", "bird"),
    )
    fit = fit_frame(*frame_size(frame, format), contract.preprocessing)
    drawing = Drawing(contract, table("numpy"), fit, display_range("paper", raw_map, *size), format, guided)
    scores = np.array([1.0, 3.0, 2.0], np.float32)
    return Explanation(-1, 1, scores, raw_map, 0, "gradcam++", "paper", frame, {}, drawing)


def test_a_heatmap_has_the_frame_s_size_and_runs_from_zero_to_one() -> None:
    heatmap = explain(frame=np.zeros((32, 64, 3), np.uint8)).heatmap()
    assert heatmap.shape == (32, 64)
    assert heatmap.dtype == np.float32
    assert (heatmap.min(), heatmap.max()) == (0, pytest.approx(1, abs=0.2))
    assert np.unravel_index(heatmap.argmax(), heatmap.shape)[0] in range(8, 16)
    assert np.unravel_index(heatmap.argmax(), heatmap.shape)[1] in range(32, 48)


def test_a_heatmap_at_the_map_s_own_size_is_the_normalised_map() -> None:
    assert np.array_equal(explain(size=(4, 4)).heatmap("input"), SPOT / 3)


def test_a_heatmap_is_opencv_s_bilinear_resize() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle here: pip install 'gcpp-edge[cli]'")
    raw_map = np.random.default_rng(0).uniform(0, 5, (7, 7)).astype(np.float32)
    normal = (raw_map - raw_map.min()) / (raw_map.max() - raw_map.min())
    expected = cv2.resize(normal, (53, 41), interpolation=cv2.INTER_LINEAR)
    assert np.abs(explain(raw_map, np.zeros((41, 53, 3), np.uint8)).heatmap() - expected).max() < 1e-5


def test_a_heatmap_in_bytes_is_the_rounded_one() -> None:
    explanation = explain()
    assert np.array_equal(explanation.heatmap(dtype=np.uint8), np.rint(255 * explanation.heatmap()).astype(np.uint8))


def test_a_map_of_zeros_is_shown_as_zeros_and_has_no_boxes() -> None:
    explanation = explain(np.zeros((4, 4), np.float32))
    assert not explanation.heatmap().any()
    assert explanation.boxes() == []
    assert (explanation.evidence, explanation.peak) == (0, 0)


def test_what_a_crop_left_out_is_zero_in_the_heatmap_and_dim_in_the_overlay() -> None:
    frame = np.full((16, 48, 3), 100, np.uint8)
    explanation = explain(np.ones((4, 4), np.float32) + SPOT, frame, geometry=Geometry("crop"))
    heatmap, overlay = explanation.heatmap(), explanation.overlay("gray", alpha=0.0)
    assert not heatmap[:, :16].any()
    assert not heatmap[:, 32:].any()
    assert heatmap[:, 16:32].any()
    assert (overlay[:, 16:32] == 100).all()
    assert (overlay[:, :16] == round(100 * UNSEEN_DIM)).all()


def test_a_letterboxed_frame_shows_the_part_of_the_map_that_lies_on_it() -> None:
    """A spot in the filling above the frame is no part of the picture."""
    raw_map = np.zeros((4, 4), np.float32)
    raw_map[0, 0], raw_map[2, 3] = 9, 4
    explanation = explain(raw_map, np.zeros((8, 16, 3), np.uint8), geometry=Geometry("letterbox"))
    heatmap = explanation.heatmap()
    assert np.unravel_index(heatmap.argmax(), heatmap.shape)[1] >= 12
    (box,) = explanation.boxes()[1:] or explanation.boxes()
    assert box.y0 >= 0


@pytest.mark.parametrize(
    "fill", [lambda e, out: e.heatmap(out=out), lambda e, out: e.heatmap("input", out=out)], ids=["frame", "input"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
def test_a_heatmap_fills_the_caller_s_buffer(fill: Callable, dtype: type) -> None:
    out = np.full((16, 16), 9, dtype)
    assert fill(explain(), out) is out
    assert np.array_equal(out, explain().heatmap(dtype=dtype))


def test_an_overlay_blends_the_palette_over_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    explanation = explain(frame=frame)
    colors = palette_bgr("turbo")[explanation.heatmap(dtype=np.uint8)]
    expected = np.rint(0.25 * frame + 0.75 * colors.astype(float))
    assert np.abs(explanation.overlay("turbo", alpha=0.75).astype(int) - expected).max() <= 1


def test_an_overlay_of_an_rgb_frame_is_the_bgr_one_with_channels_swapped() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    swapped = explain(frame=np.ascontiguousarray(frame[:, :, ::-1]), format="rgb").overlay()
    assert np.array_equal(swapped[:, :, ::-1], explain(frame=frame).overlay())


@pytest.mark.parametrize("format", ["bgra", "rgba"])
def test_an_overlay_keeps_the_alpha_channel(format: str) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (16, 16, 4), np.uint8)
    assert np.array_equal(explain(frame=frame, format=format).overlay()[:, :, 3], frame[:, :, 3])


@pytest.mark.parametrize(
    ("format", "frame"),
    [
        ("gray", np.full((16, 16), 80, np.uint8)),
        ("gray16", np.full((16, 16), 80 * 257, np.uint16)),
        ("nv12", np.repeat(np.uint8([80, 128]), [256, 128]).reshape(24, 16)),
    ],
)
def test_an_overlay_of_a_frame_without_colour_is_bgr(format: str, frame: np.ndarray) -> None:
    overlay = explain(frame=frame, format=format).overlay("gray", alpha=0.0)
    grey = round(1.164 * (80 - 16)) if format == "nv12" else 80
    assert overlay.shape == (16, 16, 3)
    assert np.abs(overlay.astype(int) - grey).max() <= 1


def test_an_overlay_may_overwrite_the_frame() -> None:
    frame = np.full((16, 16, 3), 100, np.uint8)
    expected = explain(frame=frame.copy()).overlay()
    explanation = explain(frame=frame)
    assert explanation.overlay(out=frame) is frame
    assert np.array_equal(frame, expected)


def test_an_overlay_takes_a_cut_out_of_a_frame() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    cut_out = whole[5:21, 7:23]
    assert np.array_equal(explain(frame=cut_out).overlay(), explain(frame=cut_out.copy()).overlay())
    mirrored = cut_out[:, ::-1]
    assert np.array_equal(explain(frame=mirrored).overlay(), explain(frame=mirrored.copy()).overlay())


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        (lambda e: e.heatmap("map"), InputError, "unknown space 'map'. Known: frame, input"),
        (lambda e: e.heatmap(out=np.zeros((3, 3), np.float32)), ShapeError, r"expected an out of \(16, 16\)"),
        (lambda e: e.heatmap(out=[0.0]), ShapeError, r"expected an out of \(16, 16\), found \(1,\)"),
        (lambda e: e.heatmap(dtype=np.float64), ShapeError, "float32 or uint8"),
        (lambda e: e.overlay("hot"), InputError, "Unknown colormap 'hot'"),
        (lambda e: e.overlay(alpha=1.5), InputError, "alpha"),
        (lambda e: e.overlay(out=np.zeros((3, 3, 3), np.uint8)), ShapeError, "out"),
        (lambda e: e.boxes(threshold=2), InputError, "between 0 and 1"),
        (lambda e: e.top(0), InputError, "at least 1"),
        (lambda e: e.guided(), InputError, "guided=True"),
        (lambda e: e.guided_picture(), InputError, "guided=True"),
    ],
)
def test_a_wrong_wish_is_refused(ask: Callable, error: type[InputError], message: str) -> None:
    with pytest.raises(error, match=message):
        ask(explain())


def test_boxes_lie_where_the_evidence_lies_in_the_frame() -> None:
    (box,) = explain(frame=np.zeros((32, 64, 3), np.uint8)).boxes(threshold=0.5)
    assert isinstance(box, Box)
    assert (box.x0, box.y0, box.x1, box.y1) == pytest.approx((32, 8, 48, 16), abs=4)
    assert 0.5 < box.share <= 1


def test_two_instances_have_two_boxes() -> None:
    raw_map = np.zeros((7, 7), np.float32)
    raw_map[1, 1], raw_map[5, 5] = 4, 3
    first, second = explain(raw_map, size=(70, 70)).boxes()
    assert first.share > second.share
    assert first.x1 <= second.x0


@pytest.mark.parametrize(("color", "order"), [("rgb", [2, 1, 0]), ("bgr", [0, 1, 2]), ("gray", [0])])
def test_the_guided_image_is_the_map_times_the_backward_image_in_bgr(color: str, order: list[int]) -> None:
    image = np.random.default_rng(0).normal(size=(len(order), 16, 16)).astype(np.float32)
    explanation = explain(color=color, guided=image)
    expected = (image[order] * explanation.heatmap("input")).transpose(1, 2, 0)
    assert np.allclose(explanation.guided(), expected, atol=1e-6)


def test_the_guided_picture_shows_zero_as_middle_grey_and_signs_apart() -> None:
    image = np.zeros((3, 16, 16), np.float32)
    image[0, 6, 9], image[0, 6, 10] = 1e-3, -1e-3
    picture = explain(guided=image).guided_picture()
    assert picture[0, 0].tolist() == [128, 128, 128]
    assert picture[6, 9, 2] > 128 > picture[6, 10, 2]
    assert (explain(guided=np.zeros_like(image)).guided_picture() == 128).all()


def test_top_classes_come_best_first() -> None:
    assert [row[:2] for row in explain().top(2)] == [(1, "dog"), (2, "bird")]
    assert sum(row[2] for row in explain().top(9)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "scores", "expected"),
    [
        ("logits", [1000.0, 1000.0], [0.5, 0.5]),
        ("logits", [-1000.0, 0.0], [0.0, 1.0]),
        ("softmax", [0.25, 0.75], [0.25, 0.75]),
        ("sigmoid", [0.9, 0.8], [0.9, 0.8]),
        ("log_softmax", [np.log(0.25), -np.inf], [0.25, 0.0]),
    ],
)
def test_probabilities_follow_the_kind_of_the_scores(kind, scores, expected) -> None:
    assert np.allclose(probabilities(np.array(scores, np.float32), kind), expected)


def test_an_explanation_tells_itself_in_one_line() -> None:
    assert repr(explain()).startswith("Explanation('dog', class_index=1, probability=0.665")
