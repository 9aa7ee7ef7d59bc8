"""`gcpp-edge explain` on files that explain something else than one class of a picture."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import gcpp_edge
from gcpp_edge.cli import main

Run = Callable[..., Any]
SIZE = 32


def save_dense_network(path: Path, kind: str) -> Path:
    """A segmenter [N,4,h,w], a detector [N,4+3,A], or a classifier of clips of four pictures [N,5]."""
    random = np.random.default_rng(3)
    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    outputs = {"segmenter": 4, "detector": 7, "clip": 5}[kind]
    kernel = (3, 3, 3) if kind == "clip" else (3, 3)
    weights = {
        "filters": random.normal(size=(8, 3, *kernel)) / 5,
        "classifier": random.normal(size=(outputs, 8, *kernel)) / 5,
    }
    tensors = [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    tensors.append(onnx.numpy_helper.from_array(np.array([0, 7, -1] if kind == "detector" else [0, -1]), "flat"))
    pads = [1] * (2 * len(kernel))
    nodes = [
        node("Conv", ["image", "filters"], ["before"], pads=pads, strides=[2] * len(kernel)),
        node("Relu", ["before"], ["features"]),
        node("Conv", ["features", "classifier"], ["dense"], pads=pads),
    ]
    side = SIZE // 2
    if kind == "detector":
        nodes.append(node("Reshape", ["dense", "flat"], ["scores"]))
        shape = ["N", 7, side * side]
    elif kind == "clip":
        nodes += [node("GlobalAveragePool", ["dense"], ["mean"]), node("Reshape", ["mean", "flat"], ["scores"])]
        shape = ["N", 5]
    else:
        nodes.append(node("Identity", ["dense"], ["scores"]))
        shape = ["N", 4, side, side]
    image = ["N", 3, *([4] if kind == "clip" else []), SIZE, SIZE]
    graph = onnx.helper.make_graph(
        nodes,
        kind,
        [info("image", onnx.TensorProto.FLOAT, image)],
        [info("scores", onnx.TensorProto.FLOAT, shape)],
        tensors,
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def kinds(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One explained model of each kind, named by it."""
    given, folder = folder, tmp_path_factory.mktemp("kinds")
    for kind in ("segmenter", "detector", "clip"):
        save_dense_network(folder / f"{kind}-network.onnx", kind)
    exports = {
        "classes": [given / "network.onnx", "--top-k", "3", "--guided"],
        "seed": [given / "network.onnx", "--target", "seed"],
        "region": ["segmenter-network.onnx", "--target", "region"],
        "detection": ["detector-network.onnx", "--target", "detection", "--first-class", "4"],
        "clip": ["clip-network.onnx"],
    }
    for name, (source, *options) in exports.items():
        assert main(["export", str(folder / source), *options, "-o", str(folder / f"{name}.onnx")]) == 0
    return folder


def record_of(result: Any) -> dict[str, Any]:
    assert result.status == 0, result.err
    (record,) = json.loads(result.out)["pictures"]
    return record


def test_a_file_of_several_classes_explains_each(kinds: Path, folder: Path, tmp_path: Path, run: Run) -> None:
    outputs = ("overlay", "panel", "guided")
    command = ("explain", kinds / "classes.onnx", folder / "wide.jpg", "-o", tmp_path, "--outputs", ",".join(outputs))
    record = record_of(run(*command, "--json"))
    frame = cv2.imread(str(folder / "wide.jpg"))
    with gcpp_edge.load(kinds / "classes.onnx") as explainer:
        expected = explainer.classes(frame)
    assert [one["class_index"] for one in record["classes"]] == [one.class_index for one in expected]
    for one, explanation in zip(record["classes"], expected, strict=True):
        assert one["evidence"] == pytest.approx(explanation.evidence, rel=1e-5)
        assert set(one["files"]) == set(outputs)
        assert Path(one["files"]["overlay"]).name == f"wide.{explanation.class_index}.overlay.png"
        assert np.array_equal(cv2.imread(one["files"]["overlay"]), explanation.overlay())
    assert record["class_index"] == expected[0].class_index
    table = run(*command).out.strip().splitlines()
    assert len(table) == 1 + 3


def test_one_class_of_several_is_explained_alone(kinds: Path, folder: Path, run: Run) -> None:
    record = record_of(run("explain", kinds / "classes.onnx", folder / "wide.jpg", "--json", "--target", "4"))
    assert record["class_index"] == 4
    assert "classes" not in record


