"""Every CUDA kernel on a real device against the reference. The full table of cases runs in tests/kernels."""

import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.kernels import Axis

pytestmark = pytest.mark.gpu

RANDOM = np.random.default_rng(7)
PALETTE = RANDOM.integers(0, 256, (256, 3), dtype=np.uint8)
RULES = ("gradcam", "gradcam++", "gradcam++-signed")
SHAPES = [(1, 1, 1, 1), (1, 5, 3, 3), (2, 67, 7, 7), (1, 2048, 7, 7), (1, 512, 14, 14), (1, 3, 56, 56), (1, 9, 31, 1)]
MAPS = [((1, 1), (9, 17)), ((7, 7), (37, 53)), ((7, 7), (1080, 1920)), ((56, 56), (224, 224)), ((20, 31), (7, 9))]
FORMATS = {"bgr": (3,), "rgb": (3,), "bgra": (4,), "rgba": (4,), "gray": (), "gray16": (), "nv12": ()}


@pytest.fixture
def reference():
    return kernels.table("numpy")


def stretch(source, destination):
    return [Axis(s / d, 0.0, 0, d) for s, d in zip(source, destination, strict=True)]


def perform(device, back, work, *buffers):
    """Enqueue the work, then give copies of what the buffers hold."""
    device.perform(work)
    return [back(buffer) for buffer in buffers]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("constant", [False, True], ids=["gradients", "constant gradients"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_cam_equals_the_reference(device, on, back, reference, rule, shape, constant, dtype):
    activations = (RANDOM.random(shape) + 0.1).astype(dtype)  # positive sums: no pole is near
    gradients = RANDOM.random((*shape[:2], 1, 1) if constant else shape).astype(dtype)
    out = np.empty((shape[0], *shape[2:]), np.float32)
    weights = np.empty(shape[:2], np.float32)
    poles = np.empty(shape[:1], np.int64)
    found = [on(np.full_like(array, 7)) for array in (out, weights, poles)]
    A, g = on(activations), on(gradients)

    def work():
        device.kernels.cam(A, g, rule, True, found[0], weights=found[1], gradient_scale=2.0, poles=found[2])

    maps, weighed, counted = perform(device, back, work, *found)
    reference.cam(activations, gradients, rule, True, out, weights=weights, gradient_scale=2.0, poles=poles)
    scale = np.abs(weights[..., None, None] * activations.astype(np.float64)).sum(axis=1).max()
    np.testing.assert_allclose(maps, out, rtol=0, atol=1e-5 * scale + 1e-30)
    np.testing.assert_allclose(weighed, weights, rtol=1e-4, atol=1e-5 * np.abs(weights).max())
    np.testing.assert_array_equal(counted, poles)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 7, 7), (5, 3, 9), (2, 56, 56)], ids=str)
@pytest.mark.parametrize("zero_low", [False, True])
def test_range_equals_the_reference(device, on, back, reference, shape, zero_low):
    maps = RANDOM.standard_normal(shape).astype(np.float32)
    out = np.empty((shape[0], 2), np.float32)
    source, found = on(maps), on(out)
    (made,) = perform(device, back, lambda: device.kernels.range(source, zero_low, found), found)
    reference.range(maps, zero_low, out)
    np.testing.assert_array_equal(made, out)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize(("small", "large"), MAPS, ids=str)
def test_heatmap_equals_the_reference(device, on, back, reference, small, large, dtype):
    raw = RANDOM.random(small, np.float32)
    out, axes = np.empty(large, dtype), stretch(small, large)
    found, source = on(out), on(raw)
    (made,) = perform(device, back, lambda: device.kernels.heatmap(source, *axes, 0.1, 0.9, found), found)
    reference.heatmap(raw, *axes, 0.1, 0.9, out)
    np.testing.assert_allclose(made.astype(float), out, rtol=0, atol=1 if dtype == "uint8" else 1e-5)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize(("small", "large"), MAPS, ids=str)
