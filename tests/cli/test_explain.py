"""`gcpp-edge explain`: what it says and what it draws."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

import gcpp_edge

Run = Callable[..., Any]
EVERYTHING = ("overlay", "heatmap", "guided", "boxes", "panel")


def record_of(result: Any) -> dict[str, Any]:
    assert result.status == 0, result.err
    (record,) = json.loads(result.out)["pictures"]
    return record


def test_every_output_is_drawn_at_its_size(folder: Path, tmp_path: Path, run: Run) -> None:
    outputs = ",".join(EVERYTHING)
    result = run("explain", folder / "guided.onnx", folder / "wide.jpg", "-o", tmp_path, "--outputs", outputs, "--json")
    written = {name: cv2.imread(path, cv2.IMREAD_UNCHANGED) for name, path in record_of(result)["files"].items()}
    assert tuple(written) == EVERYTHING
    assert written["overlay"].shape == written["boxes"].shape == (48, 80, 3)
    assert written["heatmap"].shape == (48, 80)
    assert written["guided"].shape == (32, 32, 3)
    assert written["panel"].shape[0] < written["panel"].shape[1]


def test_the_record_is_what_the_api_says(folder: Path, run: Run) -> None:
    record = record_of(run("explain", folder / "map.onnx", folder / "wide.jpg", "--json", "--target", "-2"))
    with gcpp_edge.load(folder / "map.onnx") as explainer:
        explanation = explainer(cv2.imread(str(folder / "wide.jpg")), -2)
    for name in ("class_index", "label", "score", "probability", "evidence", "peak", "method"):
        assert record[name] == getattr(explanation, name)
    assert set(record["ms"]) == {"preprocess", "network", "cam", "total"}
    assert record["boxes"] == [box._asdict() for box in explanation.boxes(0.25)]


def test_the_drawn_overlay_is_the_api_s(folder: Path, tmp_path: Path, run: Run) -> None:
    options = ("--colormap", "viridis", "--alpha", "0.7", "--method", "gradcam", "--target", "cup")
    assert run("explain", folder / "map.onnx", folder / "tall.png", "-o", tmp_path, *options).status == 0
    with gcpp_edge.load(folder / "map.onnx") as explainer:
        explanation = explainer(cv2.imread(str(folder / "tall.png")), "cup", method="gradcam")
    assert (cv2.imread(str(tmp_path / "tall.overlay.png")) == explanation.overlay("viridis", 0.7)).all()


class Target(NamedTuple):
    """A --target, and the class that it names."""

    word: str
    class_index: int


@pytest.mark.parametrize("target", [Target("4", 4), Target("CUP", 4), Target("sauc", 5)], ids=lambda t: t.word)
def test_a_class_is_chosen_by_index_or_name(target: Target, folder: Path, run: Run) -> None:
    record = record_of(run("explain", folder / "map.onnx", folder / "wide.jpg", "--json", "--target", target.word))
    assert record["class_index"] == target.class_index


def test_ranks_run_down_from_the_best_class(folder: Path, run: Run) -> None:
    records = [
        record_of(run("explain", folder / "map.onnx", folder / "wide.jpg", "--json", "--target", rank))
        for rank in ("-1", "-2", "-3")
    ]
    chances = [record["probability"] for record in records]
    assert chances == sorted(chances, reverse=True) and len({record["class_index"] for record in records}) == 3


def test_the_table_names_picture_class_and_figures(folder: Path, run: Run) -> None:
    result = run("explain", folder / "map.onnx", folder / "wide.jpg", folder / "gray.png")
    assert result.status == 0
    header, *rows = result.out.strip().splitlines()
    assert header.split() == ["picture", "class", "probability", "evidence", "ms"]
    assert [Path(row.split()[0]).name for row in rows] == ["wide.jpg", "gray.png"]
    assert "ONNX Runtime" in result.err


def test_without_an_output_folder_nothing_is_drawn(folder: Path, run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("explain", folder / "map.onnx", folder / "wide.jpg").status == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_a_folder_of_pictures_is_explained_whole(folder: Path, run: Run, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name in ("wide.jpg", "tall.png", "gray.png"):
        (pictures / name).write_bytes((folder / name).read_bytes())
    result = run("explain", folder / "map.onnx", pictures, "-o", tmp_path / "out", "--outputs", "heatmap")
    assert result.status == 0
    assert len(list((tmp_path / "out").glob("*.heatmap.png"))) == 3


@pytest.mark.parametrize("mode", ["paper", "pytorch-grad-cam", "authors"])
def test_every_mode_explains(mode: str, folder: Path, run: Run) -> None:
    record = record_of(run("explain", folder / "map.onnx", folder / "wide.jpg", "--json", "--mode", mode))
    assert record["mode"] == mode and np.isfinite(record["evidence"])


def test_a_map_file_gives_a_panel_without_the_guided_image(folder: Path, run: Run, tmp_path: Path) -> None:
    for model in ("map", "guided"):
        command = (
            "explain",
            folder / f"{model}.onnx",
            folder / "wide.jpg",
            "-o",
            tmp_path / model,
            "--outputs",
            "panel",
        )
        assert run(*command).status == 0
    without, with_guided = (cv2.imread(str(tmp_path / model / "wide.panel.png")) for model in ("map", "guided"))
    assert without.shape[0] == with_guided.shape[0] and without.shape[1] < with_guided.shape[1]
