"""Files of one piece and of two: what protobuf cannot hold goes beside the graph. The limit is lowered for it."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnxruntime", reason="the written files are run")

from small_models import classifier

import gcpp_edge
from gcpp_edge.contract import contract_from_metadata
from gcpp_edge.errors import ModelError, SourceError
from gcpp_edge.export import explain_onnx, export_file, inspect_coverage, list_layers, weights, write
from gcpp_edge.model_file import read_metadata, read_model_file

BIG = {"stem.weight", "body.weight", "head.weight"}  # those of more than 64 elements


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network goes the way of a large one."""
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    monkeypatch.setattr(write, "PROTOBUF_LIMIT", 6000)


def saved(folder: Path, name: str = "small.onnx", **options) -> str:
    onnx.save(classifier(**options), folder / name)
    return str(folder / name)


def explained(path: Path, guided: bool = True) -> list[np.ndarray]:
    """Scores, map and guided image of a frame, each at its level."""
    frame = np.random.default_rng(3).integers(0, 256, (20, 24, 3), np.uint8)
    with gcpp_edge.load(path) as explainer:
        at_map = explainer(frame)
        results = [explainer.scores(frame), at_map.map, at_map.heatmap()]
        return [*results, explainer(frame, guided=True).guided()] if guided else results


OPTIONS = [{}, {"ending": "Softmax"}, {"head": "convolution"}, {"opset": 11}, {"dtype": np.float16}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_two_files_explain_as_one_does(tmp_path: Path, small_limits, monkeypatch, options) -> None:
    """Export, check, write, load at every level, explain."""
    (tmp_path / "two").mkdir()
    source = saved(tmp_path, **options)
    two = export_file(source, tmp_path / "two" / "net.onnx", guided=True)
    monkeypatch.undo()
    one = export_file(source, tmp_path / "net.onnx", guided=True)
    assert [file.path.name for file in two.files] == ["net.onnx", "net.onnx.data"]
    assert [file.path.name for file in one.files] == ["net.onnx"]
    assert two.bytes == sum(file.path.stat().st_size for file in two.files) > one.bytes
    assert two.contract.check == one.contract.check
    for found, expected in zip(explained(two.path), explained(one.path), strict=True):
        assert np.array_equal(found, expected)


def test_a_torch_network_goes_into_two_files(tmp_path: Path, small_limits, monkeypatch) -> None:
    torch = pytest.importorskip("torch", reason="a PyTorch source needs PyTorch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, bias=False),
        torch.nn.BatchNorm2d(8),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(8 * 14 * 14, 16),
        torch.nn.GELU(),
        torch.nn.Linear(16, 5),
    )
    program = torch.export.export(network.eval(), (torch.randn(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "net.pt2")
    two = export_file(str(tmp_path / "net.pt2"), tmp_path / "two.onnx", guided=True)
    monkeypatch.undo()
    one = export_file(str(tmp_path / "net.pt2"), tmp_path / "one.onnx", guided=True)
    assert len(two.files) == 2
    assert two.contract.check == one.contract.check
    assert two.contract.check["oracle"] == "autograd"
    for found, expected in zip(explained(two.path), explained(one.path), strict=True):
        assert np.array_equal(found, expected)


def test_the_digest_of_a_source_does_not_depend_on_where_its_weights_lie(monkeypatch) -> None:
    light, store = weights.set_aside(classifier())
    assert not store.files and weights.weights_of(light) is None
    plain = weights.digest(light)
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    digests = []
    for change in (0, 0, 1):
        model = classifier(seed=change)
        light, store = weights.set_aside(model)
        digests.append(weights.digest(light))
        assert weights.digest(weights.filled(light)) == weights.digest(model)
    assert digests[0] == digests[1] != digests[2]
    assert plain == weights.digest(classifier())


def test_the_python_calls_return_models_that_stand_alone(small_limits) -> None:
    model = explain_onnx(classifier(), guided=True)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)


def test_layers_and_coverage_are_told_of_light_models(tmp_path: Path, small_limits) -> None:
    source = saved(tmp_path)
    assert [layer.tensor for layer in list_layers(source) if layer.constant] == ["body/features"]
    assert (inspect_coverage(source).map, inspect_coverage(source).guided) == ("", "")


def test_what_a_check_makes_is_dropped_again(small_limits) -> None:
    """Degenerate weights are drawn anew, and a model is baked from them, which nobody keeps."""
    source = classifier()
    for tensor in source.graph.initializer:
        if tensor.name == "head.weight":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(list(tensor.dims), 0.1, np.float32), tensor.name))
    light, store = weights.set_aside(source)
    before = dict(store._arrays)
    with weights.scratch(light):
        explained_model = gcpp_edge.export.bake.bake(light)
        assert len(store._arrays) > len(before)
    assert store._arrays.keys() == before.keys()
    del explained_model


