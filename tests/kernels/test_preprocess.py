"""preprocess: every instruction set of this machine against the reference, and the reference against OpenCV."""

from dataclasses import dataclass

import numpy as np
import pytest

from gcpp_edge.kernels import Axis

CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1, "rgba": 4, "bgra": 4}
FORMATS = ("bgr", "rgb", "bgra", "rgba", "gray", "gray16", "nv12")
SCALE = np.array([1 / 58.4, 0.017, 1 / 57.4, 0.5], np.float32)
BIAS = np.array([-2.1, -2.04, -1.8, 3.0], np.float32)
FILL = np.array([114.0, 0.0, 255.0, 7.5], np.float32)


@dataclass(frozen=True)
class Case:
    """One frame size under one network input size."""

    name: str
    frame: tuple[int, int]
    size: tuple[int, int]
    rows: Axis | None = None
    columns: Axis | None = None

    def __str__(self):
        return self.name

    @property
    def axes(self):
        return (
            self.rows or Axis(self.frame[0] / max(self.size[0], 1), 0.0, 0, self.size[0]),
            self.columns or Axis(self.frame[1] / max(self.size[1], 1), 0.0, 0, self.size[1]),
        )


CASES = [
    Case("a smaller input", (38, 52), (13, 17)),
    Case("a larger input", (6, 8), (19, 33)),
    Case("the frame's own size", (10, 18), (10, 18)),
    Case("half the size", (20, 64), (10, 32)),
    Case("the smallest frame", (2, 2), (5, 9)),
    Case("frame rows of four bytes", (2, 4), (5, 9)),
    Case("a lane less one", (8, 10), (3, 7)),
    Case("a lane", (8, 10), (3, 8)),
    Case("a lane and one", (8, 10), (3, 9)),
    Case("one input pixel", (8, 10), (1, 1)),
    Case("no input rows", (8, 10), (0, 9)),
    Case("no input columns", (8, 10), (9, 0)),
    Case("no frame", (0, 0), (5, 9)),
    Case("no frame columns", (4, 0), (5, 9)),
    Case("crop: the frame's centre", (40, 80), (16, 16), Axis(2.5, 0.0, 0, 16), Axis(2.5, 20.0, 0, 16)),
    Case("letterbox", (40, 80), (20, 20), Axis(4.0, -20.0, 5, 15), Axis(4.0, 0.0, 0, 20)),
    Case("letterbox at the sides, fewer columns than a lane", (80, 10), (20, 20), columns=Axis(4.0, -32.0, 9, 12)),
    Case("nothing seen", (8, 10), (5, 9), Axis(1.0, 0.0, 3, 3), Axis(1.0, 0.0, 0, 9)),
    Case("start and stop outside the input", (8, 10), (5, 9), Axis(1.0, 0.0, -9, 99), Axis(1.0, 0.0, -1, 10)),
    Case("mirrored", (8, 10), (16, 20), Axis(-0.5, 8.0, 0, 16), Axis(-0.5, 10.0, 0, 20)),
    Case("far outside", (8, 10), (5, 9), Axis(1e300, 0.0, 0, 5), Axis(-1e300, 0.0, 0, 9)),
    Case("two lanes less one", (8, 10), (3, 15)),
    Case("two lanes", (8, 10), (3, 16)),
]
ODD = [  # sizes that NV12 does not have
    Case("one frame pixel", (1, 1), (5, 9)),
    Case("odd", (37, 53), (16, 24)),
    Case("one frame column", (9, 1), (5, 9)),
    Case("three frame columns", (3, 3), (5, 9)),
]