def test_a_region_is_a_mask_s_for_all_or_each_picture_s_own(
    kinds: Path, folder: Path, tmp_path: Path, run: Run
) -> None:
    mask = np.zeros((48, 80, 3), np.uint8)
    mask[10:30, 40:] = 255
    cv2.imwrite(str(tmp_path / "wide.png"), mask)
    command = ("explain", kinds / "region.onnx", folder / "wide.jpg", "--target", "2", "--json", "--region")
    records = [record_of(run(*command, where)) for where in (tmp_path / "wide.png", tmp_path)]
    with gcpp_edge.load(kinds / "region.onnx") as explainer:
        expected = explainer(cv2.imread(str(folder / "wide.jpg")), 2, region=mask.any(axis=2))
    for record in records:
        assert record["evidence"] == pytest.approx(expected.evidence, rel=1e-5)
        assert record["score"] == pytest.approx(expected.score, rel=1e-5)


def test_a_panel_of_a_region_or_a_detection_shows_grad_cam_beside_it(
    kinds: Path, folder: Path, tmp_path: Path, run: Run
) -> None:
    for kind in ("region", "detection"):
        command = ("explain", kinds / f"{kind}.onnx", folder / "wide.jpg", "-o", tmp_path / kind, "--outputs", "panel")
        assert Path(record_of(run(*command, "--json"))["files"]["panel"]).exists()


@pytest.mark.parametrize(("word", "mask"), [("no mask for wide.jpg", None), ("of the frame's size", (9, 9))])
def test_a_picture_without_a_fitting_mask_is_named_and_left_out(
    kinds: Path, folder: Path, tmp_path: Path, run: Run, word: str, mask: Any
) -> None:
    if mask:
        cv2.imwrite(str(tmp_path / "wide.png"), np.full(mask, 255, np.uint8))
    cv2.imwrite(str(tmp_path / "tall.png"), np.full((80, 48), 255, np.uint8))
    pictures = folder / "wide.jpg", folder / "tall.png"
    result = run("explain", kinds / "region.onnx", *pictures, "--region", tmp_path, "--json")
    answer = json.loads(result.out)
    assert result.status == 2
    assert [Path(record["picture"]).name for record in answer["pictures"]] == ["tall.png"]
    (refused,) = answer["failed"]
    assert word in refused["error"]


def test_a_detection_is_chosen_by_index_or_rank(kinds: Path, folder: Path, run: Run) -> None:
    command = ("explain", kinds / "detection.onnx", folder / "wide.jpg", "--json")
    assert record_of(run(*command, "--detection", "9"))["detection"] == 9
    best = record_of(run(*command))
    again = record_of(run(*command, "--detection", best["detection"], "--target", best["class_index"]))
    assert again["evidence"] == pytest.approx(best["evidence"], rel=1e-5)


def test_a_folder_of_pictures_is_a_clip(kinds: Path, tmp_path: Path, run: Run) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), np.uint8)
    (tmp_path / "walk").mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "walk" / f"{index}.png"), frame)
    record = record_of(run("explain", kinds / "clip.onnx", tmp_path / "walk", "-o", tmp_path / "out", "--json"))
    with gcpp_edge.load(kinds / "clip.onnx") as explainer:
        expected = explainer(frames[[0, 2, 4, 6]])
    assert record["evidence"] == pytest.approx(expected.evidence, rel=1e-5)
    assert np.array_equal(cv2.imread(record["files"]["overlay"]), np.concatenate(list(expected.overlay()), axis=1))
    assert len(record["boxes"]) == 4


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("seed", [], "explainer(frame, seed=array)"),
        ("classes", ["--detection", "1"], "detection: not taken by this model"),
        ("region", ["--detection", "1"], "explains a class over a region"),
        ("detection", ["--detection", "9999"], "detections 0 to 255"),
        ("clip", [], "Name a folder with the pictures"),
        ("clip", ["-o", "out", "--outputs", "panel"], "there is no panel"),
    ],
)
def test_what_a_file_does_not_take_is_refused_in_one_line(
    kinds: Path, folder: Path, run: Run, kind: str, arguments: list[str], words: str
) -> None:
    result = run("explain", kinds / f"{kind}.onnx", folder / "wide.jpg", *arguments)
    assert result.status == 2
    assert words in " ".join(result.err.split())
    assert "Traceback" not in result.err


def test_a_clip_with_too_few_pictures_is_refused(kinds: Path, folder: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "1.jpg").write_bytes((folder / "wide.jpg").read_bytes())
    result = run("explain", kinds / "clip.onnx", tmp_path / "short")
    assert result.status == 2
    assert "holds 1 pictures, and this model needs 4" in " ".join(result.err.split())


@pytest.mark.parametrize("kind", ["classes", "seed", "region", "detection", "clip"])
def test_a_file_of_every_kind_is_measured(kinds: Path, run: Run, kind: str) -> None:
    short = ("--duration", "0", "--iterations", "2", "--warmup-ms", "0", "--threads", "1", "--runtime", "cpu")
    result = run("bench", kinds / f"{kind}.onnx", *short, "--frame", "80x48", "--batch", "2", "--json", "-")
    assert result.status == 0, result.err
    (measured,) = json.loads(result.out)["runs"]
    assert measured["frame"] == [80, 48] and measured["levels"]["map"]["stages"]["overlay"]["min"] > 0
