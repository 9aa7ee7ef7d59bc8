"""What can be exported: a source string becomes a forward ONNX model with what is known about its use."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from onnx import ModelProto

from gcpp_edge import contract
from gcpp_edge.errors import SourceError
from gcpp_edge.export import from_torch
from gcpp_edge.export.bake import Provenance
from gcpp_edge.export.external_data import has_external_data, read_external_data
from gcpp_edge.export.from_torch import ForwardModel, TorchSource
from gcpp_edge.export.normalise import image_input
from gcpp_edge.export.weights import digest, set_aside

FORMS = "torchvision:NAME, timm:NAME, package.module:callable, a .pt2 file or an .onnx file"
DEFAULT_SIZE = (224, 224)


@dataclass(frozen=True)
class Loaded:
    """A forward model that is ready to be baked. preprocessing is None where the source does not say."""

    forward: ForwardModel
    preprocessing: contract.Preprocessing | None
    labels: tuple[str, ...]
    provenance: Provenance


def load_source(source: str, weights: str | Path | None = None, input_size: tuple[int, int] | None = None) -> Loaded:
    """The forward model behind a source string. Raises SourceError, MissingDependencyError."""
    weights = None if weights is None else Path(weights)
    if source.lower().endswith(".onnx"):
        if weights is not None:
            raise SourceError("--weights goes with a PyTorch source; an .onnx file carries its own.")
        return load_onnx(Path(source))
    if source.lower().endswith(".pt2") and input_size is not None:
        raise SourceError("--input-size goes with a network by name; a .pt2 file has the size that it was traced with.")
    return from_torch_source(_torch_source(source, weights), input_size)


def _torch_source(source: str, weights: Path | None) -> TorchSource:
    if source.lower().endswith(".pt2"):
        if weights is not None:
            raise SourceError("--weights goes with a network by name; a .pt2 file carries its own.")
        if not Path(source).is_file():
            raise SourceError(f"{source}: no such file.")
        return from_torch.program_source(Path(source))
    scheme, separator, name = source.partition(":")
    if not separator or not name:
        raise SourceError(f'Cannot tell what "{source}" is; expected {FORMS}.')
    loaders: dict[str, Callable[[str, Path | None], TorchSource]] = {
        "torchvision": from_torch.torchvision_source,
        "timm": from_torch.timm_source,
    }
    if scheme in loaders:
        return loaders[scheme](name, weights)
    return from_torch.callable_source(source, weights)


def from_torch_source(source: TorchSource, input_size: tuple[int, int] | None = None, example: Any = None) -> Loaded:
    """A PyTorch network as a forward model; `example` overrides the size that the source documents.

    example: a tensor, or a tuple whose first tensor is the picture and the others the network's further inputs.
    """
    torch = from_torch.import_torch()
    preprocessing = source.preprocessing
    example, *others = example if isinstance(example, (tuple, list)) and example else (example,)
    if example is not None and (not isinstance(example, torch.Tensor) or example.dim() not in (4, 5)):
        raise SourceError("example_input: expected a float torch.Tensor [N,C,H,W], or of clips [N,C,T,H,W].")
    if not all(isinstance(each, torch.Tensor) and each.dim() for each in others):
        raise SourceError("example_input: expected a tuple of torch.Tensors whose first axis is the batch.")
    if example is None:
        known = DEFAULT_SIZE if preprocessing is None else (preprocessing.height, preprocessing.width)
        channels = 3 if preprocessing is None else preprocessing.channels
        clip = [preprocessing.frames] if preprocessing is not None and preprocessing.frames else []
        size = (2, channels, *clip, *(input_size or known))
        example = torch.randn(size, generator=torch.Generator().manual_seed(0))
    forward = from_torch.forward_model(source, example, *others)
    if preprocessing is not None:
        preprocessing = replace(preprocessing, height=example.shape[-2], width=example.shape[-1])
    return Loaded(forward, preprocessing, source.labels, Provenance(source.name, digest(forward.model)))


def load_onnx(path: Path) -> Loaded:
    """The forward model in an .onnx file. Raises SourceError."""
    model, sha256 = _parsed(path)
    if any(entry.key == contract.METADATA_KEY for entry in model.metadata_props):
        raise SourceError(f"{path}: already an explained model. Export from the network that it was made from.")
    light, weights = set_aside(model)
    read_external_data(light, path, weights)
    return Loaded(ForwardModel(light, weights=weights), None, (), Provenance(path.name, sha256))


def _parsed(path: Path) -> tuple[ModelProto, str]:
    """The model and the digest of its file, whose bytes are not kept."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}.") from error
    model = ModelProto()
    try:
        model.ParseFromString(data)
        if not model.graph.node:
            raise ValueError("it has no nodes")
    except Exception as error:  # protobuf's DecodeError is no subclass of ValueError in every release
        raise SourceError(f"{path}: not an ONNX file, or a damaged one ({str(error)[:120]}).") from error
    return model, hashlib.sha256(data).hexdigest()


def load_model(model: ModelProto) -> Loaded:
    """A forward model that is in memory already. Raises SourceError."""
    if has_external_data(model):
        raise SourceError("The model's weights lie in files that are not loaded. Give the path of its .onnx file.")
    light, weights = set_aside(model)
    return Loaded(ForwardModel(light, weights=weights), None, (), Provenance())


def input_shape(model: ModelProto, input_size: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """Channels, frames of a clip (0 for a picture), height and width; 0 where the file leaves one open."""
    _, channels, *clip, height, width = (dim.dim_value for dim in image_input(model).type.tensor_type.shape.dim)
    height, width = input_size or (height, width)
    return channels, clip[0] if clip else 0, height, width


def read_labels(labels: str | Path | Sequence[str] | None) -> tuple[str, ...]:
    """Class names: the word "imagenet", a file (one a line, or a JSON list), or the names themselves."""
    if labels is None:
        return ()
    if not labels:
        raise SourceError("No labels given. Give a text file with one label a line, or the word imagenet.")
    if not isinstance(labels, (str, Path)):
        return tuple(str(label) for label in labels)
    if labels == "imagenet":
        text = resources.files("gcpp_edge.export").joinpath("labels/imagenet.txt").read_text("utf-8")
        return tuple(text.splitlines())
    try:
        text = Path(labels).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(
            f"{labels}: cannot be read as labels ({error}). Give a text file with one label a line."
        ) from error
    if text.lstrip().startswith("{"):
        raise SourceError(f"{labels}: holds a JSON object; expected a list of labels in the order of the classes.")
    if not text.lstrip().startswith("["):
        return tuple(line.strip() for line in text.splitlines() if line.strip())
    try:
        return tuple(str(label) for label in json.loads(text))
    except ValueError as error:
        raise SourceError(f"{labels}: not a JSON list of labels ({error}).") from error
