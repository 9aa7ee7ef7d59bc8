"""K targets from one forward pass: the backward pass runs on a batch of N K, the forward pass on N.

What depends on the targets has N K rows. Where such a node reads a tensor of the forward pass, that tensor is repeated
K times first, each of its rows K times in a row. Windows of a picture stay together: [m N,...] goes by blocks of m.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from gcpp_edge.contract import BATCH
from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Dimension, Value


def _block(first: Dimension) -> int:
    """m of a first axis "mN" (1 of "N"); 0 where it is no multiple of the batch."""
    if isinstance(first, int):
        return 1
    number = first.removesuffix(BATCH)
    return int(number or 1) if first.endswith(BATCH) and (number.isdecimal() or not number) else 0


class Repeater:
    """Rewrites emitted nodes so that what hangs on `marks` [N K] reads repeated forward tensors.

    option: the user's, that an error names.
    """

    def __init__(self, emit: Emitter, marks: Value, count: int, option: str = "--top-k") -> None:
        self.emit, self.count, self.option = emit, count, option
        self.per_target = {marks.name}
        self._repeated: dict[str, Value] = {}

    def rewrite(self, nodes: Iterable[NodeProto]) -> list[NodeProto]:
        """The nodes, in order, with the repetitions that they need before them. Call it for all nodes, in order."""
        result = []
        for node in nodes:
            if self.per_target.intersection(node.input):
                before = len(self.emit.nodes)
                names = [self._name_for(node, name) for name in node.input]
                result += self.emit.nodes[before:]
                del self.emit.nodes[before:]
                node.input[:] = names
                self.per_target.update(node.output)
            result.append(node)
        return result

    def _name_for(self, node: NodeProto, name: str) -> str:
        if not name or name in self.per_target or not self._has_batch(node, name):
            return name
        if name not in self._repeated:
            self._repeated[name] = self._repeat(self.emit.graph.value(name))
        return self._repeated[name].name

    def _has_batch(self, node: NodeProto, name: str) -> bool:
        shape = self.emit.graph.value(name).shape
        if any(not isinstance(size, int) for size in shape[1:]) or (shape and _block(shape[0]) == 0):
            raise UnsupportedGraphError(
                f'Node "{node.name}" reads "{name}" {list(shape)}, whose batch is not its first axis: '
                f"{self.option} cannot repeat it."
            )
        return bool(shape) and not isinstance(shape[0], int)

    def _repeat(self, value: Value) -> Value:
        """[m N,*S] -> [N,1,m,*S] -> [N,K,m,*S] -> [m N K,*S]."""
        emit, sizes = self.emit, (_block(value.shape[0]), *value.shape[1:])
        single = emit.node("Reshape", (value, emit.integers([-1, 1, *sizes])), (BATCH, 1, *sizes))
        shape = emit.integers([1, self.count, *(1 for _ in sizes)])
        copies = emit.node("Expand", (single, shape), (BATCH, self.count, *sizes))
        return emit.node("Reshape", (copies, emit.integers([-1, *sizes[1:]])), value.shape)

    def unfolded(self, value: Value) -> Value:
        """[N K,*S] as [N,K,*S]."""
        sizes = value.shape[1:]
        return self.emit.node(
            "Reshape", (value, self.emit.integers([-1, self.count, *sizes])), (BATCH, self.count, *sizes)
        )
