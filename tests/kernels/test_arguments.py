"""Arguments that do not fit: every implementation refuses them in the same words, before it touches memory."""

from types import SimpleNamespace

import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.errors import InputError, MethodError, ShapeError
from gcpp_edge.kernels import Axis

AXIS = Axis(0.5, 0.0, 0, 8)


def f32(*shape):
    return np.zeros(shape, np.float32)


def u8(*shape):
    return np.zeros(shape, np.uint8)


def read_only(array):
    array.flags.writeable = False
    return array


def shifted(array):
    """The same shape one element further on, overlapping."""
    block = np.zeros(array.size + array.shape[-1], array.dtype)
    return block[: array.size].reshape(array.shape), block[array.shape[-1] :].reshape(array.shape)


def same_memory(**arrays):
    """Arrays, by their shape and dtype, that begin at the same address."""
    block = np.zeros(64)
    return {name: np.ndarray(shape, dtype, buffer=block) for name, (shape, dtype) in arrays.items()}


GOOD = {
    "cam": lambda: {
        "activations": f32(2, 3, 4, 4),
        "gradients": f32(2, 3, 4, 4),
        "rule": "gradcam++",
        "relu": True,
        "out": f32(2, 4, 4),
        "weights": f32(2, 3),
        "poles": np.zeros(2, np.int64),
    },
    "range": lambda: {"map": f32(4, 4), "zero_low": False, "out": f32(2)},
    "heatmap": lambda: {
        "map": f32(4, 4), "rows": AXIS, "columns": AXIS, "low": 0.0, "high": 1.0, "out": f32(8, 8)
    },
    "overlay": lambda: {
        "frame": u8(8, 8, 3), "map": f32(4, 4), "rows": AXIS, "columns": AXIS, "low": 0.0, "high": 1.0,
        "palette": u8(256, 3), "alpha": 0.5, "dim": 0.5, "out": u8(8, 8, 3),
    },
    "guided": lambda: {
        "map": f32(4, 4), "rows": AXIS, "columns": AXIS, "low": 0.0, "high": 1.0, "image": f32(3, 8, 8),
        "out": f32(3, 8, 8),
    },
    "preprocess": lambda: {
        "frame": u8(4, 4, 3), "format": "bgr", "rows": AXIS, "columns": AXIS, "color": "rgb",
        "scale": f32(3), "bias": f32(3), "fill": f32(3), "out": f32(3, 8, 8),
    },
}  # fmt: skip

FEW, SMALL = slice(0, 1), f32(4, 8)[:, ::2]
NAN_AXIS = Axis(np.nan, 0.0, 0, 8)

