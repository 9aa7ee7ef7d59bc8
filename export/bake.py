"""Bakes the backward pass into a model: target selection, gradients, levels and metadata."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from gcpp_edge import contract
from gcpp_edge.contract import (
    ACTIVATIONS,
    COLOR_OF_CHANNELS,
    GRADIENTS,
    GUIDED,
    HEATMAP,
    MAP,
    PIXEL_RULES,
    PLAIN,
    RESERVED,
    SOFTMAX_POLES,
    SOFTMAX_WEIGHTS,
)
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.differentiate import differentiate
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.frame_input import FramePart, frame_part, require_frame_input
from gcpp_edge.export.graph import Graph, Value, numpy_dtype
from gcpp_edge.export.grids import as_map
from gcpp_edge.export.layers import LayerCandidate, find_layers
from gcpp_edge.export.lowering import Lowerings
from gcpp_edge.export.memory import memory_bytes
from gcpp_edge.export.normalise import normalise, strip_scopes
from gcpp_edge.export.portable import Maps, heatmap
from gcpp_edge.export.precision import HALVES, opset_for
from gcpp_edge.export.recognise import recognise_activations
from gcpp_edge.export.repeat import Repeater
from gcpp_edge.export.scores import ScoreTensors, TargetOptions, find_scores
from gcpp_edge.export.softmax import Explained, add_softmax_weights, require_softmax
from gcpp_edge.export.targets import Scene, aim
from gcpp_edge.export.tensorrt_policy import require_accepted
from gcpp_edge.export.weights import without_large_constants
from gcpp_edge.methods import METHODS, choose_method

MOST_LAYERS = 9  # as many as have reserved names


@dataclass(frozen=True)
class Provenance:
    """Where an explained model comes from; it travels in the metadata."""

    name: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Rescale:
    """Powers of two that gradients are multiplied by on their way, by tensor, so that float16 holds them (scaling.py).

    map: on the way to the layers; what is left there stands in the metadata. guided: on the way to the picture, where
    it is divided out again.
    """

    map: Mapping[str, float] = field(default_factory=dict)
    guided: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BakeOptions:
    """What is baked into a model, beyond its own network.

    layer: module path or tensor, or several of them; None for the last features with a spatial extent. token_grid:
    (h, w) of layers of tokens, where it is not recognised. guided: adds the pixel-space backward image under
    `pixel_rule` ("guided", "deconvnet" or "gradient"). target: what is explained. rescale: see Rescale.
    softmax: adds the channel weights of gradcam++-softmax; away from pooling + linear, `softmax_classes` of the other
    classes stand for all (softmax.py).
    method: the file's default. portable: the method whose heatmap the graph computes itself.
    frame_input: the frames that the file takes in place of the network's input, preprocessing included.
    lowerings: which forms the backward pass takes.
    """

    layer: str | Sequence[str] | None = None
    token_grid: tuple[int, ...] | None = None
    guided: bool = False
    pixel_rule: str = "guided"
    target: TargetOptions = TargetOptions()
    rescale: Rescale = Rescale()
    softmax: bool = False
    softmax_classes: int = 10
    method: str = "gradcam++"
    portable: str | None = None
    frame_input: contract.FrameInput | None = None
    lowerings: Lowerings = Lowerings()

    def __post_init__(self) -> None:
        if self.pixel_rule not in PIXEL_RULES:
            raise SourceError(f'Unknown pixel rule "{self.pixel_rule}"; expected one of {", ".join(PIXEL_RULES)}.')
        for method in (self.method, self.portable):
            if method is not None and method not in METHODS:
                raise SourceError(f'Unknown method "{method}"; expected one of {", ".join(METHODS)}.')
        if self.layer is not None and not self.layers:
            raise SourceError("No layer given. Name one, or leave it out for the last features.")
        if len(self.layers) > MOST_LAYERS or len(set(self.layers)) < len(self.layers):
            raise SourceError(
                f"--layer: expected up to {MOST_LAYERS} different layers, found {', '.join(self.layers)}."
            )

    @property
    def layers(self) -> tuple[str, ...]:
        """The names that were given, none for the default."""
        if self.layer is None:
            return ()
        return (self.layer,) if isinstance(self.layer, str) else tuple(self.layer)


def bake(
    model: ModelProto,
    options: BakeOptions = BakeOptions(),
    *,
    input_size: tuple[int, int] | None = None,
    preprocessing: contract.Preprocessing | None = None,
    labels: Sequence[str] = (),
    provenance: Provenance = Provenance(),
    **fields: Any,
) -> ModelProto:
    """The explained model of a forward ONNX model, which is not changed.

    fields: those of BakeOptions, over `options`. preprocessing: must have the size of the input; None takes pixels in
    0..1, RGB, stretched.
    Raises ExportError's children.
    """
    options = replace(options, **fields)
    return bake_normal(normalise(model, input_size), options, preprocessing, labels, provenance)


def bake_normal(
    model: ModelProto,
    options: BakeOptions,
    preprocessing: contract.Preprocessing | None = None,
    labels: Sequence[str] = (),
    provenance: Provenance = Provenance(),
) -> ModelProto:
    """The explained model of one in normal form, which it uses up. The rest as in bake."""
    graph = Graph(model)
    _refuse_reserved(graph)
    scores = find_scores(graph, options.target)
    chosen = find_layers(graph, scores, options.layers, options.token_grid)
    preprocessing = _fitting(graph, preprocessing)
    if labels and len(labels) != scores.classes:
        raise SourceError(f"{len(labels)} labels for {scores.classes} classes. Give one label a class, in order.")
    if options.softmax:
        require_softmax(scores, options.target.kind, len(chosen), options.softmax_classes)
    builder = _Builder(graph, scores, chosen, options)
    layers = builder.add_map_level()
    if options.guided:
        builder.add_guided_level()
    extra_inputs = tuple(_extra_input(graph.value(name)) for name in graph.inputs if name != graph.image)
    if options.frame_input is not None:
        require_frame_input(options.frame_input, preprocessing)
        builder.add_frame_input(frame_part(graph, preprocessing, options.frame_input))
    result = builder.model()
    described = contract.Contract(
        input=graph.image if options.frame_input is None else contract.FRAME,
        preprocessing=preprocessing,
        scores=contract.Scores(scores.output, scores.classes, scores.kind, logits=scores.logits.name),
        layer=layers[0],
        others=tuple(layers[1:]),
        levels=builder.levels(),
        ranks=builder.aim.ranks,
        labels=tuple(labels),
        method=options.method,
        pixel_rule=options.pixel_rule if options.guided else "",
        source_sha256=provenance.sha256,
        source_name=provenance.name,
        exporter=f"gcpp-edge {_version()}",
        target=builder.aim.target,
        extra_inputs=extra_inputs,
        frame=options.frame_input or contract.FrameInput(),
        network_input=graph.image if options.frame_input is not None else "",
    )
    for method in (options.method, options.portable or options.method):
        choose_method(method, described)
    write_contract(result, described)
    onnx.checker.check_model(without_large_constants(result))
    return result


def _extra_input(value: Value) -> contract.ExtraInput:
    return contract.ExtraInput(value.name, tuple(value.shape), numpy_dtype(value.dtype).name)


def write_contract(model: ModelProto, described: contract.Contract) -> None:
    """Puts the metadata document into the file, in place of an older one."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != contract.METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (contract.METADATA_KEY, described.to_json())]:
        model.metadata_props.add(key=key, value=value)


