"""Frame <-> input <-> map: what torchvision and YOLO do, the inverses, and that a round trip leads home."""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gcpp_edge.contract import Geometry, Preprocessing
from gcpp_edge.errors import FrameError
from gcpp_edge.geometry import (
    fit_frame,
    frame_box_from_input,
    frame_from_map,
    frame_point_from_input,
    input_box_from_frame,
    input_from_frame,
    input_from_map,
    input_point_from_frame,
)


@dataclass(frozen=True)
class Case:
    name: str
    frame: tuple[int, int]
    input: tuple[int, int]
    geometry: Geometry
    resized: tuple[int, int]
    offset: tuple[int, int]


CASES = [
    Case("stretch takes both sides at will", (480, 640), (224, 224), Geometry(), (224, 224), (0, 0)),
    Case("crop of a wide frame", (480, 640), (224, 224), Geometry("crop", 0.875), (256, 341), (16, 58)),
    Case("crop of a tall frame", (640, 480), (224, 224), Geometry("crop", 0.875), (341, 256), (58, 16)),
    Case("crop without a margin", (100, 300), (50, 50), Geometry("crop", 1.0), (50, 150), (0, 50)),
    Case("crop rounds half a pixel to even", (100, 103), (100, 100), Geometry("crop", 1.0), (100, 103), (0, 2)),
    Case("crop to a wide input", (100, 100), (50, 80), Geometry("crop", 1.0), (80, 80), (15, 0)),
    Case("crop to a tall input", (100, 400), (80, 50), Geometry("crop", 0.5), (160, 640), (40, 295)),
    Case("letterbox of a wide frame", (480, 640), (640, 640), Geometry("letterbox"), (480, 640), (-80, 0)),
    Case("letterbox of a tall frame", (640, 480), (320, 320), Geometry("letterbox"), (320, 240), (0, -40)),
    Case("letterbox puts the odd pixel below", (99, 100), (100, 100), Geometry("letterbox"), (99, 100), (0, 0)),
    Case("letterbox of a sliver keeps a pixel", (1, 1000), (64, 64), Geometry("letterbox"), (1, 64), (-31, 0)),
    Case("letterbox enlarges a small frame", (10, 20), (40, 40), Geometry("letterbox"), (20, 40), (-10, 0)),
]


def preprocessing(size: tuple[int, int], geometry: Geometry) -> Preprocessing:
    return Preprocessing(*size, geometry=geometry)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_frame_is_placed_as_it_was_in_training(case: Case) -> None:
    fit = fit_frame(*case.frame, preprocessing(case.input, case.geometry))
    assert (fit.rows.resized, fit.columns.resized) == case.resized
    assert (fit.rows.offset, fit.columns.offset) == case.offset


@pytest.mark.parametrize("size", [(480, 640), (640, 480), (333, 500), (375, 500), (257, 256), (224, 1000)])
@pytest.mark.parametrize("share", [1.0, 0.875, 0.9, 0.95])
def test_crop_agrees_with_torchvision(torchvision: Any, size: tuple[int, int], share: float) -> None:
    import torch

    functional = torchvision.transforms.functional
    ramp = torch.arange(size[0] * size[1], dtype=torch.float32).reshape(1, *size)
    resized = functional.resize(ramp, round(224 / share), antialias=False)
    fit = fit_frame(*size, preprocessing((224, 224), Geometry("crop", share)))
    assert resized.shape[1:] == (fit.rows.resized, fit.columns.resized)
    window = resized[0, fit.rows.offset : fit.rows.offset + 224, fit.columns.offset : fit.columns.offset + 224]
    assert torch.equal(functional.center_crop(resized, [224, 224])[0], window)


def test_a_stretched_axis_is_the_ratio_of_both_sides() -> None:
    axes = input_from_frame(fit_frame(480, 640, preprocessing((224, 320), Geometry())))
    assert axes.rows == (480 / 224, 0.0, 0, 224)
    assert axes.columns == (2.0, 0.0, 0, 320)


def test_a_letterbox_leaves_its_filling_without_a_source() -> None:
    axes = input_from_frame(fit_frame(480, 640, preprocessing((640, 640), Geometry("letterbox"))))
    assert (axes.rows.start, axes.rows.stop) == (80, 560)
    assert axes.rows.offset == -80


def test_a_crop_leaves_the_margin_of_the_frame_unseen() -> None:
    axes = frame_from_map(fit_frame(100, 300, preprocessing((50, 50), Geometry("crop", 1.0))), 5, 5)
    assert (axes.rows.start, axes.rows.stop) == (0, 100)
    assert (axes.columns.start, axes.columns.stop) == (100, 200)
    assert axes.columns.scale * 200 + axes.columns.offset == pytest.approx(5.0)


