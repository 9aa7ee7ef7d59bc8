"""The C++ example: compiled and linked where nvcc is, and run whole on stand-ins for CUDA and TensorRT (stubs/)."""

import os
import shutil
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from gcpp_edge.colormaps import palette_bgr
from gcpp_edge.explanation import UNSEEN_DIM
from gcpp_edge.geometry import fit_frame, frame_from_map, input_from_frame
from gcpp_edge.inference import pixel_arithmetic
from gcpp_edge.kernels import table
from gcpp_edge.model_file import read_model_file

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "cpp"
EMULATOR = ROOT / "tests" / "kernels" / "emulator"
FIXTURE = ROOT / "tests" / "fixtures" / "explained-v1.onnx"
STUBS = Path(__file__).parent / "stubs"
WARNINGS = "-O1 -g -Wall -Wextra -Wpedantic -Wconversion -Werror"


def toolkit():
    """The folder of CUDA's headers and nvcc, or None."""
    found = shutil.which("nvcc")
    places = [os.environ.get("CUDA_HOME"), found and Path(found).resolve().parents[1], "/usr/local/cuda"]
    return next((Path(place) for place in places if place and (Path(place) / "include" / "cuda.h").exists()), None)


CUDA = toolkit()
needs_cuda = pytest.mark.skipif(CUDA is None, reason="no CUDA toolkit here")
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc here")


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def make(target, out, **variables):
    values = {"CUDA": CUDA, "NVCC": shutil.which("nvcc") or "nvcc", "OUT": out, "CXX": "g++"} | variables
    return run("make", "-C", EXAMPLE, out / target, *(f"{name}={value}" for name, value in values.items()))


@needs_nvcc
@needs_cuda
@pytest.mark.parametrize("architecture", ["sm_87", "sm_110"])
def test_the_makefile_compiles_the_kernels_for_a_board(tmp_path, architecture):
    make("gcpp.fatbin", tmp_path, ARCH=architecture)
    image = (tmp_path / "gcpp.fatbin").read_bytes()
    assert b"gcpp_overlay_u8_cuda" in image


def stand_ins(folder):
    """libcuda.so and libnvinfer.so of stubs/, with the kernels as C++."""
    kernels = [f"-I{ROOT / 'kernels' / part}" for part in ("", "cpu", "cuda")]
    shared = ["g++", "-std=c++17", "-O1", "-g", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{CUDA}/include"]
    cuda = [STUBS / "fake_cuda.cpp", STUBS / "fake_emulator.cpp", EMULATOR / "emulator.cpp"]
    only_here = ["-Wno-unknown-pragmas", "-fno-strict-aliasing", f"-I{EMULATOR}", *kernels]
    run(*shared, *only_here, "-Wl,-soname,libcuda.so.1", *cuda, "-o", folder / "libcuda.so.1")
    (folder / "libcuda.so").symlink_to("libcuda.so.1")
    run(*shared, f"-I{STUBS}", STUBS / "fake_tensorrt.cpp", "-o", folder / "libnvinfer.so", f"-L{folder}", "-lcuda")


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """A folder with the example and the libraries that it is run on."""
    if shutil.which("g++") is None or CUDA is None:
        pytest.skip("no g++ or no CUDA toolkit here")
    if not (EMULATOR / "emulator.cpp").exists():
        pytest.skip("the emulator of the kernels is not in this tree")
    folder = tmp_path_factory.mktemp("example")
    stand_ins(folder)
    make("explain", folder, TENSORRT_LIB=folder, TENSORRT_INCLUDE=STUBS, CXXFLAGS=WARNINGS, LDFLAGS=f"-L{folder}")
    (folder / "gcpp.fatbin").write_bytes(b"what it holds is not read here")
    return folder


def test_it_links_with_the_library_that_the_stub_stands_for(example, tmp_path):
    """The one symbol that TensorRT's headers call by name is in the library of the wheel."""
    found = find_spec("tensorrt_rtx_libs")
    if found is None or found.origin is None:
        pytest.skip("TensorRT for RTX is not installed")
    (library,) = Path(found.origin).parent.glob("libtensorrt_rtx.so.*")
    (tmp_path / "libtensorrt_rtx.so").symlink_to(library)
    places = {"TENSORRT_LIB": tmp_path, "TENSORRT_INCLUDE": STUBS, "LDFLAGS": f"-L{example}"}
    make("explain", tmp_path, TENSORRT="tensorrt_rtx", **places)


SIZE = (20, 30)
ENGINE = """fake-engine
input image kFLOAT -1 3 16 16
input target kINT64 -1
output logits kFLOAT -1 6
output target_class kINT64 -1
output activations kFLOAT -1 12 6 6
output gradients kFLOAT -1 12 6 6
"""


def ppm(frame):
    return b"P6\n# a comment\n%d %d\n255\n" % SIZE[::-1] + frame[..., ::-1].tobytes()


def bmp(frame):
    """From the lowest row up, each filled to four bytes."""
    height, width = SIZE
    pad = -3 * width % 4
    rows = np.pad(frame[::-1].reshape(height, -1), ((0, 0), (0, pad))).tobytes()
    header = struct.pack("<2sIHHI", b"BM", 54 + len(rows), 0, 0, 54)
    return header + struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, len(rows), 0, 0, 0, 0) + rows