def contract_of(model: ModelProto) -> contract.Contract:
    """The contract in an explained model."""
    return contract.contract_from_metadata({entry.key: entry.value for entry in model.metadata_props})


def _refuse_reserved(graph: Graph) -> None:
    for name in (*graph.inputs, *graph.outputs):
        if name in RESERVED:
            raise UnsupportedGraphError(
                f'The model has an input or output named "{name}", which explained models reserve. Rename it.'
            )


def assumed_preprocessing(channels: int, height: int, width: int, frames: int = 0) -> contract.Preprocessing:
    """Pixels in 0..1, stretched: what is taken where a source does not say. SourceError for odd channel counts."""
    if channels not in COLOR_OF_CHANNELS:
        raise SourceError(f"The input has {channels} channels; expected 1, 3 or 4.")
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return contract.Preprocessing(height, width, COLOR_OF_CHANNELS[channels], zeros, ones, frames=frames)


def _fitting(graph: Graph, given: contract.Preprocessing | None) -> contract.Preprocessing:
    """The given preprocessing, held against the input; a plain one when none is given."""
    _, channels, *clip, height, width = graph.value(graph.image).shape
    frames = clip[0] if clip else 0
    if given is None:
        return assumed_preprocessing(channels, height, width, frames)
    given = replace(given, frames=frames)
    found = (given.channels, given.height, given.width)
    if found != (channels, height, width) or len(given.mean) != channels or len(given.std) != channels:
        raise SourceError(
            f"Preprocessing for {found[0]} channels of {found[1]}x{found[2]} with {len(given.mean)} means and "
            f"{len(given.std)} deviations; the input has {channels} channels of {height}x{width}."
        )
    return given


