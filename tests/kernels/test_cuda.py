"""What is CUDA's own: how launches are put together, that they are repeatable, and that the emulator finds mistakes.

That the kernels are right is in the tests that take `compiled`.
"""

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import emulator
import numpy as np
import pytest

from gcpp_edge import kernels
from gcpp_edge.errors import ShapeError
from gcpp_edge.kernels import Axis, KernelTable, cuda_table
from gcpp_edge.kernels.arguments import address_of
from gcpp_edge.kernels.cuda_table import STRUCTS, CudaKernels

SOURCES = Path(kernels.__file__).parent
AXES = (Axis(7 / 30, 0.0, 2, 28), Axis(7 / 140, 0.0, 0, 133))
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

needs_compiler = pytest.mark.skipif(not COMPILER, reason="no C compiler to ask for the layout of structs")
emulated = pytest.mark.skipif(bool(emulator.missing()), reason=emulator.missing() or "there")


def random(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def printed_by_c(tmp_path, expressions):
    """What C makes of integer expressions that may use gcpp_cuda.h."""
    lines = "".join(f'printf("%lld\\n", (long long)({expression}));' for expression in expressions)
    source = tmp_path / "print.c"
    source.write_text(
        f'#include <stddef.h>\n#include <stdio.h>\n#include "gcpp_cuda.h"\nint main(void) {{ {lines} }}\n'
    )
    command = [
        COMPILER,
        "-std=c99",
        "-Wall",
        "-Werror",
        f"-I{SOURCES / 'cuda'}",
        str(source),
        "-o",
        str(tmp_path / "print"),
    ]
    subprocess.run([*command, "-lm"], check=True)
    result = subprocess.run([str(tmp_path / "print")], check=True, capture_output=True, text=True)
    return [int(line) for line in result.stdout.split()]


@needs_compiler
def test_structs_lie_in_memory_as_the_header_says(tmp_path):
    expected, expressions = [], []
    for name, struct in STRUCTS.items():
        expected.append(ctypes.sizeof(struct))
        expressions.append(f"sizeof({name})")
        for field, _ in struct._fields_:
            expected += [getattr(struct, field).offset, getattr(struct, field).size]
            expressions += [f"offsetof({name}, {field})", f"sizeof((({name} *)0)->{field})"]
    assert printed_by_c(tmp_path, expressions) == expected


@needs_compiler
def test_numbers_are_those_of_the_header(tmp_path):
    names = ["MAX_MAPS", "WARP_POSITIONS", "ROWS", "COLUMNS", "BYTE_COLUMNS", "RANGE_THREADS"]
    expected = [getattr(cuda_table, name) for name in names]
    assert printed_by_c(tmp_path, [*(f"GCPP_CUDA_{name}" for name in names), "GCPP_ONE"]) == [*expected, cuda_table.ONE]


def test_every_struct_of_the_header_is_known():
    header = (SOURCES / "cuda" / "gcpp_cuda.h").read_text()
    assert set(re.findall(r"^\} (gcpp_\w+);", header, re.MULTILINE)) == set(STRUCTS) - {"gcpp_axis"}


def recorded(scratch=emulator.scratch):
    """A table whose launches are kept, not done."""
    launches = []
    table = CudaKernels(lambda *launch: launches.append(launch), scratch, address_of)
    return KernelTable("recorded", table), launches


def no_scratch(size):
    raise AssertionError(f"{size} bytes of scratch were asked for")


@pytest.mark.parametrize(
    "shape, weights, sums",
    [
        ((1, 2048, 7, 7), ((256, 1, 1), (32, 8, 1)), ((7, 1, 1), (8, 128, 1))),
        ((2, 512, 14, 14), ((64, 2, 1), (32, 8, 1)), ((25, 2, 1), (8, 128, 1))),
        ((1, 256, 56, 56), ((256, 1, 1), (256, 1, 1)), ((98, 1, 1), (32, 32, 1))),
    ],
)
def test_cam_is_two_launches(shape, weights, sums):
    table, launches = recorded()
    arrays = np.zeros(shape, np.float32), np.zeros((*shape[:2], 1, 1), np.float16)
    table.cam(*arrays, "gradcam++", True, np.zeros((shape[0], *shape[2:]), np.float32))
    assert [launch[:3] for launch in launches] == [
        ("gcpp_cam_weights_f32_f16_cuda", *weights),
        ("gcpp_cam_sum_f32_cuda", *sums),
    ]


def test_cam_needs_no_scratch_where_the_caller_takes_the_weights():
    table, launches = recorded(no_scratch)
    maps, weights, poles = np.zeros((2, 5, 5), np.float32), np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    table.cam(random(2, 3, 5, 5), random(2, 3, 5, 5), "gradcam++", True, maps, weights, poles=poles)
    assert len(launches) == 2


def test_nothing_is_launched_for_an_empty_output():
    table, launches = recorded(no_scratch)
    empty = np.zeros((0, 5), np.float32)
    table.heatmap(random(3, 3), *AXES, 0, 1, empty)
    table.guided(random(3, 3), *AXES, 0, 1, np.zeros((0, 5, 5), np.float32), np.zeros((0, 5, 5), np.float32))
    table.cam(np.zeros((0, 3, 5), np.float32), np.zeros((0, 3, 5), np.float32), "gradcam", True, empty)
    table.range(np.zeros((0, 5), np.float32), False, np.zeros((0, 2), np.float32))
    assert not launches


def test_an_array_of_the_host_is_refused():
    table = KernelTable("cuda", CudaKernels(lambda *launch: None, no_scratch))
    with pytest.raises(ShapeError, match="host memory.*Upload"):
        table.heatmap(random(3, 3), *AXES, 0, 1, np.zeros((30, 140), np.float32))


def cam_in(table, activations, gradients):
    maps = gradients.shape[: gradients.ndim - activations.ndim + 1]
    out, weights = (
        np.empty((*maps, *activations.shape[2:]), np.float32),
        np.empty((*maps, activations.shape[1]), np.float32),
    )
    poles = np.empty(maps, np.int64)
    table.cam(activations, gradients, "gradcam++-signed", True, out, weights, poles=poles)
    return out, weights, poles


def drawn_in(table):
    map, limits = random(7, 7), np.empty(2, np.float32)
    table.range(map, False, limits)
    out = [np.empty((30, 140), dtype) for dtype in (np.float32, np.uint8)]
    for values in out:
        table.heatmap(map, *AXES, 0, 0, values, limits=limits)
    frame, palette = (np.random.default_rng(0).integers(0, 256, size, np.uint8) for size in ((30, 140, 3), (256, 3)))
    out.append(np.empty_like(frame))
    table.overlay(frame, map, *AXES, 0, 0, palette, 0.5, 0.5, out[-1], limits=limits)
    image = random(3, 30, 140)
    table.guided(map, *AXES, 0, 0, image, image, limits=limits)
    planes, one = np.empty((3, 30, 140), np.float16), np.ones(3, np.float32)
    table.preprocess(frame, "bgr", *AXES, "rgb", one, one, one, planes)
    return [limits, *out, image, planes]


@emulated
@pytest.mark.parametrize("space", [(7, 7), (40, 40), (33, 35)], ids=["a warp a channel", "fours", "a block a channel"])
def test_the_order_of_threads_changes_no_bit_of_cam(space):
    arrays = random(2, 150, *space), random(2, 3, 150, *space, seed=1)
    for there, back in zip(cam_in(emulator.table(), *arrays), cam_in(emulator.table(True), *arrays), strict=True):
        np.testing.assert_array_equal(there, back)


@emulated
def test_the_order_of_threads_changes_no_bit_of_the_others():
    for there, back in zip(drawn_in(emulator.table()), drawn_in(emulator.table(True)), strict=True):
        np.testing.assert_array_equal(there, back)


@emulated
def test_maps_beyond_the_end_of_a_grid_are_done_too(monkeypatch):
    arrays = random(5, 6, 7, 7), random(5, 6, 7, 7, seed=1)
    expected = cam_in(emulator.table(), *arrays)
    monkeypatch.setattr(cuda_table, "MAX_MAPS", 2)
    for found, wanted in zip(cam_in(emulator.table(), *arrays), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


class Reversal(ctypes.Structure):
    _fields_ = [("values", ctypes.c_uint64), ("out", ctypes.c_uint64), ("fault", ctypes.c_int32)]


def reverse(name, block, fault=False, grid=(3, 1, 1)):
    values = np.arange(grid[0] * block[0], dtype=np.int32)
    out = np.empty_like(values)
    emulator.launch(name, grid, block, 0, bytes(Reversal(address_of(values), address_of(out), fault)))
    return values, out


@emulated
@pytest.mark.parametrize("name, size", [("reverse_in_block", 256), ("reverse_in_block", 1024), ("reverse_in_warp", 32)])
def test_the_emulators_barriers_and_shuffles_work(name, size):
    values, out = reverse(name, (size, 1, 1))
    np.testing.assert_array_equal(out.reshape(-1, size), values.reshape(-1, size)[:, ::-1])


@emulated
@pytest.mark.parametrize(
    "name, text",
    [
        ("reverse_in_block", "a barrier that some threads of the block do not reach"),
        ("reverse_in_warp", "a shuffle that some lanes of the warp do not take part in"),
    ],
)
def test_the_emulator_refuses_what_would_hang_and_goes_on(name, text):
    with pytest.raises(emulator.LaunchError, match=text):
        reverse(name, (64, 1, 1), fault=True)
    assert (reverse(name, (32, 1, 1))[1].reshape(-1, 32)[0] == np.arange(32)[::-1]).all()


@emulated
@pytest.mark.parametrize(
    "grid, block", [((0, 1, 1), (32, 1, 1)), ((1, 1, 1), (2048, 1, 1)), ((1, 65536, 1), (32, 1, 1))]
)
def test_the_emulator_refuses_grids_that_cuda_refuses(grid, block):
    with pytest.raises(emulator.LaunchError, match="a grid or block that CUDA refuses"):
        emulator.launch("reverse_in_block", grid, block, 0, bytes(Reversal()))


@emulated
def test_the_emulator_refuses_unknown_names_and_other_arguments():
    with pytest.raises(emulator.LaunchError, match="no kernel of this name"):
        emulator.launch("gcpp_pool", (1, 1, 1), (32, 1, 1), 0, b"")
    with pytest.raises(emulator.LaunchError, match="arguments of 3 bytes instead of"):
        emulator.launch("gcpp_range_f32_cuda", (1, 1, 1), (32, 1, 1), 0, b"abc")


def test_the_emulator_has_every_kernel():
    """All names that the table can launch are entries of the module, and nothing else is."""
    defined = set()
    for source in (SOURCES / "cuda").glob("*.cu"):
        defined |= set(re.findall(r"gcpp_\w+_cuda(?=[,(])", source.read_text()))
    emulated_ones = set(re.findall(r"KERNEL\((gcpp_\w+_cuda),", (emulator.HERE / "emulator.cpp").read_text()))
    assert defined == emulated_ones