FORMATS = {"ppm": ppm, "bmp": bmp, "bgr": np.ndarray.tobytes}


def explain(example, folder, *words, data=None, engine=ENGINE, **environment):
    (folder / "model.engine").write_text(engine)
    (folder / "model.settings").write_text(settings(FIXTURE, "x".join(map(str, SIZE))).stdout)
    (folder / "frame").write_bytes(data)
    files = [example / "gcpp.fatbin", folder / "model.settings", folder / "frame", folder / "overlay.ppm"]
    return subprocess.run(
        [str(word) for word in (example / "explain", folder / "model.engine", *files, *words)],
        env=os.environ | {"LD_LIBRARY_PATH": str(example)} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def a_frame(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def expected(frame):
    """The overlay as this package draws it, of what the stand-in for TensorRT answers."""
    contract, kernels = read_model_file(FIXTURE).contract, table("numpy")
    pixels = contract.preprocessing
    fit = fit_frame(*SIZE, pixels)
    image = np.empty(pixels.input_shape, np.float32)
    kernels.preprocess(frame, "bgr", *input_from_frame(fit), pixels.color, *pixel_arithmetic(pixels), image)
    mean = round(abs(float(100 * (np.arange(image.size) % 101 * image.ravel().astype(np.float64)).mean())))

    def answer(name):
        shape = (1, contract.layer.channels, *contract.layer.space)
        return ((mean + np.arange(np.prod(shape)) * len(name)) % 97 / np.float32(97)).astype(np.float32).reshape(shape)

    raw = np.empty((1, *contract.layer.space), np.float32)
    kernels.cam(answer("activations"), answer("gradients"), "gradcam++", True, raw)
    out, axes = np.empty_like(frame), frame_from_map(fit, *contract.layer.space)
    kernels.overlay(frame, raw[0], *axes, raw.min(), raw.max(), palette_bgr("jet"), 0.5, UNSEEN_DIM, out)
    return out


def overlay_in(folder):
    data = (folder / "overlay.ppm").read_bytes()
    assert data.startswith(b"P6\n%d %d\n255\n" % SIZE[::-1])
    return np.frombuffer(data[-3 * SIZE[0] * SIZE[1] :], np.uint8).reshape(*SIZE, 3)[..., ::-1]


@pytest.mark.parametrize("environment", [{}, {"FAKE_INTEGRATED": "1"}], ids=["pinned memory", "mapped memory"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_frame_goes_the_whole_way(example, tmp_path, format, environment):
    frame = a_frame()
    done = explain(example, tmp_path, -1, 3, data=FORMATS[format](frame), **environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("class 1\n") and "one CUDA graph a frame" in done.stdout
    differs = np.abs(overlay_in(tmp_path).astype(int) - expected(frame)).max(axis=-1)
    assert (differs > 1).mean() < 0.01  # a value at a tie takes the next colour


def test_where_recording_is_refused_it_says_so_and_draws_the_same(example, tmp_path):
    frame = a_frame(1)
    done = explain(example, tmp_path, data=frame.tobytes(), FAKE_REFUSES_CAPTURE="1")
    assert done.returncode == 0 and "recording was refused" in done.stdout
    assert (np.abs(overlay_in(tmp_path).astype(int) - expected(frame)).max(axis=-1) > 1).mean() < 0.01


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": a_frame().tobytes()[:-3]}, "expected 20 x 30 pixels"),
        ({"data": ppm(a_frame())[:-1]}, "not a whole PPM"),
        ({"data": bmp(a_frame())[:-1]}, "not a whole BMP"),
        ({"data": b"P6\n30 20\n"}, "not a whole PPM"),
        ({"data": b"BM"}, "expected 20 x 30 pixels"),
        ({"engine": "something else"}, "build it here"),
        ({"engine": ENGINE.replace("activations", "features")}, "no tensor 'activations'"),
    ],
    ids=["short raw", "short ppm", "short bmp", "ppm without pixels", "two bytes", "no engine", "another network"],
)
def test_what_does_not_fit_is_said(example, tmp_path, change, message):
    done = explain(example, tmp_path, **({"data": a_frame().tobytes()} | change))
    assert done.returncode == 1 and message in done.stderr


def settings(*arguments):
    command = [sys.executable, EXAMPLE / "settings.py", *arguments]
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)


def test_settings_refuse_a_file_that_the_example_does_not_run():
    done = settings(ROOT / "tests" / "fixtures" / "explained-v2.onnx", "20x30")
    assert done.returncode == 1 and "explains one class of the picture" in done.stderr


def test_settings_without_a_frame_size_say_how_they_are_called():
    done = settings("model.onnx")
    assert done.returncode == 1 and "1080x1920" in done.stderr