def test_a_letterboxed_frame_is_seen_whole() -> None:
    axes = frame_from_map(fit_frame(480, 640, preprocessing((640, 640), Geometry("letterbox"))), 20, 20)
    assert (axes.rows.start, axes.rows.stop) == (0, 480)
    assert axes.rows.offset == 80 * 20 / 640


def test_the_map_covers_all_of_the_input() -> None:
    axes = input_from_map(fit_frame(9, 9, preprocessing((28, 56), Geometry("letterbox"))), 7, 7)
    assert axes == ((0.25, 0.0, 0, 28), (0.125, 0.0, 0, 56))


def test_a_box_outside_what_the_network_saw_is_empty() -> None:
    fit = fit_frame(100, 300, preprocessing((50, 50), Geometry("crop", 1.0)))
    x0, _, x1, _ = input_box_from_frame(fit, (0, 0, 90, 100))
    assert x0 == x1 == 0


def test_a_box_in_the_filling_of_a_letterbox_is_empty_in_the_frame() -> None:
    fit = fit_frame(480, 640, preprocessing((640, 640), Geometry("letterbox")))
    _, y0, _, y1 = frame_box_from_input(fit, (0, 0, 640, 70))
    assert y0 == y1 == 0


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_an_empty_frame_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(FrameError, match="empty frame"):
        fit_frame(*size, preprocessing((8, 8), Geometry()))


sides = st.integers(1, 3000)
inputs = st.integers(1, 1024)
geometries = st.one_of(
    st.just(Geometry()),
    st.floats(0.3, 1.0).map(lambda share: Geometry("crop", share)),
    st.just(Geometry("letterbox")),
)


@given(sides, sides, inputs, inputs, geometries, st.floats(-0.5, 1.5), st.floats(-0.5, 1.5))
def test_a_point_returns_from_a_round_trip(height, width, rows, columns, geometry, x, y) -> None:
    fit = fit_frame(height, width, preprocessing((rows, columns), geometry))
    point = (x * width, y * height)
    there = input_point_from_frame(fit, point)
    assert frame_point_from_input(fit, there) == pytest.approx(point, rel=1e-9, abs=1e-6)


@given(sides, sides, inputs, inputs, geometries)
def test_axes_stay_inside_their_grids(height, width, rows, columns, geometry) -> None:
    fit = fit_frame(height, width, preprocessing((rows, columns), geometry))
    for axis, size in zip(input_from_frame(fit), (rows, columns), strict=True):
        assert 0 <= axis.start < axis.stop <= size
    for axis, size in zip(frame_from_map(fit, 7, 5), (height, width), strict=True):
        assert 0 <= axis.start <= axis.stop <= size


@given(sides, sides, inputs, inputs, geometries)
def test_every_pixel_of_the_input_has_its_source_in_the_frame(height, width, rows, columns, geometry) -> None:
    fit = fit_frame(height, width, preprocessing((rows, columns), geometry))
    for axis, size in zip(input_from_frame(fit), (height, width), strict=True):
        for pixel in (axis.start, axis.stop - 1):
            source = (pixel + 0.5) * axis.scale + axis.offset
            assert -1e-6 <= source <= size + 1e-6


@given(sides, sides, inputs, inputs, geometries)
def test_the_map_over_the_frame_is_the_map_over_the_input(height, width, rows, columns, geometry) -> None:
    """Frame -> map in one step is frame -> input -> map in two."""
    fit = fit_frame(height, width, preprocessing((rows, columns), geometry))
    direct, over_input = frame_from_map(fit, 7, 5).rows, input_from_map(fit, 7, 5).rows
    for position in (0.0, height / 3, float(height)):
        _, y = input_point_from_frame(fit, (0.0, position))
        two_steps = y * over_input.scale + over_input.offset
        assert position * direct.scale + direct.offset == pytest.approx(two_steps, abs=1e-6)


@given(sides, sides, inputs, inputs, geometries)
def test_seen_pixels_are_those_whose_centre_the_input_covers(height, width, rows, columns, geometry) -> None:
    fit = fit_frame(height, width, preprocessing((rows, columns), geometry))
    axis = frame_from_map(fit, 7, 5).rows
    assume(axis.start < axis.stop)
    for pixel, is_seen in ((axis.start - 1, False), (axis.start, True), (axis.stop - 1, True), (axis.stop, False)):
        if 0 <= pixel < height:
            _, y = input_point_from_frame(fit, (0.0, pixel + 0.5))
            assert (-1e-6 <= y <= rows + 1e-6) if is_seen else (y <= 1e-6 or y >= rows - 1e-6)