BAD = [
    ("cam", {"activations": [1, 2]}, ShapeError, "found a list"),
    ("cam", {"activations": np.zeros((2, 3, 4, 4))}, ShapeError, "found float64"),
    ("cam", {"activations": f32(2, 3)}, ShapeError, "one to three axes"),
    ("cam", {"activations": f32(1, 1, 1, 1, 1, 1)}, ShapeError, "one to three axes"),
    ("cam", {"activations": f32(2, 3, 4, 8)[..., ::2]}, ShapeError, "C-contiguous"),
    ("cam", {"gradients": f32(2, 3, 4, 1)}, ShapeError, r"shape \(2, 3, 4, 4\) or \(2, 3, 1, 1\)"),
    ("cam", {"gradients": f32(2, 3)}, ShapeError, "gradients"),
    ("cam", {"gradients": np.zeros((2, 3, 4, 4), np.int32)}, ShapeError, "gradients"),
    ("cam", {"rule": "scorecam"}, MethodError, "unknown rule 'scorecam'"),
    ("cam", {"out": f32(4, 4)}, ShapeError, "out"),
    ("cam", {"out": np.zeros((2, 4, 4), np.float16)}, ShapeError, "out"),
    ("cam", {"out": read_only(f32(2, 4, 4))}, ShapeError, "writable"),
    ("cam", {"weights": f32(3)}, ShapeError, "weights"),
    ("cam", {"gradients": f32(2, 5, 3, 4, 4)}, ShapeError, r"out must be an array of float32 \(2, 5, 4, 4\)"),
    ("cam", {"gradients": f32(2, 3, 5, 4, 4)}, ShapeError, "an axis of targets"),
    ("cam", {"poles": f32(2)}, ShapeError, r"poles must be an array of int64 \(2\)"),
    ("cam", {"poles": np.zeros((2, 1), np.int64)}, ShapeError, "poles"),
    ("cam", same_memory(weights=((2, 3), np.float32), poles=((2,), np.int64)), ShapeError, "overlap"),
    ("cam", {"gradient_scale": 0.0}, InputError, "gradient_scale"),
    ("cam", {"gradient_scale": -1.0}, InputError, "gradient_scale"),
    ("cam", {"gradient_scale": float("nan")}, InputError, "gradient_scale"),
    ("cam", {"gradient_scale": float("inf")}, InputError, "gradient_scale"),
    ("cam", {"gradient_scale": 2.0**101}, InputError, "between 2\\^-100 and 2\\^100; found"),
    ("heatmap", {"map": np.zeros((4, 4))}, ShapeError, "map"),
    ("heatmap", {"map": f32(1, 4, 4)}, ShapeError, "map"),
    ("heatmap", {"map": SMALL}, ShapeError, "C-contiguous"),
    ("heatmap", {"rows": NAN_AXIS}, ShapeError, "finite scale"),
    ("heatmap", {"columns": Axis(1.0, np.inf, 0, 8)}, ShapeError, "finite scale"),
    ("heatmap", {"out": np.zeros((8, 8))}, ShapeError, r"float32 or uint8 \(\*, \*\)"),
    ("heatmap", {"out": f32(8, 16)[:, :8]}, ShapeError, "C-contiguous"),
    ("heatmap", {"out": read_only(f32(8, 8))}, ShapeError, "writable"),
    ("heatmap", {"limits": f32(3)}, ShapeError, r"limits must be an array of float32 \(2\)"),
    ("heatmap", {"limits": (0.0, 1.0)}, ShapeError, "limits must be an array"),
    ("overlay", {"limits": np.zeros(2)}, ShapeError, "limits"),
    ("guided", {"limits": f32(2, 1)}, ShapeError, "limits"),
    ("range", {"map": np.zeros((4, 4))}, ShapeError, "map"),
    ("range", {"map": 3.0}, ShapeError, "found a float"),
    ("range", {"out": f32(4)}, ShapeError, r"out must have shape \(2,\) or \(4, 2\)"),
    ("range", same_memory(map=((4, 4), np.float32), out=((2,), np.float32)), ShapeError, "overlap"),
    ("overlay", {"frame": u8(8, 8)}, ShapeError, r"uint8 \(\*, \*, 3\|4\)"),
    ("overlay", {"frame": u8(8, 8, 2)}, ShapeError, "frame"),
    ("overlay", {"frame": f32(8, 8, 3)}, ShapeError, "frame"),
    ("overlay", {"frame": u8(8, 16, 3)[:, ::2]}, ShapeError, "contiguous along its rows"),
    ("overlay", {"palette": u8(256, 4)}, ShapeError, "palette"),
    ("overlay", {"alpha": 1.5}, InputError, "alpha"),
    ("overlay", {"dim": np.nan}, InputError, "dim"),
    ("overlay", {"out": u8(8, 8, 4)}, ShapeError, "out"),
    ("overlay", {"out": np.lib.stride_tricks.as_strided(u8(8, 8, 3), strides=(0, 3, 1))}, ShapeError, "contiguous"),
    ("overlay", dict(zip(("frame", "out"), shifted(u8(8, 8, 3)), strict=True)), ShapeError, "overlap"),
    ("guided", {"image": f32(8, 8)}, ShapeError, "image"),
    ("guided", {"image": np.zeros((3, 8, 8))}, ShapeError, "image"),
    ("guided", {"out": f32(3, 8, 9)}, ShapeError, "out"),
    ("guided", dict(zip(("image", "out"), shifted(f32(3, 8, 8)), strict=True)), ShapeError, "overlap"),
    ("preprocess", {"format": "yuyv"}, InputError, "unknown format 'yuyv'"),
    ("preprocess", {"color": "hsv"}, InputError, "unknown color 'hsv'"),
    ("preprocess", {"frame": u8(4, 4)}, ShapeError, "bgr frame"),
    ("preprocess", {"frame": f32(4, 4, 3)}, ShapeError, "found float32"),
    ("preprocess", {"frame": u8(4, 4, 6)[..., ::2]}, ShapeError, "contiguous along its rows"),
    ("preprocess", {"frame": np.broadcast_to(u8(1, 4, 3), (2**28 + 1, 4, 3))}, ShapeError, "bgr frame"),
    ("preprocess", {"format": "gray16", "frame": u8(4, 4)}, ShapeError, "uint16"),
    ("preprocess", {"format": "nv12", "frame": u8(7, 4)}, ShapeError, "both even"),
    ("preprocess", {"format": "nv12", "frame": u8(6, 5)}, ShapeError, r"found \(6, 5\)"),
    ("preprocess", {"scale": f32(1)}, ShapeError, "scale"),
    ("preprocess", {"bias": f32(4)}, ShapeError, "bias"),
    ("preprocess", {"fill": 114.0}, ShapeError, "fill"),
    ("preprocess", {"rows": NAN_AXIS}, ShapeError, "finite scale"),
    ("preprocess", {"out": f32(4, 8, 8)}, ShapeError, "out"),
    ("preprocess", {"out": np.zeros((3, 8, 8))}, ShapeError, "out"),
]  # fmt: skip


