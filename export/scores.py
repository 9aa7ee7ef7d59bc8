"""Finds what is explained: the scores among a model's outputs, their kind, and the logits behind them."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from gcpp_edge.errors import UnsupportedGraphError
from gcpp_edge.export.graph import Graph, Value, attribute

KINDS = {"Softmax": "softmax", "LogSoftmax": "log_softmax", "Sigmoid": "sigmoid"}
SAME_SCORES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast")


@dataclass(frozen=True)
class ScoreTensors:
    """output: the graph output that holds the scores. logits: the tensor [N,K,1,..] that is differentiated."""

    output: str
    logits: Value
    classes: int
    kind: str


def find_scores(graph: Graph) -> ScoreTensors:
    """The class scores: the first output of shape [N,K] or [N,K,1,..]; UnsupportedGraphError where there is none."""
    for name in graph.outputs:
        value = graph.values.get(name)
        if value is not None and _holds_classes(value):
            tensor, kind = _logits_behind(graph, name)
            logits = graph.value(tensor)
            return ScoreTensors(name, logits, int(logits.shape[1]), kind)
    shapes = ", ".join(
        f"{name} {list(graph.values[name].shape) if name in graph.values else '?'}" for name in graph.outputs
    )
    raise UnsupportedGraphError(f"Expected an output of class scores [N,K], found {shapes}. Export a classifier.")


def _holds_classes(value: Value) -> bool:
    shape = value.shape
    return len(shape) >= 2 and isinstance(shape[1], int) and all(size == 1 for size in shape[2:])


def _logits_behind(graph: Graph, name: str) -> tuple[str, str]:
    """The tensor before a final Softmax, LogSoftmax or Sigmoid over the classes, and the kind of the output."""
    current = name
    while (node := graph.producers.get(current)) is not None:
        if node.op_type in KINDS and _over_classes(graph, node):
            return node.input[0], KINDS[node.op_type]
        source = graph.values.get(node.input[0]) if node.input else None
        if node.op_type not in SAME_SCORES or source is None or not _holds_classes(source):
            break
        current = node.input[0]
    return name, "logits"


def _over_classes(graph: Graph, node: NodeProto) -> bool:
    value = graph.value(node.input[0])
    axis = attribute(node, "axis", -1) % len(value.shape)
    return _holds_classes(value) and (node.op_type == "Sigmoid" or axis == 1)
