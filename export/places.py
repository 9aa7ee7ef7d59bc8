"""The default layer of networks that score many places: segmenters and detectors.

Their last features say of each place what it is, and a map of them repeats the scores. What a place is judged by shows
farther back: at the coarsest features, which see most of the picture, before the last step that mixes neighbours.
"""

from __future__ import annotations

import math

from onnx import NodeProto

from gcpp_edge.export.graph import WEIGHTED, WINDOWED, Graph, attribute
from gcpp_edge.export.grids import Grid


def default_of_places(graph: Graph, features: dict[str, Grid], way: set[str], logits: str) -> str | None:
    """The last of the coarsest features that neighbours are mixed after and that all heads read, if there is one.

    features: candidates in order, with their grids. way: tensors from the picture to the logits.
    """
    if not features:
        return None
    least = min(math.prod(grid.space) for grid in features.values())
    coarsest = [name for name, grid in features.items() if math.prod(grid.space) == least]
    mixed, read = _mixed_later(graph, way), _read_by_all_heads(graph, way, logits)
    for wanted in (mixed & read, mixed, read):
        fitting = [name for name in coarsest if name in wanted]
        if fitting:
            return fitting[-1]
    return coarsest[-1]


def _mixed_later(graph: Graph, way: set[str]) -> set[str]:
    """Tensors after which some node on the way mixes neighbouring places."""
    found: set[str] = set()
    for node in reversed(graph.nodes):
        if way.intersection(node.output) and (_mixes(graph, node) or found.intersection(node.output)):
            found.update(name for name in node.input if name in way)
    return found


def _mixes(graph: Graph, node: NodeProto) -> bool:
    if node.op_type in WINDOWED:
        return any(size > 1 for size in attribute(node, "kernel_shape") or [])
    return node.op_type == "MatMul" and all(graph.constant(name) is None for name in node.input)  # attention


def _read_by_all_heads(graph: Graph, way: set[str], logits: str) -> set[str]:
    """Tensors that every last weighted node before the logits depends on."""
    later: set[str] = set()  # tensors with a weighted node behind them
    heads = []
    for node in reversed(graph.nodes):
        if not way.union([logits]).intersection(node.output):
            continue
        is_weighted = node.op_type in WEIGHTED
        if is_weighted and not later.intersection(node.output):
            heads.append(node)
        if is_weighted or later.intersection(node.output):
            later.update(node.input)
    common = set(way)
    for node in heads:
        common &= graph.needed_for(node.output) - set(node.output)
    return common
