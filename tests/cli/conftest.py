"""A small network to export and real pictures to explain, and a way to run a command and see all it leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gcpp_edge.cli import main
from gcpp_edge.contract import CONTRACT_VERSION, METADATA_KEY

INSTALL = "pip install 'gcpp-edge[cli,onnxruntime]'"
cv2 = pytest.importorskip("cv2", reason=f"the command line reads pictures with OpenCV: {INSTALL}")
onnx = pytest.importorskip("onnx", reason=f"the tests' network is made with onnx: {INSTALL}")
for package in ("typer", "rich", "onnxruntime"):
    pytest.importorskip(package, reason=f"the command line needs {package}: {INSTALL}")

CLASSES = 6
SIZE = 32


class Result(NamedTuple):
    """What a command leaves behind."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Runs `gcpp-edge` with these arguments in this process."""

    def run_command(*arguments: object) -> Result:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        return Result(status, *capfd.readouterr())

    return run_command


def save_network(path: Path, *, last: str = "GlobalAveragePool", middle: str = "Relu") -> Path:
    """image -> Conv -> `middle` -> `last` -> Flatten -> Gemm -> scores, with weights that are the same every time."""
    random = np.random.default_rng(3)
    node = onnx.helper.make_node
    weights = {
        "filters": random.normal(size=(8, 3, 3, 3)),
        "bias": random.normal(size=8),
        "classifier": random.normal(size=(CLASSES, 8)),
        "offsets": random.normal(size=CLASSES),
    }
    graph = onnx.helper.make_graph(
        [
            node("Conv", ["image", "filters", "bias"], ["before"], pads=[1, 1, 1, 1], strides=[2, 2], name="conv"),
            node(middle, ["before"], ["features"], name="middle"),
            node(last, ["features"], ["pooled"], name="pool"),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "classifier", "offsets"], ["scores"], transB=1, name="head"),
        ],
        "small",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [onnx.numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def save_network_without_space(path: Path) -> Path:
    """vector -> Gemm -> scores."""
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Gemm", ["vector", "weights"], ["scores"])],
        "flat",
        [onnx.helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, ["N", 8])],
        [onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["N", CLASSES])],
        [onnx.numpy_helper.from_array(np.ones((8, CLASSES), np.float32), "weights")],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks, models and pictures that tests only read."""
    folder = tmp_path_factory.mktemp("given")
    save_network(folder / "network.onnx")
    (folder / "labels.txt").write_text("cat\ndog\nred panda\ngiant panda\ncup\nsaucer\n", encoding="utf-8")
    given = [str(folder / "network.onnx"), "--labels", str(folder / "labels.txt")]
    assert main(["export", *given, "-o", str(folder / "map.onnx")]) == 0
    assert main(["export", *given, "--guided", "-o", str(folder / "guided.onnx")]) == 0
    save_pictures(folder)
    save_bad_models(folder)
    return folder


def save_pictures(folder: Path) -> None:
    """wide.jpg, tall.png, gray.png, and pictures that are none."""
    rows, columns = np.mgrid[0:48, 0:80]
    wide = np.stack([rows * 5, columns * 3, (rows * columns) % 256], axis=2).astype(np.uint8)
    cv2.imwrite(str(folder / "wide.jpg"), wide)
    cv2.imwrite(str(folder / "tall.png"), wide.transpose(1, 0, 2).copy())
    cv2.imwrite(str(folder / "gray.png"), wide[:, :, 0])
    for name in ("wide.jpg", "tall.png"):
        whole = (folder / name).read_bytes()
        (folder / f"truncated-{name}").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "text.jpg").write_text("this is no picture\n", encoding="utf-8")
    (folder / "empty.png").write_bytes(b"")
    (folder / "hollow").mkdir()


def save_bad_models(folder: Path) -> None:
    """Files that one command or the other must refuse."""
    whole = (folder / "map.onnx").read_bytes()
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.onnx").write_bytes(bytes(range(256)) * 8)
    (folder / "prose.onnx").write_text("an ONNX file, honestly\n", encoding="utf-8")
    save_network_without_space(folder / "flat.onnx")
    save_network(folder / "odd.onnx", last="Det")  # nobody differentiates Det here
    save_with_metadata(folder / "map.onnx", folder / "damaged.onnx", "{")
    save_with_metadata(folder / "map.onnx", folder / "newer.onnx", json.dumps({"version": CONTRACT_VERSION + 1}))


def save_with_metadata(source: Path, path: Path, document: str) -> None:
    model = onnx.load(source)
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            entry.value = document
    onnx.save(model, path)
