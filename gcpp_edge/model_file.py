"""What an explained model file says of itself, read without the onnx package.

An ONNX file is one protobuf message, ModelProto. Its metadata stand at the top level, behind the graph, so a scan that
steps over every field by its length finds them in microseconds, whatever the file's size, and sees a truncated file.
Field numbers: onnx/onnx.proto, message ModelProto; encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gcpp_edge.contract import (
    COLOR_ORDERS,
    GEOMETRIES,
    LEVELS,
    SCORE_KINDS,
    TARGET_KINDS,
    Contract,
    contract_from_metadata,
)
from gcpp_edge.errors import ModelError

_IR_VERSION, _GRAPH, _OPSET_IMPORT, _METADATA_PROPS = 1, 7, 8, 14
_KEY, _VALUE = 1, 2
_INITIALIZER, _EXTERNAL_DATA = 5, 13  # of GraphProto and of TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}


class _DamagedError(Exception):
    """A message that does not decode; the text says what was expected and found."""


@dataclass(frozen=True)
class ModelFile:
    """An explained model on disk: where, how large (bytes), and its contract."""

    path: Path
    bytes: int
    contract: Contract

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels that the file holds, lowest first."""
        return tuple(level for level in LEVELS if level in self.contract.levels)

    def require_level(self, level: str) -> None:
        """Raises ModelError unless the file holds this level."""
        if level in self.contract.levels:
            return
        if level not in LEVELS:
            raise ModelError(f"Unknown level {level!r}. Known: {', '.join(LEVELS)}.")
        raise ModelError(
            f"{self.path}: holds the levels {', '.join(self.levels)}, not {level!r}. "
            f"Export it again{' with --guided' if level == LEVELS[-1] else ''}."
        )


def read_model_file(path: str | Path) -> ModelFile:
    """The explained model at `path`.

    Raises ModelError where there is no such file, or it is truncated, damaged or not ONNX; NotExplainedError for an
    ONNX file without our metadata; ContractVersionError for one of a newer exporter.
    """
    path = Path(path)
    contract = contract_from_metadata(read_metadata(path), str(path))
    _check_words(contract, path)
    return ModelFile(path, path.stat().st_size, contract)


def _check_words(contract: Contract, path: Path) -> None:
    """Raises ModelError where the contract uses a word that this version does not know, or a mean that does not fit."""
    pixels = contract.preprocessing
    for what, word, known in (
        ("colour order", pixels.color, COLOR_ORDERS),
        ("geometry", pixels.geometry.kind, GEOMETRIES),
        ("kind of scores", contract.scores.kind, SCORE_KINDS),
        ("target", contract.target.kind, TARGET_KINDS),
    ):
        if word not in known:
            raise ModelError(
                f"{path}: its {what} is {word!r}; this version knows {', '.join(known)}. "
                "Upgrade gcpp-edge, or export it again."
            )
    _check_extra_inputs(contract, path)
    if not len(pixels.mean) == len(pixels.std) == pixels.channels:
        raise ModelError(
            f"{path}: its mean and std have {len(pixels.mean)} and {len(pixels.std)} values, and {pixels.color!r} has "
            f"{pixels.channels} channels. Export it again."
        )


def _check_extra_inputs(contract: Contract, path: Path) -> None:
    """Raises ModelError where the size of an input is open besides its batch."""
    for entry in contract.extra_inputs:
        sizes = entry.shape[1:] if entry.has_batch else entry.shape
        if not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ModelError(
                f"{path}: its input {entry.name!r} has the open shape {entry.shape}; only the batch, the first axis, "
                "may be open. Export it again with fixed sizes."
            )


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata properties of an ONNX file. Raises ModelError if it is not one, or is damaged."""
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise ModelError(f"{path}: an empty file. Export or copy the model again.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _metadata(data)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except _DamagedError as error:
        raise ModelError(f"{path}: {error}") from error


def weight_files(path: Path) -> list[Path]:
    """The files that hold weights beside an ONNX file, in the order of their names; empty where it holds them itself.

    Raises ModelError as read_metadata does.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return [path.parent / name for name in sorted(_locations(data))]
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise ModelError(f"{path}: cannot be read ({error}).") from error
    except _DamagedError as error:
        raise ModelError(f"{path}: a truncated or damaged ONNX file ({error}). Export or copy it again.") from error


