"""The contract of an explained model: names, shapes, levels and metadata. The one bridge between the two halves.

An explained model is a plain ONNX file. Its inputs are the network's own and those that say what is explained; its
outputs the network's own and those named below. One JSON document, under METADATA_KEY in the file's metadata
properties, says the rest.

    target          in   int64 [N]           class index, or negative rank: -1 the best class, -2 the second best, ...
    target_class    out  int64 [N]           the class that was explained
    activations     out  float [N,C,*space]  A, the features of the chosen layer
    gradients       out  float [N,C,*space]  dS/dA per position; [N,C,1,..] where they are proven constant over space
    guided          out  float [N,c,H,W]     pixel-space backward image, present at the guided level

`Contract.target.kind` says what is explained, and which other tensors there are:

    class       as above
    classes     target and target_class are [N,K], gradients and guided [N,K,...]: K classes from one forward pass
    region      in: region float [N,h,w] on the grid of the output; a negative entry counts where the class wins.
                out: selected_scores float [N,classes], the mean over the region
    detection   in: detection int64 [N], an index or a negative rank among those by the class's score.
                out: detection_index int64 [N], selected_scores float [N,classes]
    seed        in: seed float [N,*shape], the gradient at the output, in place of target; no target_class

With FrameInput, `frame` uint8 [N,H,W,C] ([N,H,W] of grey) stands in place of the network's own input.

Optional outputs of the map level:

    activations_2, gradients_2, ...          of a second layer, and so on (Contract.others)
    heatmap         out  float [N,H,W]       the whole method in standard operators, in [0, 1], at the input's size;
                                             [N,K,H,W] of K classes, [N,T,H,W] of clips
    softmax_weights out  float [N,C,1,..]    weights of gradcam++-softmax
    softmax_poles   out  int64 [N]           how many positions were poles

Nodes stand in the order plain | map | guided; a level is a prefix of them, so that loading can cut the file to what
is asked for. This module imports the standard library alone.

Compatibility: CONTRACT_VERSION is one integer. A reader takes every version up to its own and refuses a newer one by
name. A new optional field does not raise the version; a changed meaning does. A file is written with the lowest
version that says all it holds, so that older readers go on reading what they can. Files of every past version are
kept as fixtures of the tests.

    1   class targets, one layer, pictures
    2   the other targets, several layers, clips, frame inputs, further inputs, scaled gradients
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from gcpp_edge.errors import ContractVersionError, ModelError, NotExplainedError

CONTRACT_VERSION = 2
METADATA_KEY = "gcpp_edge"
BATCH = "N"  # in a shape, the size that the caller decides
MAX_OPSET = 20  # TensorRT 10 (JetPack 6) reads no newer one
MAX_IR = 10

TARGET = "target"
REGION = "region"
DETECTION = "detection"
SEED = "seed"
FRAME = "frame"
TARGET_CLASS = "target_class"
DETECTION_INDEX = "detection_index"
SELECTED_SCORES = "selected_scores"
ACTIVATIONS = "activations"
GRADIENTS = "gradients"
SOFTMAX_WEIGHTS = "softmax_weights"
SOFTMAX_POLES = "softmax_poles"
HEATMAP = "heatmap"
GUIDED = "guided"
AIMS = (TARGET, REGION, DETECTION, SEED)  # inputs that say what is explained
RESERVED = (  # in the order in which a file lists them
    *AIMS,
    FRAME,
    TARGET_CLASS,
    DETECTION_INDEX,
    SELECTED_SCORES,
    ACTIVATIONS,
    GRADIENTS,
    *(f"{name}_{number}" for number in range(2, 10) for name in (ACTIVATIONS, GRADIENTS)),
    SOFTMAX_WEIGHTS,
    SOFTMAX_POLES,
    HEATMAP,
    GUIDED,
)

PLAIN = "plain"
MAP = "map"
LEVELS = (PLAIN, MAP, GUIDED)

SCORE_KINDS = ("logits", "softmax", "log_softmax", "sigmoid")
CHANNELS = {"rgb": 3, "bgr": 3, "gray": 1, "rgba": 4, "bgra": 4}
COLOR_ORDERS = tuple(CHANNELS)
COLOR_OF_CHANNELS = {1: "gray", 3: "rgb", 4: "rgba"}  # where nothing else is said
GEOMETRIES = ("stretch", "crop", "letterbox")
PIXEL_RULES = ("guided", "deconvnet", "gradient")
CLASS, CLASSES = "class", "classes"
TARGET_KINDS = (CLASS, CLASSES, REGION, DETECTION, SEED)
CHANNELS_FIRST, CHANNELS_LAST, TOKENS = "channels_first", "channels_last", "tokens"
LAYOUTS = (CHANNELS_FIRST, CHANNELS_LAST, TOKENS)


@dataclass(frozen=True)
class Layer:
    """The layer that is explained. `constant`: its gradients are stored as [N,C,1,..].

    layout: how the source tensor holds the grid; the file's outputs always are [N,C,*space]. skip: tokens before the
    grid (class, registers). gradient_scale: gradients as stored, divided by this, are dS/dA.
    """

    name: str  # as the user knows it: module path, or tensor
    tensor: str  # its tensor in the source graph
    channels: int
    space: tuple[int, ...]  # (h, w), or (t, h, w)
    constant: bool
    activations: str = ACTIVATIONS
    gradients: str = GRADIENTS
    layout: str = CHANNELS_FIRST
    skip: int = 0
    gradient_scale: float = 1.0


@dataclass(frozen=True)
class Target:
    """What is explained, one of TARGET_KINDS (see the top of this file).

    count: K of "classes". shape: the output's behind the batch, of "region" (classes, h, w), "detection" (as the
    file has it) and "seed". class_axis: where in `shape` the classes lie. first_class: how many entries of that axis
    come before them (boxes, objectness).
    """

    kind: str = CLASS
    count: int = 1
    shape: tuple[int, ...] = ()
    class_axis: int = 0
    first_class: int = 0


@dataclass(frozen=True)
class FrameInput:
    """A file that takes uint8 frames [N,H,W,C] of one size, preprocessing included. height 0: it does not."""

    height: int = 0
    width: int = 0
    format: str = "bgr"


@dataclass(frozen=True)
class ExtraInput:
    """An input of the network besides the picture. shape: whole, with BATCH where the batch stands; dtype: NumPy's."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str

    @property
    def has_batch(self) -> bool:
        """Whether each frame has a value of its own."""
        return self.shape[:1] == (BATCH,)


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
    convention, 255 for networks trained on raw pixel values. `frames`: how many pictures a clip has, for networks with
    an input [N,C,T,H,W]; 0 for pictures.
    """

    height: int
    width: int
    color: str = "rgb"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    pixel_max: float = 1.0
    geometry: Geometry = Geometry()
    frames: int = 0

    @property
    def channels(self) -> int:
        return CHANNELS[self.color]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The network's input behind the batch: (C, H, W), or (C, T, H, W)."""
        return (self.channels, *([self.frames] if self.frames else []), self.height, self.width)


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
    target: Target = Target()
    others: tuple[Layer, ...] = ()  # layers besides the first; their maps are fused by mean
    frame: FrameInput = FrameInput()
    extra_inputs: tuple[ExtraInput, ...] = ()
    network_input: str = ""  # the network's own input tensor, where `input` is the frame
    version: int = 1  # raised to the lowest that says all this

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", max(self.version, _version_needed(self)))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of the network's scores behind the batch: of a classifier its classes, else as it makes them."""
        return (self.scores.classes,) if self.target.kind in (CLASS, CLASSES) else self.target.shape

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All layers that are explained."""
        return (self.layer, *self.others)

    def to_json(self) -> str:
        """The metadata document, as it stands in the file."""
        return json.dumps(asdict(self), ensure_ascii=False)


def _version_needed(contract: Contract) -> int:
    new = (
        contract.target.kind != CLASS,
        contract.others,
        contract.preprocessing.frames,
        contract.frame.height,
        contract.extra_inputs,
        any(layer.gradient_scale != 1 for layer in contract.layers),
    )
    return 2 if any(new) else 1


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
    known = {"target": Target, "frame": FrameInput}
    one = {name: _known(kind, document[name]) for name, kind in known.items() if name in document}
    lists = {"others": Layer, "extra_inputs": ExtraInput}
    many = {name: [_known(kind, entry) for entry in document.get(name, ())] for name, kind in lists.items()}
    result: Contract = _known(
        Contract,
        document
        | {
            "preprocessing": _known(Preprocessing, preprocessing),
            "scores": _known(Scores, document["scores"]),
            "layer": _known(Layer, document["layer"]),
            "levels": levels,
        }
        | one
        | many,
    )
    return result


def _require_sound(contract: Contract) -> None:
    """Raises ValueError where a field holds what nothing can be computed with."""
    pixels, geometry = contract.preprocessing, contract.preprocessing.geometry
    scales = [layer.gradient_scale for layer in contract.layers]
    numbers = (*pixels.mean, *pixels.std, pixels.pixel_max, geometry.share, geometry.fill, *scales)
    if not all(isinstance(number, (int, float)) and isfinite(number) for number in numbers):
        raise ValueError(f"preprocessing: expected finite numbers, found {numbers}")
    if not (all(deviation > 0 for deviation in pixels.std) and pixels.pixel_max > 0 and 0 < geometry.share <= 1):
        raise ValueError(f"preprocessing: std {pixels.std}, pixel_max {pixels.pixel_max}, share {geometry.share}")
    sizes = [pixels.height, pixels.width, contract.target.count, *contract.target.shape]
    for layer in contract.layers:
        sizes += [layer.channels, *layer.space]
    nodes = (level.nodes for level in contract.levels.values())
    counts = (*sizes, contract.scores.classes, contract.ranks, *nodes)
    if not all(isinstance(count, int) and count > 0 for count in counts):
        raise ValueError(f"sizes and counts: expected whole numbers above 0, found {counts}")
    rest = (pixels.frames, contract.frame.height, contract.frame.width, contract.target.first_class)
    if not all(isinstance(count, int) and count >= 0 for count in rest):
        raise ValueError(f"frames and offsets: expected whole numbers of 0 or more, found {rest}")
    if not all(2.0**-100 <= scale <= 2.0**100 for scale in scales):  # what the kernels take
        raise ValueError(f"gradient_scale {scales}: expected 2^-100 to 2^100")
    axes = {REGION: 3, DETECTION: 2}.get(contract.target.kind)
    if axes and (len(contract.target.shape) != axes or contract.target.class_axis not in range(axes)):
        raise ValueError(f"target: expected a shape of {axes} axes, found {contract.target}")
    if not isinstance(contract.labels, tuple) or not all(isinstance(label, str) for label in contract.labels):
        raise ValueError("labels: expected a list of texts")


def _known(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from a JSON object: fields that we do not know are ignored, lists become tuples."""
    names = kind.__dataclass_fields__
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names})
