"""Bad input to a command: one clear line on standard error, exit status 2, no traceback, no half-written file."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from gcpp_edge.cli import main

Run = Callable[..., Any]


class Case(NamedTuple):
    """A command whose words may name {given} files and an {out} folder, and what its one line must say."""

    name: str
    command: str
    says: tuple[str, ...]


EXPLAIN = "explain {given}/map.onnx {given}/wide.jpg -o {out}"
EXPORT = "export {given}/network.onnx -o {out}/x.onnx"

CASES = (
    Case("a missing picture", "explain {given}/map.onnx {given}/nope.jpg -o {out}", ("nope.jpg", "No such file")),
    Case("a truncated JPEG", "explain {given}/map.onnx {given}/truncated-wide.jpg -o {out}", ("truncated-wide.jpg",)),
    Case("a truncated PNG", "explain {given}/map.onnx {given}/truncated-tall.png -o {out}", ("truncated-tall.png",)),
    Case("a text file called .jpg", "explain {given}/map.onnx {given}/text.jpg -o {out}", ("text.jpg", "holds text")),
    Case("an empty picture", "explain {given}/map.onnx {given}/empty.png -o {out}", ("empty.png", "empty")),
    Case("a folder without pictures", "explain {given}/map.onnx {given}/hollow -o {out}", ("hollow", ".png")),
    Case("a pattern that fits nothing", "explain {given}/map.onnx {given}/*.tiff -o {out}", ("*.tiff", "no file")),
    Case("a missing model", "explain {given}/nope.onnx {given}/wide.jpg -o {out}", ("nope.onnx", "No such file")),
    Case("a model that is text", "explain {given}/prose.onnx {given}/wide.jpg", ("prose.onnx", "not an ONNX file")),
    Case("a truncated model", "explain {given}/truncated.onnx {given}/wide.jpg -o {out}", ("truncated.onnx",)),
    Case("a model of noise", "explain {given}/noise.onnx {given}/wide.jpg -o {out}", ("noise.onnx",)),
    Case("an unexplained model", "explain {given}/network.onnx {given}/wide.jpg", ("network.onnx", "gcpp-edge export")),
    Case("a newer contract", "explain {given}/newer.onnx {given}/wide.jpg", ("newer.onnx", "contract", "Upgrade")),
    Case("damaged metadata", "explain {given}/damaged.onnx {given}/wide.jpg", ("damaged.onnx", "metadata is damaged")),
    Case("an unknown method", EXPLAIN + " --method gradcam--", ("'gradcam--'", "gradcam++-signed")),
    Case("softmax of a file without its weights", EXPLAIN + " --method gradcam++-softmax", ("--softmax",)),
    Case("a default method that is none", EXPORT + " --method gradcam--", ('"gradcam--"', "gradcam++-softmax")),
    Case("a frame of no size", EXPORT + " --frame-input wide", ("--frame-input", "wide")),
    Case("a frame of another kind", EXPORT + " --frame-input 40x30:nv12", ("--frame-input", "nv12", "bgra")),
    Case("portable softmax without softmax", EXPORT + " --portable --method gradcam++-softmax", ("--softmax",)),
    Case("an unknown mode", EXPLAIN + " --mode peers", ("'peers'", "authors")),
    Case("an unknown output", EXPLAIN + " --outputs overlay,film", ("'film'", "panel")),
    Case("an empty list of outputs", EXPLAIN + " --outputs ,", ("--outputs", "panel")),
    Case("outputs without a folder", "explain {given}/map.onnx {given}/wide.jpg --outputs panel", ("-o",)),
    Case("more threads than a machine has", EXPLAIN + " --threads 1000000", ("threads", "1024")),
    Case("an unknown colormap", EXPLAIN + " --colormap mud", ("mud", "jet")),
    Case("an unknown device", EXPLAIN + " --device toaster", ("toaster", "cpu")),
    Case("an unknown class name", EXPLAIN + " --target walrus", ("'walrus'",)),
    Case("a class name that fits two", EXPLAIN + " --target panda", ("red panda", "giant panda")),
    Case("a class out of range", EXPLAIN + " --target 6", ("6", "0 to 5")),
    Case("a rank too deep", EXPLAIN + " --target -6", ("-6", "--ranks")),
    Case("a guided image of a map file", EXPLAIN + " --outputs guided", ("map.onnx", "--guided")),
    Case("an alpha above 1", EXPLAIN + " --alpha 2", ("alpha", "explain --help")),
    Case("an output folder that is a file", EXPLAIN.replace("{out}", "{given}/text.jpg"), ("text.jpg", "a file", "-o")),
    Case("an output folder below a file", EXPLAIN.replace("{out}", "{given}/text.jpg/sub"), ("Not a directory",)),
    Case("an output folder that cannot be", EXPLAIN.replace("{out}", "/proc/new"), ("/proc/new", "-o")),
    Case("a missing source", "export {given}/nope.onnx -o {out}/x.onnx", ("nope.onnx",)),
    Case("a source of no known kind", "export resnet50 -o {out}/x.onnx", ("resnet50", "torchvision:")),
    Case("a source of noise", "export {given}/noise.onnx -o {out}/x.onnx", ("noise.onnx",)),
    Case("a source with text in it", "export {given}/prose.onnx -o {out}/x.onnx", ("prose.onnx",)),
    Case("a network without space", "export {given}/flat.onnx -o {out}/x.onnx", ()),
    Case("an unknown layer", EXPORT + " --layer backbone", ("backbone",)),
    Case("an operator without a rule", "export {given}/odd.onnx -o {out}/x.onnx", ("Det", "layer")),
    Case("an input size beyond all memory", EXPORT + " --input-size 99999999", ("memory",)),
    Case("an input size in other digits", EXPORT + " --input-size ²", ("--input-size",)),
    Case("an input size in words", EXPORT + " --input-size big", ("--input-size", "'big'")),
    Case("a mean in words", EXPORT + " --mean a,b,c", ("--mean", "'a,b,c'")),
    Case("a mean of two channels", EXPORT + " --mean 0.5,0.5", ("mean",)),
    Case("an unknown geometry", EXPORT + " --geometry fold", ("fold", "letterbox")),
    Case("an unknown colour order", EXPORT + " --color cmyk", ("cmyk", "rgb")),
    Case("an unknown pixel rule", EXPORT + " --guided --pixel-rule magic", ("magic", "deconvnet")),
    Case("a missing file of labels", EXPORT + " --labels {given}/nope.txt", ("nope.txt",)),
    Case("labels of another network", EXPORT + " --labels imagenet", ("1000", "6")),
    Case("weights for an ONNX file", EXPORT + " --weights {given}/text.jpg", ("weights",)),
    Case("a missing source to inspect", "inspect {given}/nope.onnx", ("nope.onnx",)),
    Case("a picture to inspect", "inspect {given}/wide.jpg", ("wide.jpg", "not an ONNX file")),
    Case("noise to inspect", "inspect {given}/noise.onnx", ("noise.onnx",)),
    Case("a newer contract to inspect", "inspect {given}/newer.onnx", ("newer.onnx", "Upgrade")),
    Case("an unknown command", "explian", ("explian",)),
    Case("an unknown option", "explain --fast", ("--fast", "explain --help")),
    Case("a missing argument", "explain {given}/map.onnx", ("argument", "explain --help")),
    Case("an option without its value", "export {given}/network.onnx", ("--output",)),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_gives_one_clear_line_and_status_2(case: Case, folder: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "out").mkdir()
    before = files_below(folder)
    result = run(*(word.format(given=folder, out=tmp_path / "out") for word in case.command.split()))
    assert result.status == 2, result
    assert result.out == ""
    assert result.err.startswith("gcpp-edge: ") and result.err.count("\n") == 1, result.err
    assert "Traceback" not in result.err
    for words in case.says:
        assert words in result.err
    assert files_below(tmp_path / "out") == {}, "a refused command left a file behind"
    assert files_below(folder) == before, "a refused command touched what it was given"


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_bad_picture_does_not_stop_the_others(folder: Path, tmp_path: Path, run: Run) -> None:
    pictures = [folder / name for name in ("wide.jpg", "text.jpg", "tall.png")]
    result = run("explain", folder / "map.onnx", *pictures, "-o", tmp_path, "--json")
    assert result.status == 2
    assert result.err.count("\n") == 1 and "text.jpg" in result.err
    document = json.loads(result.out)
    assert [Path(record["picture"]).name for record in document["pictures"]] == ["wide.jpg", "tall.png"]
    assert [Path(record["picture"]).name for record in document["failed"]] == ["text.jpg"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["tall.overlay.png", "wide.overlay.png"]


def test_a_failed_export_leaves_the_older_file_as_it_was(folder: Path, tmp_path: Path, run: Run) -> None:
    target = tmp_path / "model.onnx"
    shutil.copy(folder / "map.onnx", target)
    assert run("export", folder / "network.onnx", "-o", target, "--layer", "nowhere").status == 2
    assert target.read_bytes() == (folder / "map.onnx").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["model.onnx"]


def test_the_traceback_is_shown_when_asked_for(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCPP_EDGE_DEBUG", "1")
    result = run("explain", folder / "network.onnx", folder / "wide.jpg")
    assert result.status == 2 and "Traceback" in result.err and "NotExplainedError" in result.err


def test_an_interrupted_command_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def interrupted(words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("gcpp_edge.cli._run", interrupted)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "gcpp-edge: interrupted\n"


MISSING = (("typer", "cli"), ("rich", "cli"), ("cv2", "cli"), ("onnxruntime", "onnxruntime"))


@pytest.mark.parametrize("module, extra", MISSING)
def test_a_missing_package_is_named_with_its_install_line(module: str, extra: str, folder: Path) -> None:
    program = f"import sys; sys.modules[{module!r}] = None; from gcpp_edge.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "explain", str(folder / "map.onnx"), str(folder / "wide.jpg")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1, done.stderr
    assert module in done.stderr.lower() or module == "cv2"
    assert f"pip install 'gcpp-edge[{extra}]'" in done.stderr