class _Builder:
    """Owns the graph while it grows: emits, names outputs, and puts the model together."""

    def __init__(self, graph: Graph, scores: ScoreTensors, layers: list[LayerCandidate], options: BakeOptions) -> None:
        self.graph, self.scores, self.layers, self.options = graph, scores, layers, options
        self.forward = list(graph.nodes)
        self.steps = recognise_activations(graph)
        self.emit = Emitter(graph, lowerings=options.lowerings)
        self.renamed: dict[str, str] = {}
        self.frame: FramePart | None = None
        self.outputs: dict[str, list[str]] = {MAP: [], GUIDED: []}
        self.infos: dict[str, Value] = {}
        self.segments: dict[str, list[NodeProto]] = {}
        self.aim = aim(Scene(graph, self.emit, scores, options.target))
        marks = self.aim.repeats
        self.repeater = None if marks is None else Repeater(self.emit, marks, self.aim.target.count)

    def add_map_level(self) -> list[contract.Layer]:
        """Activations and gradients of every layer, and what the aim gives."""
        for name, value in self.aim.outputs.items():
            self.name_output(MAP, name, value)
        rescale = self.options.rescale.map
        found = self._differentiate([layer.tensor for layer in self.layers], "gradient", rescale)
        layers, maps = [], []
        for number, layer in enumerate(self.layers, 1):
            names = [name if number == 1 else f"{name}_{number}" for name in (ACTIVATIONS, GRADIENTS)]
            activations = as_map(self.emit, self.graph.value(layer.tensor), layer.grid)
            gradients = as_map(self.emit, found[layer.tensor], layer.grid)
            constant = all(size == 1 for size in gradients.shape[2:])
            self.name_output(MAP, names[0], activations)
            self.name_output(MAP, names[1], self._per_target(gradients))
            layers.append(_layer(layer, constant, names, self._scale_at(layer.tensor, rescale)))
            weights = self._add_softmax(layer, activations, gradients) if self.options.softmax else None
            maps.append(Maps(layers[-1], activations, gradients, weights))
        if self.options.portable:
            size = self.graph.value(self.graph.image).shape[2:]
            shown = heatmap(self.emit, self.options.portable, maps, size)
            self.name_output(MAP, HEATMAP, self._per_target(shown))
        self._end_level(MAP)
        return layers

    def _add_softmax(self, layer: LayerCandidate, activations: Value, gradients: Value) -> Value:
        """Names the weights of gradcam++-softmax and the count of poles. Returns the weights of each backward row."""
        rescale = self.options.rescale.map
        explained = Explained(
            self.graph, self.emit, self.steps, self.scores, self.aim, layer, activations, gradients, rescale,
            self._scale_at(layer.tensor, rescale),
        )  # fmt: skip
        found = add_softmax_weights(explained, self.options.softmax_classes)
        for name, value in zip((SOFTMAX_WEIGHTS, SOFTMAX_POLES), found, strict=True):
            self.name_output(MAP, name, self._per_target(value))
        return found[0]

    def add_guided_level(self) -> None:
        """The pixel-space backward image, float32 also where the network is not: it is no longer scaled."""
        image, rescale = self.graph.image, self.options.rescale.guided
        found = self._differentiate([image], self.options.pixel_rule, rescale)[image]
        found = self.emit.dense(found, self.graph.value(image).shape)
        if found.dtype in HALVES:
            found = self.emit.cast(found, TensorProto.FLOAT)
        found = self.emit.scale(found, 1 / self._scale_at(image, rescale))
        self.name_output(GUIDED, GUIDED, self._per_target(found))
        self._end_level(GUIDED)

    def add_frame_input(self, part: FramePart) -> None:
        """Frames in place of the network's own input, which becomes an inner tensor."""
        self.frame = part
        self.forward = [*part.nodes, *self.forward]
        self.graph.inputs = [part.input.name if name == self.graph.image else name for name in self.graph.inputs]
        require_accepted(self.graph, part.nodes)

    def _differentiate(self, tensors: list[str], pixel_rule: str, rescale: Mapping[str, float]) -> dict[str, Value]:
        return differentiate(self.graph, self.emit, self.steps, self.aim.seeds, tensors, pixel_rule, rescale)

    def _scale_at(self, tensor: str, rescale: Mapping[str, float]) -> float:
        """What the gradient at a tensor is multiplied by: all factors on the way from the scores to it."""
        place = {name: index for index, node in enumerate(self.graph.nodes) for name in node.output}
        start = place.get(tensor, -1)
        return math.prod(factor for name, factor in rescale.items() if place[name] >= start)

    def _per_target(self, value: Value) -> Value:
        return value if self.repeater is None else self.repeater.unfolded(value)

    def _end_level(self, level: str) -> None:
        """What was emitted since the last level is this one's; it reads repeated tensors where K targets share them."""
        start = sum(len(segment) for segment in self.segments.values())
        nodes = self.emit.nodes[start:]
        if self.repeater is not None:
            nodes = self.repeater.rewrite(nodes)
            self.emit.nodes[start:] = nodes
        self.segments[level] = nodes

    def name_output(self, level: str, name: str, value: Value) -> None:
        """Makes a value the output of that name: by renaming it, or through an Identity where it has one already."""
        if value.dtype == TensorProto.BFLOAT16:  # no device reads it, and float32 loses nothing of it
            value = self.emit.cast(value, TensorProto.FLOAT)
        taken = {*self.graph.inputs, *self.graph.outputs, *self.graph.initializers, *self.renamed}
        if value.name in taken:
            copy = self.graph.fresh(f"gcpp/{name}")
            self.emit.append(helper.make_node("Identity", [value.name], [copy], name=copy))
            self.graph.values[copy] = value = Value(copy, value.shape, value.dtype)
        self.renamed[value.name] = name
        self.outputs[level].append(name)
        self.infos[name] = Value(name, value.shape, value.dtype)

    def model(self) -> ModelProto:
        """The explained model without metadata: nodes in the order plain, map, guided, without dead ones."""
        needed = self.graph.needed_for([*self.graph.outputs, *self.renamed], [*self.forward, *self.emit.nodes])
        self.nodes = list(self.forward)
        self.counts = {PLAIN: len(self.forward)}
        for level, segment in self.segments.items():
            alive = [node for node in segment if needed.intersection(node.output)]
            require_accepted(self.graph, alive)
            self.nodes += alive
            self.counts[level] = len(self.nodes)
        return self._assembled()

    def levels(self) -> dict[str, contract.Level]:
        """Where each level ends, what it gives and the memory that it needs."""
        inner = {new: old for old, new in self.renamed.items()}
        outputs: tuple[str, ...] = ()
        result = {}
        for level, count in self.counts.items():
            outputs += tuple(self.graph.outputs if level == PLAIN else self._ordered(self.outputs[level]))
            kept = [inner.get(name, name) for name in outputs]
            result[level] = contract.Level(count, outputs, memory_bytes(self.graph, self.nodes[:count], kept))
        return result

    def _ordered(self, names: Iterable[str]) -> list[str]:
        return sorted(names, key=RESERVED.index)

    def _assembled(self) -> ModelProto:
        result = self.graph.model  # normal form is our own copy
        strip_scopes(result)
        del result.graph.value_info[:]
        nodes = [_with_names(node, self.renamed) for node in self.nodes]
        del result.graph.node[:]
        result.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        result.graph.initializer.extend(tensor for tensor in self.emit.initializers if tensor.name in used)
        if self.frame is not None:
            result.graph.initializer.extend(self.frame.initializers)
            image = next(value for value in result.graph.input if value.name == self.graph.image)
            image.CopyFrom(_info(self.frame.input))
        result.graph.input.extend(_info(value) for value in self.aim.inputs)
        result.graph.output.extend(_info(self.infos[name]) for name in self._ordered(self.infos))
        result.graph.name = "explained"
        result.opset_import[0].version = opset_for(result)
        result.producer_name, result.producer_version = "gcpp-edge", _version()
        return result


def _with_names(node: NodeProto, renamed: dict[str, str]) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = [renamed.get(name, name) for name in node.input]
    copy.output[:] = [renamed.get(name, name) for name in node.output]
    return copy


def _info(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, value.dtype, list(value.shape))


def _version() -> str:
    from gcpp_edge import __version__

    return __version__


def _layer(chosen: LayerCandidate, constant: bool, names: list[str], scale: float) -> contract.Layer:
    activations, gradients = names
    return contract.Layer(
        chosen.name,
        chosen.tensor,
        chosen.channels,
        chosen.space,
        constant,
        activations,
        gradients,
        layout=chosen.layout,
        skip=chosen.skip,
        gradient_scale=scale,
    )


__all__ = ["BakeOptions", "Provenance", "bake", "contract_of", "write_contract"]
