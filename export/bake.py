"""Bakes the backward pass into a model: target selection, gradients, levels and metadata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper

from gcpp_edge import contract
from gcpp_edge.contract import (
    ACTIVATIONS,
    COLOR_OF_CHANNELS,
    GRADIENTS,
    GUIDED,
    MAP,
    PIXEL_RULES,
    PLAIN,
    RESERVED,
    TARGET,
    TARGET_CLASS,
)
from gcpp_edge.errors import SourceError, UnsupportedGraphError
from gcpp_edge.export.differentiate import differentiate
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph, Value, without_large_constants
from gcpp_edge.export.layers import LayerCandidate, find_layer
from gcpp_edge.export.memory import memory_bytes
from gcpp_edge.export.normalise import normalise, strip_scopes
from gcpp_edge.export.recognise import recognise_activations
from gcpp_edge.export.scores import ScoreTensors, find_scores
from gcpp_edge.export.tensorrt_policy import TOPK_LIMIT, require_accepted
from gcpp_edge.export.vjp import OneHot


@dataclass(frozen=True)
class Provenance:
    """Where an explained model comes from; it travels in the metadata."""

    name: str = ""
    sha256: str = ""


def bake(
    model: ModelProto,
    *,
    layer: str | None = None,
    input_size: tuple[int, int] | None = None,
    guided: bool = False,
    pixel_rule: str = "guided",
    ranks: int = 5,
    preprocessing: contract.Preprocessing | None = None,
    labels: Sequence[str] = (),
    provenance: Provenance = Provenance(),
) -> ModelProto:
    """The explained model of a forward ONNX model, which is not changed.

    layer: module path or tensor; None for the last convolutional features. guided: adds the pixel-space backward image
    under `pixel_rule` ("guided", "deconvnet" or "gradient"). ranks: how many negative ranks `target` may hold.
    preprocessing: must have the size of the input; None takes pixels in 0..1, RGB, stretched.
    Raises ExportError's children.
    """
    if pixel_rule not in PIXEL_RULES:
        raise SourceError(f'Unknown pixel rule "{pixel_rule}"; expected one of {", ".join(PIXEL_RULES)}.')
    graph = Graph(normalise(model, input_size))
    _refuse_reserved(graph)
    scores = find_scores(graph)
    chosen = find_layer(graph, scores, layer)
    preprocessing = _fitting(graph, preprocessing)
    if labels and len(labels) != scores.classes:
        raise SourceError(f"{len(labels)} labels for {scores.classes} classes. Give one label a class, in order.")
    builder = _Builder(graph, scores, chosen, _checked_ranks(ranks, scores.classes))
    gradients = builder.gradients(chosen.tensor)
    builder.name_output(GRADIENTS, gradients)
    map_nodes = len(builder.emit.nodes)
    if guided:
        builder.name_output(GUIDED, builder.gradients(graph.inputs[0], pixel_rule))
    result = builder.model(map_nodes, guided)
    described = contract.Contract(
        input=graph.inputs[0],
        preprocessing=preprocessing,
        scores=contract.Scores(scores.output, scores.classes, scores.kind, logits=scores.logits.name),
        layer=_layer(chosen, gradients),
        levels=builder.levels(),
        ranks=builder.ranks,
        labels=tuple(labels),
        pixel_rule=pixel_rule if guided else "",
        source_sha256=provenance.sha256,
        source_name=provenance.name,
        exporter=f"gcpp-edge {_version()}",
    )
    write_contract(result, described)
    onnx.checker.check_model(without_large_constants(result))
    return result


def write_contract(model: ModelProto, described: contract.Contract) -> None:
    """Puts the metadata document into the file, in place of an older one."""
    kept = [(entry.key, entry.value) for entry in model.metadata_props if entry.key != contract.METADATA_KEY]
    del model.metadata_props[:]
    for key, value in [*kept, (contract.METADATA_KEY, described.to_json())]:
        model.metadata_props.add(key=key, value=value)


def _refuse_reserved(graph: Graph) -> None:
    for name in (*graph.inputs, *graph.outputs):
        if name in RESERVED:
            raise UnsupportedGraphError(
                f'The model has an input or output named "{name}", which explained models reserve. Rename it.'
            )


def _checked_ranks(ranks: int, classes: int) -> int:
    if not 1 <= ranks <= TOPK_LIMIT:
        raise SourceError(f"--ranks {ranks} is out of range; expected 1 to {TOPK_LIMIT}.")
    return min(ranks, classes)


def assumed_preprocessing(channels: int, height: int, width: int) -> contract.Preprocessing:
    """Pixels in 0..1, stretched: what is taken where a source does not say. SourceError for odd channel counts."""
    if channels not in COLOR_OF_CHANNELS:
        raise SourceError(f"The input has {channels} channels; expected 1, 3 or 4.")
    zeros, ones = (0.0,) * channels, (1.0,) * channels
    return contract.Preprocessing(height, width, COLOR_OF_CHANNELS[channels], zeros, ones)


def _fitting(graph: Graph, given: contract.Preprocessing | None) -> contract.Preprocessing:
    """The given preprocessing, held against the input; a plain one when none is given."""
    _, channels, height, width = graph.value(graph.inputs[0]).shape
    if given is None:
        return assumed_preprocessing(channels, height, width)
    found = (given.channels, given.height, given.width)
    if found != (channels, height, width) or len(given.mean) != channels or len(given.std) != channels:
        raise SourceError(
            f"Preprocessing for {found[0]} channels of {found[1]}x{found[2]} with {len(given.mean)} means and "
            f"{len(given.std)} deviations; the input has {channels} channels of {height}x{width}."
        )
    return given


class _Builder:
    """Owns the graph while it grows: emits, names outputs, and puts the model together."""

    def __init__(self, graph: Graph, scores: ScoreTensors, layer: LayerCandidate, ranks: int) -> None:
        self.graph, self.scores, self.layer, self.ranks = graph, scores, layer, ranks
        self.forward = list(graph.nodes)
        self.steps = recognise_activations(graph)
        self.emit = Emitter(graph)
        self.renamed: dict[str, str] = {}
        self.outputs: list[Value] = []
        self.name_output(ACTIVATIONS, graph.value(layer.tensor))
        self.target = Value(TARGET, (graph.value(graph.inputs[0]).shape[0],), TensorProto.INT64)
        self.target_class = self._select_class()
        self.name_output(TARGET_CLASS, self.target_class)

    def _select_class(self) -> Value:
        """int64 [N]: the target itself, or the class at its negative rank."""
        emit, batch = self.emit, self.target.shape[0]
        logits = emit.cast(self.scores.logits, TensorProto.FLOAT)  # no runtime's TopK needs float16
        flat = emit.reshape(logits, (logits.shape[0], self.scores.classes))
        ranked = self._top(flat)
        column = emit.reshape(self.target, (batch, 1))
        rank = emit.subtract(emit.constant(np.array(-1)), column)
        negative = emit.less(column, emit.constant(np.array(0)))
        place = emit.where(negative, rank, emit.constant(np.array(0)))
        best = emit.node("GatherElements", (ranked, place), (batch, 1), axis=1)
        return emit.reshape(emit.where(negative, best, column), (batch,))

    def _top(self, flat: Value) -> Value:
        """Indices of the best classes, int64 [N,ranks]."""
        values, indices = self.graph.fresh("gcpp/TopK"), self.graph.fresh("gcpp/TopK/indices")
        count = self.emit.integers([self.ranks])
        self.emit.nodes.append(
            helper.make_node(
                "TopK", [flat.name, count.name], [values, indices], name=values, axis=1, largest=1, sorted=1
            )
        )
        result = Value(indices, (flat.shape[0], self.ranks), TensorProto.INT64)
        self.graph.values[indices] = result
        return result

    def gradients(self, tensor: str, pixel_rule: str = "gradient") -> Value:
        """The gradient of the target's logit at a tensor."""
        logits = self.scores.logits
        seed = OneHot.of_class(self.emit, self.target_class, logits)
        found = differentiate(self.graph, self.emit, self.steps, {logits.name: seed}, [tensor], pixel_rule)
        return found[tensor]

    def name_output(self, name: str, value: Value) -> None:
        """Makes a value the output of that name: by renaming it, or through an Identity where it has one already."""
        taken = {*self.graph.inputs, *self.graph.outputs, *self.graph.initializers, *self.renamed}
        if value.name in taken:
            copy = self.graph.fresh(f"gcpp/{name}")
            self.emit.nodes.append(helper.make_node("Identity", [value.name], [copy], name=copy))
            self.graph.values[copy] = value = Value(copy, value.shape, value.dtype)
        self.renamed[value.name] = name
        self.outputs.append(Value(name, value.shape, value.dtype))

    def model(self, map_nodes: int, guided: bool) -> ModelProto:
        """The explained model without metadata: nodes in the order plain, map, guided, without dead ones."""
        needed = self.graph.needed_for([*self.graph.outputs, *self.renamed], [*self.forward, *self.emit.nodes])
        alive = [node for node in self.emit.nodes if needed.intersection(node.output)]
        require_accepted(self.graph, alive)
        first = [node for node in self.emit.nodes[:map_nodes] if needed.intersection(node.output)]
        self.counts = {PLAIN: len(self.forward), MAP: len(self.forward) + len(first)}
        if guided:
            self.counts[contract.GUIDED] = len(self.forward) + len(alive)
        self.nodes = [*self.forward, *alive]
        return self._assembled()

    def levels(self) -> dict[str, contract.Level]:
        """Where each level ends, what it gives and the memory that it needs."""
        first = tuple(self.graph.outputs)
        outputs = {PLAIN: first, MAP: (*first, TARGET_CLASS, ACTIVATIONS, GRADIENTS)}
        outputs[contract.GUIDED] = (*outputs[MAP], GUIDED)
        inner = {new: old for old, new in self.renamed.items()}
        result = {}
        for level, count in self.counts.items():
            kept = [inner.get(name, name) for name in outputs[level]]
            memory = memory_bytes(self.graph, self.nodes[:count], kept)
            result[level] = contract.Level(count, outputs[level], memory)
        return result

    def _assembled(self) -> ModelProto:
        result = self.graph.model  # normal form is our own copy
        strip_scopes(result)
        nodes = [_with_names(node, self.renamed) for node in self.nodes]
        del result.graph.node[:]
        result.graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        result.graph.initializer.extend(tensor for tensor in self.emit.initializers if tensor.name in used)
        result.graph.input.append(_info(self.target))
        result.graph.output.extend(_info(value) for value in sorted(self.outputs, key=lambda v: RESERVED.index(v.name)))
        result.graph.name = "explained"
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


def _layer(chosen: LayerCandidate, gradients: Value) -> contract.Layer:
    constant = all(size == 1 for size in gradients.shape[2:])
    return contract.Layer(chosen.name, chosen.tensor, chosen.channels, chosen.space, constant)


__all__ = ["Provenance", "bake", "write_contract"]
