"""export, inspect, doctor, help and start-up: what is asked for on standard output, the rest on standard error."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gcpp_edge.cli.export import parse_numbers, parse_size
from gcpp_edge.errors import SourceError
from gcpp_edge.model_file import read_model_file

Run = Callable[..., Any]
COMMANDS = ("export", "explain", "inspect", "bench", "build", "cache", "demo", "doctor")


@pytest.mark.parametrize("words", [(), ("--help",)], ids=["without words", "--help"])
def test_help_lists_every_command(words: tuple[str, ...], run: Run) -> None:
    result = run(*words)
    assert result.status == 0 and result.err == ""
    for command in COMMANDS:
        assert command in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_shows_examples_and_json(command: str, run: Run) -> None:
    result = run(command, "--help")
    assert result.status == 0
    assert f"gcpp-edge {command}" in result.out and "Examples" in result.out and "--json" in result.out


def test_the_version_is_that_of_the_package(run: Run) -> None:
    import gcpp_edge

    assert run("--version").out.strip() == gcpp_edge.__version__


def test_starting_loads_nothing_heavy() -> None:
    program = (
        "import sys; from gcpp_edge.cli.app import application; application()\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'cv2', 'skimage'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_command_loads_its_own_file_alone_and_no_slow_part_of_numpy(folder: Path, tmp_path: Path) -> None:
    words = ["explain", str(folder / "map.onnx"), str(folder / "wide.jpg"), "-o", str(tmp_path / "out")]
    program = (
        f"import sys; from gcpp_edge.cli import main; status = main({words!r})\n"
        "others = {f'gcpp_edge.cli.{name}' for name in ('build', 'demo', 'doctor', 'export', 'inspect')}\n"
        "slow = (others | {'onnx', 'torch', 'numpy.ma'}) & set(sys.modules)\n"
        "sys.exit(str(slow) if slow else status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_is_refused_with_the_known_ones_at_hand(run: Run) -> None:
    result = run("explian")
    assert result.status == 2 and "explian" in result.err and "--help" in result.err


def test_the_installed_program_runs() -> None:
    program = Path(sys.executable).with_name("gcpp-edge")
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip()


def test_an_export_reports_what_it_wrote(folder: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "model.onnx"
    result = run("export", folder / "network.onnx", "-o", path, "--guided", "--ranks", "3", "--json")
    assert result.status == 0
    document = json.loads(result.out)
    contract = read_model_file(path).contract
    assert document["path"] == str(path) and document["bytes"] == path.stat().st_size
    assert document["contract"]["ranks"] == contract.ranks == 3
    assert list(document["contract"]["levels"]) == ["plain", "map", "guided"]
    assert document["contract"]["check"] and document["seconds"]


def test_an_export_tells_people_the_layer_the_memory_and_the_check(folder: Path, tmp_path: Path, run: Run) -> None:
    result = run("export", folder / "network.onnx", "-o", tmp_path / "model.onnx")
    assert result.status == 0
    for words in ("layer", "preprocessing", "levels", "memory", "self-check", "model.onnx"):
        assert words in result.out
    assert "gcpp-edge explain" in result.err


def test_weights_in_a_file_of_their_own_are_told_of_and_found(
    folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gcpp_edge.export.weights.LARGE_BYTES", 0)
    path = tmp_path / "model.onnx"
    words = ("export", folder / "network.onnx", "-o", path, "--guided", "--external-data")
    told = run(*words).out
    assert "model.onnx.data" in told and "keep the two together" in told
    document = json.loads(run(*words, "--json").out)
    files = [path, tmp_path / "model.onnx.data"]
    assert document["files"] == [{"path": str(file), "bytes": file.stat().st_size} for file in files]
    assert document["bytes"] == sum(file.stat().st_size for file in files)
    pair, whole = (run("explain", model, folder / "wide.jpg", "--json").out for model in (path, folder / "guided.onnx"))
    probabilities = [json.loads(text)["pictures"][0]["probability"] for text in (pair, whole)]
    assert probabilities[0] == pytest.approx(probabilities[1], rel=1e-5)


def test_preprocessing_options_reach_the_file(folder: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "model.onnx"
    options = (
        "--mean 104,117,123 --std 1,1,1 --pixel-max 255 --color bgr --geometry crop --share 0.9 --input-size 32x32"
    )
    result = run("export", folder / "network.onnx", "-o", path, *options.split())
    assert result.status == 0, result.err
    pixels = read_model_file(path).contract.preprocessing
    assert (pixels.mean, pixels.std, pixels.pixel_max, pixels.color) == ((104, 117, 123), (1, 1, 1), 255, "bgr")
    assert (pixels.geometry.kind, pixels.geometry.share) == ("crop", 0.9)


def test_method_softmax_portable_and_frame_input_reach_the_file(folder: Path, tmp_path: Path, run: Run) -> None:
    path = tmp_path / "model.onnx"
    words = ["--method", "gradcam++-softmax", "--softmax", "--portable", "--frame-input", "40x30:rgb"]
    result = run("export", folder / "network.onnx", "-o", path, *words, "--no-check", "--json")
    assert result.status == 0, result.err
    contract = read_model_file(path).contract
    assert (contract.method, contract.input) == ("gradcam++-softmax", "frame")
    assert (contract.frame.height, contract.frame.width, contract.frame.format) == (40, 30, "rgb")
    assert {"heatmap", "softmax_weights", "softmax_poles"} <= set(contract.levels["map"].outputs)
    assert json.loads(result.out)["contract"]["frame"] == {"height": 40, "width": 30, "format": "rgb"}
    assert "uint8 rgb frames of 40 x 30" in run("inspect", path).out


def test_inspecting_an_explained_model_shows_its_contract(folder: Path, run: Run) -> None:
    result = run("inspect", folder / "guided.onnx")
    assert result.status == 0
    for words in ("network", "preprocessing", "levels", "guided", "cat, dog, red panda", "logits"):
        assert words in result.out
    document = json.loads(run("inspect", folder / "guided.onnx", "--json").out)
    assert document["contract"]["scores"]["classes"] == 6


def test_an_explained_model_may_have_any_name(folder: Path, tmp_path: Path, run: Run) -> None:
    renamed = shutil.copy(folder / "map.onnx", tmp_path / "network.bin")
    assert json.loads(run("inspect", renamed, "--json").out)["contract"]["scores"]["classes"] == 6
    assert run("explain", renamed, folder / "wide.jpg").status == 0


def test_inspecting_another_network_lists_layers_with_the_default_marked(folder: Path, run: Run) -> None:
    layers = json.loads(run("inspect", folder / "network.onnx", "--json").out)["layers"]
    assert [layer["tensor"] for layer in layers if layer["default"]] == ["features"]
    rows = run("inspect", folder / "network.onnx").out.splitlines()
    assert [row for row in rows if row.startswith("*") and "features" in row]


def test_a_layer_that_inspect_lists_can_be_exported(folder: Path, tmp_path: Path, run: Run) -> None:
    layers = json.loads(run("inspect", folder / "network.onnx", "--json").out)["layers"]
    other = next(layer for layer in layers if not layer["default"])
    path = tmp_path / "model.onnx"
    assert run("export", folder / "network.onnx", "--layer", other["name"], "-o", path).status == 0
    assert read_model_file(path).contract.layer.tensor == other["tensor"]


def test_coverage_says_whether_both_levels_can_be_exported(folder: Path, run: Run) -> None:
    result = run("inspect", folder / "network.onnx", "--coverage")
    assert result.status == 0
    assert "map level at layer features: can be exported" in result.out
    assert "guided level at layer features: can be exported" in result.out
    found = json.loads(run("inspect", folder / "network.onnx", "--coverage", "--json").out)["coverage"]
    assert (found["map"], found["guided"]) == ("", "")
    assert {entry["state"] for entry in found["operators"]} == {"rule"}


def test_doctor_says_what_is_there(run: Run) -> None:
    result = run("doctor")
    assert result.status == 0
    for words in ("machine", "kernels", "runtime", "cache", "extras", "numpy"):
        assert words in result.out
    found = json.loads(run("doctor", "--json").out)
    assert "numpy" in found["kernels"]["available"] and found["kernels"]["used"]
    extras = ["cli", "onnxruntime", "export", "cuda", "web", "plot", "demo"]
    assert [extra["name"] for extra in found["extras"]] == extras
    assert list(found["backends"]) == ["tensorrt", "cuda", "cuda-tensorrt", "cpu"] and found["backends"]["cpu"] == ""
    assert found["extras"][0]["install"] == ""
    assert found["video"]["opencv"] and set(found["video"]["captures_by"]) <= {"FFMPEG", "GSTREAMER", "V4L2"}


def test_doctor_says_that_a_file_is_no_cache(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(folder / "text.jpg"))
    assert json.loads(run("doctor", "--json").out)["cache"]["writable"] is False


def test_doctor_names_a_forced_instruction_set_that_is_not_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPP_ISA", "abacus")
    result = run("doctor")
    assert result.status == 2 and "abacus" in result.out


def test_doctor_gives_the_install_line_of_what_is_missing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from gcpp_edge.cli import doctor

    there = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda package: "" if package == "torch" else there(package))
    result = run("doctor")
    assert result.status == 0 and "pip install 'gcpp-edge[export]'" in result.out


SIZES = {"224": (224, 224), "224x320": (224, 320), "32X64": (32, 64)}


@pytest.mark.parametrize("text, size", SIZES.items())
def test_an_input_size_is_one_side_or_two(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "0", "-3", "1x2x3", "a", "12.5", "224x"])
def test_any_other_input_size_is_refused(text: str) -> None:
    with pytest.raises(SourceError, match="--input-size"):
        parse_size(text)


def test_numbers_stand_between_commas() -> None:
    assert parse_numbers("--mean", "0.5, 1,2e-1") == (0.5, 1.0, 0.2)


def test_half_precision_is_exported_and_compared_with_float32(run, folder, tmp_path):
    given = [folder / "network.onnx", "--guided", "--precision", "fp16", "-o", tmp_path / "half.onnx"]
    pictures = ["--fidelity", folder / "wide.jpg", "--fidelity", folder / "tall.png"]
    printed = run("export", *given, *pictures)
    assert printed.status == 0, printed.err
    assert "half precision beside float32" in printed.out and "same in 2 of 2" in printed.out
    document = json.loads(run("export", *given, *pictures, "--json").out)
    assert [one["picture"] for one in document["fidelity"]] == ["wide.jpg", "tall.png"]
    assert all(one["correlation"] > 0.999 for one in document["fidelity"])
    assert document["contract"]["layer"]["gradient_scale"] > 1
    assert document["contract"]["check"]["half"]["precision"] == "fp16"
    explained = run("explain", tmp_path / "half.onnx", folder / "wide.jpg", "-o", tmp_path / "out")
    assert explained.status == 0, explained.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "fp8"], 'Unknown precision "fp8"; expected one of fp16, bf16'),
        (["--fidelity", "wide.jpg"], "--fidelity goes with --precision"),
        (["--precision", "fp16", "--fidelity", "missing.jpg"], "missing.jpg"),
    ],
)
def test_half_precision_options_that_do_not_fit_are_refused(run, folder, tmp_path, options, words):
    result = run("export", folder / "network.onnx", "-o", tmp_path / "half.onnx", *options)
    assert result.status == 2
    assert words in result.err and len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "half.onnx").exists()
