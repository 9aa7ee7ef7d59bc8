"""Palettes against OpenCV's."""

import numpy as np
import pytest

from gcpp_edge.colormaps import COLORMAPS, palette_bgr, palette_rgb
from gcpp_edge.errors import InputError


@pytest.mark.parametrize(("name", "levels"), [("jet", 1), ("turbo", 6), ("viridis", 6), ("inferno", 6), ("magma", 6)])
def test_a_palette_is_that_of_opencv(name: str, levels: int) -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle here: pip install 'gcpp-edge[cli]'")
    ramp = np.arange(256, dtype=np.uint8)[None]
    expected = cv2.applyColorMap(ramp, getattr(cv2, f"COLORMAP_{name.upper()}"))[0]
    assert np.abs(palette_bgr(name).astype(int) - expected).max() <= levels


@pytest.mark.parametrize("name", COLORMAPS)
def test_a_palette_has_256_colours_that_nobody_can_overwrite(name: str) -> None:
    palette = palette_bgr(name)
    assert palette.shape == (256, 3)
    assert palette.dtype == np.uint8
    assert np.array_equal(palette[:, ::-1], palette_rgb(name))
    with pytest.raises(ValueError, match="read-only"):
        palette[0] = 1


def test_gray_is_its_own_index() -> None:
    assert np.array_equal(palette_bgr("gray")[:, 0], np.arange(256))


def test_an_unknown_palette_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match="Unknown colormap 'hot'. Known: jet, turbo, viridis, inferno, magma, gray"):
        palette_bgr("hot")
