"""Weights beside a source's .onnx file: mapped from inside its folder, and nothing else is touched."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from small_models import classifier

from gcpp_edge.errors import SourceError
from gcpp_edge.export import explain_onnx, weights
from gcpp_edge.export.sources import load_source
from gcpp_edge.export.weights import array_of, filled


def beside(folder: Path, **options) -> Path:
    path = folder / "net.onnx"
    onnx.save(classifier(**options), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("large_bytes", [0, 1000, 2**16])
def test_weights_beside_the_file_are_those_of_the_whole(tmp_path: Path, monkeypatch, large_bytes: int) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", large_bytes)
    loaded = load_source(str(beside(tmp_path)))
    model = filled(loaded.forward.model)
    for found, expected in zip(model.graph.initializer, classifier().graph.initializer, strict=True):
        assert found.name == expected.name
        assert np.array_equal(array_of(found), array_of(expected))


def test_large_weights_are_mapped_and_not_read(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    loaded = load_source(str(beside(tmp_path)))
    tensor = next(tensor for tensor in loaded.forward.model.graph.initializer if tensor.name == "body.weight")
    base = array_of(tensor)
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    assert loaded.forward.weights.files == {tmp_path / "net.bin"}


def test_weights_of_constant_nodes_are_read_too(tmp_path: Path) -> None:
    model = classifier()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
    expected = array_of(tensor).copy()
    node = onnx.helper.make_node("Constant", [], ["head.weight"], value=tensor)
    model.graph.initializer.remove(tensor)
    model.graph.node.insert(0, node)
    constant = model.graph.node[0].attribute[0].t
    (tmp_path / "one.bin").write_bytes(constant.raw_data)
    constant.ClearField("raw_data")
    constant.data_location = onnx.TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="one.bin")
    onnx.save_model(model, tmp_path / "net.onnx")
    loaded = load_source(str(tmp_path / "net.onnx"))
    model = filled(loaded.forward.model)
    held = [entry.t for node in model.graph.node if node.op_type == "Constant" for entry in node.attribute]
    held += [tensor for tensor in model.graph.initializer if tensor.name == "head.weight"]
    assert len(held) == 1
    assert np.array_equal(array_of(held[0]), expected)


def changed(**entries: str) -> Callable[[Path], None]:
    """Writes other external-data entries for one tensor."""

    def change(path: Path) -> None:
        model = onnx.load(path, load_external_data=False)
        tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "head.weight")
        kept = {entry.key: entry.value for entry in tensor.external_data} | entries
        del tensor.external_data[:]
        for key, value in kept.items():
            tensor.external_data.add(key=key, value=value.format(folder=path.parent))
        path.write_bytes(model.SerializeToString())

    return change


def link_outside(path: Path) -> None:
    outside = path.parent.parent / "outside.bin"
    os.replace(path.parent / "net.bin", outside)
    (path.parent / "net.bin").symlink_to(outside)


def link_the_folder_outside(path: Path) -> None:
    (path.parent.parent / "other").mkdir()
    os.replace(path.parent / "net.bin", path.parent.parent / "other" / "net.bin")
    (path.parent / "weights").symlink_to(path.parent.parent / "other")
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        tensor.external_data[0].value = "weights/net.bin"
    path.write_bytes(model.SerializeToString())


def cut_short(path: Path) -> None:
    data = path.parent / "net.bin"
    data.write_bytes(data.read_bytes()[:2000])


def a_pipe(path: Path) -> None:
    (path.parent / "net.bin").unlink()
    os.mkfifo(path.parent / "net.bin")


REFUSED = {
    "a path above": (changed(location="../secret.bin"), ["../secret.bin", "outside the model's folder"]),
    "an absolute path": (changed(location="/etc/passwd"), ["/etc/passwd", "outside the model's folder"]),
    "a path that comes back": (changed(location="a/../../x"), ["outside the model's folder"]),
    "a link to a file outside": (link_outside, ["net.bin", "outside the model's folder"]),
    "a link to a folder outside": (link_the_folder_outside, ["weights/net.bin", "outside the model's folder"]),
    "a missing file": (lambda path: (path.parent / "net.bin").unlink(), ["net.bin", "missing", "Copy the weights"]),
    "another missing file": (changed(location="none.bin"), ["none.bin", "missing"]),
    "no location": (changed(location=""), ["missing"]),
    "a folder": (changed(location="."), ["missing"]),
    "a pipe": (a_pipe, ["net.bin", "missing"]),
    "a file cut short": (cut_short, ["net.bin", "2000", "Copy both files again"]),
    "a wrong length": (changed(length="12"), ["head.weight", "288 bytes", "12", "Copy both files again"]),
    "an offset behind the end": (changed(offset="999999"), ["head.weight", "999999", "Copy both files again"]),
    "an offset below zero": (changed(offset="-4"), ["offset", "-4", "expected a number"]),
    "an offset in words": (changed(offset="first"), ["offset", "first", "expected a number"]),
    "a placeholder of ours": (changed(location="gcpp-edge-memory/0/0"), ["gcpp-edge-memory", "missing"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_external_data_that_cannot_be_read_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = beside(folder)
    harm, words = REFUSED[name]
    harm(path)
    with pytest.raises(SourceError) as caught:
        load_source(str(path))
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    assert all(word in message for word in words), message


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    path = beside(tmp_path)
    (tmp_path / "net.bin").rename(tmp_path / "real.bin")
    (tmp_path / "net.bin").symlink_to("real.bin")
    assert load_source(str(path)).forward.weights.files == {tmp_path / "real.bin"}


def test_a_model_in_memory_whose_weights_are_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="Give the path"):
        explain_onnx(onnx.load(beside(tmp_path), load_external_data=False))
