"""An explained model cut to one level, and a cache of what was cut.

ONNX Runtime does not skip nodes whose outputs nobody asks for: a guided file asked for its scores alone costs three
times plain inference. So a lower level is cut out of the file once, and kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gcpp_edge.contract import AIMS, CONTRACT_VERSION, Level
from gcpp_edge.errors import GcppError, MissingDependencyError, ModelError
from gcpp_edge.model_file import ModelFile, read_metadata

if TYPE_CHECKING:
    import onnx

LIGHT = ".light.onnx"  # a cut whose weights lie beside the model that it was cut from


def model_at_level(file: ModelFile, level: str) -> str | bytes:
    """What a runtime loads for this level: the path of a file, or the bytes of a model.

    The file itself where it holds nothing above the level; otherwise the cut, from the cache if it is there. A cache
    that cannot be written is no error: the cut then stays in memory. Where the weights lie in a file beside the model,
    the cut refers to that same file: it comes as bytes, and names are relative to the model's folder.
    Raises ModelError if the file lacks the level, MissingDependencyError if a cut needs onnx and it is not installed.
    """
    file.require_level(level)
    if level == file.levels[-1]:
        return str(file.path)
    whole, light = (_cached_path(file, level, suffix) for suffix in (".onnx", LIGHT))
    if _is_whole(whole):
        return str(whole)
    if _is_whole(light):
        return light.read_bytes()
    model, has_weights_beside = _load(file.path)
    cut_to_level(model, file.contract.levels[level])
    data: bytes = model.SerializeToString()
    is_kept = _write(light if has_weights_beside else whole, data)
    return str(whole) if is_kept and not has_weights_beside else data


def cache_folder() -> Path:
    """$GCPP_EDGE_CACHE, else gcpp-edge in $XDG_CACHE_HOME or in ~/.cache."""
    if chosen := os.environ.get("GCPP_EDGE_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "gcpp-edge"


def cut_to_level(model: onnx.ModelProto, level: Level) -> None:
    """Leave of `model`, in place, what `level` needs: its first nodes, their weights, its outputs."""
    graph = model.graph
    del graph.node[level.nodes :]
    _drop(graph.output, lambda output: output.name not in level.outputs)
    outputs = {output.name for output in graph.output}
    used = _names_used(graph)
    kept = used | outputs
    _drop(graph.initializer, lambda tensor: tensor.name not in kept)
    _drop(graph.sparse_initializer, lambda tensor: tensor.values.name not in kept)
    inner = {name for node in graph.node for name in node.output} - outputs
    _drop(graph.value_info, lambda value: value.name not in inner)
    _drop(graph.input, lambda value: value.name in AIMS and value.name not in used)


def _names_used(graph: Any) -> set[str]:
    """Every name that a node reads, in branches and loop bodies too."""
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                names |= _names_used(inner) | {output.name for output in inner.output}
    return names


def _drop(values: Any, is_unwanted: Callable[[Any], bool]) -> None:
    """Delete from a repeated protobuf field, in place: weights are not copied."""
    for index in reversed(range(len(values))):
        if is_unwanted(values[index]):
            del values[index]


def _load(path: Path) -> tuple[onnx.ModelProto, bool]:
    """The model, and whether some of its weights lie beside the file. Those are not read."""
    onnx = _import_onnx(path)
    decode_error = import_module("google.protobuf.message").DecodeError
    try:
        model = onnx.load(path, load_external_data=False)
    except decode_error as error:
        raise ModelError(f"{path}: a damaged ONNX file ({error}). Export or copy it again.") from error
    return model, any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)


def _import_onnx(path: Path) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependencyError(
            f"{path}: cutting it to a lower level needs the onnx package, once. "
            "Install it: pip install 'gcpp-edge[onnxruntime]'"
        ) from error
    return onnx


def _cached_path(file: ModelFile, level: str, suffix: str) -> Path:
    """A name that changes with the file, its time of change and this package; the file's path comes first in it."""
    status = file.path.stat()
    state = f"{status.st_size} {status.st_mtime_ns} {CONTRACT_VERSION} {package_version()}"
    return cache_folder() / f"{_digest(str(file.path.resolve()))}-{level}-{_digest(state)}{suffix}"


def package_version() -> str:
    """Of this package; "source" where it is not installed."""
    try:
        return version("gcpp-edge")
    except PackageNotFoundError:
        return "source"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _is_whole(path: Path) -> bool:
    """A cut that a power failure left behind half-written does not scan."""
    try:
        return path.is_file() and bool(read_metadata(path))
    except (GcppError, OSError):
        return False


def _write(path: Path, data: bytes) -> bool:
    """Put the cut in the cache and drop older ones of this file. Returns whether it is there."""
    is_kept = write_whole(path, data)
    if is_kept:
        _drop_older(path)
    return is_kept


def write_whole(path: Path, data: bytes | memoryview) -> bool:
    """Write a file of the cache, whole or not at all. Returns whether it is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    except OSError:
        return False
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # devices lose power: a rename must not outrun its data
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        return False
    return True


def _drop_older(path: Path) -> None:
    family = path.name.rsplit("-", 1)[0]
    for other in path.parent.glob(f"{family}-*.onnx"):
        if other != path:
            try:
                other.unlink()
            except OSError:  # another user's, or in use: it only takes room
                continue
