"""K targets from one forward pass: the backward pass runs on a batch of N K, the forward pass on N.

What depends on the targets has N K rows. Where such a node reads a tensor of the forward pass, that tensor is repeated
K times first, each of its rows K times in a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.emit import Emitter
from gcpp_edge.export.graph import Value
from gcpp_edge.export.normalise import BATCH


class Repeater:
    """Rewrites emitted nodes so that what hangs on `marks` [N K] reads repeated forward tensors."""

    def __init__(self, emit: Emitter, marks: Value, count: int) -> None:
        self.emit, self.count = emit, count
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
        if BATCH in shape[1:]:
            raise UnsupportedGraphError(
                f'Node "{node.name}" reads "{name}", whose batch is not its first axis: --top-k cannot repeat it.'
            )
        return bool(shape) and shape[0] == BATCH

    def _repeat(self, value: Value) -> Value:
        """[N,*S] -> [N,1,*S] -> [N,K,*S] -> [N K,*S]."""
        emit, sizes = self.emit, value.shape[1:]
        single = emit.reshape(value, (BATCH, 1, *sizes))
        copies = emit.node("Expand", (single, emit.integers([1, self.count, *(1 for _ in sizes)])), (
            BATCH, self.count, *sizes))  # fmt: skip
        return emit.node("Reshape", (copies, emit.integers([-1, *sizes])), value.shape)

    def unfolded(self, value: Value) -> Value:
        """[N K,*S] as [N,K,*S]."""
        sizes = value.shape[1:]
        return self.emit.node(
            "Reshape", (value, self.emit.integers([-1, self.count, *sizes])), (BATCH, self.count, *sizes)
        )
