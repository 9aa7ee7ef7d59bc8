"""Cuts against what looks like one: motion, noise, exposure; in every format."""

import numpy as np
import pytest

from gcpp_edge.frames import FORMATS
from gcpp_edge.pipeline.cuts import GRID, distances, is_cut, thumbnail

RANDOM = np.random.default_rng(0)


def scene(seed: int, height: int = 240, width: int = 640) -> np.ndarray:
    """(height, width) float: patches and slopes, as pictures have them."""
    random = np.random.default_rng(seed)
    patches = np.kron(random.uniform(20, 200, (height // 40, width // 40)), np.ones((40, 40)))
    return patches + np.linspace(-15, 15, width)


def as_format(grey: np.ndarray, format: str) -> np.ndarray:
    """A frame of this format, without colours."""
    pixels = np.clip(grey, 0, 255).astype(np.uint8)
    if format == "gray16":
        return pixels.astype(np.uint16) * 16  # of a 12-bit sensor
    if format == "nv12":
        return np.concatenate([pixels, np.full((len(pixels) // 2, pixels.shape[1]), 128, np.uint8)])
    channels = {"gray": 0, "bgr": 3, "rgb": 3, "bgra": 4, "rgba": 4}[format]
    return np.repeat(pixels[:, :, None], channels, axis=2) if channels else pixels


def cut(one: np.ndarray, other: np.ndarray, format: str = "bgr") -> bool:
    thumbnails = [thumbnail(as_format(grey, format), format) for grey in (one, other)]
    return is_cut(thumbnails[0], thumbnails[1])


@pytest.mark.parametrize("format", FORMATS)
def test_another_scene_is_a_cut_and_the_same_one_in_motion_is_none(format: str) -> None:
    assert cut(scene(0)[:, :320], scene(1)[:, :320], format)
    assert not cut(scene(0)[:, :320], scene(0)[:, 8:328], format)


NO_CUTS = {
    "noise": (lambda grey: grey + RANDOM.normal(0, 20, grey.shape)),
    "darker": (lambda grey: grey * 0.8),
    "brighter": (lambda grey: grey + 20),
    "the same": (lambda grey: grey),
}


@pytest.mark.parametrize("change", NO_CUTS)
def test_noise_and_exposure_are_no_cuts(change: str) -> None:
    for seed in range(5):
        grey = scene(seed)[:, :320]
        assert not cut(grey, NO_CUTS[change](grey))


def test_noise_in_the_dark_is_no_cut() -> None:
    dark = [2 + RANDOM.normal(0, 3, (240, 320)) for _ in range(10)]
    assert not any(cut(one, other) for one, other in zip(dark, dark[1:], strict=False))


def test_a_picture_after_a_black_one_is_a_cut() -> None:
    assert cut(np.zeros((240, 320)), scene(0)[:, :320])


def test_distances_by_hand() -> None:
    """Two cells, 100 apart, in the other order: the standard deviation is 50, so each is 2 of them away."""
    ones = [np.full((2, 2), value, np.uint8) for value in (100, 200)]
    left, right = thumbnail(np.hstack(ones), "gray"), thumbnail(np.hstack(ones[::-1]), "gray")
    assert left.cells.tolist() == [[-50, 50]]
    assert left.variance == 2500
    assert distances(left, left) == (0, 0)
    assert distances(left, right) == pytest.approx((100 / np.sqrt(2500 + 16), 0))
    flat = thumbnail(np.full((2, 4), 150, np.uint8), "gray")
    assert distances(left, flat) == pytest.approx((50 / np.sqrt(1250 + 16), 1))


def test_colours_count_as_blue_plus_twice_green_plus_red() -> None:
    frame = np.zeros((2, 4, 3), np.uint8)
    frame[:, 2:] = (40, 100, 60)
    assert thumbnail(frame, "bgr").cells.tolist() == [[-37.5, 37.5]]


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (25, 33), (48, 64), (49, 65), (480, 640), (1080, 1920)])
def test_thumbnails_of_any_size_fit_the_grid(size: tuple[int, int]) -> None:
    found = thumbnail(RANDOM.integers(0, 256, (*size, 3), np.uint8), "bgr")
    assert all(0 < cells <= most for cells, most in zip(found.cells.shape, GRID, strict=True))
    assert np.isfinite(found.cells).all()


def test_a_grey_frame_may_have_an_axis_of_one_channel_and_a_gpu_s_frame_has_no_thumbnail() -> None:
    frame = RANDOM.integers(0, 256, (48, 64), np.uint8)
    assert np.array_equal(thumbnail(frame[:, :, None], "gray").cells, thumbnail(frame, "gray").cells)
    assert thumbnail(object(), "bgr") is None