@pytest.mark.parametrize("isa", kernels.available())
@pytest.mark.parametrize("kernel", GOOD)
def test_the_rows_that_the_bad_ones_are_made_from_run(isa, kernel):
    getattr(kernels.table(isa), kernel)(**GOOD[kernel]())


@pytest.mark.parametrize("isa", kernels.available())
@pytest.mark.parametrize(
    "kernel, change, error, text", BAD, ids=[f"{kernel} {'+'.join(change)}: {text}" for kernel, change, _, text in BAD]
)
def test_an_argument_that_does_not_fit_is_refused(isa, kernel, change, error, text):
    with pytest.raises(error, match=text):
        getattr(kernels.table(isa), kernel)(**GOOD[kernel]() | change)


class DeviceBuffer:
    """What the kernels ask of memory that is not NumPy's: an address, and the rest as NumPy has it."""

    def __init__(self, array):
        self.address = array.ctypes.data
        self.dtype, self.shape, self.ndim, self.strides = array.dtype, array.shape, array.ndim, array.strides
        self.nbytes, self.flags = array.nbytes, array.flags


def on_device(named):
    return {name: DeviceBuffer(value) if isinstance(value, np.ndarray) else value for name, value in named.items()}


@pytest.mark.parametrize("kernel", ["cam", "heatmap", "overlay", "guided"])
def test_buffers_of_a_device_are_checked_like_arrays(kernel):
    received = []
    table = kernels.KernelTable("device", SimpleNamespace(**{kernel: lambda *arguments: received.extend(arguments)}))
    named = on_device(GOOD[kernel]())
    getattr(table, kernel)(**named)
    assert all(any(value is other for other in received) for value in named.values() if hasattr(value, "address"))
    with pytest.raises(ShapeError, match="out must be an array of"):
        getattr(table, kernel)(**named | {"out": DeviceBuffer(f32(3))})
    source = next(name for name in ("activations", "map") if name in named)
    overlapping = DeviceBuffer(GOOD[kernel]()["out"])
    overlapping.address = named[source].address + 4
    with pytest.raises(ShapeError, match="overlap"):
        getattr(table, kernel)(**named | {"out": overlapping})


@pytest.mark.parametrize("isa", kernels.available())
def test_reading_and_writing_the_same_map_is_refused(isa):
    map = f32(8, 8)
    with pytest.raises(ShapeError, match="overlap"):
        kernels.table(isa).heatmap(map, AXIS, AXIS, 0.0, 1.0, map)


@pytest.mark.parametrize("isa", kernels.available())
def test_an_array_off_its_own_alignment_is_refused(isa):
    out = np.zeros(8 * 8 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(8, 8)
    with pytest.raises(ShapeError, match="aligned"):
        kernels.table(isa).heatmap(f32(4, 4), AXIS, AXIS, 0.0, 1.0, out)


@pytest.mark.parametrize("isa", kernels.available())
def test_read_only_inputs_are_fine(isa):
    out = f32(8, 8)
    kernels.table(isa).heatmap(read_only(f32(4, 4)), AXIS, AXIS, 0.0, 1.0, out)
