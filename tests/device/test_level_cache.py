"""Cutting a file to a level, and keeping the cut."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from gcpp_edge.contract import METADATA_KEY, contract_from_metadata
from gcpp_edge.device import open_device
from gcpp_edge.errors import MissingDependencyError, ModelError
from gcpp_edge.level_cache import cache_folder, model_at_level
from gcpp_edge.model_file import read_model_file
from gcpp_edge.runtimes import RuntimeOptions, open_runtime


def cut(path: Path, level: str) -> onnx.ModelProto:
    model = model_at_level(read_model_file(path), level)
    return onnx.load_model_from_string(model) if isinstance(model, bytes) else onnx.load(model)


def run(model: onnx.ModelProto, **inputs: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)


IMAGE = np.random.default_rng(1).normal(size=(2, 3, 16, 12)).astype(np.float32)


@pytest.mark.parametrize(
    ("level", "inputs", "initializers", "nodes"),
    [
        ("plain", ["image"], {"filters", "bias", "classifier"}, 4),
        (
            "map",
            ["image", "target"],
            {"filters", "bias", "classifier", "positions", "ranks", "minus_one", "zero", "deepest", "axis_1"}
            | {"space_axes"},
            16,
        ),
    ],
)
def test_a_cut_holds_what_its_level_needs_and_no_more(shared_model, level, inputs, initializers, nodes) -> None:
    model = cut(shared_model.path, level)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == inputs
    assert {tensor.name for tensor in model.graph.initializer} == initializers
    assert len(model.graph.node) == nodes
    assert tuple(output.name for output in model.graph.output) == shared_model.contract.levels[level].outputs


def test_a_cut_computes_what_the_whole_computes(shared_model) -> None:
    target = np.array([3, -2])
    whole = run(onnx.load(shared_model.path), image=IMAGE, target=target)
    for found, expected in zip(run(cut(shared_model.path, "map"), image=IMAGE, target=target), whole, strict=False):
        assert np.array_equal(found, expected)
    assert np.array_equal(run(cut(shared_model.path, "plain"), image=IMAGE)[0], whole[0])


def test_a_cut_keeps_its_contract(shared_model) -> None:
    metadata = {entry.key: entry.value for entry in cut(shared_model.path, "plain").metadata_props}
    assert contract_from_metadata(metadata) == shared_model.contract
    assert METADATA_KEY in metadata


def test_names_that_only_a_branch_reads_are_kept(make_model, tmp_path: Path) -> None:
    """An initializer may be used inside an If alone."""
    path = make_model().path
    model = onnx.load(path)
    node = onnx.helper.make_node
    branches = [
        onnx.helper.make_graph([node("Add", ["pooled", name], ["moved"])], name, [], [_value("moved")])
        for name in ("first", "second")
    ]
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(value), name)
        for name, value in (("first", np.float32(1)), ("second", np.float32(2)), ("choice", True))
    )
    gemm = model.graph.node[3]
    gemm.input[0] = "moved_all"
    chosen = node("If", ["choice"], ["moved_all"], then_branch=branches[0], else_branch=branches[1])
    nodes = [*model.graph.node[:3], chosen, *model.graph.node[3:]]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    contract = read_model_file(path).contract
    for level in contract.levels:
        object.__setattr__(contract.levels[level], "nodes", contract.levels[level].nodes + 1)
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    onnx.save(model, path)
    names = {tensor.name for tensor in cut(path, "plain").graph.initializer}
    assert {"first", "second", "choice"} <= names
    assert "positions" not in names


def _value(name: str) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)


def test_the_highest_level_is_the_file_itself(shared_model) -> None:
    assert model_at_level(read_model_file(shared_model.path), "guided") == str(shared_model.path)
    assert not cache_folder().exists()


def test_the_highest_level_needs_no_onnx(shared_model) -> None:
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "from gcpp_edge.model_file import read_model_file\n"
        "from gcpp_edge.level_cache import model_at_level\n"
        f"print(model_at_level(read_model_file({str(shared_model.path)!r}), 'guided'))"
    )
    result = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(shared_model.path)


def test_a_cut_without_onnx_says_what_to_install(shared_model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'gcpp-edge\[onnxruntime\]'"):
        model_at_level(read_model_file(shared_model.path), "map")


def test_a_cut_is_kept_and_found_again_without_onnx(shared_model, monkeypatch: pytest.MonkeyPatch) -> None:
    file = read_model_file(shared_model.path)
    first = model_at_level(file, "map")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert model_at_level(file, "map") == first
    assert stat.S_IMODE(cache_folder().stat().st_mode) == 0o700
    assert [path.name for path in cache_folder().iterdir()] == [Path(str(first)).name]


def test_a_changed_file_is_cut_again_and_its_old_cut_goes(make_model) -> None:
    path = make_model().path
    first = model_at_level(read_model_file(path), "map")
    os.utime(path, ns=(1, 1))
    second = model_at_level(read_model_file(path), "map")
    assert first != second
    assert [str(kept) for kept in cache_folder().iterdir()] == [second]


def test_levels_and_files_have_cuts_of_their_own(make_model) -> None:
    paths = [make_model(name).path for name in ("one.onnx", "two.onnx")]
    cuts = {model_at_level(read_model_file(path), level) for path in paths for level in ("plain", "map")}
    assert len(cuts) == len(list(cache_folder().iterdir())) == 4


def test_a_cut_that_was_half_written_is_made_again(shared_model) -> None:
    file = read_model_file(shared_model.path)
    path = Path(str(model_at_level(file, "map")))
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b""):
        path.write_bytes(damaged)
        assert model_at_level(file, "map") == str(path)
        assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_written_leaves_the_cut_in_memory(shared_model, tmp_path, monkeypatch) -> None:
    blocked = tmp_path / "a file, not a folder"
    blocked.write_text("")
    monkeypatch.setenv("GCPP_EDGE_CACHE", str(blocked / "cache"))
    assert isinstance(model_at_level(read_model_file(shared_model.path), "map"), bytes)


def test_the_cache_follows_the_user_s_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/robot")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("GCPP_EDGE_CACHE")
    assert cache_folder() == Path("/home/robot/.cache/gcpp-edge")
    monkeypatch.setenv("XDG_CACHE_HOME", "/data/cache")
    assert cache_folder() == Path("/data/cache/gcpp-edge")
    monkeypatch.setenv("GCPP_EDGE_CACHE", "/data/own")
    assert cache_folder() == Path("/data/own")


def test_a_cut_refers_to_the_weights_beside_the_file(make_model) -> None:
    path = make_model(beside=True).path
    light = cut(path, "map")
    assert {tensor.name for tensor in light.graph.initializer if tensor.external_data} == {"filters", "classifier"}
    onnx.load_external_data_for_model(light, str(path.parent))
    target = np.array([1, 2])
    expected = run(cut(make_model("whole.onnx").path, "map"), image=IMAGE, target=target)
    found = run(light, image=IMAGE, target=target)
    assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("level", ["plain", "map", "guided"])
def test_a_runtime_finds_the_weights_beside_the_file_at_every_level(make_model, level: str) -> None:
    model = make_model(beside=True)
    for _ in range(2):  # cut, then from the cache
        scores = scores_of(model.path, level)
        assert np.allclose(scores, model.logits(IMAGE[:1]), atol=1e-5)


def scores_of(path: Path, level: str) -> np.ndarray:
    scores = np.zeros((1, 7), np.float32)
    model, device = model_at_level(read_model_file(path), level), open_device("cpu")
    runtime = open_runtime("onnxruntime", model, str(path), RuntimeOptions(), device)
    bound = {"image": IMAGE[:1], "scores": scores, "target": np.array([0])}
    for name in [info.name for info in (*runtime.inputs, *runtime.outputs) if info.name in bound]:
        runtime.bind(name, bound[name])
    runtime.run()
    return scores


def test_a_cut_without_its_weights_is_kept_and_found_again_without_onnx(make_model, monkeypatch) -> None:
    file = read_model_file(make_model(beside=True).path)
    first = model_at_level(file, "map")
    assert [path.name.endswith(".light.onnx") for path in cache_folder().iterdir()] == [True]
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert model_at_level(file, "map") == first


def lost(data: Path) -> None:
    data.unlink()


def cut_short(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:50])


def leading_elsewhere(data: Path) -> None:
    (data.parent / "elsewhere").mkdir()
    data.rename(data.parent / "elsewhere" / "weights")
    outside = Path(str(data.parent) + "-outside")
    (data.parent / "elsewhere").rename(outside)
    data.symlink_to(outside / "weights")


@pytest.mark.parametrize("level", ["map", "guided"])
@pytest.mark.parametrize("harm", [lost, cut_short, leading_elsewhere])
def test_weights_beside_the_file_that_cannot_be_read_are_named(make_model, harm, level: str) -> None:
    path = make_model(beside=True).path
    harm(path.with_suffix(".data"))
    with pytest.raises(ModelError, match=r"its weights beside the file cannot be read \(.+\)\. Copy them") as caught:
        scores_of(path, level)
    assert "\n" not in str(caught.value)


def test_a_damaged_graph_is_refused_when_it_is_cut(make_model) -> None:
    path = make_model().path
    data = bytearray(path.read_bytes())
    place = data.index(b"Conv")
    data[place - 1 : place + 4] = b"\xff\xff\xff\xff\xff"
    path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged ONNX file"):
        model_at_level(read_model_file(path), "map")
