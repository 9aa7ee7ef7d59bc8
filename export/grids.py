"""How a tensor holds a grid of features: channels first, channels last, or as tokens; and its map [N,C,*space].

Transformers keep features as tokens [N,T,C], with class and register tokens before the grid. The grid is taken from the
tensors [N,C,h,w] that came before (the patch embedding's), newest first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnx import NodeProto

from gcpp_edge.contract import CHANNELS_FIRST, CHANNELS_LAST, TOKENS
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Graph, Shape, Value, attribute

MOST_SKIPPED = 8  # class, distillation and register tokens
ELEMENTWISE = frozenset(
    [
        "Abs", "Add", "Cast", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid",
        "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow",
        "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh", "Where",
    ]
)  # fmt: skip
TO_CHANNELS_LAST = ([0, 2, 3, 1], [0, 2, 3, 4, 1])


@dataclass(frozen=True)
class Grid:
    """layout: one of contract.LAYOUTS. skip: tokens before the grid."""

    layout: str
    channels: int
    space: tuple[int, ...]
    skip: int = 0


class Grids:
    """The grids of a graph's tensors. token_grid: what the user says tokens are, else it is recognised."""

    def __init__(self, graph: Graph, token_grid: tuple[int, ...] | None = None) -> None:
        self.graph, self.token_grid = graph, token_grid
        self._batch = graph.value(graph.image).shape[:1]
        self._last_axis = _channels_last(graph)
        self._order = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
        self._spaces = self._seen_spaces()

    def of(self, name: str) -> Grid | None:
        """The grid that a tensor holds, or None where it has no spatial extent."""
        if name not in self.graph.values:
            return None
        shape = self.graph.values[name].shape
        if shape[:1] != self._batch or not all(isinstance(size, int) for size in shape[1:]):
            return None  # windows of a picture are no picture
        if len(shape) == 3:
            return self._tokens(name, shape)
        if len(shape) < 4 or len(shape) > 5:
            return None
        if name in self._last_axis:
            grid = Grid(CHANNELS_LAST, shape[-1], tuple(shape[1:-1]))
        else:
            grid = Grid(CHANNELS_FIRST, shape[1], tuple(shape[2:]))
        return grid if max(grid.space) > 1 else None

    def _tokens(self, name: str, shape: Shape) -> Grid | None:
        count = shape[1]
        spaces = [self.token_grid] if self.token_grid else self._spaces_before(name)
        for space in spaces:
            skip = count - math.prod(space)
            if 0 <= skip <= MOST_SKIPPED and math.prod(space) > 1:
                return Grid(TOKENS, shape[2], tuple(space), skip)
        return None

    def _seen_spaces(self) -> list[tuple[int, tuple[int, ...]]]:
        """Spatial extents of tensors of rank 4 and 5, with the place of their node."""
        found = []
        for name, place in self._order.items():
            value = self.graph.values.get(name)
            if value is not None and len(value.shape) in (4, 5):
                sizes = value.shape[1:-1] if name in self._last_axis else value.shape[2:]
                if all(isinstance(size, int) for size in sizes):
                    found.append((place, tuple(sizes)))
        return found

    def _spaces_before(self, name: str) -> list[tuple[int, ...]]:
        """Newest first, each once."""
        place = self._order.get(name, 0)
        return list(dict.fromkeys(space for at, space in reversed(self._spaces) if at < place))


def _channels_last(graph: Graph) -> set[str]:
    """Tensors [N,h,w,C]: from the Transpose that makes one, through what keeps the axes, to the one that undoes it."""
    found: set[str] = set()
    for node in graph.nodes:
        if node.op_type == "Transpose":
            turned = attribute(node, "perm") in TO_CHANNELS_LAST
        else:
            turned = bool(found.intersection(node.input))
        if turned:
            found.update(name for name in node.output if name in graph.values and len(graph.values[name].shape) >= 4)
    return found


def reads_first_tokens_alone(graph: Graph, name: str, grid: Grid, way: set[str]) -> bool:
    """Whether the scores read only tokens before the grid from here on: the grid's own gradients are then zero.

    So it is behind the last attention of a network with a class token.
    """
    waiting, seen, selected = [name], {name}, False
    while waiting:
        for node in graph.consumers.get(waiting.pop(), []):
            if not way.intersection(node.output):
                continue
            if _selects_a_token(graph, node, grid):
                selected = True
            elif _is_token_wise(graph, node):
                fresh = [output for output in node.output if output in way and output not in seen]
                seen.update(fresh)
                waiting += fresh
            else:
                return False
    return selected


def _selects_a_token(graph: Graph, node: NodeProto, grid: Grid) -> bool:
    if node.op_type == "Gather" and attribute(node, "axis", 0) == 1:
        indices = graph.constant(node.input[1])
        return indices is not None and indices.size == 1 and 0 <= int(indices.reshape(-1)[0]) < grid.skip
    if node.op_type == "Slice":
        axes = graph.constant(node.input[3]) if len(node.input) > 3 else None
        ends = graph.constant(node.input[2])
        return axes is not None and axes.tolist() == [1] and ends is not None and 0 < int(ends[0]) <= grid.skip
    return False


def _is_token_wise(graph: Graph, node: NodeProto) -> bool:
    if node.op_type in ("MatMul", "Gemm"):
        return graph.constant(node.input[1]) is not None
    if node.op_type == "LayerNormalization":
        return int(attribute(node, "axis", -1)) in (-1, 2)
    return node.op_type in ELEMENTWISE


def as_map(emit: Emitter, value: Value, grid: Grid) -> Value:
    """A tensor of the grid's layout as [N,C,*space]; where it is constant over space, as [N,C,1,..]."""
    batch, ones = value.shape[0], (1,) * len(grid.space)
    if grid.layout == TOKENS:
        value = _without_skipped(emit, value, grid)
        turned = emit.transpose(value, (0, 2, 1))
        space = grid.space if turned.shape[2] > 1 else ones
        return _settled(emit, emit.reshape(turned, (batch, turned.shape[1], *space)), grid)
    if grid.layout == CHANNELS_LAST:
        rank = len(value.shape)
        value = emit.transpose(value, (0, rank - 1, *range(1, rank - 1)))
    return _settled(emit, value, grid)


def _without_skipped(emit: Emitter, value: Value, grid: Grid) -> Value:
    """The tokens of the grid alone. Where zeros were just put before them, what they were put before."""
    if value.shape[1] == 1:
        return value
    node = emit.producer(value)
    if grid.skip and node is not None and node.op_type == "Pad":
        source = emit.graph.value(node.input[0])
        pads = emit.graph.constant(node.input[1])
        if pads is not None and pads.tolist() == [0, grid.skip, 0, 0, 0, 0]:
            spread = emit.producer(source)
            return emit.graph.value(spread.input[0]) if spread is not None and spread.op_type == "Expand" else source
    return emit.slice(value, [1], [grid.skip], [value.shape[1]])


def _settled(emit: Emitter, value: Value, grid: Grid) -> Value:
    """Compact along all of space, or not at all."""
    ones = all(size == 1 for size in value.shape[2:])
    return emit.dense(value, (value.shape[0], grid.channels, *((1,) * len(grid.space) if ones else grid.space)))
