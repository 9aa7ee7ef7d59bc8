"""The C example: built as C99 and under sanitizers, run on what networks gave, held against the package's overlay."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gcpp_edge
from gcpp_edge.colormaps import palette_rgb
from gcpp_edge.explanation import UNSEEN_DIM
from gcpp_edge.geometry import stretch_axis
from gcpp_edge.kernels import available, table

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "c"
ISAS = [isa for isa in available() if isa != "numpy"]
BUILDS = {
    "warnings": "-O3 -Wall -Wextra -Werror",
    "sanitizers": "-O1 -g -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all",
}
SIZE = (97, 131)

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="the C example is built with cc and make"
)


@pytest.fixture(scope="module", params=BUILDS)
def program(request, tmp_path_factory):
    """The example, built with every kernel of this machine."""
    out = tmp_path_factory.mktemp("c")
    command = ["make", "-C", str(EXAMPLE), "-j2", f"OUT={out}", f"CFLAGS={BUILDS[request.param]}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out / "explain"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An explained model whose gradients depend on the position, and one where they are constant."""
    folder = tmp_path_factory.mktemp("models")
    export = pytest.importorskip("gcpp_edge.export", reason="models are exported with gcpp-edge[export]")
    onnx = pytest.importorskip("onnx", reason="models are made with onnx")
    onnx.save(export.explain_onnx(pooled_network(onnx)), folder / "constant.onnx")
    shutil.copy(ROOT / "tests" / "fixtures" / "explained-v1.onnx", folder / "positions.onnx")
    return folder


def pooled_network(onnx):
    """Conv - ReLU - pooling - Gemm of six classes, on pictures of 24 x 40."""
    random, node = np.random.default_rng(5), onnx.helper.make_node
    weights = {"filters": (19, 3, 3, 3), "classifier": (6, 19)}
    drawn = [onnx.numpy_helper.from_array(random.normal(size=shape).astype("f4"), n) for n, shape in weights.items()]
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["image", "filters"], ["before"], strides=[2, 2], pads=[1, 1, 1, 1]),
            node("Relu", ["before"], ["features"]),
            node("GlobalAveragePool", ["features"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "classifier"], ["scores"], transB=1),
        ],
        "pooled",
        [tensor("image", onnx.TensorProto.FLOAT, ["N", 3, 24, 40])],
        [tensor("scores", onnx.TensorProto.FLOAT, ["N", 6])],
        drawn,
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def a_frame(size=SIZE):
    """BGR, of soft shapes and noise."""
    return np.random.default_rng(7).integers(0, 256, (*size, 3), np.uint8)


def write_ppm(path, rgb):
    path.write_bytes(b"P6\n%d %d\n255\n" % rgb.shape[1::-1] + rgb.tobytes())


def read_ppm(path):
    data = path.read_bytes()
    head = re.match(rb"P6\n(\d+) (\d+)\n255\n", data)
    return np.frombuffer(data[head.end() :], np.uint8).reshape(int(head[2]), int(head[1]), 3)


def explain(program, *words, isa=None, **more):
    environment = {name: value for name, value in os.environ.items() if name != "GCPP_ISA"}
    environment |= more | ({"GCPP_ISA": isa} if isa else {})
    return subprocess.run([program, *map(str, words)], env=environment, capture_output=True, text=True, check=False)