def test_one_file_streamed_is_the_model_as_onnx_reads_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    report = export_file(saved(tmp_path), tmp_path / "net.onnx", check=False)
    streamed = onnx.load(report.path)
    onnx.checker.check_model(str(report.path), full_check=True)
    monkeypatch.undo()
    whole = explain_onnx(saved(tmp_path), check=False)
    arrays = [
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for model in (streamed, whole)
    ]
    assert arrays[0].keys() == arrays[1].keys() >= {"head.weight"}
    assert all(np.array_equal(array, arrays[1][name]) for name, array in arrays[0].items())
    assert [node.SerializeToString() for node in streamed.graph.node] == [
        node.SerializeToString() for node in whole.graph.node
    ]
    assert report.bytes == report.path.stat().st_size
    assert contract_from_metadata(read_metadata(report.path)) == report.contract


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 2**31, 2**35])
def test_lengths_are_base_128_numbers(size: int) -> None:
    digits = write._varint(size)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(digits)) == size
    assert [byte >> 7 for byte in digits] == [1] * (len(digits) - 1) + [0]


def test_a_file_as_large_as_protobuf_takes_stays_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    size = export_file(saved(tmp_path), tmp_path / "net.onnx", check=False).bytes
    for limit, count in ((size, 1), (size - 1, 2)):
        monkeypatch.setattr(write, "PROTOBUF_LIMIT", limit)
        assert len(export_file(saved(tmp_path), tmp_path / "net.onnx", check=False).files) == count


def test_two_files_may_be_asked_for(tmp_path: Path, monkeypatch) -> None:
    assert len(export_file(saved(tmp_path), tmp_path / "a.onnx", check=False, external_data=True).files) == 1
    monkeypatch.setattr(weights, "LARGE_BYTES", 0)
    report = export_file(saved(tmp_path), tmp_path / "b.onnx", check=False, external_data=True)
    assert [file.path.name for file in report.files] == ["b.onnx", "b.onnx.data"]


def test_weights_beside_are_aligned_and_named_without_a_folder(tmp_path: Path, small_limits) -> None:
    report = export_file(saved(tmp_path), tmp_path / "net.onnx", check=False)
    model = onnx.load(report.path, load_external_data=False)
    entries = [{e.key: e.value for e in t.external_data} for t in model.graph.initializer if t.external_data]
    assert len(entries) >= 2
    assert {entry["location"] for entry in entries} == {"net.onnx.data"}
    assert all(int(entry["offset"]) % 4096 == 0 for entry in entries)
    onnx.checker.check_model(str(report.path), full_check=True)


def test_a_pair_may_be_moved_together(tmp_path: Path, small_limits) -> None:
    report = export_file(saved(tmp_path), tmp_path / "net.onnx", guided=True)
    expected = explained(report.path)
    (tmp_path / "moved").mkdir()
    for file in report.files:
        file.path.rename(tmp_path / "moved" / file.path.name)
    for found, wanted in zip(explained(tmp_path / "moved" / "net.onnx"), expected, strict=True):
        assert np.array_equal(found, wanted)


def test_a_model_without_its_weights_says_so(tmp_path: Path, small_limits) -> None:
    report = export_file(saved(tmp_path), tmp_path / "net.onnx", guided=True)
    report.files[1].path.unlink()
    with pytest.raises(ModelError, match=r"net\.onnx: its weights beside the file.*Copy them too"):
        explained(report.path)


# whole or not at all


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def pair_in(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """A pair that was there before, and everything in its folder."""
    report = export_file(saved(folder, seed=5), folder / "net.onnx", check=False)
    saved(folder)
    assert len(report.files) == 2
    return report.path, contents(folder)


@pytest.mark.parametrize(
    ("before", "failing"), [(True, 1), (True, 2), (True, 3), (True, 4), (False, 1), (False, 2)]
)  # an older pair steps aside in two renames, a new one comes in two
def test_a_failed_rename_leaves_everything_as_it_was(
    tmp_path: Path, small_limits, monkeypatch, before: bool, failing: int
) -> None:
    path, found = pair_in(tmp_path) if before else (tmp_path / "net.onnx", {})
    source = saved(tmp_path)
    found = found or contents(tmp_path)
    replace, calls = os.replace, []

    def break_once(*names) -> None:
        calls.append(names)
        if len(calls) == failing:
            raise OSError(28, "No space left on device")
        replace(*names)

    monkeypatch.setattr(os, "replace", break_once)
    with pytest.raises(SourceError, match="cannot be written .No space left on device"):
        export_file(source, path, check=False)
    assert contents(tmp_path) == found


@pytest.mark.parametrize("room", [100, 3000, 4500])
def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, small_limits, room: int) -> None:
    path, found = pair_in(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(SourceError, match=r"net\.onnx(\.data)?: cannot be written \(File too large\)"):
            export_file(str(tmp_path / "small.onnx"), path, check=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert contents(tmp_path) == found


def test_an_older_pair_is_replaced_whole(tmp_path: Path, small_limits) -> None:
    path, found = pair_in(tmp_path)
    report = export_file(str(tmp_path / "small.onnx"), path, check=False)
    assert contents(tmp_path).keys() == found.keys()
    assert report.files[1].path.read_bytes() != found["net.onnx.data"]
    assert read_model_file(path).contract == report.contract


def test_the_weights_of_the_source_are_not_replaced(tmp_path: Path, small_limits) -> None:
    onnx.save(classifier(), tmp_path / "a.onnx", save_as_external_data=True, location="b.onnx.data", size_threshold=0)
    found = contents(tmp_path)
    with pytest.raises(SourceError, match=r"b\.onnx\.data: holds the source's weights"):
        export_file(str(tmp_path / "a.onnx"), tmp_path / "b.onnx", check=False)
    assert contents(tmp_path) == found
