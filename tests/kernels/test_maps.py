"""heatmap, overlay and guided: every instruction set of this machine against the reference."""

from dataclasses import dataclass

import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.kernels import Axis

NEAR_TIE = 1e-5  # of the range: closer to a tie than this, float32 and float64 may round apart


def stretch(source, destination):
    return Axis(source / max(destination, 1), 0.0, 0, destination)


@dataclass(frozen=True)
class Case:
    """One map under one picture."""

    name: str
    map: tuple[int, int]
    size: tuple[int, int]
    rows: Axis | None = None
    columns: Axis | None = None
    low: float = -1.0
    high: float = 1.5
    unit: float = 1.0  # of the map's values
    shift: float = 0.0

    def __str__(self):
        return self.name

    @property
    def axes(self):
        return (
            self.rows or stretch(self.map[0], self.size[0]),
            self.columns or stretch(self.map[1], self.size[1]),
        )

    def values(self):
        values = np.random.default_rng(sum(self.map)).standard_normal(self.map)
        return (values * self.unit + self.shift).astype(np.float32)


CASES = [
    Case("7x7 under an odd picture", (7, 7), (37, 53)),
    Case("wide", (3, 9), (10, 100)),
    Case("one map pixel", (1, 1), (9, 17)),
    Case("one picture pixel", (7, 7), (1, 1)),
    Case("one map row", (1, 6), (8, 16)),
    Case("one map column", (6, 1), (8, 16)),
    Case("half a lane less one", (2, 3), (3, 3)),
    Case("half a lane", (2, 3), (3, 4)),
    Case("half a lane and one", (2, 3), (3, 5)),
    Case("a lane less one", (2, 3), (3, 7)),
    Case("a lane", (2, 3), (3, 8)),
    Case("a lane and one", (2, 3), (3, 9)),
    Case("two lanes less one", (2, 3), (3, 15)),
    Case("two lanes", (2, 3), (3, 16)),
    Case("two lanes and one", (2, 3), (3, 17)),
    Case("four lanes", (2, 5), (3, 32)),
    Case("four lanes and one", (2, 5), (3, 33)),
    Case("the map's own size", (9, 11), (9, 11)),
    Case("a smaller picture than the map", (20, 31), (7, 9)),
    Case("no rows", (7, 7), (0, 9)),
    Case("no columns", (7, 7), (9, 0)),
    Case("no map", (0, 0), (5, 9)),
    Case("no map columns", (3, 0), (5, 9)),
    Case("crop: borders unseen", (7, 7), (30, 50), Axis(0.3, -1.0, 3, 27), Axis(0.2, -1.5, 9, 43)),
    Case("letterbox: beyond both ends of the map", (7, 7), (30, 50), Axis(0.1, 2.0, 0, 30), Axis(0.5, -9.0, 0, 50)),
    Case("seen columns fewer than a lane", (7, 7), (9, 50), Axis(0.7, 0.0, 0, 9), Axis(0.7, -14.0, 20, 25)),
    Case("nothing seen", (7, 7), (9, 20), Axis(0.7, 0.0, 4, 4), Axis(0.7, 0.0, 0, 20)),
    Case("no columns seen", (7, 7), (9, 20), Axis(0.7, 0.0, 0, 9), Axis(0.7, 0.0, 20, 20)),
    Case("start and stop outside the picture", (7, 7), (9, 20), Axis(0.7, 0.0, -5, 99), Axis(0.4, 0.0, -1, 21)),
    Case("stop before start", (7, 7), (9, 20), Axis(0.7, 0.0, 7, 3), Axis(0.4, 0.0, 0, 20)),
    Case("mirrored", (7, 7), (30, 50), Axis(-7 / 30, 7.0, 0, 30), Axis(-7 / 50, 7.0, 0, 50)),
    Case("far outside", (7, 7), (5, 20), Axis(1e300, 0.0, 0, 5), Axis(-1e300, 1e305, 0, 20)),
    Case("no range", (7, 7), (30, 50), low=0.5, high=0.5),
    Case("upside-down range", (7, 7), (30, 50), low=1.0, high=-1.0),
    Case("range of NaN", (7, 7), (30, 50), low=np.nan, high=1.0),
    Case("a range whose inverse is beyond float32", (7, 7), (30, 50), low=0.0, high=1e-42, unit=1e-42),
    Case("a small range far from 0", (7, 7), (30, 50), low=1000.1, high=1000.35, unit=0.1, shift=1000.2),
    Case("endless range", (7, 7), (30, 50), low=0.0, high=np.inf),
]
SPECIAL = [np.nan, np.inf, -np.inf, 3e38, -0.0]


