"""Frames: what is taken, what is refused and with which advice."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from gcpp_edge.errors import FrameError
from gcpp_edge.frames import check_frame, list_frames, picture_of
from gcpp_edge.kernels import table


@dataclass(frozen=True)
class Refusal:
    name: str
    frame: Any
    format: str
    message: str


NAN_FRAME = np.full((4, 4, 3), np.nan, np.float32)
REFUSALS = [
    Refusal("a path", "cat.jpg", "bgr", "found str. Pass numpy.asarray"),
    Refusal("nothing", None, "bgr", "found NoneType"),
    Refusal("floats", np.zeros((4, 4, 3), np.float32), "bgr", "found float32 .*Pass pixels of 0 to 255 as uint8"),
    Refusal("NaN", NAN_FRAME, "bgr", "found float32 .*It holds NaN"),
    Refusal("16-bit grey called bgr", np.zeros((4, 4), np.uint16), "bgr", "format='gray16'"),
    Refusal("8-bit grey called gray16", np.zeros((4, 4), np.uint8), "gray16", "format='gray'"),
    Refusal("signed bytes", np.zeros((4, 4, 3), np.int8), "bgr", "found int8"),
    Refusal("grey called bgr", np.zeros((4, 4), np.uint8), "bgr", "Two axes are format='gray'"),
    Refusal("bgra called bgr", np.zeros((4, 4, 4), np.uint8), "bgr", "4 channels are format='bgra' or 'rgba'"),
    Refusal("bgr called rgba", np.zeros((4, 4, 3), np.uint8), "rgba", "3 channels are format='bgr' or 'rgb'"),
    Refusal("bgr called gray", np.zeros((4, 4, 3), np.uint8), "gray", "3 channels are format='bgr'"),
    Refusal("a stack", np.zeros((2, 4, 4, 3), np.uint8), "bgr", r"passed as a list: list\(frames\)"),
    Refusal("planar", np.zeros((3, 8, 8), np.uint8), "bgr", r"found uint8 \(3, 8, 8\)"),
    Refusal("no rows", np.zeros((0, 4, 3), np.uint8), "bgr", "empty"),
    Refusal("no columns", np.zeros((4, 0), np.uint8), "gray", "empty"),
    Refusal("nv12 of a height that is no multiple of 3", np.zeros((10, 4), np.uint8), "nv12", "nv12 frame"),
    Refusal("nv12 of an odd width", np.zeros((6, 5), np.uint8), "nv12", "even height and width"),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_a_frame_that_is_not_of_its_format_is_refused(case: Refusal) -> None:
    with pytest.raises(FrameError, match=case.message):
        check_frame(case.frame, case.format)


def test_a_refusal_names_the_frame_of_a_batch() -> None:
    with pytest.raises(FrameError, match="^frame 3: expected a bgr frame, uint8"):
        check_frame(np.zeros(4), "bgr", "frame 3")


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    with pytest.raises(FrameError, match="Unknown frame format 'yuv'. Known: bgr, rgb, bgra, rgba, gray, gray16, nv12"):
        list_frames(np.zeros((4, 4, 3), np.uint8), "yuv")


WHOLE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


@pytest.mark.parametrize(
    ("name", "frame", "is_copied"),
    [
        ("a whole frame", WHOLE, False),
        ("a cut-out, whose rows lie apart", WHOLE[2:6, 1:5], False),
        ("upside down", WHOLE[::-1], False),
        ("mirrored", WHOLE[:, ::-1], True),
        ("channels swapped in place", WHOLE[:, :, ::-1], True),
        ("every other column", WHOLE[:, ::2], True),
        ("a planar frame seen as packed", np.zeros((3, 8, 8), np.uint8).transpose(1, 2, 0), True),
    ],
)
def test_a_frame_is_copied_only_where_the_pixels_of_a_row_lie_apart(name, frame, is_copied) -> None:
    pixels = check_frame(frame, "bgr")
    assert np.array_equal(pixels, frame)
    assert np.shares_memory(pixels, frame) is not is_copied


def test_grey_with_an_axis_of_one_channel_is_taken() -> None:
    assert check_frame(np.zeros((4, 5, 1), np.uint8), "gray").shape == (4, 5)


def test_a_big_endian_frame_is_brought_to_the_machine_s_order() -> None:
    frame = np.arange(6, dtype=">u2").reshape(2, 3)
    pixels = check_frame(frame, "gray16")
    assert pixels.dtype.isnative
    assert np.array_equal(pixels, frame)


def test_a_colour_frame_is_its_own_picture() -> None:
    assert picture_of(WHOLE, "rgb", table("numpy")) is WHOLE


def test_grey_becomes_three_equal_channels() -> None:
    frame = np.arange(12, dtype=np.uint8).reshape(3, 4)
    assert np.array_equal(picture_of(frame, "gray", table("numpy")), np.repeat(frame[:, :, None], 3, axis=2))


def test_16_bit_grey_keeps_its_upper_bits() -> None:
    frame = np.array([[0, 257, 65535]], np.uint16)
    assert picture_of(frame, "gray16", table("numpy"))[0, :, 0].tolist() == [0, 1, 255]


def test_nv12_becomes_the_picture_that_opencv_makes() -> None:
    cv2 = pytest.importorskip("cv2", reason="OpenCV is the oracle here: pip install 'gcpp-edge[cli]'")
    frame = np.random.default_rng(0).integers(16, 236, (12, 10), np.uint8)
    expected = cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12).astype(int)
    assert np.abs(picture_of(frame, "nv12", table("numpy")) - expected).max() <= 1