def inputs(model, picture, folder, *target):
    """The command that inputs.py prints, without the program."""
    script = [sys.executable, EXAMPLE / "inputs.py", model, picture, folder, *target]
    done = subprocess.run([*map(str, script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program, *words = shlex.split(done.stdout)
    assert program == str(EXAMPLE / "explain")
    return words


@pytest.mark.parametrize("name", ["positions.onnx", "constant.onnx"])
@pytest.mark.parametrize("size", [SIZE, (1, 1), (700, 1100)], ids=["odd", "one pixel", "several threads' worth"])
def test_it_draws_what_the_package_draws(program, models, tmp_path, monkeypatch, name, size):
    frame = a_frame(size)
    write_ppm(tmp_path / "picture.ppm", frame[..., ::-1])
    words = inputs(models / name, tmp_path / "picture.ppm", tmp_path / "made", "2")
    for isa in ISAS:
        done = explain(program, "--threads", 3, *words, isa=isa)
        assert done.returncode == 0, done.stderr
        monkeypatch.setenv("GCPP_ISA", isa)
        with gcpp_edge.load(models / name, device="cpu") as explainer:
            explanation = explainer(frame, target=2)
        peak, row, column = re.match(r"peak (\S+) at row (\d+), column (\d+) of", done.stdout).groups()
        assert f"kernels {isa}\n" in done.stdout
        # the package runs the file cut to its map level, where ONNX Runtime may sum in another order
        assert float(peak) == pytest.approx(explanation.peak, rel=1e-6)
        assert explanation.map[int(row), int(column)] == pytest.approx(explanation.peak, rel=1e-6)
        differs = np.abs(read_ppm(tmp_path / "made" / "overlay.ppm")[..., ::-1].astype(int) - explanation.overlay())
        assert (differs.max(axis=-1) > 1).mean() < 0.01  # a value at a tie takes the next colour


def of_kernels(folder, shape, isa, rule="gradcam++", relu=True, scale=1.0, alpha=0.5):
    """Map and overlay of the files in the folder, by the package's table of this instruction set."""
    activations = np.fromfile(folder / "a.f32", np.float32).reshape(1, *shape)
    gradients = np.fromfile(folder / "g.f32", np.float32)
    gradients = gradients.reshape(1, shape[0], *(shape[1:] if gradients.size == activations.size else (1, 1)))
    raw, frame = np.empty((1, *shape[1:]), np.float32), read_ppm(folder / "frame.ppm")
    kernels, out = table(isa), np.empty_like(frame)
    kernels.cam(activations, gradients, rule, relu, raw, gradient_scale=scale)
    axes = [stretch_axis(*sides) for sides in zip(frame.shape[:2], shape[1:], strict=True)]
    low, high = float(raw.min()), float(raw.max())
    kernels.overlay(frame, raw[0], *axes, low, high, palette_rgb("jet"), alpha, UNSEEN_DIM, out)
    return raw[0], out


SHAPE = (37, 5, 9)
FILES = ("a.f32", "g.f32", "x".join(map(str, SHAPE)), "jet.palette", "frame.ppm", "out.ppm")


@pytest.fixture
def folder(tmp_path):
    """Inputs that fit together, in files of FILES."""
    random = np.random.default_rng(11)
    np.maximum(random.normal(size=SHAPE), 0).astype(np.float32).tofile(tmp_path / "a.f32")
    random.normal(0, 0.1, SHAPE).astype(np.float32).tofile(tmp_path / "g.f32")
    palette_rgb("jet").tofile(tmp_path / "jet.palette")
    write_ppm(tmp_path / "frame.ppm", a_frame())
    return tmp_path


def in_folder(folder, words):
    """Names of files with their folder; options and the shape as they are."""
    return [folder / word if "." in word and not word[0].isdigit() else word for word in words]


@pytest.mark.parametrize(
    ("options", "as_arguments"),
    [
        ([], {}),
        (["--rule", "gradcam"], {"rule": "gradcam"}),
        (["--rule", "gradcam++-signed"], {"rule": "gradcam++-signed"}),
        (["--rule", "gradcam", "--no-relu"], {"rule": "gradcam", "relu": False}),
        (["--gradient-scale", "1024"], {"scale": 1024.0}),
        (["--alpha", "0.3", "--threads", "64"], {"alpha": 0.3}),
    ],
    ids=lambda value: " ".join(value) or "plain" if isinstance(value, list) else "",
)
@pytest.mark.parametrize("isa", ISAS)
def test_map_and_overlay_are_the_same_bits(program, folder, isa, options, as_arguments):
    done = explain(program, *options, *in_folder(folder, FILES), isa=isa)
    assert done.returncode == 0, done.stderr
    raw, overlay = of_kernels(folder, SHAPE, isa, **as_arguments)
    row, column = np.unravel_index(raw.argmax(), raw.shape)
    assert done.stdout == f"peak {raw.max():.9g} at row {row}, column {column} of 5 x 9\nkernels {isa}\n"
    np.testing.assert_array_equal(read_ppm(folder / "out.ppm"), overlay)


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-gcc") and shutil.which("qemu-aarch64")),
    reason="needs apt install gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user",
)
def test_it_is_made_for_a_64_bit_arm_board(folder, tmp_path):
    """Under an emulator, on NEON, which this machine's package does not have: held against the scalar kernels."""
    flags = [f"OUT={tmp_path}", "CC=aarch64-linux-gnu-gcc", "CFLAGS=-O1 -Wall -Wextra -Werror", "LDFLAGS=-static"]
    made = subprocess.run(["make", "-C", str(EXAMPLE), "-j2", *flags], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    done = explain("qemu-aarch64", tmp_path / "explain", *in_folder(folder, FILES))
    raw, overlay = of_kernels(folder, SHAPE, "scalar")
    assert done.returncode == 0 and done.stdout.endswith("kernels neon\n"), done.stderr
    assert float(done.stdout.split()[1]) == pytest.approx(raw.max(), rel=1e-5)
    differs = np.abs(read_ppm(folder / "out.ppm").astype(int) - overlay).max(axis=-1)
    assert (differs > 1).mean() < 0.01  # a value at a tie takes the next colour


def test_without_a_name_it_takes_the_best_kernels_as_the_package_does(program, folder):
    assert explain(program, *in_folder(folder, FILES)).stdout.endswith(f"kernels {ISAS[0]}\n")


def test_frame_pixels_that_the_network_did_not_see_are_dimmed(program, folder):
    seen = ["--rows", "0.1,0,10,60", "--columns", "0.1,0,0,131", "--dim", "0"]
    assert explain(program, *seen, *in_folder(folder, FILES)).returncode == 0
    out = read_ppm(folder / "out.ppm")
    assert not out[:10].any() and not out[60:].any() and out[10:60].any(axis=(1, 2)).all()


def change_file(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def replaced(old, new):
    return [new if word == old else word for word in FILES]


HEAD = b"P6\n131 97\n255\n"
NAN = np.full(SHAPE, np.nan, np.float32).tobytes()
HUGE = np.full(SHAPE, 3e38, np.float32).tobytes()
OVERFLOWING = ["--rule", "gradcam", "--no-relu", "--gradient-scale", "1e-10", *FILES]
BAD = {
    "no such file": (replaced("a.f32", "nowhere.f32"), None, "nowhere.f32: cannot be read (No such file"),
    "a folder": (replaced("frame.ppm", "../."), None, "cannot be read (Is a directory"),
    "bytes left over": (FILES, change_file("a.f32", b"abc"), "a.f32: 3 bytes are not a whole number of float32"),
    "empty activations": (FILES, change_file("a.f32", b""), "a.f32: expected 1665 float32 for 37x5x9, found 0"),
    "few activations": (FILES, change_file("a.f32", bytes(400)), "expected 1665 float32 for 37x5x9, found 100"),
    "few gradients": (FILES, change_file("g.f32", bytes(400)), "or 37 that are constant, found 100"),
    "not a number": (FILES, change_file("g.f32", NAN), "g.f32: number 0 is not finite"),
    "overflow": (OVERFLOWING, change_file("a.f32", HUGE), "the map overflows at position"),
    "shape of two": (replaced(FILES[2], "37x45"), None, "37x45: expected a shape such as 512x7x7"),
    "shape of four": (replaced(FILES[2], "1x37x5x9"), None, "expected a shape such as 512x7x7"),
    "shape of zero": (replaced(FILES[2], "0x5x9"), None, "expected a shape such as 512x7x7"),
    "shape of a sign": (replaced(FILES[2], "-37x5x9"), None, "expected a shape such as 512x7x7"),
    "huge shape": (replaced(FILES[2], "99999999999999999999x5x9"), None, "each 1 to 1048576"),
    "large shape": (replaced(FILES[2], "1048576x1048576x1048576"), None, "a.f32: expected"),
    "short palette": (FILES, change_file("jet.palette", bytes(767)), "expected a palette of 768 bytes, found 767"),
    "no ppm": (FILES, change_file("frame.ppm", b"GIF89a"), "expected a binary PPM, which begins with P6"),
    "empty frame": (FILES, change_file("frame.ppm", b""), "expected a binary PPM"),
    "half a head": (FILES, change_file("frame.ppm", b"P6\n# why"), "expected a width and a height of 1 to 32768"),
    "no pixels": (FILES, change_file("frame.ppm", b"P6 0 4 255\n"), "expected a width and a height of 1 to 32768"),
    "huge frame": (FILES, change_file("frame.ppm", b"P6 99999999999999999999 1 255\n"), "of 1 to 32768"),
    "wide frame": (FILES, change_file("frame.ppm", b"P6 32768 32768 255\n"), "expected 3221225472 bytes of pixels"),
    "16 bits": (FILES, change_file("frame.ppm", b"P6 1 1 65535\n123456"), "expected one byte a value"),
    "cut off": (FILES, change_file("frame.ppm", HEAD + bytes(100)), "expected 38121 bytes of pixels, found 100"),
    "head alone": (FILES, change_file("frame.ppm", HEAD[:-1]), "expected 38121 bytes of pixels, found 0"),
    "nowhere to write": (replaced("out.ppm", "missing/out.ppm"), None, "missing/out.ppm: cannot be written"),
    "unknown rule": (["--rule", "lime", *FILES], None, "expected gradcam, gradcam++ or gradcam++-signed, found lime"),
    "alpha": (["--alpha", "1.5", *FILES], None, "--alpha: expected a number from 0 to 1, found 1.5"),
    "not alpha": (["--alpha", "half", *FILES], None, "--alpha: expected a number from 0 to 1, found half"),
    "nan": (["--dim", "nan", *FILES], None, "--dim: expected a number from 0 to 1, found nan"),
    "threads": (["--threads", "65", *FILES], None, "--threads: expected a number from 1 to 64, found 65"),
    "half a thread": (["--threads", "1.5", *FILES], None, "--threads: expected a whole number, found 1.5"),
    "scale": (["--gradient-scale", "0", *FILES], None, "--gradient-scale: expected a number from"),
    "axis of three": (["--rows", "1,0,5", *FILES], None, "--rows: expected SCALE,OFFSET,START,STOP, found 1,0,5"),
    "axis backwards": (["--rows", "1,0,5,4", *FILES], None, "expected 0 <= START <= STOP <= 97"),
    "axis outside": (["--columns", "1,0,0,132", *FILES], None, "expected 0 <= START <= STOP <= 131"),
    "infinite axis": (["--columns", "inf,0,0,131", *FILES], None, "--columns: expected SCALE,OFFSET,START,STOP"),
}  # fmt: skip


@pytest.mark.parametrize(("words", "spoil", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_in_one_line(program, folder, words, spoil, message):
    if spoil:
        spoil(folder)
    # a program that ends at once leaves its memory to the system; where it does its work, leaks are looked for
    done = explain(program, *in_folder(folder, words), ASAN_OPTIONS="detect_leaks=0")
    assert done.returncode == 1 and done.stdout == "" and not (folder / "out.ppm").exists()
    assert done.stderr.startswith("explain: ") and done.stderr.count("\n") == 1 and message in done.stderr


def test_an_instruction_set_that_is_not_here_is_refused(program, folder):
    done = explain(program, *in_folder(folder, FILES), isa="mmx", ASAN_OPTIONS="detect_leaks=0")
    assert (done.returncode, done.stderr) == (1, "explain: GCPP_ISA=mmx is not available here\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "files are missing"),
        (FILES[:5], "files are missing"),
        ([*FILES, "more.ppm"], "one file too many: "),
        (["--colour", "jet", *FILES], "unknown option --colour"),
        ([*FILES, "--alpha"], "a value is missing behind --alpha"),
    ],
)
def test_a_wrong_call_says_how_it_is_called(program, folder, words, message):
    done = explain(program, *in_folder(folder, words))
    assert done.returncode == 2 and done.stderr.startswith(f"explain: {message}") and done.stderr.count("\n") == 1
    assert "explain --help" in done.stderr


def test_help_names_every_option(program):
    done = explain(program, "--help")
    source = (EXAMPLE / "explain.c").read_text(encoding="utf-8")
    named = set(re.findall(r'"(--[a-z-]+)"', source)) - {"--help"}
    assert done.returncode == 0 and len(named) == 8 and all(name in done.stdout for name in named)


def test_axes_of_any_finite_size_are_clamped(program, folder):
    for axis in ("1e308,1e308,0,97", "-1e308,-1e308,0,97", "1e308,-1e308,0,97"):
        assert explain(program, "--rows", axis, *in_folder(folder, FILES)).returncode == 0


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        ("explained-v2.onnx", "-1", "the C example runs a file that explains one class of the picture"),
        ("explained-v1.onnx", "99", "target 99: this model has classes 0 to 5"),
        ("make.py", "-1", "make.py"),
    ],
)
def test_inputs_refuse_what_the_example_does_not_run(tmp_path, model, target, message):
    write_ppm(tmp_path / "picture.ppm", a_frame())
    script = [sys.executable, EXAMPLE / "inputs.py", ROOT / "tests" / "fixtures" / model, tmp_path / "picture.ppm"]
    done = subprocess.run([*map(str, script), str(tmp_path), target], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and message in done.stderr and done.stderr.count("\n") == 1