def heatmap(table, case, values, dtype, output):
    out = output(case.size, dtype)
    out[...] = 1
    table.heatmap(values, *case.axes, case.low, case.high, out)
    return out


def value_bounds(reference, case, values, output):
    """The reference's v a little lower and a little higher: what float32 may make of it."""
    value = heatmap(reference, case, values, np.float32, output).astype(np.float64)
    return np.clip(value - NEAR_TIE, 0, 1), np.clip(value + NEAR_TIE, 0, 1)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_heatmap_equals_the_reference(compiled, reference, case, output, guarded):
    values = case.values()
    found = heatmap(compiled, case, guarded(values), np.float32, output)
    np.testing.assert_allclose(found, heatmap(reference, case, values, np.float32, output), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_heatmap_in_bytes_equals_the_reference(compiled, reference, case, output, guarded):
    values = case.values()
    found = heatmap(compiled, case, guarded(values), np.uint8, output)
    lower, upper = value_bounds(reference, case, values, output)
    assert (found >= np.rint(255 * lower)).all() and (found <= np.rint(255 * upper)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("value", SPECIAL)
def test_special_map_values_show_what_the_reference_shows(compiled, reference, value, dtype, output):
    case = Case("", (5, 5), (23, 41))
    values = case.values()
    values[1, 1] = values[4, 4] = value
    found = heatmap(compiled, case, values, dtype, output)
    assert np.isfinite(found).all()
    expected = heatmap(reference, case, values, dtype, output)
    np.testing.assert_allclose(found.astype(float), expected, rtol=0, atol=1 if dtype == np.uint8 else 1e-5)


def palette_of(name):
    ramp = np.arange(256)
    if name == "grey":
        return np.stack([ramp] * 3, axis=1).astype(np.uint8)
    return np.random.default_rng(5).integers(0, 256, (256, 3), dtype=np.uint8)


def frame_of(case, channels):
    return np.random.default_rng(3).integers(0, 256, (*case.size, channels), dtype=np.uint8)


def seen_of(case):
    mask = np.zeros(case.size, bool)
    (height, width), (rows, columns) = case.map, case.axes
    mask[slice(*rows.seen(case.size[0], height)), slice(*columns.seen(case.size[1], width))] = True
    return mask


def overlay_candidates(case, frame, lower, upper, palette, alpha, dim):
    """The exact blends for the palette's entries on both sides of a near tie."""
    unseen = ~seen_of(case)
    for value in (lower, upper):
        color = palette[np.rint(255 * value).astype(int)].astype(np.float64)
        exact = frame.astype(np.float64)
        exact[..., :3] = exact[..., :3] * (1 - alpha) + color * alpha
        exact[unseen, :3] = frame[unseen][..., :3] * dim
        yield exact


@pytest.mark.parametrize("alpha, dim", [(0.5, 0.4), (0.0, 1.0), (1.0, 0.0), (0.313, 0.77)])
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_overlay_equals_the_reference(compiled, reference, case, channels, alpha, dim, output, guarded):
    values, frame, palette = case.values(), frame_of(case, channels), palette_of("random")
    out = output(frame.shape, np.uint8)
    compiled.overlay(
        guarded(frame), guarded(values), *case.axes, case.low, case.high, guarded(palette), alpha, dim, out
    )
    bounds = value_bounds(reference, case, values, output)
    candidates = list(overlay_candidates(case, frame, *bounds, palette, alpha, dim))
    distance = np.min([np.abs(out - candidate) for candidate in candidates], axis=0)
    assert distance.max(initial=0) <= 0.51  # rounded to the nearest, but for the 16-bit shares at ties
    assert (out[..., 3:] == frame[..., 3:]).all()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_references_overlay_is_its_own_heatmap_blended(reference, case, output):
    values, frame, palette = case.values(), frame_of(case, 4), palette_of("grey")
    out = output(frame.shape, np.uint8)
    reference.overlay(frame, values, *case.axes, case.low, case.high, palette, 0.5, 0.25, out)
    lower, upper = overlay_candidates(case, frame, *value_bounds(reference, case, values, output), palette, 0.5, 0.25)
    assert (np.minimum(np.abs(out - lower), np.abs(out - upper)) <= 0.5).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("width", [1, 7, 8, 9, 31, 64])
def test_overlay_on_the_frame_itself_equals_overlay_beside_it(compiled, channels, width, output):
    case = Case("", (7, 7), (11, width), columns=Axis(7 / width, 0.0, 0, max(width - 2, 1)))
    frame = output((*case.size, channels), np.uint8)
    frame[...] = frame_of(case, channels)
    beside = np.empty_like(frame)
    arguments = (case.values(), *case.axes, -1.0, 1.0, palette_of("random"), 0.5, 0.5)
    compiled.overlay(frame, *arguments, beside)
    compiled.overlay(frame, *arguments, frame)
    np.testing.assert_array_equal(frame, beside)


@pytest.mark.skipif("scalar" not in kernels.available(), reason=kernels.reason() or "there")
@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("width", [1, 21, 22, 63, 64, 65, 127, 128, 191, 256])
@pytest.mark.parametrize("alpha", [0.0, 0.313, 1.0])
def test_every_palette_entry_is_blended_to_the_same_bits_everywhere(compiled, channels, width, alpha, output):
    steps = np.resize(np.random.default_rng(1).permutation(256), (256 // width + 1, width))  # every one, once or more
    frame = frame_of(Case("", (1, 1), steps.shape), channels)
    values = (steps / 255).astype(np.float32)  # a map pixel each: no two instruction sets round the index apart
    found, expected = output(frame.shape, np.uint8), output(frame.shape, np.uint8)
    axes = (stretch(steps.shape[0], steps.shape[0]), stretch(width, width))
    for table, out in ((compiled, found), (kernels.table("scalar"), expected)):
        table.overlay(frame, values, *axes, 0.0, 1.0, palette_of("random"), alpha, 0.5, out)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("flip", [False, True], ids=["rows apart", "rows upwards"])
def test_overlay_takes_rows_that_lie_apart_and_leaves_what_is_between(compiled, channels, flip, output):
    case = Case("", (7, 7), (12, 21))
    whole, whole_out = frame_of(Case("", (1, 1), (12, 30)), channels), np.full((12, 30, channels), 77, np.uint8)
    step = -1 if flip else 1
    frame, out = whole[::step, 4:25], whole_out[::step, 4:25]
    arguments = (case.values(), *case.axes, -1.0, 1.0, palette_of("random"), 0.5, 0.5)
    beside = output(frame.shape, np.uint8)
    compiled.overlay(np.ascontiguousarray(frame), *arguments, beside)
    compiled.overlay(frame, *arguments, out)
    np.testing.assert_array_equal(out, beside)
    assert (whole_out[:, :4] == 77).all() and (whole_out[:, 25:] == 77).all()


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("width", [1, 3, 4, 7, 8, 12, 127, 128, 133, 260])
def test_aligned_memory_gives_the_same(compiled, channels, width, output):
    case = Case("", (5, 6), (9, width), columns=Axis(6 / width, 0.0, 1, max(width - 1, 1)))
    frame = output((*case.size, channels), np.uint8, aligned=True)
    frame[...] = frame_of(case, channels)
    arguments = (case.values(), *case.axes, -1.0, 1.0, palette_of("random"), 0.5, 0.5)
    blends = [output(frame.shape, np.uint8, aligned) for aligned in (False, True)]
    bytes = [output(case.size, np.uint8, aligned) for aligned in (False, True)]
    for blend, values in zip(blends, bytes, strict=True):
        compiled.overlay(frame, *arguments, blend)
        compiled.heatmap(case.values(), *case.axes, -1.0, 1.0, values)
    np.testing.assert_array_equal(*blends)
    np.testing.assert_array_equal(*bytes)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_guided_equals_the_reference(compiled, reference, case, dtype, output, guarded):
    values = case.values()
    image = np.random.default_rng(4).standard_normal((3, *case.size)).astype(dtype)
    expected, found = output(image.shape, np.float32), output(image.shape, np.float32)
    reference.guided(values, *case.axes, case.low, case.high, image, expected)
    compiled.guided(guarded(values), *case.axes, case.low, case.high, guarded(image), found)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_guided_may_overwrite_its_image(compiled, output):
    case = CASES[0]
    image = output((3, *case.size), np.float32)
    image[...] = np.random.default_rng(4).standard_normal(image.shape)
    beside = np.empty_like(image)
    compiled.guided(case.values(), *case.axes, -1.0, 1.0, image, beside)
    compiled.guided(case.values(), *case.axes, -1.0, 1.0, image, image)
    np.testing.assert_array_equal(image, beside)


@pytest.mark.parametrize("value", SPECIAL)
def test_special_image_values_pass_through_guided(compiled, reference, value, output):
    case = Case("", (5, 5), (9, 19))
    image = np.ones((2, *case.size), np.float32)
    image[:, 2, 3] = image[:, 8, 18] = value
    expected, found = output(image.shape, np.float32), output(image.shape, np.float32)
    reference.guided(case.values(), *case.axes, -1.0, 1.0, image, expected)
    compiled.guided(case.values(), *case.axes, -1.0, 1.0, image, found)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(37, 53), (3, 4), (224, 224)])
def test_heatmap_interpolates_as_opencv_does(reference, size, output):
    cv2 = pytest.importorskip("cv2")
    case = Case("", (7, 9), size, low=0.0, high=1.0)
    values = np.random.default_rng(8).uniform(0, 1, case.map).astype(np.float32)
    resized = cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(heatmap(reference, case, values, np.float32, output), resized, rtol=0, atol=1e-5)


RANGED = [
    np.zeros((3, 4)),
    np.array([[-2.0, 5.0]]),
    np.array([-7.0, -3.0, -5.0]),
    np.array([np.nan, 2.0, np.nan, -1.0]),
    np.full((5, 5), np.nan),
    np.array([np.inf, 1.0, -np.inf]),
    np.zeros((0, 3)),
    np.random.default_rng(0).standard_normal((3, 4, 5)),
    np.random.default_rng(0).standard_normal((40, 41)),
    np.arange(1000.0),
    -np.arange(1000.0),
]


@pytest.mark.parametrize("zero_low", [False, True], ids=["minimum", "zero"])
@pytest.mark.parametrize("values", RANGED, ids=lambda values: str(values.shape))
def test_range_equals_the_reference(compiled, reference, values, zero_low, output, guarded):
    values = values.astype(np.float32)
    for shape in ((2,), (len(values), 2)):
        found, expected = output(shape, np.float32), output(shape, np.float32)
        compiled.range(guarded(values), zero_low, found)
        reference.range(values, zero_low, expected)
        np.testing.assert_array_equal(found, expected)


def test_range_is_minimum_and_maximum(reference):
    found = np.empty(2, np.float32)
    reference.range(np.array([[3.0, -1.0], [np.nan, 2.0]], np.float32), False, found)
    assert list(found) == [-1, 3]
    reference.range(np.array([[3.0, -1.0], [np.nan, 2.0]], np.float32), True, found)
    assert list(found) == [0, 3]


LIMITS = [(-1.0, 1.5), (0.5, 0.5), (1.0, -1.0), (np.nan, 1.0), (0.0, np.inf)]
LIMITS += [(1000.0, 1000.25), (0.0, 1e-42), (-3e38, 3e38)]  # where float32 is short of digits, or of exponents


@pytest.mark.parametrize("low, high", LIMITS)
def test_limits_in_a_buffer_are_what_the_numbers_are(compiled, reference, low, high, output, guarded):
    case = Case("", (7, 7), (20, 140))
    limits = np.array([low, high], np.float32)
    width = float(limits[1]) - float(limits[0])
    values = (case.values() * (width if 0 < width < 1e38 else 1) + (low if abs(low) < 1e30 else 0)).astype(np.float32)
    image, frame, palette = np.ones((1, *case.size), np.float32), frame_of(case, 3), palette_of("random")
    numbers = map(float, limits)
    expected = output(case.size, np.float32)
    reference.heatmap(values, *case.axes, *numbers, expected)
    found, product = output(case.size, np.float32), output(image.shape, np.float32)
    compiled.heatmap(values, *case.axes, 7.0, 8.0, found, limits=guarded(limits))
    compiled.guided(values, *case.axes, 7.0, 8.0, image, product, limits=guarded(limits))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(product[0], found)
    blends = [output(frame.shape, np.uint8) for _ in range(2)]
    compiled.overlay(frame, values, *case.axes, *map(float, limits), palette, 0.5, 0.5, blends[0])
    compiled.overlay(frame, values, *case.axes, 7.0, 8.0, palette, 0.5, 0.5, blends[1], limits=limits)
    np.testing.assert_array_equal(*blends)