def test_overlay_equals_the_reference(device, on, back, reference, small, large, channels):
    raw, frame = RANDOM.random(small, np.float32), RANDOM.integers(0, 256, (*large, channels), np.uint8)
    rows, columns = stretch(small, large)
    columns = columns._replace(start=large[1] // 5)  # a border that was never seen
    out = np.empty_like(frame)
    source, picture, palette, found = (on(array) for array in (raw, frame, PALETTE, out))

    def work():
        device.kernels.overlay(picture, source, rows, columns, 0.1, 0.9, palette, 0.5, 0.4, found)

    (made,) = perform(device, back, work, found)
    reference.overlay(frame, raw, rows, columns, 0.1, 0.9, PALETTE, 0.5, 0.4, out)
    differs = np.abs(made.astype(int) - out).max(axis=-1) > 1  # where a value is a tie, the next colour
    assert differs.mean() < 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_guided_equals_the_reference(device, on, back, reference, dtype):
    raw, image = RANDOM.random((7, 7), np.float32), RANDOM.standard_normal((3, 224, 224)).astype(dtype)
    out, axes = np.empty(image.shape, np.float32), stretch((7, 7), (224, 224))
    source, pixels, found = on(raw), on(image), on(out)
    (made,) = perform(device, back, lambda: device.kernels.guided(source, *axes, 0.1, 0.9, pixels, found), found)
    reference.guided(raw, *axes, 0.1, 0.9, image, out)
    np.testing.assert_allclose(made, out, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("format", FORMATS)
def test_preprocess_equals_the_reference(device, on, back, reference, format, dtype):
    height, width = 96, 128
    rows = height * 3 // 2 if format == "nv12" else height
    depth = np.uint16 if format == "gray16" else np.uint8
    frame = RANDOM.integers(0, np.iinfo(depth).max, (rows, width, *FORMATS[format]), depth)
    out = np.empty((3, 40, 60), dtype)
    axes = stretch((height, width), out.shape[1:])
    scale, bias, fill = (np.array(values, np.float32) for values in ([0.02] * 3, [-2, -1.9, -1.8], [114] * 3))
    picture, found = on(frame), on(out)

    def work():
        device.kernels.preprocess(picture, format, *axes, "rgb", scale, bias, fill, found)

    (made,) = perform(device, back, work, found)
    reference.preprocess(frame, format, *axes, "rgb", scale, bias, fill, out)
    np.testing.assert_allclose(made.astype(float), out, rtol=0, atol=1e-4 if dtype == "float32" else 5e-3)


def test_a_recorded_frame_equals_an_unrecorded_one(device, on, back):
    raw, axes = on(RANDOM.random((7, 7), np.float32)), stretch((7, 7), (64, 64))
    plain, recorded = (on(np.empty((64, 64), np.float32)) for _ in range(2))
    device.perform(lambda: device.kernels.heatmap(raw, *axes, 0.0, 1.0, plain))

    def again():
        device.kernels.heatmap(raw, *axes, 0.0, 1.0, recorded)

    for _ in range(4):  # the first ones warm up and record
        device.perform(lambda: device.replay("tests/gpu", again))
    np.testing.assert_array_equal(back(recorded), back(plain))


def test_a_replay_reads_what_was_staged_for_it(device, on):
    size = (5, 5)
    out, axes = on(np.empty(size, np.float32)), stretch(size, size)

    def frame(value):
        staged = device.stage("map", np.full(size, value, np.float32))

        def work():
            device.kernels.heatmap(device.send(staged), *axes, 0.0, 1.0, out)
            device.fetch(out)

        device.replay("tests/gpu stage", work)
        return np.array(device.download(out))

    for value in (0.25, 0.5, 0.75, 1.0):
        np.testing.assert_allclose(device.perform(lambda value=value: frame(value)), value, atol=1e-6)
