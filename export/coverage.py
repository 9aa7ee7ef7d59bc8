"""What of a network the differentiator knows, said before any export."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
from onnx import ModelProto, NodeProto

from gcpp_edge.errors import ExportError
from gcpp_edge.export.bake import BakeOptions, bake
from gcpp_edge.export.differentiate import OPSET, differentiate
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph
from gcpp_edge.export.grids import Grids, as_map
from gcpp_edge.export.layers import LayerCandidate, float_way, list_candidates
from gcpp_edge.export.normalise import normalise
from gcpp_edge.export.recognise import recognise_activations
from gcpp_edge.export.scores import ScoreTensors, find_scores
from gcpp_edge.export.vjp import WITHOUT_GRADIENT, OneHot, find_rule
from gcpp_edge.export.weights import scratch

KNOWN, FLAT, MISSING = "rule", "no gradient", "missing"


@dataclass(frozen=True)
class OperatorCoverage:
    """An operator between the picture and the scores. state: "rule", "no gradient" (by nature) or "missing"."""

    operator: str
    count: int
    state: str


@dataclass(frozen=True)
class Coverage:
    """Whether a network can be explained. map, guided: "" when it can, else what blocks that level."""

    operators: tuple[OperatorCoverage, ...]
    layer: str
    map: str
    guided: str


def coverage_of(
    model: ModelProto, input_size: tuple[int, int] | None = None, options: BakeOptions = BakeOptions()
) -> Coverage:
    """The coverage of a forward model. Raises ExportError's children where it has no scores or no layer at all."""
    graph = Graph(normalise(model, input_size))
    scores = find_scores(graph, options.target)
    way = float_way(graph, graph.image, scores.logits.name)
    steps = [node for node in recognise_activations(graph) if way.intersection(node.output)]
    counts = Counter((node.op_type, _state(node)) for node in steps)
    operators = tuple(OperatorCoverage(name, count, state) for (name, state), count in sorted(counts.items()))
    candidates = list_candidates(graph, scores, Grids(graph, options.token_grid))
    default = next((candidate.name for candidate in candidates if candidate.default), "")
    chosen = ", ".join(options.layers) or default
    blocked = [_blocked(model, input_size, replace(options, guided=guided)) for guided in (False, True)]
    return Coverage(operators, chosen, *blocked)


def _state(node: NodeProto) -> str:
    if find_rule(node, OPSET) is not None:
        return KNOWN
    return FLAT if node.op_type in WITHOUT_GRADIENT else MISSING


def _blocked(model: ModelProto, input_size: tuple[int, int] | None, options: BakeOptions) -> str:
    """Nothing tells better than trying: a rule may refuse an attribute."""
    try:
        with scratch(model):
            bake(model, options, input_size=input_size)
    except ExportError as error:
        return str(error)
    return ""


def layers_of(
    model: ModelProto, input_size: tuple[int, int] | None = None, options: BakeOptions = BakeOptions()
) -> list[LayerCandidate]:
    """The layers that can be explained, with those marked whose gradients are constant over space.

    Once a layer's are not, no earlier one's are: the last layers are tried, from the scores on.
    """
    graph = Graph(normalise(model, input_size))
    scores = find_scores(graph, options.target)
    candidates = list_candidates(graph, scores, Grids(graph, options.token_grid))
    if scores.per_position:
        return candidates
    for index in reversed(range(len(candidates))):
        with scratch(model):
            constant = _is_constant(graph, scores, candidates[index])
        if not constant:
            break
        candidates[index] = replace(candidates[index], constant=True)
    return candidates


def _is_constant(graph: Graph, scores: ScoreTensors, candidate: LayerCandidate) -> bool:
    emit, logits = Emitter(graph), scores.logits
    seed = OneHot.of_class(emit, emit.constant(np.zeros(1, np.int64)), logits)
    try:
        found = differentiate(graph, emit, recognise_activations(graph), {logits.name: seed}, [candidate.tensor])
    except ExportError:
        return False
    return all(size == 1 for size in as_map(emit, found[candidate.tensor], candidate.grid).shape[2:])