def frame_of(format, size, seed=0):
    random = np.random.default_rng(seed)
    if format == "gray16":
        return random.integers(0, 65536, size, dtype=np.uint16)
    if format == "nv12":
        return random.integers(0, 256, (size[0] * 3 // 2, size[1]), dtype=np.uint8)
    shape = size if format == "gray" else (*size, CHANNELS[format])
    return random.integers(0, 256, shape, dtype=np.uint8)


def run(table, frame, format, case, color, dtype, output):
    channels = CHANNELS[color]
    out = output((channels, *case.size), dtype)
    table.preprocess(frame, format, *case.axes, color, SCALE[:channels], BIAS[:channels], FILL[:channels], out)
    return out


def raw(table, frame, format, case, color):
    """Pixels as they are, 0 to 255."""
    channels = CHANNELS[color]
    one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    out = np.empty((channels, *case.size), np.float32)
    table.preprocess(frame, format, *case.axes, color, one, zero, zero, out)
    return out


def assert_equal(found, expected):
    half_step = 2**-10 if found.dtype == np.float16 else 0
    np.testing.assert_allclose(found.astype(np.float64), expected.astype(np.float64), rtol=half_step, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", CASES + ODD, ids=str)
def test_preprocess_equals_the_reference(compiled, reference, case, format, output, guarded):
    if format == "nv12" and case in ODD:
        case = CASES[0]
    frame = frame_of(format, case.frame)
    expected = run(reference, frame, format, case, "rgb", np.float32, output)
    assert_equal(run(compiled, guarded(frame), format, case, "rgb", np.float32, output), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("color", CHANNELS)
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_becomes_every_colour_order(compiled, reference, format, color, dtype, output):
    case = CASES[15]
    frame = frame_of(format, case.frame)
    expected = run(reference, frame, format, case, color, dtype, output)
    assert_equal(run(compiled, frame, format, case, color, dtype, output), expected)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_a_frame_may_lie_apart_or_upwards(compiled, format, output):
    case = Case("", (12, 20), (7, 11))
    whole = frame_of(format, (12, 30))
    for frame in (whole[:, 4:24], whole[::-1, 4:24]):
        found = run(compiled, frame, format, case, "bgr", np.float32, output)
        expected = run(compiled, np.ascontiguousarray(frame), format, case, "bgr", np.float32, output)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "value", [0.0, 1e-8, 6e-8, 6.1e-5, 0.33325, 1.0, 2049.0, 65519.0, 65520.0, 1e30, np.inf, np.nan]
)
def test_float16_rounds_as_numpy_does(compiled, value):
    case = Case("", (2, 2), (3, 11))
    frame = np.full((2, 2, 3), 1, np.uint8)
    scale, zero = np.array([value, -value, value], np.float32), np.zeros(3, np.float32)
    out = np.empty((3, *case.size), np.float16)
    compiled.preprocess(frame, "rgb", *case.axes, "rgb", scale, zero, zero, out)
    with np.errstate(over="ignore"):
        expected = np.broadcast_to(scale.astype(np.float16)[:, None, None], out.shape)
    np.testing.assert_array_equal(out, expected)


def test_every_float16_value_is_read_right(compiled):
    bits = np.arange(65536, dtype=np.uint16)
    values = bits.view(np.float16).reshape(1, -1, 1)
    out, weights = np.empty((1, 1), np.float32), np.empty((1, 65536), np.float32)
    compiled.cam(np.zeros_like(values), values, "gradcam", False, out, weights)
    np.testing.assert_array_equal(weights[0], values.astype(np.float32)[0, :, 0])


@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[3], ODD[1]], ids=str)
def test_preprocess_resizes_as_opencv_does(reference, case):
    cv2 = pytest.importorskip("cv2")
    frame = frame_of("bgr", case.frame)
    resized = cv2.resize(frame.astype(np.float32), case.size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(raw(reference, frame, "bgr", case, "bgr"), resized.transpose(2, 0, 1), atol=0.01)


@pytest.mark.parametrize("format, conversion", [("bgr", "COLOR_BGR2GRAY"), ("rgba", "COLOR_RGBA2GRAY")])
def test_grey_is_opencvs_but_for_its_rounding(reference, format, conversion):
    cv2 = pytest.importorskip("cv2")
    case = CASES[2]
    frame = frame_of(format, case.frame)
    grey = cv2.cvtColor(frame, getattr(cv2, conversion))
    np.testing.assert_allclose(raw(reference, frame, format, case, "gray")[0], grey, rtol=0, atol=0.51)


def test_nv12_is_opencvs_but_for_its_rounding(reference):
    cv2 = pytest.importorskip("cv2")
    case = Case("", (64, 128), (64, 128))
    frame = frame_of("nv12", case.frame)
    color = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_NV12)
    np.testing.assert_allclose(raw(reference, frame, "nv12", case, "rgb"), color.transpose(2, 0, 1), rtol=0, atol=0.75)


def test_sixteen_bit_grey_is_brought_to_the_range_of_eight(reference):
    case = Case("", (2, 2), (2, 2))
    frame = np.array([[0, 257], [128 * 257, 65535]], np.uint16)
    np.testing.assert_allclose(raw(reference, frame, "gray16", case, "gray")[0], [[0, 1], [128, 255]])
