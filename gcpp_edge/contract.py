"""The contract of an explained model: names, shapes, levels and metadata. The one bridge between the two halves.

An explained model is a plain ONNX file. Its inputs are the network's own and ``target``; its outputs the network's
own and those named below. One JSON document, under METADATA_KEY in the file's metadata properties, says the rest.

    target         int64 [N]           class index, or negative rank: -1 the best class, -2 the second best, ...
    target_class   int64 [N]           the class that was explained
    activations    float [N,C,*space]  A, the features of the chosen layer
    gradients      float [N,C,*space]  dS/dA per position; [N,C,1,..] where they are proven constant over space
    guided         float [N,c,H,W]     pixel-space backward image, present at the guided level

Nodes stand in the order plain | map | guided; a level is a prefix of them, so that loading can cut the file to what
is asked for. This module imports the standard library alone.

Compatibility: CONTRACT_VERSION is one integer. A reader takes every version up to its own and refuses a newer one by
name. A new optional field does not raise the version; a changed meaning does. Files of every past version are kept
as fixtures of the tests.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from gcpp_edge.errors import ContractVersionError, ModelError, NotExplainedError

CONTRACT_VERSION = 1
METADATA_KEY = "gcpp_edge"
MAX_OPSET = 20  # TensorRT 10 (JetPack 6) reads no newer one
MAX_IR = 10

TARGET = "target"
TARGET_CLASS = "target_class"
ACTIVATIONS = "activations"
GRADIENTS = "gradients"
GUIDED = "guided"
RESERVED = (TARGET, TARGET_CLASS, ACTIVATIONS, GRADIENTS, GUIDED)

PLAIN = "plain"
MAP = "map"
LEVELS = (PLAIN, MAP, GUIDED)

SCORE_KINDS = ("logits", "softmax", "log_softmax", "sigmoid")
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1, "rgba": 4, "bgra": 4}
COLOR_ORDERS = tuple(CHANNELS)
COLOR_OF_CHANNELS = {1: "gray", 3: "rgb", 4: "rgba"}  # where nothing else is said
GEOMETRIES = ("stretch", "crop", "letterbox")
PIXEL_RULES = ("guided", "deconvnet", "gradient")


@dataclass(frozen=True)
class Layer:
    """The layer that is explained. `constant`: its gradients are stored as [N,C,1,..]."""

    name: str  # as the user knows it: module path, or tensor
    tensor: str  # its tensor in the source graph
    channels: int
    space: tuple[int, ...]  # (h, w), or (t, h, w)
    constant: bool
    activations: str = ACTIVATIONS
    gradients: str = GRADIENTS


@dataclass(frozen=True)
class Geometry:
    """How a frame is brought to the input's size.

    stretch: both sides at will. crop: the short side to input / share, then the centre. letterbox: the long side
    to the input, the rest filled with `fill` (a pixel value, 0 to 255).
    """

    kind: str = "stretch"
    share: float = 1.0
    fill: float = 114.0


@dataclass(frozen=True)
class Preprocessing:
    """From uint8 pixels to the network's input: x = (pixel / 255 * pixel_max - mean) / std, per channel.

    `mean` and `std` stand in the order of `color` and in the unit that `pixel_max` sets: 1 for torchvision's
    convention, 255 for networks trained on raw pixel values.
    """

    height: int
    width: int
    color: str = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel_max: float = 1.0
    geometry: Geometry = Geometry()

    @property
    def channels(self) -> int:
        return CHANNELS[self.color]


@dataclass(frozen=True)
class Scores:
    """The network's output that is explained.

    `kind` says what the output holds, so that a probability is never taken twice. The gradients are always those of
    the logit, unless `differentiated` is the kind itself.
    """

    output: str
    classes: int
    kind: str = "logits"
    differentiated: str = "logits"
    logits: str = ""  # the tensor that was differentiated: `output` itself, or what lies before its softmax


@dataclass(frozen=True)
class Level:
    """A prefix of the nodes that is enough for `outputs`, and the memory it needs (bytes, batch 1, estimated)."""

    nodes: int
    outputs: tuple[str, ...]
    memory_bytes: int = 0


@dataclass(frozen=True)
class Contract:
    """All that a device must know of an explained model besides its graph."""

    input: str
    preprocessing: Preprocessing
    scores: Scores
    layer: Layer
    levels: dict[str, Level]
    ranks: int = 5
    labels: tuple[str, ...] = ()
    method: str = "gradcam++"
    pixel_rule: str = ""  # how `guided` was made, one of PIXEL_RULES; empty when the file has no such level
    source_sha256: str = ""
    source_name: str = ""
    exporter: str = ""
    check: dict[str, Any] = field(default_factory=dict)  # figures of the self-check at export
    version: int = CONTRACT_VERSION

    def to_json(self) -> str:
        """The metadata document, as it stands in the file."""
        return json.dumps(asdict(self), ensure_ascii=False)


def contract_from_json(text: str, where: str = "model") -> Contract:
    """The contract in a metadata document.

    Raises ContractVersionError for a newer version, ModelError for a damaged document.
    """
    try:
        document = json.loads(text)
        version = int(document["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(_damaged(where, error)) from error
    if version > CONTRACT_VERSION:
        raise ContractVersionError(
            f"{where}: written for contract version {version}; this gcpp-edge reads up to {CONTRACT_VERSION}. "
            "Upgrade gcpp-edge on this machine, or export again with this version."
        )
    try:
        contract = _contract(document)
        _require_sound(contract)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(_damaged(where, error)) from error
    return contract


def _damaged(where: str, error: Exception) -> str:
    return f"{where}: its {METADATA_KEY} metadata is damaged ({error!r}). Export the model again."


def contract_from_metadata(metadata: Mapping[str, str], where: str = "model") -> Contract:
    """The contract in the metadata properties of an ONNX file; NotExplainedError where there is none."""
    if METADATA_KEY not in metadata:
        raise NotExplainedError(
            f"{where}: an ONNX file without explanation. Make one first: gcpp-edge export {where} -o explained.onnx"
        )
    return contract_from_json(metadata[METADATA_KEY], where)


def _contract(document: dict[str, Any]) -> Contract:
    preprocessing = dict(document["preprocessing"])
    preprocessing["geometry"] = _known(Geometry, preprocessing["geometry"])
    levels = {name: _known(Level, level) for name, level in document["levels"].items()}
    result: Contract = _known(
        Contract,
        document
        | {
            "preprocessing": _known(Preprocessing, preprocessing),
            "scores": _known(Scores, document["scores"]),
            "layer": _known(Layer, document["layer"]),
            "levels": levels,
        },
    )
    return result


def _require_sound(contract: Contract) -> None:
    """Raises ValueError where a field holds what nothing can be computed with."""
    pixels, geometry, layer = contract.preprocessing, contract.preprocessing.geometry, contract.layer
    numbers = (*pixels.mean, *pixels.std, pixels.pixel_max, geometry.share, geometry.fill)
    if not all(isinstance(number, (int, float)) and isfinite(number) for number in numbers):
        raise ValueError(f"preprocessing: expected finite numbers, found {numbers}")
    if not (all(deviation > 0 for deviation in pixels.std) and pixels.pixel_max > 0 and 0 < geometry.share <= 1):
        raise ValueError(f"preprocessing: std {pixels.std}, pixel_max {pixels.pixel_max}, share {geometry.share}")
    sizes = (pixels.height, pixels.width, layer.channels, *layer.space)
    nodes = (level.nodes for level in contract.levels.values())
    counts = (*sizes, contract.scores.classes, contract.ranks, *nodes)
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(f"sizes and counts: expected whole numbers above 0, found {counts}")
    if not isinstance(contract.labels, tuple) or not all(isinstance(label, str) for label in contract.labels):
        raise ValueError("labels: expected a list of texts")


def _known(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from a JSON object: fields that we do not know are ignored, lists become tuples."""
    names = kind.__dataclass_fields__
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})
