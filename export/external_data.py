"""Weights beside an .onnx file: mapped, not read, and only from inside the file's folder.

A file could name any other on the machine, so a location is held against the folder after symbolic links are followed.
Format: onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, helper

from gcpp_edge.errors import SourceError
from gcpp_edge.export.weights import WeightStore, is_placeholder

PACKED = (TensorProto.STRING, TensorProto.INT4, TensorProto.UINT4, TensorProto.FLOAT4E2M1)  # no array of whole bytes


def read_external_data(model: ModelProto, path: Path, store: WeightStore) -> None:
    """Puts what lies beside the file into the model, in place: large initializers into the store. SourceError."""
    for tensor in model.graph.initializer:
        if _is_beside(tensor):
            tensor.CopyFrom(store.tensor(_array(tensor, path, store), tensor.name))
    for tensor in _others(model):
        if _is_beside(tensor):
            array = _array(tensor, path, store)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = array.tobytes()


def has_external_data(model: ModelProto) -> bool:
    """Whether some of a model's data lie in files."""
    return any(_is_beside(tensor) for tensor in (*model.graph.initializer, *_others(model)))


def _is_beside(tensor: TensorProto) -> bool:
    return tensor.data_location == TensorProto.EXTERNAL and not is_placeholder(tensor)


def _others(model: ModelProto) -> Iterator[TensorProto]:
    """Tensors that are no initializer of the graph itself: of nodes, of branches and of functions."""
    yield from _of_nodes(model.graph.node)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_nodes(nodes: Any) -> Iterator[TensorProto]:
    for node in nodes:
        for entry in node.attribute:
            if entry.HasField("t"):
                yield entry.t
            yield from entry.tensors
            for graph in (*([entry.g] if entry.HasField("g") else []), *entry.graphs):
                yield from _of_graph(graph)


def _of_graph(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    yield from _of_nodes(graph.node)


def _array(tensor: TensorProto, path: Path, store: WeightStore) -> np.ndarray:
    """The data of one tensor, mapped from its file."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _file(entries.get("location", ""), path)
    if tensor.data_type in PACKED:
        raise SourceError(f'{path}: its tensor "{tensor.name}" has a type that is not read from external data.')
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    needed = int(np.prod(list(tensor.dims), dtype=np.int64)) * dtype.itemsize
    offset, length = _number(entries, "offset", 0, path), _number(entries, "length", needed, path)
    try:
        size = file.stat().st_size
        if length != needed or offset + needed > size:
            raise SourceError(
                f'{path}: tensor "{tensor.name}" needs {needed} bytes and refers to {length} at byte {offset} of '
                f'"{file.name}", which has {size}. Copy both files again.'
            )
        data = np.memmap(file, np.uint8, "r", offset, needed) if needed else np.zeros(0, np.uint8)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f'{path}: its external data "{file.name}" cannot be read ({reason}).') from error
    store.files.add(file)
    array: np.ndarray = np.asarray(data).view(dtype.newbyteorder("<")).reshape(tuple(tensor.dims))
    return array


def _file(location: str, path: Path) -> Path:
    """The file of a location, symbolic links followed."""
    folder = path.resolve().parent
    file = (folder / location).resolve()
    if not file.is_relative_to(folder):
        raise SourceError(f'{path}: its external data "{location}" lies outside the model\'s folder.')
    if not file.is_file():
        raise SourceError(f'{path}: its external data "{location}" is missing. Copy the weights beside the file too.')
    return file


def _number(entries: dict[str, str], key: str, default: int, path: Path) -> int:
    text = entries.get(key, str(default))
    if not text.isdecimal():
        raise SourceError(f'{path}: the {key} of external data is "{text}"; expected a number.')
    return int(text)
