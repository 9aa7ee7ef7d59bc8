"""How much memory a prefix of a graph needs: its weights, and the largest sum of tensors alive at once."""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto

from gcpp_edge.export.graph import Graph, elements, numpy_dtype


def memory_bytes(graph: Graph, nodes: list[NodeProto], outputs: Iterable[str]) -> int:
    """Bytes for weights and activations at batch 1, for a runtime that frees a tensor after its last reader."""
    used = {name for node in nodes for name in node.input if name in graph.initializers}
    return sum(_bytes(graph, name) for name in used) + _peak(graph, nodes, set(outputs))


def _peak(graph: Graph, nodes: list[NodeProto], outputs: set[str]) -> int:
    last = {name: index for index, node in enumerate(nodes) for name in node.input}
    alive = {name: _bytes(graph, name) for name in graph.inputs}
    total, peak = sum(alive.values()), 0
    for index, node in enumerate(nodes):
        made = {name: _bytes(graph, name) for name in node.output if name and name not in alive}
        alive |= made
        total += sum(made.values())
        peak = max(peak, total)
        touched = {*node.input, *node.output, *(graph.inputs if index == 0 else ())}
        for name in touched - outputs:
            if name in alive and last.get(name, -1) <= index:
                total -= alive.pop(name)
    return peak


def _bytes(graph: Graph, name: str) -> int:
    value = graph.values.get(name)
    return 0 if value is None else elements(value.shape) * numpy_dtype(value.dtype).itemsize