def _locations(data: mmap.mmap) -> set[str]:
    """Where the initializers' data lie, by what they say."""
    found = set()
    for tensor in _inside(data, range(len(data)), _GRAPH, _INITIALIZER):
        for entry in _inside(data, tensor, _EXTERNAL_DATA):
            key, value = _key_and_value(data, entry)
            if key == "location":
                found.add(value)
    return found


def _inside(data: mmap.mmap, where: range, *path: int) -> Iterator[range]:
    """Messages inside a message, by the numbers of the fields that lead to them."""
    for field, value in _fields(data, where.start, where.stop):
        if field == path[0] and isinstance(value, range):
            if len(path) == 1:
                yield value
            else:
                yield from _inside(data, value, *path[1:])


def _metadata(data: mmap.mmap) -> dict[str, str]:
    seen: set[int] = set()
    metadata: dict[str, str] = {}
    try:
        for field, value in _fields(data, 0, len(data)):
            seen.add(field)
            if field == _METADATA_PROPS and isinstance(value, range):
                metadata.update([_key_and_value(data, value)])
    except _DamagedError as error:
        if not seen & {_GRAPH, _OPSET_IMPORT} and not _begins_like_onnx(data):
            raise _DamagedError("not an ONNX file. Give an explained model, as gcpp-edge export writes it.") from error
        raise _DamagedError(f"a truncated or damaged ONNX file ({error}). Export or copy it again.") from error
    if _GRAPH not in seen and _IR_VERSION not in seen:
        raise _DamagedError("not an ONNX file. Give an explained model, as gcpp-edge export writes it.")
    missing = {_IR_VERSION: "IR version", _GRAPH: "graph", _OPSET_IMPORT: "operator sets"}
    for field, name in missing.items():
        if field not in seen:
            raise _DamagedError(f"a truncated or damaged ONNX file (it has no {name}). Export or copy it again.")
    return metadata


def _begins_like_onnx(data: mmap.mmap) -> bool:
    """A small IR version stands first in what all exporters write."""
    return len(data) >= 2 and data[0] == _IR_VERSION << 3 and data[1] < 100


def _fields(data: mmap.mmap, position: int, stop: int) -> Iterator[tuple[int, int | range]]:
    """Fields of one message in data[position:stop]: (number, value), or (number, where it stands) for bytes."""
    while position < stop:
        tag, position = _varint(data, position, stop)
        field, wire_type = tag >> 3, tag & 7
        if field == 0:
            raise _DamagedError(f"a field number of 0 at byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(data, position, stop)
            yield field, value
            continue
        if wire_type == _BYTES:
            length, position = _varint(data, position, stop)
        elif wire_type in _FIXED_SIZES:
            length = _FIXED_SIZES[wire_type]
        else:
            raise _DamagedError(f"wire type {wire_type} at byte {position}")
        if length > stop - position:
            raise _DamagedError(f"field {field} needs {length} bytes at byte {position}, {stop - position} are left")
        yield field, range(position, position + length)
        position += length


def _varint(data: mmap.mmap, position: int, stop: int) -> tuple[int, int]:
    """A base-128 number of at most ten bytes, and the position behind it."""
    value = 0
    for index in range(10):
        if position + index >= stop:
            raise _DamagedError(f"a number is cut off at byte {stop}")
        byte = data[position + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise _DamagedError(f"a number of more than ten bytes at byte {position}")


def _key_and_value(data: mmap.mmap, where: range) -> tuple[str, str]:
    """One StringStringEntryProto."""
    entry = {_KEY: "", _VALUE: ""}
    for field, value in _fields(data, where.start, where.stop):
        if field in entry and isinstance(value, range):
            entry[field] = _text(data[value.start : value.stop])
    return entry[_KEY], entry[_VALUE]


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _DamagedError(f"metadata that are not UTF-8 ({error.reason})") from error
