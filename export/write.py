"""Writes a model: one file where protobuf can hold it, else the graph in one and its weights in another beside it.

The weights are streamed from where they lie, so writing needs no memory of its own.
Format: protobuf.dev/programming-guides/encoding, onnx.ai/onnx/repo-docs/ExternalData.html
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from onnx import GraphProto, ModelProto, TensorProto

from gcpp_edge.errors import SourceError
from gcpp_edge.export.weights import array_of, bytes_of, is_placeholder, set_aside, weights_of, without_initializers

PROTOBUF_LIMIT = 2**31 - 1
ALIGNMENT = 4096  # of each tensor in the file of weights, so that a runtime can map it
_BYTES = 2  # protobuf's wire type of what has a length


@dataclass(frozen=True)
class WrittenFile:
    """A file that an export wrote."""

    path: Path
    bytes: int


def write_model(model: ModelProto, path: Path, external_data: bool = False) -> tuple[WrittenFile, ...]:
    """Writes a model and returns its files; all appear whole, or none does.

    One file, unless it needs more than 2 GB or `external_data` asks for two: then NAME.onnx holds the graph and
    NAME.onnx.data the weights from 64 KB on. Raises SourceError where they cannot be written.
    """
    store = weights_of(model)
    if store is None:
        model, store = set_aside(model)  # `store` is named to be kept: placeholders do not keep it
    beside = [tensor for tensor in model.graph.initializer if is_placeholder(tensor)]
    rest = without_initializers(model)
    rest.graph.initializer.extend(tensor for tensor in model.graph.initializer if not is_placeholder(tensor))
    if beside and (external_data or _size(rest, beside) > PROTOBUF_LIMIT):
        data = path.with_name(f"{path.name}.data")
        if data.exists() and (not data.is_file() or data.resolve() in store.files):
            raise SourceError(
                f"{data}: holds the source's weights or is no file, and would be replaced. Choose another output."
            )
        rest.graph.initializer.extend(_referring(beside, data.name))
        writers = {data: lambda file: _write_data(file, beside), path: lambda file: _write_one(file, rest, [])}
    else:
        writers = {path: lambda file: _write_one(file, rest, beside)}
    return _write_together(writers)


# one protobuf message, its weights streamed


def _write_one(file: IO[bytes], model: ModelProto, beside: Sequence[TensorProto]) -> None:
    """The model with more initializers. Fields of a message may stand in any order, and a list may go on later."""
    graph = model.graph.SerializeToString()
    head = _head(model)
    size = len(graph) + sum(_field_size(_tensor_size(tensor)) for tensor in beside)
    file.write(head + _tag(ModelProto, "graph") + _varint(size) + graph)
    for tensor in beside:
        array = array_of(tensor)
        file.write(_tag(GraphProto, "initializer") + _varint(_tensor_size(tensor)) + _tensor_head(tensor))
        file.write(bytes_of(array))


def _size(model: ModelProto, beside: Sequence[TensorProto]) -> int:
    """Bytes of the model in one file."""
    graph = model.graph.ByteSize() + sum(_field_size(_tensor_size(tensor)) for tensor in beside)
    return len(_head(model)) + _field_size(graph)


def _head(model: ModelProto) -> bytes:
    """Everything but the graph."""
    head = ModelProto()
    head.CopyFrom(model)
    head.ClearField("graph")
    return bytes(head.SerializeToString())


def _tensor_head(tensor: TensorProto) -> bytes:
    """A tensor up to its data."""
    head = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims).SerializeToString()
    return bytes(head) + _tag(TensorProto, "raw_data") + _varint(array_of(tensor).nbytes)


def _tensor_size(tensor: TensorProto) -> int:
    return len(_tensor_head(tensor)) + array_of(tensor).nbytes


def _field_size(length: int) -> int:
    """Bytes of a field with a length, whose number is below 16."""
    return 1 + len(_varint(length)) + length


def _tag(message: Any, field: str) -> bytes:
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES)


def _varint(value: int) -> bytes:
    """A base-128 number, lowest digits first."""
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


# weights in a file of their own


def _referring(beside: Sequence[TensorProto], location: str) -> Iterator[TensorProto]:
    """The tensors as what refers to a file of weights."""
    for tensor, offset in zip(beside, _offsets(beside), strict=True):
        result = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        result.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", array_of(tensor).nbytes)):
            result.external_data.add(key=key, value=str(value))
        yield result


def _offsets(beside: Sequence[TensorProto]) -> Iterator[int]:
    offset = 0
    for tensor in beside:
        yield offset
        offset = -(-(offset + array_of(tensor).nbytes) // ALIGNMENT) * ALIGNMENT


def _write_data(file: IO[bytes], beside: Sequence[TensorProto]) -> None:
    for tensor, offset in zip(beside, _offsets(beside), strict=True):
        file.write(bytes(offset - file.tell()))
        file.write(bytes_of(array_of(tensor)))


# whole or not at all


def _write_together(writers: dict[Path, Callable[[IO[bytes]], None]]) -> tuple[WrittenFile, ...]:
    """Writes files that belong together; the last one, which names the others, is put in its place last."""
    temporaries: dict[Path, Path] = {}
    try:
        for path, write in writers.items():
            with _named_in_errors(path):
                descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
                temporaries[path] = Path(name)
                with os.fdopen(descriptor, "wb") as file:
                    write(file)
                os.chmod(name, 0o644)
        files = [WrittenFile(path, temporary.stat().st_size) for path, temporary in temporaries.items()]
        _put_in_place(temporaries)
    finally:
        for temporary in temporaries.values():
            temporary.unlink(missing_ok=True)
    return tuple(reversed(files))


def _put_in_place(temporaries: dict[Path, Path]) -> None:
    """Renames all, or none. Where there are two, older ones step aside first: no moment shows a mixed pair."""
    older: dict[Path, Path] = {}
    placed: list[Path] = []
    try:
        for path in reversed(temporaries) if len(temporaries) > 1 else ():
            if path.exists():
                with _named_in_errors(path):
                    kept = path.with_name(f"{temporaries[path].name}.old")
                    os.replace(path, kept)
                    older[path] = kept
        for path, temporary in temporaries.items():
            with _named_in_errors(path):
                os.replace(temporary, path)
                placed.append(path)
    except BaseException:
        for path in placed:
            path.unlink(missing_ok=True)
        for path, kept in reversed(older.items()):
            os.replace(kept, path)
        raise
    for kept in older.values():
        kept.unlink(missing_ok=True)


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError(f"{path}: cannot be written ({error.strerror or error}).") from error
