"""Reading what a file says of itself, and refusing what is no explained model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from gcpp_edge.contract import METADATA_KEY
from gcpp_edge.errors import ContractVersionError, ModelError, NotExplainedError
from gcpp_edge.model_file import read_metadata, read_model_file


def test_the_contract_is_read_back_as_it_was_written(shared_model) -> None:
    file = read_model_file(shared_model.path)
    assert file.contract == shared_model.contract
    assert file.levels == ("plain", "map", "guided")
    assert file.bytes == shared_model.path.stat().st_size


def test_metadata_are_those_that_onnx_reads(shared_model) -> None:
    expected = {entry.key: entry.value for entry in onnx.load(shared_model.path).metadata_props}
    assert read_metadata(shared_model.path) == expected


def with_metadata(text: str) -> Callable[[bytes], bytes]:
    """The model with this text in the place of its contract."""

    def change(data: bytes) -> bytes:
        model = onnx.load_model_from_string(data)
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        return model.SerializeToString()

    return change


def with_field(**changes: object) -> Callable[[bytes], bytes]:
    """The model with other values in its contract: preprocessing__std=... is the std within preprocessing."""

    def change(data: bytes) -> bytes:
        model = onnx.load_model_from_string(data)
        document = json.loads(next(entry.value for entry in model.metadata_props if entry.key == METADATA_KEY))
        for path, value in changes.items():
            *parents, name = path.split("__")
            part = document
            for parent in parents:
                part = part[parent]
            part[name] = value
        return with_metadata(json.dumps(document))(data)

    return change


def without_metadata(data: bytes) -> bytes:
    model = onnx.load_model_from_string(data)
    del model.metadata_props[:]
    return model.SerializeToString()


def without_field(name: str) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        model = onnx.load_model_from_string(data)
        model.ClearField(name)
        return model.SerializeToString()

    return change


@dataclass(frozen=True)
class Refusal:
    name: str
    change: Callable[[bytes], bytes]
    error: type[ModelError]
    message: str


REFUSALS = [
    Refusal("an empty file", lambda data: b"", ModelError, "an empty file"),
    Refusal("a text", lambda data: b"Dear reader, this is no network.\n" * 20, ModelError, "not an ONNX file"),
    Refusal("a picture", lambda data: b"\x89PNG\r\n\x1a\n" + bytes(500), ModelError, "not an ONNX file"),
    Refusal("a zip archive", lambda data: b"PK\x03\x04" + bytes(range(256)), ModelError, "not an ONNX file"),
    Refusal("a single byte", lambda data: data[:1], ModelError, "ONNX file"),
    Refusal("zeros", lambda data: bytes(1000), ModelError, "not an ONNX file"),
    Refusal("half of it", lambda data: data[: len(data) // 2], ModelError, "truncated or damaged"),
    Refusal("all but a byte", lambda data: data[:-1], ModelError, "truncated or damaged"),
    Refusal("no graph", without_field("graph"), ModelError, "it has no graph"),
    Refusal("cut off behind the graph", without_field("opset_import"), ModelError, "it has no operator sets"),
    Refusal("garbage behind it", lambda data: data + b"\xff" * 20, ModelError, "truncated or damaged"),
    Refusal("a plain ONNX file", without_metadata, NotExplainedError, "gcpp-edge export"),
    Refusal("a contract that is no JSON", with_metadata("{"), ModelError, "metadata is damaged"),
    Refusal("a contract of another kind", with_metadata("[1]"), ModelError, "metadata is damaged"),
    Refusal("a contract without its parts", with_metadata('{"version": 1}'), ModelError, "metadata is damaged"),
    Refusal("a gradient scale of zero", with_field(layer__gradient_scale=0), ModelError, r"gradient_scale \[0\]"),
    Refusal("an endless gradient scale", with_field(layer__gradient_scale=1e39), ModelError, "gradient_scale"),
    Refusal("a list for the layer", with_field(layer=[1]), ModelError, "metadata is damaged"),
    Refusal("a std of words", with_field(preprocessing__std=["a", "b", "c"]), ModelError, "finite numbers"),
    Refusal("a std of zero", with_field(preprocessing__std=[0, 1, 1]), ModelError, "std"),
    Refusal("a mean that is no number", with_field(preprocessing__mean=[float("nan")] * 3), ModelError, "finite"),
    Refusal("a share of nothing", with_field(preprocessing__geometry__share=0), ModelError, "share 0"),
    Refusal("a height of nothing", with_field(preprocessing__height=0), ModelError, "above 0"),
    Refusal("a level that ends at a word", with_field(levels__map__nodes="x"), ModelError, "whole numbers"),
    Refusal("labels that are no texts", with_field(labels=[1, 2, 3]), ModelError, "labels"),
    Refusal(
        "a newer contract", with_metadata(json.dumps({"version": 99})), ContractVersionError, "contract version 99"
    ),
]


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.name)
def test_what_is_no_explained_model_is_refused_by_name(case: Refusal, shared_model, tmp_path: Path) -> None:
    path = tmp_path / "given.onnx"
    path.write_bytes(case.change(shared_model.path.read_bytes()))
    with pytest.raises(ModelError, match=case.message) as caught:
        read_model_file(path)
    assert type(caught.value) is case.error
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.onnx", "."])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        read_model_file(tmp_path / name)


def test_no_truncation_crashes_or_passes(shared_model, tmp_path: Path) -> None:
    data = shared_model.path.read_bytes()
    path = tmp_path / "given.onnx"
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(ModelError):
            read_model_file(path)


def test_no_flipped_byte_raises_anything_but_a_model_error(shared_model, tmp_path: Path) -> None:
    data = shared_model.path.read_bytes()
    path = tmp_path / "given.onnx"
    random = np.random.default_rng(0)
    for position in random.integers(0, len(data), 300):
        damaged = bytearray(data)
        damaged[position] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            read_model_file(path)
        except ModelError:
            continue


def test_unknown_fields_of_a_newer_onnx_are_stepped_over(shared_model, tmp_path: Path) -> None:
    path = tmp_path / "given.onnx"
    number, fixed_64, fixed_32 = b"\xf8\x06\x05", b"\xf9\x06" + bytes(8), b"\xfd\x06" + bytes(4)  # field 111
    path.write_bytes(number + fixed_64 + fixed_32 + shared_model.path.read_bytes())
    assert read_model_file(path).contract == shared_model.contract


def test_a_level_that_the_file_lacks_says_how_to_get_it(make_model) -> None:
    file = read_model_file(make_model(guided=False).path)
    with pytest.raises(ModelError, match="holds the levels plain, map, not 'guided'. Export it again with --guided."):
        file.require_level("guided")


def test_an_unknown_level_is_refused_with_the_known_ones(shared_model) -> None:
    with pytest.raises(ModelError, match="Unknown level 'deep'. Known: plain, map, guided"):
        read_model_file(shared_model.path).require_level("deep")
