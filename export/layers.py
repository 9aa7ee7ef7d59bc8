"""Which tensor is explained: looked up as the user knows it, or chosen as the last features with a spatial extent.

A layer's name is a PyTorch module path, which the exporter leaves in the node metadata, or an ONNX tensor. Files from
elsewhere have no module paths; there the parts of a tensor's name between slashes serve (`fire9/concat_1`: `fire9`).
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from onnx import NodeProto

from gcpp_edge.contract import CHANNELS_FIRST, TOKENS
from gcpp_edge.errors import LayerError
from gcpp_edge.export.graph import FLOATS, Graph
from gcpp_edge.export.grids import Grid, Grids, reads_first_tokens_alone
from gcpp_edge.export.normalise import SCOPES
from gcpp_edge.export.places import default_of_places
from gcpp_edge.export.scores import ScoreTensors

POOLING = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax")
RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Transpose", "Slice")
WEIGHTLESS = (*POOLING, *RESHAPING, "Relu", "Softmax", "LogSoftmax", "Sigmoid", "Clip", "LeakyRelu", "Resize")


@dataclass(frozen=True)
class LayerCandidate:
    """A tensor that can be explained. Of those that are listed, every path from picture to scores goes through each."""

    name: str
    tensor: str
    channels: int
    space: tuple[int, ...]
    operator: str
    default: bool = False
    constant: bool = False
    layout: str = CHANNELS_FIRST
    skip: int = 0

    @property
    def grid(self) -> Grid:
        return Grid(self.layout, self.channels, self.space, self.skip)


def find_layers(
    graph: Graph,
    scores: ScoreTensors,
    names: Sequence[str] = (),
    token_grid: tuple[int, ...] | None = None,
) -> list[LayerCandidate]:
    """The layers of those names, or the default; LayerError with the nearest names where there is none.

    token_grid: (h, w) of layers that hold tokens, where it is not recognised.
    """
    grids = Grids(graph, token_grid)
    candidates = list_candidates(graph, scores, grids)
    if names:
        return [_named(graph, scores, name, grids, candidates) for name in names]
    for candidate in candidates:
        if candidate.default:
            return [candidate]
    raise LayerError(
        "The network has no layer with a spatial extent between its input and its scores: "
        "a map needs features that have one. Choose a network that has them, or name one with --layer and --token-grid."
    )


def _named(
    graph: Graph, scores: ScoreTensors, name: str, grids: Grids, candidates: list[LayerCandidate]
) -> LayerCandidate:
    tensor = _tensor_of(graph, name)
    if tensor is None:
        raise LayerError(_unknown(graph, name, candidates))
    return _checked(graph, scores, name, tensor, grids)


def list_candidates(graph: Graph, scores: ScoreTensors, grids: Grids | None = None) -> list[LayerCandidate]:
    """All single tensors with a spatial extent that the scores hang on, from the input to the scores.

    Of a network that scores places, whose features have ways around them (pyramids, skip connections), also the default
    that places.py chooses.
    """
    grids = grids or Grids(graph)
    cuts: dict[str, Grid] = {}
    for name in cut_tensors(graph, scores.logits.name):
        if not scores.per_position and _is_pooled(graph, name):
            break  # whatever has axes after this has them by reshaping, not in the picture
        grid = grids.of(name)
        if grid is not None and name != scores.logits.name:
            cuts[name] = grid
    default = _default(graph, scores, cuts)
    if scores.per_position:
        cuts, default = _places(graph, scores, grids, cuts, default)
    return [_candidate(graph, name, grid, name == default) for name, grid in cuts.items()]


def _places(
    graph: Graph, scores: ScoreTensors, grids: Grids, cuts: dict[str, Grid], last: str | None
) -> tuple[dict[str, Grid], str | None]:
    """The candidates of a network that scores places, and its default."""
    way = float_way(graph, graph.image, scores.logits.name) - {graph.image, scores.logits.name}
    order = [name for node in graph.nodes for name in node.output if name in way]
    found = {name: grid for name in order if (grid := grids.of(name)) is not None}
    fitting = {name: grid for name, grid in found.items() if _is_default(graph, scores, name, grid, way)}
    default = default_of_places(graph, fitting, way, scores.logits.name) or last
    return {name: grid for name, grid in found.items() if name in cuts or name == default}, default


def _candidate(graph: Graph, tensor: str, grid: Grid, default: bool = False, name: str | None = None) -> LayerCandidate:
    operator = graph.producers[tensor].op_type
    given = name or _given_name(graph, tensor)
    return LayerCandidate(
        given, tensor, grid.channels, grid.space, operator, default, layout=grid.layout, skip=grid.skip
    )


def cut_tensors(graph: Graph, logits: str) -> list[str]:
    """Tensors that every path from the input to the logits goes through, in order, without the input itself.

    After a node has run, its output is such a tensor when no other tensor on the way is still waiting for a reader.
    """
    source = graph.image
    way = float_way(graph, source, logits)
    waiting = {source: _readers(graph, source, way)}
    cuts = []
    for node in graph.nodes:
        if not way.intersection(node.output):
            continue
        for name in {name for name in node.input if name in waiting}:
            waiting[name] -= 1
        waiting = {name: count for name, count in waiting.items() if count > 0}
        for name in node.output:
            if name in way:
                waiting[name] = _readers(graph, name, way)
                if set(waiting) <= {name}:
                    cuts.append(name)
    return cuts


def float_way(graph: Graph, source: str, sink: str) -> set[str]:
    """Floating-point tensors on a path from source to sink: shapes computed from the input do not count."""
    forward = {source}
    for node in graph.nodes:
        if forward.intersection(node.input):
            forward.update(n for n in node.output if n in graph.values and graph.values[n].dtype in FLOATS)
    return forward & graph.needed_for([sink])


def _readers(graph: Graph, name: str, way: set[str]) -> int:
    return sum(1 for node in _unique(graph.consumers.get(name, [])) if way.intersection(node.output))


def _unique(nodes: list[NodeProto]) -> list[NodeProto]:
    return list({id(node): node for node in nodes}.values())


def _is_pooled(graph: Graph, name: str) -> bool:
    return all(size == 1 for size in graph.value(name).shape[2:])


def _default(graph: Graph, scores: ScoreTensors, cuts: dict[str, Grid]) -> str | None:
    """The last features before pooling, after their non-linearity, and never a map per class.

    Behind the last attention of a network with a class token, the grid has no say: the default is before it.
    """
    way = float_way(graph, graph.image, scores.logits.name)
    return next((name for name in reversed(cuts) if _is_default(graph, scores, name, cuts[name], way)), None)


def _is_default(graph: Graph, scores: ScoreTensors, name: str, grid: Grid, way: set[str]) -> bool:
    if graph.producers[name].op_type in (*POOLING, *RESHAPING):
        return False
    if grid.layout == TOKENS and reads_first_tokens_alone(graph, name, grid, way):
        return False
    return not (grid.channels == scores.classes and _only_weightless(graph, name, scores.logits.name))


def _only_weightless(graph: Graph, name: str, logits: str) -> bool:
    way = graph.reachable_from([name]) & graph.needed_for([logits])
    return all(graph.producers[tensor].op_type in WEIGHTLESS for tensor in way if tensor != name)


# names


@cache  # a network has many more nodes than modules
def _parsed(scopes: str) -> tuple[str, ...]:
    return tuple(scope for scope in ast.literal_eval(scopes)[:-1] if scope)


def scopes_of(node: NodeProto) -> list[str]:
    """The module paths that a node is in, outermost first; from slashes in its output's name where there are none."""
    for entry in node.metadata_props:
        if entry.key == SCOPES:
            return list(_parsed(entry.value))
    parts = [part for part in node.output[0].split("/") if part][:-1]
    joined = ["/".join(parts[: i + 1]) for i in range(len(parts))]
    return list(dict.fromkeys([*joined, *parts]))


def _scope_outputs(graph: Graph, scope: str) -> list[str]:
    """Tensors that a module hands to the outside, in order."""
    members = {id(node) for node in graph.nodes if scope in scopes_of(node)}
    results = []
    for node in graph.nodes:
        if id(node) in members:
            for name in node.output:
                outside = any(id(reader) not in members for reader in graph.consumers.get(name, []))
                if outside or name in graph.outputs:
                    results.append(name)
    return results


def _tensor_of(graph: Graph, name: str) -> str | None:
    for tensor in (name, f"source/{name}"):  # the second: a name that ours took (normalise.py)
        if tensor in graph.producers:
            return tensor
    outputs = _scope_outputs(graph, name)
    return outputs[-1] if outputs else None


def _given_name(graph: Graph, tensor: str) -> str:
    """The outermost module whose result the tensor is, else the tensor's own name."""
    for scope in scopes_of(graph.producers[tensor]):
        if _scope_outputs(graph, scope) == [tensor]:
            return scope
    return tensor


def _checked(graph: Graph, scores: ScoreTensors, name: str, tensor: str, grids: Grids) -> LayerCandidate:
    grid = grids.of(tensor)
    if grid is None:
        shape = list(graph.values[tensor].shape) if tensor in graph.values else "unknown"
        raise LayerError(
            f'Layer "{name}" has shape {shape}; expected [N,C,h,w] with h or w above 1, or tokens of a known grid. '
            "Choose another with --layer (gcpp-edge inspect lists them), or say the tokens' grid with --token-grid HxW."
        )
    if tensor not in float_way(graph, graph.image, scores.logits.name):
        raise LayerError(f'Layer "{name}" does not lead from the picture to the scores. Choose another with --layer.')
    return _candidate(graph, tensor, grid, name=name)


def _unknown(graph: Graph, name: str, candidates: list[LayerCandidate]) -> str:
    names = {scope for node in graph.nodes for scope in scopes_of(node)}
    names |= {name for candidate in candidates for name in (candidate.name, candidate.tensor)}
    near = difflib.get_close_matches(name, sorted(names), 3, 0.4)
    hint = f" Did you mean {', '.join(near)}?" if near else ""
    return f'No layer "{name}".{hint} gcpp-edge inspect lists the layers.'
